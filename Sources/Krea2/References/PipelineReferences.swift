import Compute
import Tensors
import Tokenization

/// A picture in the size in which the text encoder is to see it.
public struct ReferencePicture: Sendable, Equatable {
    /// Names the picture that it was made of, and how.
    public let source: ReferenceFile.Source
    /// Pixels in a row, a multiple of 32.
    public let width: Int
    /// Rows, a multiple of 32.
    public let height: Int
    /// `[height, width, 3]`, sRGB.
    public let rgb: [UInt8]

    /// Takes pixels.
    ///
    /// - Parameters:
    ///   - source: Names the picture that it was made of, and how.
    ///   - width: Pixels in a row.
    ///   - height: Rows.
    ///   - rgb: `[height, width, 3]`, sRGB.
    public init(source: ReferenceFile.Source, width: Int, height: Int, rgb: [UInt8]) {
        (self.source, self.width, self.height, self.rgb) = (source, width, height, rgb)
    }
}

extension Pipeline {
    /// The text encoder, as stored references name it.
    public var encoderIdentity: EncoderIdentity {
        let (config, taps) = (encoder.config, encoder.taps)
        let layers = taps.map(String.init).joined(separator: " ")
        return EncoderIdentity(
            family: EncoderIdentity.family(layers: config.layers, width: config.width),
            digest: summary.parts.first { $0.name == "text encoder" }?.digest ?? "unknown",
            template: EncoderIdentity.template(
                [PromptTemplate.prefix, PromptTemplate.suffix],
                taps: "\(layers) \(TapConvention.beforeDeepstack.rawValue)"
            ),
            taps: taps.count,
            width: config.width
        )
    }

    /// What encoded rows depend on besides the files of the text encoder.
    private var encodingArithmetic: String {
        "\(arithmetic.textEncoderPrecision.rawValue) \(Engine.kernelLevel)"
    }

    /// The cache, for this arithmetic; nil where there is none.
    var cache: EncodingCache? {
        var cache = options.cache
        cache?.arithmetic = encodingArithmetic
        return cache
    }

    /// Pictures that are encoded, and then kept, together.
    private static let picturesAtOnce = 8

    /// Encodes pictures, each alone, unless they are in the cache.
    ///
    /// - Parameters:
    ///   - pictures: In the size in which the text encoder is to see them.
    ///   - messages: Receives remarks for the user, such as that the cache cannot be written.
    ///   - progress: Told how far it is with those that are not in the cache.
    ///   - isCancelled: Asked many times a second, from several threads.
    /// - Returns: One for each picture; their bits do not tell which were in the cache.
    /// - Throws: `.request` for pictures whose sides are not multiples of 32, `.model` for text
    ///   encoders that see nothing, `.notFinite`, `.cancelled`.
    public func encode(
        _ pictures: [ReferencePicture],
        messages: (String) -> Void = { _ in },
        progress: @escaping (GenerationProgress) -> Void = { _ in },
        isCancelled: @escaping @Sendable () -> Bool = { false }
    ) throws(GenerationError) -> [ReferenceFile] {
        let (kept, missing) = cached(pictures)
        var files = kept
        let encoder = missing.isEmpty ? nil : try pictureEncoder()
        let (count, cache) = (missing.count, cache)
        var first = 0.0
        for batch in batches(missing) {
            let share = Double(batch.count)
            let new = try encoder?.references(
                batch,
                encoderIdentity,
                progress: { [first] in progress(.references(first + $0 * share, of: count)) },
                isCancelled: isCancelled
            )
            first += share
            for file in new ?? [] {
                files[file.source] = file
                do throws(GenerationError) {
                    try cache?.keep(file)
                } catch {
                    messages("the encoded picture is not kept for the next run: \(error)")
                }
            }
        }
        return pictures.compactMap { files[$0.source] }
    }

    /// Those in the cache, and the others, each once.
    private func cached(
        _ pictures: [ReferencePicture]
    ) -> (files: [ReferenceFile.Source: ReferenceFile], missing: [ReferencePicture]) {
        let (identity, cache) = (encoderIdentity, cache)
        var files: [ReferenceFile.Source: ReferenceFile] = [:]
        var missing: [ReferencePicture] = []
        for picture in pictures where files[picture.source] == nil {
            if let file = cache?.reference(picture.source, by: identity) {
                files[picture.source] = file
            } else if !missing.contains(where: { $0.source == picture.source }) {
                missing.append(picture)
            }
        }
        return (files, missing)
    }

    private func batches(_ pictures: [ReferencePicture]) -> [[ReferencePicture]] {
        stride(from: 0, to: pictures.count, by: Self.picturesAtOnce).map {
            Array(pictures[$0..<min($0 + Self.picturesAtOnce, pictures.count)])
        }
    }

