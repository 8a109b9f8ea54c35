import Checkpoints
import Compute
import Tensors

/// Reads parts of an autoencoder by their names in a scope.
struct AutoencoderLoader {
    let checkpoint: Checkpoint
    private(set) var reader: WeightReader
    let operators: Operators
    /// Whether elements are wanted, and not only what is wrong with the tensors.
    let isReading: Bool

    init(_ files: AutoencoderFiles, _ operators: Operators, isReading: Bool) {
        let names = files.names
        checkpoint = files.checkpoint
        reader = WeightReader(files.checkpoint) { names.stored($0) }
        self.operators = operators
        self.isReading = isReading
    }

    func scoped(_ prefix: String) -> AutoencoderLoader {
        var scoped = self
        scoped.reader = reader.scoped(prefix)
        return scoped
    }

    /// A tensor in float32; afterwards the file's pages need not stay in memory.
    private func tensor(_ name: String, shape: [Int]) -> Tensor {
        let stored = reader.tensor(name, shape: shape)
        guard isReading else { return stored }
        defer { checkpoint.release([stored]) }
        return converted(stored)
    }

    /// A norm's factors; `sizes` axes of size 1 follow them in the file.
    private func gamma(_ name: String, _ channels: Int, sizes: Int) -> Tensor {
        tensor(name + ".gamma", shape: [channels] + Array(repeating: 1, count: sizes))
            .reshaped(channels)
    }

    /// A 3×3 kernel, in the file over `frames` frames or without an axis for them.
    func convolution(
        _ name: String,
        _ input: Int,
        _ output: Int,
        frames: Int? = 3
    ) -> ConvolutionWeights {
        let shape = [output, input] + (frames.map { [$0] } ?? []) + [3, 3]
        let weight = reader.tensor(name + ".weight", shape: shape)
        let bias = tensor(name + ".bias", shape: [output])
        guard isReading, reader.shape(name + ".weight") == shape else {
            // The reader throws in the end; until then nothing large is made of sizes that the
            // file does not confirm.
            let nothing = Tensor(zeros: [1, 3, 3, 1])
            return ConvolutionWeights(nothing, bias: Tensor(zeros: [1]), for: operators)
        }
        defer { checkpoint.release([weight]) }
        return ConvolutionWeights(lastSliceOf: weight, bias: bias, for: operators)
    }

    /// A 1×1 kernel; `sizes` axes of size 1 follow its channels in the file.
    func pointwise(_ name: String, _ input: Int, _ output: Int, sizes: Int) -> PointwiseWeights {
        let shape = [output, input] + Array(repeating: 1, count: sizes)
        return PointwiseWeights(
            weight: WeightMatrix(
                tensor(name + ".weight", shape: shape).reshaped(output, input)
            ),
            bias: tensor(name + ".bias", shape: [output])
        )
    }

    func residual(_ name: String, _ input: Int, _ output: Int) -> ResidualBlock {
        let scope = scoped(name + ".")
        return ResidualBlock(
            norm1: scope.gamma("norm1", input, sizes: 3),
            convolution1: scope.convolution("conv1", input, output),
            norm2: scope.gamma("norm2", output, sizes: 3),
            convolution2: scope.convolution("conv2", output, output),
            shortcut: input == output
                ? nil : scope.pointwise("conv_shortcut", input, output, sizes: 3)
        )
    }

    func middle(_ channels: Int) -> MiddleBlock {
        let scope = scoped("mid_block.")
        return MiddleBlock(
            before: scope.residual("resnets.0", channels, channels),
            attention: scope.attention("attentions.0", channels),
            after: scope.residual("resnets.1", channels, channels)
        )
    }

    func outputLayer(_ input: Int, _ output: Int) -> OutputLayer {
        OutputLayer(
            norm: gamma("norm_out", input, sizes: 3),
            convolution: convolution("conv_out", input, output)
        )
    }

    private func attention(_ name: String, _ channels: Int) -> PixelAttention {
        let scope = scoped(name + ".")
        let all = scope.pointwise("to_qkv", channels, 3 * channels, sizes: 2)
        let parts = (0..<3).map { all.outputs($0 * channels..<($0 + 1) * channels) }
        return PixelAttention(
            norm: scope.gamma("norm", channels, sizes: 2),
            query: parts[0],
            key: parts[1],
            value: parts[2],
            projection: scope.pointwise("proj", channels, channels, sizes: 2)
        )
    }
}
