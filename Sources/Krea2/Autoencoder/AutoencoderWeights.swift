import Checkpoints
import Compute
import Tensors

/// A 1×1 convolution's weights in float32.
struct PointwiseWeights: Sendable {
    /// `[output, input]`.
    let weight: WeightMatrix
    /// `[output]`.
    let bias: Tensor
}

/// Two normed 3×3 convolutions, whose result is added to their input.
struct ResidualBlock: Sendable {
    /// `[inputChannels]`.
    let norm1: Tensor
    let convolution1: ConvolutionWeights
    /// `[outputChannels]`.
    let norm2: Tensor
    let convolution2: ConvolutionWeights
    /// Where the number of channels changes.
    let shortcut: PointwiseWeights?
}

/// Attention of all pixels with each other, with one head of all channels.
struct PixelAttention: Sendable {
    /// `[channels]`.
    let norm: Tensor
    let query: PointwiseWeights
    let key: PointwiseWeights
    let value: PointwiseWeights
    let projection: PointwiseWeights
}

/// Norm, silu and the convolution that makes the picture.
struct OutputLayer: Sendable {
    /// `[channels]`.
    let norm: Tensor
    let convolution: ConvolutionWeights
}

/// One stage of the part of the decoder that runs in bands of rows.
enum RowStageWeights: Sendable {
    case residual(ResidualBlock)
    case upsampling(ConvolutionWeights)
    case output(OutputLayer)
}

/// The decoder's tensors: float32, of kernels over time the last slice, packed.
struct AutoencoderWeights: Sendable {
    /// `post_quant_conv`.
    let afterQuantisation: PointwiseWeights
    /// `decoder.conv_in`.
    let input: ConvolutionWeights
    /// The residual blocks before and after the attention.
    let middle: (before: ResidualBlock, attention: PixelAttention, after: ResidualBlock)
    /// Residual blocks of the first up block, at the latent's resolution.
    let firstBlocks: [ResidualBlock]
    /// Everything after them.
    let stages: [RowStageWeights]
}

extension AutoencoderWeights {
    /// Reads and packs the decoder.
    ///
    /// - Parameters:
    ///   - files: The opened files.
    ///   - operators: Owner of the kernels that will run the convolutions.
    /// - Throws: `.unfit` with every missing, surplus, misshapen and mistyped tensor.
    init(_ files: AutoencoderFiles, _ operators: Operators) throws(CheckpointError) {
        try self.init(files, Loader(files, operators, isReading: true))
    }

    /// Checks names, shapes and types of all tensors, and reads no element.
    ///
    /// - Parameters:
    ///   - files: The opened files.
    ///   - operators: As for `init`.
    /// - Throws: As `init`.
    static func check(_ files: AutoencoderFiles, _ operators: Operators) throws(CheckpointError) {
        _ = try AutoencoderWeights(files, Loader(files, operators, isReading: false))
    }

    /// Goes through all tensors; without reading them, the result only has the right structure.
    private init(_ files: AutoencoderFiles, _ loader: Loader) throws(CheckpointError) {
        let config = files.config
        let decoder = loader.scoped("decoder.")
        let middleChannels = config.middleChannels
        afterQuantisation = loader.pointwise(
            "post_quant_conv",
            config.latentChannels,
            config.latentChannels,
            sizes: 3
        )
        input = decoder.convolution("conv_in", config.latentChannels, middleChannels)
        middle = (
            decoder.residual("mid_block.resnets.0", middleChannels, middleChannels),
            decoder.attention("mid_block.attentions.0", middleChannels),
            decoder.residual("mid_block.resnets.1", middleChannels, middleChannels)
        )

        var firstBlocks: [ResidualBlock] = []
        var stages: [RowStageWeights] = []
        for (index, block) in config.upBlocks.enumerated() {
            let scope = decoder.scoped("up_blocks.\(index).")
            for place in 0...config.residualBlocks {
                let residual = scope.residual(
                    "resnets.\(place)",
                    place == 0 ? block.inputChannels : block.outputChannels,
                    block.outputChannels
                )
                if index == 0 {
                    firstBlocks.append(residual)
                } else {
                    stages.append(.residual(residual))
                }
            }
            if let channels = block.upsampledChannels {
                let name = "upsamplers.0.resample.1"
                let weights = scope.convolution(name, block.outputChannels, channels, frames: nil)
                stages.append(.upsampling(weights))
            }
        }
        let lastChannels = config.channels[0]
        stages.append(
            .output(
                OutputLayer(
                    norm: decoder.gamma("norm_out", lastChannels, sizes: 3),
                    convolution: decoder.convolution(
                        "conv_out",
                        lastChannels,
                        AutoencoderConfig.pictureChannels
                    )
                )
            )
        )
        self.firstBlocks = firstBlocks
        self.stages = stages
        try loader.reader.finish { files.names.isUnused($0) }
    }
}

// MARK: Parts

/// Reads parts by their names in a scope.
private struct Loader {
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

    func scoped(_ prefix: String) -> Loader {
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
    func gamma(_ name: String, _ channels: Int, sizes: Int) -> Tensor {
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

    func attention(_ name: String, _ channels: Int) -> PixelAttention {
        let scope = scoped(name + ".")
        let all = scope.pointwise("to_qkv", channels, 3 * channels, sizes: 2)
        let parts = (0..<3).map { part in
            let rows = part * channels..<(part + 1) * channels
            return PointwiseWeights(
                weight: WeightMatrix(all.weight.elements.rows(rows)),
                bias: all.bias.rows(rows)
            )
        }
        return PixelAttention(
            norm: scope.gamma("norm", channels, sizes: 2),
            query: parts[0],
            key: parts[1],
            value: parts[2],
            projection: scope.pointwise("proj", channels, channels, sizes: 2)
        )
    }
}
