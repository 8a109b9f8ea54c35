import Checkpoints
import Compute
import Tensors

extension WeightReader {
    /// A small tensor that the operators want in float32: a norm's weight, a bias, a table.
    func small(_ name: String, _ shape: Int..., orShapes alternatives: [[Int]] = []) -> Tensor {
        converted(tensor(name, shape: shape, orShapes: alternatives))
    }

    /// A matrix of a linear layer, `[out, in]`, as the file stores it.
    func matrix(_ name: String, _ rows: Int, _ columns: Int) -> Tensor {
        tensor(name, shape: [rows, columns])
    }
}

/// What a long computation reports to, and asks whether to go on, between two blocks.
struct Checkpointing {
    /// Called with what is finished, such as "block 3", after its result was found finite.
    let finished: (_ place: String) throws(GenerationError) -> Void
    /// Stage that a failure names.
    let stage: String

    /// Fails when the caller asked to stop or `x` is not finite.
    ///
    /// - Parameters:
    ///   - x: Result of the block.
    ///   - place: Such as "block 3".
    ///   - operators: What computed it.
    func check(_ x: Tensor, _ place: String, _ operators: Operators) throws(GenerationError) {
        // Cancelled operators leave anything behind, so this comes first.
        if operators.isCancelled() { throw .cancelled }
        guard operators.isFinite(x) else { throw .notFinite(stage: stage, place: place) }
        try finished(place)
    }
}
