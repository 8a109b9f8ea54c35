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
    ///   - checkpoint: Tensors under diffusers' or Wan's names; they may share a prefix.
    ///   - config: What `config.json` says; nil takes sizes from the tensors' shapes and the
    ///     statistics of the released autoencoders.
    ///   - operators: Owner of the kernels that will run it.
    /// - Throws: `.unfit` with every tensor that is not as expected, `.damaged` where the sizes
    ///   are not supported.
    init(
        _ checkpoint: Checkpoint,
        config: AutoencoderConfig? = nil,
        operators: Operators
    ) throws(CheckpointError) {
        let (tensors, names) = AutoencoderNames.recognise(checkpoint)
        let config =
            if let config { config } else { try AutoencoderConfig(shapesOf: tensors, names) }
        self.config = config
        weights = try AutoencoderWeights(tensors, config, names, operators)
        deviation = Tensor(config.latentDeviation, shape: [config.latentChannels])
        mean = Tensor(config.latentMean, shape: [config.latentChannels])
    }

    /// Decodes one latent, from top to bottom in bands of rows.
    ///
    /// The height of the bands does not change any bit of the result.
    ///
    /// - Parameters:
    ///   - latent: As the transformer makes it: `[latentChannels, h, w]`.
    ///   - scratch: Buffers for this size; `scratch.latent` holds the de-normalised latent later.
    ///   - operators: Those given to `init`, or others with the same kernels.
    ///   - isCancelled: Asked between bands.
    ///   - progress: Receives the share of the work that is done, 0 to 1.
    ///   - onRows: Receives `[rows, 8w, 3]` from -1 to 1, valid during the call.
    /// - Throws: `.notFinite` or `.cancelled`.
    func decode(
        _ latent: Tensor,
        _ scratch: AutoencoderScratch,
        operators: Operators,
        isCancelled: () -> Bool = { false },
        progress: (Double) -> Void = { _ in },
        onRows: (ImageRows) -> Void
    ) throws(GenerationError) {
        let cost = config.cost(of: scratch)
        operators.scalePlanes(latent, by: deviation, plus: mean, into: scratch.latent)

        try decodeMiddle(scratch, operators, isCancelled)
        try decodeFirstBlocks(scratch, operators, isCancelled)

        let wholeShare = cost.whole / (cost.whole + cost.banded)
        let bandShare = (1 - wholeShare) / Double(scratch.schedule.bands.count)
        progress(wholeShare)
        for (index, band) in scratch.schedule.bands.enumerated() {
            if isCancelled() { throw .cancelled }
            let rows = decodeBand(band, scratch, operators)
            let (first, count) = (rows.firstRow, rows.tensor.rows)
            guard operators.isFinite(rows.tensor) else {
                throw notFinite("rows \(first)–\(first + count - 1)")
            }
            operators.clampToUnit(rows.tensor)
            onRows(rows)
            progress(wholeShare + bandShare * Double(index + 1))
        }
    }

    private func notFinite(_ place: String) -> GenerationError {
        .notFinite(stage: "autoencoder", place: place)
    }
}

// MARK: At the latent's resolution

extension Autoencoder {
    /// From the de-normalised latent to the end of the middle block.
    private func decodeMiddle(
        _ scratch: AutoencoderScratch,
        _ operators: Operators,
        _ isCancelled: () -> Bool
    ) throws(GenerationError) {
        let (x, buffers) = (scratch.stream, scratch.middle)
        let (height, width) = (x.shape[0], x.shape[1])
        let pixelCount = height * width
        let latentCount = pixelCount * config.latentChannels
        let pixels = flat(buffers.0, height, width, config.latentChannels)
        let mixed = flat(buffers.1, height, width, config.latentChannels)
        precondition(latentCount <= buffers.0.count)

        operators.channelsLast(scratch.latent, into: pixels)
        operators.linear(
            pixels.reshaped(pixelCount, config.latentChannels),
            weights.afterQuantisation.weight,
            bias: weights.afterQuantisation.bias,
            into: mixed.reshaped(pixelCount, config.latentChannels)
        )
        let source = ImageRows(mixed, firstRow: 0, imageHeight: height)
        operators.convolution(source, weights.input, rows: 0..<height, into: x)

        weights.middle.before.forwardWhole(x, buffers, operators)
        try weights.middle.attention.forward(x, scratch, operators, isCancelled)
        weights.middle.after.forwardWhole(x, buffers, operators)
        guard operators.isFinite(x) else { throw notFinite("middle block") }
    }

