import Checkpoints
import Compute
import Tensors

extension WeightReader {
    /// A small tensor that the operators want in float32: a norm's weight, a bias, a table; with
    /// what the reader adds to it.
    ///
    /// Nothing is copied of a tensor that is not as expected, whose size the file does not confirm.
    func small(_ name: String, _ shape: Int..., orShapes alternatives: [[Int]] = []) -> Tensor {
        let tensor = tensor(name, shape: shape, orShapes: alternatives, acceptsFloat8: true)
        let isConfirmed = ([shape] + alternatives).contains { $0 == self.shape(name) }
        guard isConfirmed else { return tensor }
        let values = dequantized(WeightMatrix(tensor.reshaped(1, tensor.count)))
        if let difference = difference(name) { values.add(difference) }
        return values.reshaped(shape)
    }

    /// A matrix of a linear layer, `[out, in]`, as the file stores it.
    func matrix(_ name: String, _ rows: Int, _ columns: Int) -> WeightMatrix {
        weightMatrix(name, rows, columns)
    }
}

/// Layers of a network whose matrices are used together.
protocol MatrixGroup {
    /// In the order of their use.
    var matrices: [WeightMatrix] { get }
    /// The same layers with their matrices elsewhere in memory.
    func replacing(_ matrices: [WeightMatrix]) -> Self
}

/// One matrix that is used alone.
struct SingleMatrix: MatrixGroup {
    let matrix: WeightMatrix

    var matrices: [WeightMatrix] { [matrix] }

    func replacing(_ matrices: [WeightMatrix]) -> SingleMatrix { SingleMatrix(matrix: matrices[0]) }
}

/// What is asked and told between two blocks of a long computation.
struct Watch {
    /// Stage that a failure names.
    let stage: String
    /// Files that must not change meanwhile.
    let checkpoint: Checkpoint
    /// Told of each finished block.
    let finished: () -> Void

    /// Fails when the caller asked to stop, the files changed, or a result is not finite.
    ///
    /// - Parameters:
    ///   - x: Result of the block.
    ///   - place: Such as "block 3".
    ///   - operators: What computed it.
    /// - Throws: `.cancelled`, `.model` or `.notFinite`, in this order, since cancelled operators
    ///   and cut files leave anything behind.
    func check(_ x: Tensor, _ place: String, _ operators: Operators) throws(GenerationError) {
        if operators.isCancelled() { throw .cancelled }
        do { try checkpoint.checkUnchanged() } catch { throw .model(error) }
        guard operators.isFinite(x) else { throw .notFinite(stage: stage, place: place) }
        finished()
    }
}
