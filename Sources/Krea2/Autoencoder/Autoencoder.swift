import Checkpoints
import Compute
import Tensors

/// The decoder of the Qwen-Image autoencoder, which makes a picture of a latent.
///
/// The network is causal over time and convolves in three dimensions. A single picture meets only
/// the last temporal slice of each kernel, so all convolutions here are of two dimensions.
///
/// Source: `AutoencoderKLQwenImage` in diffusers 0.42.1.
struct Autoencoder: Sendable {
    /// Sizes and statistics.
    let config: AutoencoderConfig
    private let weights: AutoencoderWeights
    /// Factor and summand that undo the normalisation of latents: `[latentChannels]`.
    private let deviation: Tensor
    private let mean: Tensor

    /// Reads the decoder; float32 copies of its weights are made, the files are not needed later.
    ///
    /// - Parameters:
    ///   - files: The opened files.
    ///   - operators: Owner of the kernels that will run it.
    /// - Throws: `.unfit` with every tensor that is not as expected; `.changed` where the files are
    ///   not those that were opened.
    init(_ files: AutoencoderFiles, operators: Operators) throws(CheckpointError) {
        config = files.config
        weights = try AutoencoderWeights(files, operators)
        deviation = Tensor(config.latentDeviation, shape: [config.latentChannels])
        mean = Tensor(config.latentMean, shape: [config.latentChannels])
        try files.checkpoint.checkUnchanged()
    }

    /// Decodes one latent, from top to bottom in bands of rows.
    ///
    /// The height of the bands does not change any bit of the result.
    ///
    /// - Parameters:
    ///   - latent: As the transformer makes it: `[latentChannels, h, w]`.
    ///   - scratch: Buffers for this size; `scratch.latent` holds the de-normalised latent later.
    ///   - operators: Those given to `init`, or others with the same kernels.
    ///   - progress: Receives the share of the work that is done, 0 to 1.
    ///   - onRows: Receives `[rows, 8w, 3]` from -1 to 1, valid during the call.
    /// - Throws: `.cancelled` or `.notFinite`, in this order, since cancelled operators leave
    ///   anything behind.
    func decode(
        _ latent: Tensor,
        _ scratch: AutoencoderScratch,
        operators: Operators,
        progress: (Double) -> Void = { _ in },
        onRows: (ImageRows) -> Void
    ) throws(GenerationError) {
        let (height, width) = (scratch.stream.shape[0], scratch.stream.shape[1])
        let cost = config.multiplications(.decoder, height, width)
        var done = 0.0
        func check(
            _ x: Tensor,
            _ place: String,
            _ multiplications: Double
        ) throws(GenerationError) {
            try operators.checkAutoencoder(x, place)
            done += multiplications
            progress(min(1, done / (cost.whole + cost.banded)))
        }
        operators.scalePlanes(latent, by: deviation, plus: mean, into: scratch.latent)

        try decodeMiddle(scratch, operators, check)
        try decodeFirstBlocks(scratch, operators, check)

        let bands = scratch.bands.schedule.bands
        for band in bands {
            let rows = decodeBand(band, scratch, operators)
            let (first, count) = (rows.firstRow, rows.tensor.rows)
            let place = "rows \(first)–\(first + count - 1)"
            try check(rows.tensor, place, cost.banded / Double(bands.count))
            operators.clampToUnit(rows.tensor)
            onRows(rows)
        }
    }
}

// MARK: At the latent's resolution

extension Autoencoder {
    /// From the de-normalised latent to the end of the middle block.
    private func decodeMiddle(
        _ scratch: AutoencoderScratch,
        _ operators: Operators,
        _ check: AutoencoderCheck
    ) throws(GenerationError) {
        let (x, buffers) = (scratch.stream, scratch.middle)
        let (height, width, channels) = (x.shape[0], x.shape[1], config.latentChannels)
        let (pixels, place) = (height * width, "middle block")
        let latent = buffers.0.start([pixels, channels])
        let mixed = buffers.1.start([pixels, channels], as: weights.input.inputType)

        operators.channelsLast(scratch.latent, into: latent)
        operators.linear(
            latent,
            weights.afterQuantisation.weight,
            bias: weights.afterQuantisation.bias,
            into: mixed
        )
        operators.convolution(
            ImageRows(mixed.reshaped(height, width, channels), firstRow: 0, imageHeight: height),
            weights.input,
            rows: 0..<height,
            into: x
        )
        try check(x, place, config.inputMultiplications * Double(pixels))
        try weights.middle.forward(scratch, operators, place, config, check)
    }

    /// The residual blocks of the first up block.
    private func decodeFirstBlocks(
        _ scratch: AutoencoderScratch,
        _ operators: Operators,
        _ check: AutoencoderCheck
    ) throws(GenerationError) {
        let x = scratch.stream
        for block in weights.firstBlocks {
            block.forwardWhole(x, scratch.middle, operators, into: x)
            let pixels = Double(x.shape[0] * x.shape[1])
            try check(x, "up block 0", config.residualMultiplications * pixels)
        }
    }
}

// MARK: In bands

extension Autoencoder {
    /// Computes the next rows of every stage.
    ///
    /// - Returns: The next rows of the picture: `[rows, width, 3]`, not yet clamped.
    private func decodeBand(
        _ band: [StageBand?],
        _ scratch: AutoencoderScratch,
        _ operators: Operators
    ) -> ImageRows {
        let x = scratch.stream
        let (height, width) = (
            AutoencoderConfig.scale * x.shape[0], AutoencoderConfig.scale * x.shape[1]
        )
        let rows = band.last??.output ?? 0..<0
        let picture = scratch.picture.start(
            [rows.count, width, AutoencoderConfig.pictureChannels]
        )
        scratch.bands.run(
            band,
            weights.stages,
            from: ImageRows(x, firstRow: 0, imageHeight: x.rows),
            into: picture,
            operators
        )
        return ImageRows(picture, firstRow: rows.lowerBound, imageHeight: height)
    }
}
