import Compute
import Glibc
import Tensors
import Tokenization

/// The reference pictures of a run that stand in the sequence, and the prompts that show them;
/// nothing is encoded yet.
struct WiredRun {
    /// Sizes of a picture.
    struct Sizes {
        /// Tokens of its latent.
        let packing: LatentPacking
        /// Rows of the text encoder that belong to it, where it stands beside the sequence; 0 where
        /// it stands in it.
        let rowsBeside: Int
    }

    let wiring: ReferenceWiring
    let boost: Float
    /// Those of strengths other than 0.
    let pictures: [WiredReferences.Picture]
    let sizes: [Sizes]
    let encoder: PictureEncoder
    private let prompts: [PicturePrompt]
    /// What the tokens of each prompt are.
    let outlines: [PictureEncoder.Outline]

    /// Prepares pictures and prompts.
    ///
    /// - Parameters:
    ///   - wired: At least one picture has a strength other than 0.
    ///   - texts: The prompt, and the negative one where there is guidance.
    ///   - channels: Of latents.
    ///   - encoder: Sees the pictures.
    /// - Throws: `.request` for pictures whose sides are not whole tokens of the text encoder.
    init(
        _ wired: WiredReferences,
        _ texts: [String],
        channels: Int,
        _ encoder: PictureEncoder
    ) throws(GenerationError) {
        let pictures = wired.pictures.filter { $0.strength != 0 }
        var seen: [VisionPicture] = []
        for picture in pictures { seen.append(try VisionPicture(picture.seen)) }
        let prompts = texts.map {
            PicturePrompt(text: $0, pictures: seen, isLabelled: wired.wiring.isLabelled)
        }
        var outlines: [PictureEncoder.Outline] = []
        for prompt in prompts { outlines.append(try encoder.outline(prompt)) }
        let unit = GenerationRequest.sideMultiple
        sizes = pictures.indices.map { index in
            let (picture, rows) = (pictures[index], outlines[0].pictures[index])
            return Sizes(
                packing: LatentPacking(
                    channels: channels,
                    gridHeight: picture.height / unit,
                    gridWidth: picture.width / unit
                ),
                rowsBeside: picture.strength == 1 ? 0 : rows.count
            )
        }
        (wiring, boost, self.pictures) = (wired.wiring, wired.boost, pictures)
        (self.encoder, self.prompts, self.outlines) = (encoder, prompts, outlines)
    }

    /// Bytes that the text encoder takes, its results included.
    func byteCount(
        _ config: TransformerConfig,
        _ arithmetic: RunArithmetic
    ) throws(GenerationError) -> Int {
        let rows = outlines.reduce(0) { $0 + $1.kinds.count }
        let taps = 4 * rows * config.taps * config.text.width
        return try encoder.needs(prompts, arithmetic).byteCount + taps
    }

    /// Bytes that the pictures take during the run: bytes for the autoencoder, and numbers and bytes
    /// for the text encoder.
    var pictureByteCount: Int {
        pictures.reduce(0) { $0 + $1.rgb.count + 5 * $1.seen.rgb.count }
    }

    /// The taps of each prompt.
    func encode(
        progress: @escaping (Double) -> Void,
        isCancelled: @escaping @Sendable () -> Bool
    ) throws(GenerationError) -> [Tensor] {
        try encoder.encode(prompts, progress: progress, isCancelled: isCancelled).map(\.taps)
    }
}

// MARK: Rows

extension WiredRun {
    /// Rows of one of the prompts after text fusion, in another order: first those that stay in the
    /// sequence, then those of each picture beside it.
    private func order(ofPrompt index: Int) -> [Int] {
        let outline = outlines[index]
        let beside = pictures.indices.filter { pictures[$0].strength != 1 }
            .flatMap { Array(outline.pictures[$0]) }
        let moved = Set(beside)
        return outline.kinds.indices.filter { !moved.contains($0) } + beside
    }