    /// The residual blocks of the first up block.
    private func decodeFirstBlocks(
        _ scratch: AutoencoderScratch,
        _ operators: Operators,
        _ isCancelled: () -> Bool
    ) throws(GenerationError) {
        for block in weights.firstBlocks {
            if isCancelled() { throw .cancelled }
            block.forwardWhole(scratch.stream, scratch.middle, operators)
        }
        guard operators.isFinite(scratch.stream) else { throw notFinite("up block 0") }
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
        var window = ImageRows(scratch.stream, firstRow: 0, imageHeight: scratch.stream.rows)
        for (index, stage) in scratch.stages.enumerated() {
            guard let rows = band[index] else { continue }
            let carry = index > 0 ? scratch.carries[index - 1] : nil
            if let carry {
                window = scratch.window(index, rows)
                restore(rows.outer, into: window.tensor, from: carry.input)
            }
            let output = scratch.output(index, band)
            switch weights.stages[index] {
            case .residual(let block):
                block.forward(
                    window,
                    rows,
                    normed: scratch.normed,
                    innerCarry: carry?.inner,
                    operators,
                    into: output
                )
            case .upsampling(let convolution):
                operators.convolution(
                    window,
                    convolution,
                    upsampling: 2,
                    rows: rows.output,
                    into: output
                )
            case .output(let layer):
                let normed = flat(scratch.normed.0, like: window.tensor)
                operators.channelNorm(window.tensor, gamma: layer.norm, silu: true, into: normed)
                operators.convolution(
                    ImageRows(
                        normed,
                        firstRow: window.firstRow,
                        imageHeight: window.imageHeight
                    ),
                    layer.convolution,
                    rows: rows.output,
                    into: output
                )
            }
            if let carry { keep(rows.outer, of: window.tensor, in: carry.input) }
            window = ImageRows(
                output,
                firstRow: rows.output.lowerBound,
                imageHeight: stage.height * stage.upsampling
            )
        }
        return window
    }
}

extension AutoencoderScratch {
    /// The rows that a stage other than the first reads; those made last are in place.
    fileprivate func window(_ index: Int, _ rows: StageBand) -> ImageRows {
        let (stage, input) = (stages[index], rows.outer.input)
        let buffer = index.isMultiple(of: 2) ? windows.0 : windows.1
        return ImageRows(
            flat(buffer, input.count, stage.width, stage.inputChannels),
            firstRow: input.lowerBound,
            imageHeight: stage.height
        )
    }

    /// Where a stage writes: behind the rows that the next stage has kept, or the picture.
    fileprivate func output(_ index: Int, _ band: [StageBand?]) -> Tensor {
        let count = band[index]?.output.count ?? 0
        guard index + 1 < stages.count, let next = band[index + 1] else {
            let stage = stages[index]
            return flat(picture, count, stage.width, stage.outputChannels)
        }
        let known = next.outer.known.count
        return window(index + 1, next).tensor.rows(known..<known + count)
    }
}

// MARK: Costs

extension AutoencoderConfig {
    /// Multiplications to decode one latent: at its own resolution, and in bands.
    fileprivate func cost(of scratch: AutoencoderScratch) -> (whole: Double, banded: Double) {
        let stream = scratch.stream.shape
        return (
            wholeMultiplications(pixels: Double(stream[0] * stream[1])),
            scratch.stages.reduce(0) { $0 + $1.multiplications }
        )
    }

    /// Floating-point operations to decode one latent, two for each multiplication.
    ///
    /// - Parameters:
    ///   - latentHeight: Rows of the latent.
    ///   - latentWidth: Columns of the latent.
    /// - Returns: Those of convolutions and attention.
    func floatingPointOperations(latentHeight: Int, latentWidth: Int) -> Double {
        let stages = rowStages(latentHeight: latentHeight, latentWidth: latentWidth)
        let whole = wholeMultiplications(pixels: Double(latentHeight * latentWidth))
        return 2 * stages.reduce(whole) { $0 + $1.multiplications }
    }

    private func wholeMultiplications(pixels: Double) -> Double {
        let (channels, latent) = (Double(middleChannels), Double(latentChannels))
        let residuals = Double(2 + residualBlocks + 1) * 18 * channels * channels
        let attention = 4 * channels * channels + 2 * pixels * channels
        return pixels * (latent * latent + 9 * latent * channels + residuals + attention)
    }
}
