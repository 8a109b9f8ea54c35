import Checkpoints
import Compute
import Tensors

/// A 1×1 convolution's weights in float32.
struct PointwiseWeights: Sendable {
    /// `[output, input]`.
    let weight: WeightMatrix
    /// `[output]`.
    let bias: Tensor

    /// Some of the outputs.
    func outputs(_ rows: Range<Int>) -> PointwiseWeights {
        PointwiseWeights(weight: WeightMatrix(weight.elements.rows(rows)), bias: bias.rows(rows))
    }
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

/// What runs at the latent's resolution, between the other blocks.
struct MiddleBlock: Sendable {
    let before: ResidualBlock
    let attention: PixelAttention
    let after: ResidualBlock
}

/// Norm, silu and the convolution that makes the picture, or the latent.
struct OutputLayer: Sendable {
    /// `[channels]`.
    let norm: Tensor
    let convolution: ConvolutionWeights
}

/// One stage of the part of the decoder or the encoder that runs in bands of rows.
enum RowStageWeights: Sendable {
    case residual(ResidualBlock)
    /// At any scale.
    case convolution(ConvolutionWeights)
    case output(OutputLayer)
}

/// The decoder's tensors: float32, of kernels over time the last slice, packed.
struct AutoencoderWeights: Sendable {
    /// `post_quant_conv`.
    let afterQuantisation: PointwiseWeights
    /// `decoder.conv_in`.
    let input: ConvolutionWeights
    /// The residual blocks before and after the attention.
    let middle: MiddleBlock
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
        try self.init(files, AutoencoderLoader(files, operators, isReading: true))
    }

    /// Checks names, shapes and types of all tensors, and reads no element.
    ///
    /// - Parameters:
    ///   - files: The opened files.
    ///   - operators: As for `init`.
    /// - Throws: As `init`.
    static func check(_ files: AutoencoderFiles, _ operators: Operators) throws(CheckpointError) {
        _ = try AutoencoderWeights(
            files,
            AutoencoderLoader(files, operators, isReading: false)
        )
    }

    /// Goes through all tensors; without reading them, the result only has the right structure.
    private init(
        _ files: AutoencoderFiles,
        _ loader: AutoencoderLoader
    ) throws(CheckpointError) {
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
        middle = decoder.middle(middleChannels)

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
                stages.append(.convolution(weights))
            }
        }
        let pictureChannels = AutoencoderConfig.pictureChannels
        stages.append(.output(decoder.outputLayer(config.channels[0], pictureChannels)))
        self.firstBlocks = firstBlocks
        self.stages = stages
        try loader.reader.finish { files.names.isUnused($0, by: .decoder) }
    }
}