    /// Brings rows after text fusion into the order that `branch` expects.
    ///
    /// - Parameters:
    ///   - text: `[rows, width]`.
    ///   - index: Of the prompt.
    func sort(_ text: Tensor, ofPrompt index: Int) {
        let order = order(ofPrompt: index)
        guard order != Array(order.indices) else { return }
        let copy = Tensor(zeros: text.shape)
        copy.copy(from: text)
        for (place, row) in order.enumerated() { text.row(place).copy(from: copy.row(row)) }
    }

    /// Text rows of a prompt that stay in the sequence.
    func rowsInSequence(ofPrompt index: Int) -> Int {
        outlines[index].kinds.count - sizes.reduce(0) { $0 + $1.rowsBeside }
    }

    /// The pictures as the transformer sees them.
    ///
    /// - Parameters:
    ///   - tokens: Packed latents.
    ///   - image: Tokens of the image.
    ///   - transformer: Has the angles.
    /// - Returns: One for each picture.
    func latents(
        _ tokens: [Tensor],
        beside image: LatentPacking,
        _ transformer: Transformer
    ) -> [LatentRows] {
        zip(tokens, sizes).enumerated().map { index, pair in
            let (tokens, size) = pair
            return LatentRows(
                tokens: tokens,
                rotary: transformer.rotaryTable(
                    wiring.positions(index, size.packing, beside: image)
                ),
                isStill: wiring.isStill,
                logBoost: logf(boost)
            )
        }
    }

    /// One prompt as the transformer sees it.
    ///
    /// - Parameters:
    ///   - index: Of the prompt.
    ///   - text: Its rows after text fusion, sorted.
    ///   - velocity: Receives the velocity.
    ///   - latents: Of all pictures.
    ///   - blocks: Blocks of the transformer.
    /// - Returns: The branch, without other groups.
    func branch(
        ofPrompt index: Int,
        _ text: Tensor,
        velocity: Tensor,
        _ latents: [LatentRows],
        blocks: Int
    ) -> TransformerBranch {
        var end = rowsInSequence(ofPrompt: index)
        var branch = TransformerBranch(text: text.rows(0..<end), velocity: velocity)
        for (picture, (size, latent)) in zip(pictures, zip(sizes, latents)) {
            guard size.rowsBeside > 0 else {
                branch.latents.append(latent)
                continue
            }
            let rows = end..<end + size.rowsBeside
            end = rows.upperBound
            branch.groups.append(
                BranchGroup(
                    rows: text.rows(rows),
                    latent: latent,
                    keyLogs: nil,
                    logMass: 0,
                    family: .references,
                    weights: [Float](repeating: picture.strength, count: blocks)
                )
            )
        }
        return branch
    }
}

// MARK: Stages

extension Pipeline {
    /// Pictures of the sequence to packed latents.
    ///
    /// The encoder's weights are in memory only here.
    func encodeLatents(_ wired: WiredRun, _ run: Run) throws(GenerationError) {
        let (encoder, operators) = try latentEncoder(run)
        let count = Double(wired.pictures.count)
        for (index, picture) in wired.pictures.enumerated() {
            let scratch = run.memory.wiredEncoders[index]
            try encoder.encode(
                picture.rgb,
                scratch,
                operators: operators,
                progress: { run.meter.advanceLatents(to: (Double(index) + $0) / count) }
            )
            run.dump?.add("reference.\(index).latents", scratch.latent)
            let packing = wired.sizes[index].packing
            run.memory.latents[index].write(packing.pack(scratch.latent.elements))
        }
    }

    /// Prompts with pictures to taps.
    func encode(_ wired: WiredRun, _ run: Run) throws(GenerationError) {
        var done = 0.0
        let taps = try wired.encode(
            progress: {
                run.meter.advanceText(by: $0 - done)
                done = $0
            },
            isCancelled: run.operators.isCancelled
        )
        for (target, taps) in zip(run.memory.taps, taps) { target.copy(from: taps) }
        dump(wired.outlines.map(\.ids), run)
    }
}
