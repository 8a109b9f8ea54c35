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
        let cost = config.multiplications(scratch.stages, height, width)
        var done = 0.0
        func check(
            _ x: Tensor,
            _ place: String,
            _ multiplications: Double
        ) throws(GenerationError) {
            if operators.isCancelled() { throw .cancelled }
            guard operators.isFinite(x) else {
                throw .notFinite(stage: "autoencoder", place: place)
            }
            done += multiplications
            progress(min(1, done / (cost.whole + cost.banded)))
        }
        operators.scalePlanes(latent, by: deviation, plus: mean, into: scratch.latent)

        try decodeMiddle(scratch, operators, check)
        try decodeFirstBlocks(scratch, operators, check)

        let bands = scratch.schedule.bands
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
    /// Asks about a part's result, its place, and the multiplications it took.
    private typealias Check = (Tensor, String, Double) throws(GenerationError) -> Void

    /// From the de-normalised latent to the end of the middle block.
    private func decodeMiddle(
        _ scratch: AutoencoderScratch,
        _ operators: Operators,
        _ check: Check
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

        weights.middle.before.forwardWhole(x, buffers, operators)
        try check(x, place, config.residualMultiplications * Double(pixels))
        try weights.middle.attention.forward(x, scratch, operators) {
            rows throws(GenerationError) in
            let cost = config.attentionMultiplications(pixels: pixels)
            try check(rows, place, cost * Double(rows.rows))
        }
        weights.middle.after.forwardWhole(x, buffers, operators)
        try check(x, place, config.residualMultiplications * Double(pixels))
    }

    /// The residual blocks of the first up block.
    private func decodeFirstBlocks(
        _ scratch: AutoencoderScratch,
        _ operators: Operators,
        _ check: Check
    ) throws(GenerationError) {
        let x = scratch.stream
        for block in weights.firstBlocks {
            block.forwardWhole(x, scratch.middle, operators)
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
        var window = ImageRows(scratch.stream, firstRow: 0, imageHeight: scratch.stream.rows)
        for (index, stage) in scratch.stages.enumerated() {
            guard let rows = band[index] else { continue }
            let carry = index > 0 ? scratch.carries[index - 1] : nil
            if let carry {
                window = scratch.window(index, rows)
                rows.outer.restore(window.tensor, from: carry.input)
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
                    window.readable(by: convolution, in: scratch.normed.0, operators),
                    convolution,
                    upsampling: 2,
                    rows: rows.output,
                    into: output
                )
            case .output(let layer):
                let type = layer.convolution.inputType
                let normed = scratch.normed.0.start(window.tensor.shape, as: type)
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
            if let carry { rows.outer.keep(window.tensor, in: carry.input) }
            window = ImageRows(
                output,
                firstRow: rows.output.lowerBound,
                imageHeight: stage.height * stage.upsampling
            )
        }
        return window
    }
}

extension ImageRows {
    /// The same rows in the element type that a convolution reads.
    fileprivate func readable(
        by weights: ConvolutionWeights,
        in buffer: Tensor,
        _ operators: Operators
    ) -> ImageRows {
        guard weights.inputType != tensor.elementType else { return self }
        let copy = buffer.start(tensor.shape, as: weights.inputType)
        operators.narrow(tensor, into: copy)
        return ImageRows(copy, firstRow: firstRow, imageHeight: imageHeight)
    }
}

extension AutoencoderScratch {
    /// The rows that a stage other than the first reads; those made last are in place.
    fileprivate func window(_ index: Int, _ rows: StageBand) -> ImageRows {
        let (stage, input) = (stages[index], rows.outer.input)
        let buffer = index.isMultiple(of: 2) ? windows.0 : windows.1
        return ImageRows(
            buffer.start([input.count, stage.width, stage.inputChannels]),
            firstRow: input.lowerBound,
            imageHeight: stage.height
        )
    }

    /// Where a stage writes: behind the rows that the next stage has kept, or the picture.
    fileprivate func output(_ index: Int, _ band: [StageBand?]) -> Tensor {
        let count = band[index]?.output.count ?? 0
        guard index + 1 < stages.count, let next = band[index + 1] else {
            let stage = stages[index]
            return picture.start([count, stage.width, stage.outputChannels])
        }
        let known = next.outer.known.count
        return window(index + 1, next).tensor.rows(known..<known + count)
    }
}

// MARK: Costs

extension AutoencoderConfig {
    /// Floating-point operations to decode one latent, two for each multiplication.
    ///
    /// - Parameters:
    ///   - latentHeight: Rows of the latent.
    ///   - latentWidth: Columns of the latent.
    /// - Returns: Those of convolutions and attention.
    func floatingPointOperations(latentHeight: Int, latentWidth: Int) -> Double {
        let stages = rowStages(latentHeight: latentHeight, latentWidth: latentWidth)
        let parts = multiplications(stages, latentHeight, latentWidth)
        return 2 * (parts.whole + parts.banded)
    }

    /// Multiplications of what runs at the latent's resolution, and of what runs in bands.
    fileprivate func multiplications(
        _ stages: [RowStage],
        _ latentHeight: Int,
        _ latentWidth: Int
    ) -> (whole: Double, banded: Double) {
        let pixels = latentHeight * latentWidth
        let residuals = Double(2 + residualBlocks + 1) * residualMultiplications
        let attention = attentionMultiplications(pixels: pixels)
        return (
            Double(pixels) * (inputMultiplications + residuals + attention),
            stages.reduce(0) { $0 + $1.multiplications }
        )
    }

    /// Of the first two convolutions, for each pixel.
    fileprivate var inputMultiplications: Double {
        Double(latentChannels * (latentChannels + 9 * middleChannels))
    }

    /// Of a residual block at the latent's resolution, for each pixel.
    fileprivate var residualMultiplications: Double {
        Double(18 * middleChannels * middleChannels)
    }

    /// Of the attention, for each pixel.
    fileprivate func attentionMultiplications(pixels: Int) -> Double {
        Double(middleChannels * (4 * middleChannels + 2 * pixels))
    }
}
