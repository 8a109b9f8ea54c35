import Checkpoints
import Compute
import Tensors

/// The encoder of the Qwen-Image autoencoder, which makes a latent of a picture.
///
/// Of the distribution that it describes, it gives the mean, so that a picture has one latent.
///
/// Source: `AutoencoderKLQwenImage` in diffusers 0.42.1; `_encode_vae_image` of its
/// `QwenImageImg2ImgPipeline`, which draws from the distribution instead.
struct LatentEncoder: Sendable {
    /// Sizes and statistics.
    let config: AutoencoderConfig
    private let weights: LatentEncoderWeights
    /// Factor and summand that normalise latents: `[latentChannels]`.
    private let factor: Tensor
    private let summand: Tensor

    /// Reads the encoder; float32 copies of its weights are made, the files are not needed later.
    ///
    /// - Parameters:
    ///   - files: The opened files.
    ///   - operators: Owner of the kernels that will run it.
    /// - Throws: `.damaged` where the files hold a decoder alone; `.unfit` with every tensor that
    ///   is not as expected; `.changed` where the files are not those that were opened.
    init(_ files: AutoencoderFiles, operators: Operators) throws(CheckpointError) {
        config = files.config
        weights = try LatentEncoderWeights(files, operators)
        let (mean, deviation) = (config.latentMean, config.latentDeviation)
        factor = Tensor(deviation.map { 1 / $0 }, shape: [config.latentChannels])
        summand = Tensor(zip(mean, deviation).map { -$0 / $1 }, shape: [config.latentChannels])
        try files.checkpoint.checkUnchanged()
    }

    /// Encodes one picture, from top to bottom in bands of rows.
    ///
    /// The height of the bands does not change any bit of the result.
    ///
    /// - Parameters:
    ///   - rgb: `[8h, 8w, 3]`, 0 to 255.
    ///   - scratch: Buffers for this size, made for the encoder; `scratch.latent` then holds the
    ///     latent as the transformer makes it: `[latentChannels, h, w]`.
    ///   - operators: Those given to `init`, or others with the same kernels.
    ///   - progress: Receives the share of the work that is done, 0 to 1.
    /// - Throws: `.cancelled` or `.notFinite`, in this order, since cancelled operators leave
    ///   anything behind.
    func encode(
        _ rgb: [UInt8],
        _ scratch: AutoencoderScratch,
        operators: Operators,
        progress: (Double) -> Void = { _ in }
    ) throws(GenerationError) {
        let (height, width) = (scratch.stream.shape[0], scratch.stream.shape[1])
        let cost = config.multiplications(.encoder, height, width)
        var done = 0.0
        func check(
            _ x: Tensor,
            _ place: String,
            _ multiplications: Double
        ) throws(GenerationError) {
            try operators.checkAutoencoder(x, "encoder, " + place)
            done += multiplications
            progress(min(1, done / (cost.whole + cost.banded)))
        }

        let bands = scratch.bands.schedule.bands
        for band in bands {
            let rows = band.last??.output ?? 0..<0
            let output = scratch.junction.rows(rows)
            let source = pictureRows(rgb, band.first??.outer.input ?? 0..<0, scratch)
            scratch.bands.run(band, weights.stages, from: source, into: output, operators)
            let place = "rows \(rows.lowerBound)–\(rows.upperBound - 1)"
            try check(output, place, cost.banded / Double(bands.count))
        }

        var x = scratch.junction
        for block in weights.lastBlocks {
            block.forwardWhole(x, scratch.middle, operators, into: scratch.stream)
            x = scratch.stream
            try check(x, "last level", config.residualMultiplications * Double(height * width))
        }
        try weights.middle.forward(scratch, operators, "middle block", config, check)
        encodeMeans(scratch, operators)
        try check(scratch.latent, "means", config.momentMultiplications * Double(height * width))
    }

    /// Some rows of the picture from -1 to 1, rounded as diffusers' `VaeImageProcessor` does.
    private func pictureRows(
        _ rgb: [UInt8],
        _ rows: Range<Int>,
        _ scratch: AutoencoderScratch
    ) -> ImageRows {
        let width = AutoencoderConfig.scale * scratch.stream.shape[1]
        let height = AutoencoderConfig.scale * scratch.stream.shape[0]
        let channels = AutoencoderConfig.pictureChannels
        precondition(rgb.count == height * width * channels, "\(rgb.count) bytes")
        let window = ImageRows(
            scratch.picture.start([rows.count, width, channels]),
            firstRow: rows.lowerBound,
            imageHeight: height
        )
        window.fill(fromBytes: rgb)
        return window
    }

    /// From the end of the middle block to the normalised means.
    private func encodeMeans(_ scratch: AutoencoderScratch, _ operators: Operators) {
        let x = scratch.stream
        let (height, width, channels) = (x.shape[0], x.shape[1], config.latentChannels)
        let moments = scratch.middle.1.start([height, width, 2 * channels])
        weights.output.forward(
            ImageRows(x, firstRow: 0, imageHeight: height),
            rows: 0..<height,
            normed: scratch.middle.0,
            operators,
            into: moments
        )
        let means = scratch.middle.0.start([height * width, channels])
        operators.linear(
            moments.reshaped(height * width, 2 * channels),
            weights.mean.weight,
            bias: weights.mean.bias,
            into: means
        )
        ImageRows(means.reshaped(height, width, channels), firstRow: 0, imageHeight: height)
            .copy(toPlanes: scratch.latent)
        operators.scalePlanes(scratch.latent, by: factor, plus: summand, into: scratch.latent)
    }
}