    /// What encoding pictures takes before a run.
    ///
    /// - Parameter pictures: As for `encode`.
    /// - Returns: The stage, and bytes of memory at most; nil where there is nothing to encode.
    /// - Throws: As `encode` before it computes.
    func encodingPlan(
        _ pictures: [ReferencePicture]
    ) throws(GenerationError) -> (stage: GenerationPlan.Stage, byteCount: Int)? {
        let missing = cached(pictures).missing
        guard !missing.isEmpty else { return nil }
        let encoder = try pictureEncoder()
        var (work, read, most) = (ComputeWork(), 0, 0)
        for batch in batches(missing) {
            let needs = try encoder.needs(try batch.map(PicturePrompt.init), arithmetic)
            (work, read) = (work + needs.work, read + needs.readBytes)
            most = max(most, needs.byteCount)
        }
        let stage = GenerationPlan.Stage(
            name: "pictures",
            repetitions: 1,
            work: work,
            weightBytes: read,
            firstReadBytes: read,
            repeatedReadBytes: 0
        )
        return (stage, most)
    }

    /// Encodes a text alone, to go beside a prompt, unless it is in the cache.
    ///
    /// - Parameters:
    ///   - text: As a prompt; what is too long is cut.
    ///   - messages: Receives remarks for the user.
    ///   - isCancelled: Asked many times a second, from several threads.
    /// - Returns: Its rows and those of the template's suffix.
    /// - Throws: `.notFinite`, `.cancelled`, or `.model` when files change meanwhile.
    public func encode(
        text: String,
        messages: (String) -> Void = { _ in },
        isCancelled: @escaping @Sendable () -> Bool = { false }
    ) throws(GenerationError) -> ConditioningRows {
        try encode([template.encode(text).ids], messages, isCancelled)[0]
    }

    /// Encodes texts, each alone, but those that are not in the cache in one pass over the weights.
    ///
    /// - Parameters:
    ///   - texts: As prompts; what is too long is cut.
    ///   - messages: Receives remarks for the user.
    ///   - isCancelled: Asked many times a second, from several threads.
    /// - Returns: For each text its rows and those of the template's suffix, the same bits as alone.
    /// - Throws: `.notFinite`, `.cancelled`, or `.model` when files change meanwhile.
    public func encode(
        texts: [String],
        messages: (String) -> Void = { _ in },
        isCancelled: @escaping @Sendable () -> Bool = { false }
    ) throws(GenerationError) -> [String: ConditioningRows] {
        let texts = Set(texts).sorted()
        let rows = try encode(texts.map { template.encode($0).ids }, messages, isCancelled)
        return Dictionary(uniqueKeysWithValues: zip(texts, rows))
    }

    /// Zeros in place of the rows of texts, to plan with.
    ///
    /// - Parameter texts: As prompts.
    /// - Returns: For each text as many rows as its encoding has.
    /// - Throws: Nothing unless the text encoder's sizes are impossible.
    public func placeholder(
        texts: [String]
    ) throws(GenerationError) -> [String: ConditioningRows] {
        var rows: [String: ConditioningRows] = [:]
        for text in texts {
            let ids = template.encode(text).ids
            rows[text] = try self.rows(of: ids, blankTaps(of: ids))
        }
        return rows
    }

    private func encode(
        _ texts: [[Int32]],
        _ messages: (String) -> Void,
        _ isCancelled: @escaping @Sendable () -> Bool
    ) throws(GenerationError) -> [ConditioningRows] {
        var taps = texts.map(keptTaps)
        let missing = taps.indices.filter { taps[$0] == nil }
        if !missing.isEmpty {
            let new = missing.map { blankTaps(of: texts[$0]) }
            try encode(missing.map { texts[$0] }, isCancelled, into: new)
            for (index, tensor) in zip(missing, new) {
                keep(tensor, of: texts[index], messages)
                taps[index] = tensor
            }
        }
        var all: [ConditioningRows] = []
        for case (let ids, let taps?) in zip(texts, taps) { all.append(try rows(of: ids, taps)) }
        return all
    }

    private func blankTaps(of ids: [Int32]) -> Tensor {
        let tokens = ids.count - PromptTemplate.sliceStart
        return Tensor(zeros: [tokens, encoder.taps.count, encoder.config.width])
    }

    private func rows(
        of ids: [Int32],
        _ taps: Tensor
    ) throws(GenerationError) -> ConditioningRows {
        let text = taps.rows - PromptTemplate.suffixTokenCount
        return try ConditioningRows(
            key: "\(EncodingCache.content(ids)) \(encoderIdentity.key)",
            taps: taps,
            kinds: (0..<taps.rows).map { $0 < text ? .text : .suffix }
        )
    }

