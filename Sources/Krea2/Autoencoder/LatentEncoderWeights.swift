import Checkpoints
import Compute

/// The encoder's tensors: float32, of kernels over time the last slice, packed.
struct LatentEncoderWeights: Sendable {
    /// From `encoder.conv_in` to the latent's resolution.
    let stages: [RowStageWeights]
    /// Residual blocks of the last level, at the latent's resolution.
    let lastBlocks: [ResidualBlock]
    /// Like the decoder's.
    let middle: MiddleBlock
    /// `encoder.norm_out` and `encoder.conv_out`: means and logarithms of variances.
    let output: OutputLayer
    /// The rows of `quant_conv` that give the means.
    let mean: PointwiseWeights
}

extension LatentEncoderWeights {
    /// Reads and packs the encoder.
    ///
    /// - Parameters:
    ///   - files: The opened files.
    ///   - operators: Owner of the kernels that will run the convolutions.
    /// - Throws: `.damaged` where the files hold a decoder alone; `.unfit` with every missing,
    ///   surplus, misshapen and mistyped tensor.
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
        _ = try LatentEncoderWeights(
            files,
            AutoencoderLoader(files, operators, isReading: false)
        )
    }

    /// Goes through all tensors; without reading them, the result only has the right structure.
    private init(
        _ files: AutoencoderFiles,
        _ loader: AutoencoderLoader
    ) throws(CheckpointError) {
        guard files.checkpoint.names.contains(where: { $0.hasPrefix("encoder.") }) else {
            throw .damaged(
                path: files.checkpoint.path,
                tensor: nil,
                found: "a decoder alone",
                expected: "an autoencoder with its encoder, which pictures to begin with need"
            )
        }
        let config = files.config
        let encoder = loader.scoped("encoder.")
        var (input, place) = (config.channels[0], 0)
        var stages: [RowStageWeights] = [
            .convolution(encoder.convolution("conv_in", AutoencoderConfig.pictureChannels, input))
        ]
        var lastBlocks: [ResidualBlock] = []
        for (level, output) in config.channels.enumerated() {
            let isLast = level == config.channels.count - 1
            for _ in 0..<config.residualBlocks {
                let block = encoder.residual("down_blocks.\(place)", input, output)
                if isLast { lastBlocks.append(block) } else { stages.append(.residual(block)) }
                (input, place) = (output, place + 1)
            }
            if isLast { continue }
            let name = "down_blocks.\(place).resample.1"
            stages.append(.convolution(encoder.convolution(name, output, output, frames: nil)))
            place += 1
        }
        let moments = 2 * config.latentChannels
        self.stages = stages
        self.lastBlocks = lastBlocks
        middle = encoder.middle(config.middleChannels)
        output = encoder.outputLayer(config.middleChannels, moments)
        mean = loader.pointwise("quant_conv", moments, moments, sizes: 3)
            .outputs(0..<config.latentChannels)
        try loader.reader.finish { files.names.isUnused($0, by: .encoder) }
    }
}
