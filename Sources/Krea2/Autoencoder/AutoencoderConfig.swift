import Checkpoints
import Compute

/// Sizes of the autoencoder and the statistics of its latents.
///
/// Source: `AutoencoderKLQwenImage` in diffusers 0.42.1.
struct AutoencoderConfig: Sendable, Equatable {
    /// Channels of a latent.
    let latentChannels: Int
    /// Channels at each resolution, the picture's own first and that of the latent last.
    let channels: [Int]
    /// Residual blocks at each resolution of the encoder; the decoder has one more.
    let residualBlocks: Int
    /// Mean of each latent channel.
    let latentMean: [Float]
    /// Standard deviation of each latent channel.
    let latentDeviation: [Float]

    /// Resolutions, each half of the one before.
    static let resolutions = 4
    /// Rows and columns of the picture for one of the latent.
    static let scale = 1 << (resolutions - 1)
    /// Channels of the picture.
    static let pictureChannels = 3

    /// Statistics of the Qwen-Image and Wan 2.1 latents, which files without configuration have.
    static let releasedMean: [Float] = [
        -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715,
        0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
    ]
    /// See `releasedMean`.
    static let releasedDeviation: [Float] = [
        2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652,
        1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
    ]

    /// Channels at any resolution: upsampling halves them, and the middle attends with one head of
    /// all its channels.
    static let channelRange = 2...Operators.largestHeadSize
    /// Most residual blocks at a resolution.
    static let mostResidualBlocks = 16
}

// MARK: Parts of the decoder

extension AutoencoderConfig {
    /// Sizes of the decoder's blocks at one resolution.
    struct UpBlock: Sendable, Equatable {
        /// Channels that come in.
        let inputChannels: Int
        /// Channels of all residual blocks' results.
        let outputChannels: Int
        /// Channels after the upsampling, nil where there is none.
        let upsampledChannels: Int?
    }

    /// Channels at the latent's resolution.
    var middleChannels: Int { channels[channels.count - 1] }

    /// From the latent's resolution to the picture's.
    var upBlocks: [UpBlock] {
        var input = middleChannels
        return channels.reversed().enumerated().map { index, output in
            let upsampled = index < channels.count - 1 ? output / 2 : nil
            defer { input = upsampled ?? output }
            return UpBlock(
                inputChannels: input,
                outputChannels: output,
                upsampledChannels: upsampled
            )
        }
    }
}

// MARK: Reading

extension AutoencoderConfig {
    /// Takes sizes from `config.json` where there is one, and from the tensors' shapes.
    ///
    /// - Parameters:
    ///   - checkpoint: The autoencoder's tensors.
    ///   - names: Their layout.
    ///   - file: `config.json`; nil when there is none.
    /// - Throws: When a size is in neither or beyond what is supported, and when nothing tells the
    ///   statistics of the latents.
    init(
        _ checkpoint: Checkpoint,
        _ names: AutoencoderNames,
        _ file: ConfigurationFile?
    ) throws(CheckpointError) {
        let sizes = SizeReader(checkpoint, file, rename: names.stored)
        latentChannels = try sizes.read("z_dim", or: "post_quant_conv.weight", 0)
        channels = try Self.channels(sizes, file)
        residualBlocks =
            try file?.integer("num_res_blocks", in: 1...Self.mostResidualBlocks)
            ?? names.residualBlocks
        let mean = try file?.floats("latents_mean", count: latentChannels)
        let deviation = try file?.floats("latents_std", count: latentChannels)
        latentMean = mean ?? Self.releasedMean
        latentDeviation = deviation ?? Self.releasedDeviation
        try check(file, file?.path ?? checkpoint.path)
    }

    /// Channels at each resolution, the picture's own first.
    private static func channels(
        _ sizes: SizeReader,
        _ file: ConfigurationFile?
    ) throws(CheckpointError) -> [Int] {
        if let width = try file?.integer("base_dim"),
            let multipliers = try file?.integers("dim_mult")
        {
            return multipliers.map { $0 * width }
        }
        var channels: [Int] = []
        for block in (0..<resolutions).reversed() {
            let tensor = "decoder.up_blocks.\(block).resnets.0.conv1.weight"
            channels.append(try sizes.length(tensor, 0))
        }
        return channels
    }

    private func check(_ file: ConfigurationFile?, _ path: String) throws(CheckpointError) {
        func damaged(_ found: String, _ expected: String) -> CheckpointError {
            .damaged(path: path, tensor: nil, found: found, expected: expected)
        }
        let range = Self.channelRange
        guard channels.count == Self.resolutions, channels.allSatisfy(range.contains) else {
            throw damaged(
                "blocks of \(channels) channels",
                "\(Self.resolutions) of \(range.lowerBound) to \(range.upperBound) channels"
            )
        }
        guard latentChannels <= range.upperBound else {
            throw damaged("\(latentChannels) latent channels", "at most \(range.upperBound)")
        }
        guard latentMean.count == latentChannels, latentDeviation.count == latentChannels else {
            throw damaged(
                "\(latentChannels) latent channels without \"latents_mean\" and \"latents_std\"",
                "\(Self.releasedMean.count) channels, whose statistics are known"
            )
        }
        guard latentDeviation.allSatisfy({ $0 > 0 }) else {
            throw damaged("\"latents_std\" with a number of 0 or less", "numbers above 0")
        }
        if let file, let scales = try file.array("attn_scales"), !scales.isEmpty {
            throw file.mismatch("attn_scales", "an empty list")
        }
    }
}
