import Compute
import Tensors

/// The halves of an autoencoder.
enum AutoencoderPart: Sendable {
    /// Picture to latent.
    case encoder
    /// Latent to picture.
    case decoder
}

/// Buffers for decoding latents or encoding pictures of one size, and the order in which rows are
/// made.
struct AutoencoderScratch {
    /// The latent `[latentChannels, h, w]`: de-normalised for the decoder, the encoder's result.
    let latent: Tensor
    /// Residual stream at the latent's resolution: `[h, w, middleChannels]`.
    let stream: Tensor
    /// What the bands of the decoder begin with and those of the encoder end with: `[h, w,
    /// channels]`; the stream, unless the next block of the encoder has another number of channels.
    let junction: Tensor
    /// At the latent's resolution: residual blocks' buffers, keys and values; flat.
    let middle: (Tensor, Tensor)
    /// Pixels of the attention's queries at once: `[pixels, middleChannels]`.
    let queries: (Tensor, Tensor)
    /// A band of the picture; flat.
    let picture: Tensor
    /// What runs in bands.
    let bands: BandScratch

    /// Bytes of one full-resolution buffer that decide how high a band is.
    private static let bandByteCount = 24 << 20
    /// Pixels that the attention takes at once.
    private static let queryPixels = 4096

    /// Cuts the buffers.
    ///
    /// - Parameters:
    ///   - config: Sizes of the autoencoder.
    ///   - part: What they are for.
    ///   - latentHeight: Rows of the latent, an eighth of the picture's.
    ///   - latentWidth: Columns of the latent.
    ///   - bandRows: Rows in a band of what the part makes, picture or latent; nil for as many as
    ///     keep the buffers small.
    ///   - arena: Where the memory comes from.
    init(
        _ config: AutoencoderConfig,
        for part: AutoencoderPart = .decoder,
        latentHeight: Int,
        latentWidth: Int,
        bandRows: Int? = nil,
        arena: inout Arena
    ) {
        let stages = config.rowStages(part, latentHeight: latentHeight, latentWidth: latentWidth)
        let rowByteCount = 4 * latentWidth * AutoencoderConfig.scale * config.channels[0]
        let rows = Self.bandByteCount / rowByteCount
        let schedule = BandSchedule(stages, bandRows: bandRows ?? config.bandRows(part, rows))
        let sizes = BandSizes(stages, schedule)
        let (pixels, channels) = (latentHeight * latentWidth, config.middleChannels)
        let queryPixels = min(pixels, Self.queryPixels)

        latent = arena.tensor("latent", config.latentChannels, latentHeight, latentWidth)
        stream = arena.tensor("latent-size stream", latentHeight, latentWidth, channels)
        let lastChannels = part == .encoder ? stages.last?.outputChannels ?? channels : channels
        junction =
            lastChannels == channels
            ? stream : arena.tensor("end of the bands", latentHeight, latentWidth, lastChannels)
        let carries = stages.dropFirst().enumerated().map { index, stage in
            let (name, rows) = ("rows kept for stage \(index + 1)", RowBand.mostKept)
            let input = arena.tensor(name, rows, stage.width, stage.inputChannels)
            let inner =
                stage.kind == .residual
                ? arena.tensor(name + ", inside", rows, stage.width, stage.outputChannels) : nil
            return RowCarry(input: input, inner: inner)
        }
        // What runs at the latent's resolution and the bands use the same memory, one after the
        // other. The encoder ends with twice the latent's channels: means and variances.
        let mapSize = pixels * max(channels, lastChannels, 2 * config.latentChannels)
        let middleSizes = [mapSize, mapSize, queryPixels * channels, queryPixels * channels]
        let bandSizes = [sizes.windows.0, sizes.windows.1, sizes.normed.0, sizes.normed.1]
        let work = arena.tensor(
            part == .decoder ? "middle block, then bands" : "bands, then middle block",
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
        bands = BandScratch(
            stages: stages,
            schedule: schedule,
            carries: carries,
            windows: (next(bandSizes[0]), next(bandSizes[1])),
            normed: (next(bandSizes[2]), next(bandSizes[3]))
        )
        picture = next(sizes.picture)
    }
}

// MARK: Stages

extension AutoencoderConfig {
    /// The stages of a part that run in bands.
    func rowStages(
        _ part: AutoencoderPart,
        latentHeight: Int,
        latentWidth: Int
    ) -> [RowStage] {
        part == .decoder
            ? decoderStages(latentHeight, latentWidth) : encoderStages(latentHeight, latentWidth)
    }

    /// The stages after the first up block's residual blocks.
    private func decoderStages(_ latentHeight: Int, _ latentWidth: Int) -> [RowStage] {
        var list = RowStageList(height: latentHeight, width: latentWidth)
        for (index, block) in upBlocks.enumerated() {
            for place in 0...residualBlocks where index > 0 {
                let input = place == 0 ? block.inputChannels : block.outputChannels
                list.append(.residual, input, block.outputChannels)
            }
            if let channels = block.upsampledChannels {
                list.append(.upsampling, block.outputChannels, channels)
            } else {
                list.append(.output, block.outputChannels, Self.pictureChannels)
            }
        }
        return list.stages
    }

    /// The stages up to the latent's resolution.
    private func encoderStages(_ latentHeight: Int, _ latentWidth: Int) -> [RowStage] {
        var list = RowStageList(
            height: Self.scale * latentHeight,
            width: Self.scale * latentWidth
        )
        list.append(.input, Self.pictureChannels, channels[0])
        var input = channels[0]
        for output in channels.dropLast() {
            for _ in 0..<residualBlocks {
                list.append(.residual, input, output)
                input = output
            }
            list.append(.downsampling, output, output)
        }
        return list.stages
    }

    /// Rows in a band of what a part makes, when the picture's buffers have about `rows` rows.
    fileprivate func bandRows(_ part: AutoencoderPart, _ rows: Int) -> Int {
        guard part == .encoder else { return max(8, rows) }
        // At each resolution the encoder looks ahead by the rows below that its convolutions read.
        let ahead = (2 * residualBlocks + 1) * (Self.scale - 1) + 1
        return max(1, (rows - ahead) / Self.scale)
    }
}

/// Stages, each of which has the size that the one before makes.
private struct RowStageList {
    var stages: [RowStage] = []
    var height: Int
    var width: Int

    init(height: Int, width: Int) { (self.height, self.width) = (height, width) }

    mutating func append(_ kind: RowStage.Kind, _ input: Int, _ output: Int) {
        let stage = RowStage(
            kind: kind,
            inputChannels: input,
            outputChannels: output,
            height: height,
            width: width
        )
        stages.append(stage)
        (height, width) = (stage.outputHeight, stage.outputWidth)
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
                switch stage.kind {
                case .input: picture = max(picture, input)
                case .output:
                    picture = max(picture, rows.output.count * stage.width * stage.outputChannels)
                case .residual, .upsampling, .downsampling: break
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