    private func encode(
        _ texts: [[Int32]],
        _ isCancelled: @escaping @Sendable () -> Bool,
        into taps: [Tensor]
    ) throws(GenerationError) {
        try encoder.checkVocabulary(texts.flatMap(\.self))
        let counts = texts.map(\.count)
        let operators = Operators(
            kernels: kernels,
            threads: options.threads,
            policy: arithmetic.textEncoder,
            packedBytes: Operators.packedByteCount(
                keys: counts.max() ?? 0,
                headSize: encoder.config.headSize
            ),
            isCancelled: isCancelled
        )
        func scratch(_ arena: inout Arena) -> TextEncoderScratch {
            let activations = arithmetic.activations(arithmetic.textEncoder)
            let tokens = counts.reduce(0, +)
            return TextEncoderScratch(encoder.config, tokens: tokens, activations, &arena)
        }
        var measuring = Arena.measuring()
        _ = scratch(&measuring)
        var arena = Arena(Storage(byteCount: measuring.byteCount))
        try encoder.forward(
            texts.map { TokenSequence($0) },
            supply: MatrixSupply(encoder.order(arithmetic.textEncoder), operators: operators),
            scratch: scratch(&arena),
            operators: operators,
            watch: encoder.watch {},
            into: taps
        )
    }

    /// The taps of a text from the cache; nil where they are not there.
    ///
    /// - Parameter ids: Token ids of template and text.
    /// - Returns: `[tokens, taps, width]`, float32.
    func keptTaps(of ids: [Int32]) -> Tensor? {
        let tokens = ids.count - PromptTemplate.sliceStart
        let taps = cache?.taps(of: ids, by: encoderIdentity)
        return taps?.shape == [tokens, encoder.taps.count, encoder.config.width] ? taps : nil
    }

    /// Keeps the taps of a text in the cache, if there is one.
    func keep(_ taps: Tensor, of ids: [Int32], _ messages: (String) -> Void) {
        do throws(GenerationError) {
            try cache?.keep(taps, of: ids, by: encoderIdentity)
        } catch {
            messages("the encoded prompt is not kept for the next run: \(error)")
        }
    }

    /// Zeros in place of the rows of pictures, to plan with.
    ///
    /// - Parameter pictures: One for a reference, several for a moodboard.
    /// - Returns: As many rows as their encoding has at most.
    /// - Throws: `.model` for text encoders that see nothing.
    public func placeholder(
        _ pictures: [ReferencePicture]
    ) throws(GenerationError) -> ConditioningRows {
        let config: VisionConfig
        do {
            config = try VisionFiles(encoderFiles).config
        } catch {
            throw .model(error)
        }
        let unit = config.patch * config.merge
        let tokens = pictures.reduce(0) { $0 + $1.width / unit * ($1.height / unit) }
        let count = pictures.count == 1 ? tokens : min(tokens, Prototypes.most)
        let suffix = PromptTemplate.suffixTokenCount
        var kinds: [ConditioningRows.Kind] = [.visionStart]
        kinds += (0..<count).map { _ in .image }
        kinds += [.visionEnd]
        kinds += (0..<suffix).map { _ in .suffix }
        return try ConditioningRows(
            key: pictures.map { $0.source.key(encoderIdentity) }.joined(separator: " "),
            taps: Tensor(zeros: [kinds.count, encoder.taps.count, encoder.config.width]),
            kinds: kinds
        )
    }

    /// Makes a moodboard.
    ///
    /// - Parameter pictures: Encoded at the same side; their order does not matter.
    /// - Returns: The moodboard.
    /// - Throws: `.request` when there are too many or too few, or they do not fit together.
    public func moodboard(_ pictures: [ReferenceFile]) throws(GenerationError) -> MoodboardFile {
        let projector = transformer.textFusion.projector.elements.elements
        return try MoodboardFile(pictures, projector: projector, threads: options.threads)
    }
}

extension PicturePrompt {
    /// A reference alone.
    fileprivate init(_ picture: ReferencePicture) throws(GenerationError) {
        self.init(
            pictures: [
                try VisionPicture(width: picture.width, height: picture.height, rgb: picture.rgb)
            ]
        )
    }
}

extension GenerationProgress {
    /// How far pictures are encoded.
    fileprivate static func references(_ done: Double, of count: Int) -> GenerationProgress {
        let share = done / Double(count)
        return GenerationProgress(
            stage: .references,
            fraction: share,
            step: Int(done),
            steps: count,
            image: 0,
            imageCount: 1,
            overall: share
        )
    }
}

extension PictureEncoder {
    /// Encodes pictures, each alone.
    fileprivate func references(
        _ pictures: [ReferencePicture],
        _ identity: EncoderIdentity,
        progress: @escaping (Double) -> Void,
        isCancelled: @escaping @Sendable () -> Bool
    ) throws(GenerationError) -> [ReferenceFile] {
        let results = try encode(
            try pictures.map(PicturePrompt.init),
            storage: .bfloat16,
            progress: progress,
            isCancelled: isCancelled
        )
        var files: [ReferenceFile] = []
        for (picture, result) in zip(pictures, results) {
            files.append(
                try ReferenceFile(
                    taps: result.taps,
                    kinds: result.kinds,
                    gridRows: result.grids[0].tokenRows,
                    gridColumns: result.grids[0].tokenColumns,
                    source: picture.source,
                    encoder: identity
                )
            )
        }
        return files
    }
}

extension VisionPicture {
    /// Takes the pixels of a reference.
    init(_ picture: ReferencePicture) throws(GenerationError) {
        try self.init(width: picture.width, height: picture.height, rgb: picture.rgb)
    }
}
