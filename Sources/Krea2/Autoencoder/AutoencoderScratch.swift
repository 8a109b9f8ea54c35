import Compute
import Tensors

/// Rows that a stage keeps from one band for the next.
struct RowCarry: Sendable {
    /// `[2, width, inputChannels]` of the first convolution's input.
    let input: Tensor
    /// `[2, width, outputChannels]` of the second convolution's input, where there are two.
    let inner: Tensor?
}

/// Buffers for decoding latents of one size, and the order in which rows are made.
struct AutoencoderScratch {
    /// De-normalised latent: `[latentChannels, h, w]`.
    let latent: Tensor
    /// Residual stream at the latent's resolution: `[h, w, middleChannels]`.
    let stream: Tensor
    /// At the latent's resolution: residual blocks' buffers, keys and values; flat.
    let middle: (Tensor, Tensor)
    /// Pixels of the attention's queries at once: `[pixels, middleChannels]`.
    let queries: (Tensor, Tensor)
    /// In bands: input and output of a stage, in turn; flat.
    let windows: (Tensor, Tensor)
    /// In bands: the inputs of a stage's convolutions after their norms; flat.
    let normed: (Tensor, Tensor)
    /// A band of the picture; flat.
    let picture: Tensor
    /// What each stage but the first keeps between bands; the first reads `stream`.
    let carries: [RowCarry]
    /// Sizes of the stages.
    let stages: [RowStage]
    /// Rows of every band.
    let schedule: BandSchedule

    /// Bytes of one full-resolution buffer that decide how high a band is.
    private static let bandByteCount = 24 << 20
    /// Pixels that the attention takes at once.
    private static let queryPixels = 4096

    /// Cuts the buffers.
    ///
    /// - Parameters:
    ///   - config: Sizes of the autoencoder.
    ///   - latentHeight: Rows of the latent, an eighth of the picture's.
    ///   - latentWidth: Columns of the latent.
    ///   - bandRows: Rows of the picture in a band, nil for as many as keep the buffers small.
    ///   - arena: Where the memory comes from.
    init(
        _ config: AutoencoderConfig,
        latentHeight: Int,
        latentWidth: Int,
        bandRows: Int? = nil,
        arena: inout Arena
    ) {
        stages = config.rowStages(latentHeight: latentHeight, latentWidth: latentWidth)
        let rowByteCount = 4 * latentWidth * AutoencoderConfig.scale * config.channels[0]
        let rows = bandRows ?? max(8, Self.bandByteCount / rowByteCount)
        schedule = BandSchedule(stages, bandRows: rows)
        let sizes = BandSizes(stages, schedule)
        let (pixels, channels) = (latentHeight * latentWidth, config.middleChannels)
        let queryPixels = min(pixels, Self.queryPixels)

        latent = arena.tensor("latent", config.latentChannels, latentHeight, latentWidth)
        stream = arena.tensor("latent-size stream", latentHeight, latentWidth, channels)
        carries = stages.dropFirst().enumerated().map { index, stage in
            let (name, rows) = ("rows kept for stage \(index + 1)", RowBand.mostKept)
            let input = arena.tensor(name, rows, stage.width, stage.inputChannels)
            let inner =
                stage.kind == .residual
                ? arena.tensor(name + ", inside", rows, stage.width, stage.outputChannels) : nil
            return RowCarry(input: input, inner: inner)
        }
        // The two parts of the decoder use the same memory, one after the other.
        let mapSize = pixels * max(channels, config.latentChannels)
        let middleSizes = [mapSize, mapSize, queryPixels * channels, queryPixels * channels]
        let bandSizes = [sizes.windows.0, sizes.windows.1, sizes.normed.0, sizes.normed.1]
        let work = arena.tensor(
            "middle block, then bands",
            max(middleSizes.reduce(0, +), bandSizes.reduce(0, +) + sizes.picture)
        )
        var cut = 0
        func next(_ count: Int) -> Tensor {
            defer { cut += count }
            return work.rows(cut..<cut + count)
        }
        middle = (next(middleSizes[0]), next(middleSizes[1]))
        queries = (next(middleSizes[2]), next(middleSizes[3]))
        cut = 0
        windows = (next(bandSizes[0]), next(bandSizes[1]))
        normed = (next(bandSizes[2]), next(bandSizes[3]))
        picture = next(sizes.picture)
    }
}

extension AutoencoderConfig {
    /// The stages after the first up block's residual blocks.
    func rowStages(latentHeight: Int, latentWidth: Int) -> [RowStage] {
        var stages: [RowStage] = []
        var (height, width) = (latentHeight, latentWidth)
        for (index, block) in upBlocks.enumerated() {
            func append(_ kind: RowStage.Kind, _ input: Int, _ output: Int) {
                stages.append(
                    RowStage(
                        kind: kind,
                        inputChannels: input,
                        outputChannels: output,
                        height: height,
                        width: width
                    )
                )
            }
            for place in 0...residualBlocks where index > 0 {
                let input = place == 0 ? block.inputChannels : block.outputChannels
                append(.residual, input, block.outputChannels)
            }
            if let channels = block.upsampledChannels {
                append(.upsampling, block.outputChannels, channels)
                (height, width) = (2 * height, 2 * width)
            } else {
                append(.output, block.outputChannels, Self.pictureChannels)
            }
        }
        return stages
    }
}

/// Elements that the buffers of a schedule need.
private struct BandSizes {
    var windows = (0, 0)
    var normed = (0, 0)
    var picture = 0

    init(_ stages: [RowStage], _ schedule: BandSchedule) {
        for band in schedule.bands {
            for (index, stage) in stages.enumerated() {
                guard let rows = band[index] else { continue }
                let input = rows.outer.input.count * stage.width * stage.inputChannels
                if index > 0 {
                    if index.isMultiple(of: 2) {
                        windows.0 = max(windows.0, input)
                    } else {
                        windows.1 = max(windows.1, input)
                    }
                }
                normed.0 = max(normed.0, input)
                if let inner = rows.inner {
                    normed.1 = max(
                        normed.1,
                        inner.input.count * stage.width * stage.outputChannels
                    )
                }
                if stage.kind == .output {
                    picture = max(picture, rows.output.count * stage.width * stage.outputChannels)
                }
            }
        }
    }
}

extension Tensor {
    /// The beginning of a buffer under a shape, for elements that take no more bytes than its own.
    func start(_ shape: [Int], as type: ElementType = .float32) -> Tensor {
        precondition(shape.reduce(type.byteCount, *) <= byteCount, "\(shape) of \(self.shape)")
        return Tensor(storage, byteOffset: byteOffset, shape: shape, elementType: type)
    }
}

extension RowBand {
    /// Puts the rows that the band before has kept in front of the fresh ones.
    ///
    /// - Parameters:
    ///   - window: The rows `input`.
    ///   - carry: Where they were kept.
    func restore(_ window: Tensor, from carry: Tensor) {
        window.rows(0..<known.count).copy(from: carry.rows(0..<known.count))
    }

    /// Keeps the last rows for the next band.
    ///
    /// - Parameters:
    ///   - window: The rows `input`.
    ///   - carry: At least two rows.
    func keep(_ window: Tensor, in carry: Tensor) {
        let first = kept.lowerBound - input.lowerBound
        carry.rows(0..<kept.count).copy(from: window.rows(first..<first + kept.count))
    }
}
