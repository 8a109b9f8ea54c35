import Checkpoints
import Compute
import Glibc
import Tensors

/// Makes the modulation of all blocks from the noise level.
struct TimeEmbedding {
    let config: TransformerConfig
    let layers: TimeLayers
    let hiddenBias: Tensor
    let outputBias: Tensor
    /// One matrix of `[6 · width, width]` in the file, as large as a whole block of attention; its
    /// sixths, each a scale, shift or gate of the blocks, are in memory one after the other.
    let projection: [SingleMatrix]
    let projectionBias: Tensor

    init(_ weights: WeightReader, _ config: TransformerConfig) {
        self.config = config
        let width = config.width
        layers = TimeLayers(
            hidden: weights.matrix("tmlp.0.weight", width, config.timeWidth),
            output: weights.matrix("tmlp.2.weight", width, width)
        )
        hiddenBias = weights.small("tmlp.0.bias", width)
        outputBias = weights.small("tmlp.2.bias", width)
        let all = weights.matrix("tproj.1.weight", 6 * width, width)
        projection = (0..<6).map { SingleMatrix(matrix: all.rows($0 * width..<($0 + 1) * width)) }
        projectionBias = weights.small("tproj.1.bias", 6 * width)
    }

    /// The matrices in the order of their use.
    var groups: [[WeightMatrix]] { [layers.matrices] + projection.map(\.matrices) }
}

/// The two layers that embed the time.
struct TimeLayers: MatrixGroup {
    let hidden: WeightMatrix
    let output: WeightMatrix

    var matrices: [WeightMatrix] { [hidden, output] }

    func replacing(_ matrices: [WeightMatrix]) -> TimeLayers {
        TimeLayers(hidden: matrices[0], output: matrices[1])
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

    /// Embeds times.
    ///
    /// - Parameters:
    ///   - times: Noise levels from 0 to 1.
    ///   - supply: The matrices, in the order of `groups`.
    ///   - scratch: Receive `embedding` and `projection`, one for each time, or more.
    ///   - operators: The arithmetic; float32 is in place, since angles are large.
    /// - Throws: What `supply` finds.
    func forward(
        _ times: [Float],
        supply: MatrixSupply,
        scratch: [TimeScratch],
        operators: Operators
    ) throws(GenerationError) {
        let scratch = scratch.prefix(times.count)
        let layers = try supply.load(layers)
        for (time, scratch) in zip(times, scratch) {
            let hidden = scratch.hidden
            scratch.sinusoid.write(Self.sinusoid(time: time, width: config.timeWidth))
            operators.linear(scratch.sinusoid, layers.hidden, bias: hiddenBias, into: hidden)
            operators.geluTanh(hidden)
            operators.linear(hidden, layers.output, bias: outputBias, into: scratch.embedding)
            hidden.copy(from: scratch.embedding)
            operators.geluTanh(hidden)
        }
        supply.release()

        for (part, projection) in projection.enumerated() {
            let columns = part * config.width..<(part + 1) * config.width
            let matrix = try supply.load(projection).matrix
            for scratch in scratch {
                operators.linear(
                    scratch.hidden,
                    matrix,
                    bias: projectionBias.rows(columns),
                    into: scratch.projection.reshaped(6, config.width).rows(part..<part + 1)
                )
            }
            supply.release()
        }
    }
}
