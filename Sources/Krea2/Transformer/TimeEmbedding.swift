import Checkpoints
import Compute
import Glibc
import Tensors

/// Makes the modulation of all blocks from the noise level.
struct TimeEmbedding: MatrixGroup {
    let config: TransformerConfig
    private(set) var hidden: WeightMatrix
    let hiddenBias: Tensor
    private(set) var output: WeightMatrix
    let outputBias: Tensor
    private(set) var projection: WeightMatrix
    let projectionBias: Tensor

    init(_ weights: WeightReader, _ config: TransformerConfig) {
        self.config = config
        let width = config.width
        hidden = weights.matrix("tmlp.0.weight", width, config.timeWidth)
        hiddenBias = weights.small("tmlp.0.bias", width)
        output = weights.matrix("tmlp.2.weight", width, width)
        outputBias = weights.small("tmlp.2.bias", width)
        projection = weights.matrix("tproj.1.weight", 6 * width, width)
        projectionBias = weights.small("tproj.1.bias", 6 * width)
    }

    var matrices: [WeightMatrix] { [hidden, output, projection] }

    func replacing(_ matrices: [WeightMatrix]) -> TimeEmbedding {
        var copy = self
        (copy.hidden, copy.output, copy.projection) = (matrices[0], matrices[1], matrices[2])
        return copy
    }
}

/// Buffers of the time embedding.
struct TimeScratch {
    let sinusoid: Tensor
    let hidden: Tensor
    /// What modulates the last layer: `[1, width]`.
    let embedding: Tensor
    /// What modulates the blocks: `[1, 6 · width]`.
    let projection: Tensor

    init(_ config: TransformerConfig, _ arena: inout Arena) {
        sinusoid = arena.tensor("time sinusoid", 1, config.timeWidth)
        hidden = arena.tensor("time hidden", 1, config.width)
        embedding = arena.tensor("time embedding", 1, config.width)
        projection = arena.tensor("time projection", 1, 6 * config.width)
    }
}

extension TimeEmbedding {
    /// Cosines, then sines, of the time at falling frequencies.
    ///
    /// The angles reach 1000 radians, so the last bit of a frequency shows in the picture. Rounding
    /// is as in torch: exponent in float32, its exponential as if exact, angle in float32.
    static func sinusoid(time: Float, width: Int) -> [Float] {
        let half = width / 2
        let angles = (0..<half).map { index in
            let exponent = Float(-log(10000.0)) * Float(index) / Float(half)
            return time * 1000 * Float(exp(Double(exponent)))
        }
        return angles.map { cosf($0) } + angles.map { sinf($0) }
    }

    /// Embeds a time.
    ///
    /// - Parameters:
    ///   - time: Noise level from 0 to 1.
    ///   - scratch: Receives `embedding` and `projection`.
    ///   - operators: The arithmetic; float32 is in place, since angles are large.
    func forward(_ time: Float, scratch: TimeScratch, operators: Operators) {
        scratch.sinusoid.write(Self.sinusoid(time: time, width: config.timeWidth))
        operators.linear(scratch.sinusoid, hidden, bias: hiddenBias, into: scratch.hidden)
        operators.geluTanh(scratch.hidden)
        operators.linear(scratch.hidden, output, bias: outputBias, into: scratch.embedding)

        scratch.hidden.copy(from: scratch.embedding)
        operators.geluTanh(scratch.hidden)
        operators.linear(scratch.hidden, projection, bias: projectionBias, into: scratch.projection)
    }
}
