import Krea2
import References

/// What `krea2 style` and `krea2 moodboard` can be told.
struct EncodingSettings: Equatable, Sendable {
    var model: String?
    var textEncoder: String?
    var tokenizer: String?
    var precision = Precision.automatic
    var memory: Int?
    var threads: Int?
    var treatment = Treatment.untreated
    var side = ReferenceChoice.usualSide
    var caption: String?
    var output: String?
    var overwrites = false
    var isCacheOff = false
    var progress = ProgressStyle.auto
    var isQuiet = false
    var isJSON = false

    /// Bytes of a description.
    private static let longestCaption = 4096

    static let styleTable = OptionTable<EncodingSettings>(
        command: "style",
        positional: Positional(
            name: "encode PICTURE",
            counts: 2...201,
            completion: .files
        ),
        options: styleOptions + commonOptions
    )

    static let moodboardTable = OptionTable<EncodingSettings>(
        command: "moodboard",
        positional: Positional(
            name: "create PICTURE|DIR",
            counts: 2...201,
            completion: .files
        ),
        options: commonOptions
    )

    private static let styleOptions: [Option<EncodingSettings>] = [
        Option(
            "prep",
            value: "HOW",
            completion: .words(Treatment.allCases.map(\.rawValue)),
            help: "what is done to the pictures: none, soft (blurred), palette (colours alone), "
                + "tiles (cut up and shuffled); default none"
        ) { (settings, word) throws(ValueError) in settings.treatment = try .choice(word) },
        Option(
            "side",
            value: "N",
            help: "192 to 768: the largest area in which the pictures are seen is N x N; default "
                + "\(ReferenceChoice.usualSide)"
        ) { (settings, text) throws(ValueError) in
            settings.side = try .whole(text, in: ReferenceSize.sides)
        },
        Option(
            "caption",
            value: "TEXT",
            help: "a description of the style, for caption= in generate"
        ) { (settings, text) throws(ValueError) in
            guard (1...longestCaption).contains(text.utf8.count) else {
                throw ValueError(reason: "\(text.utf8.count) bytes, at most \(longestCaption) fit")
            }
            settings.caption = text
        },
    ]

    private static let commonOptions: [Option<EncodingSettings>] = [
        .path(
            "model",
            short: "m",
            value: "PATH|NAME",
            help: "model whose text encoder is to see the pictures, as in generate",
            \.model
        ),
        .path("text-encoder", help: "as in generate", \.textEncoder),
        .path("tokenizer", help: "as in generate", \.tokenizer),
        Option(
            "precision",
            value: "f32|bf16|int8|auto",
            completion: .words(Precision.allCases.map(\.rawValue)),
            help: "as in generate"
        ) { (settings, word) throws(ValueError) in settings.precision = try .choice(word) },
        .memory(\.memory, help: "as in generate"),
        .threads(\.threads),
        .path(
            "output",
            short: "o",
            help: "where it goes; style: a file, or a folder for NAME.k2ref of each picture, "
                + "default NAME.k2ref in the current folder; moodboard: a file",
            \.output
        ),
        .flag("force", help: "replace files that exist", \.overwrites),
        .noCache(\.isCacheOff),
        .progress(\.progress, lines: "one line a picture"),
        .flag("quiet", help: "nothing on standard error but errors", \.isQuiet),
        .flag("json", help: "results as JSON lines instead of paths", \.isJSON),
    ]
}

extension EncodingSettings {
    /// Opens the model.
    ///
    /// - Parameters:
    ///   - console: Where the environment comes from.
    ///   - command: Whose help errors point to.
    /// - Returns: The model, ready to encode.
    /// - Throws: Exit codes of the engine's errors.
    func pipeline(_ console: Console, of command: String) throws(Failure) -> Pipeline {
        let cache = try CachePlace.cache(console, isOff: isCacheOff, of: command)
        let discovery = ModelDiscovery(console)
        let found = try discovery.resolve(model)
        return try Failure.mapping(of: command) { () throws(GenerationError) in
            let files = try ModelFiles.locate(
                found.path,
                textEncoder: textEncoder,
                tokenizer: tokenizer,
                searchFolders: discovery.searchFolders
            )
            return try Pipeline(
                files,
                options: PipelineOptions(
                    threads: threads ?? Engine.defaultThreads,
                    precision: precision,
                    memoryByteCount: memory,
                    cache: cache
                )
            )
        }
    }
}

extension Pipeline {
    /// Encodes pictures, shows how far it is, and stops where the user wants it.
    func encode(
        _ pictures: [ReferencePicture],
        _ reporter: Reporter
    ) throws(GenerationError) -> [ReferenceFile] {
        defer { reporter.endProgress() }
        if !pictures.isEmpty {
            reporter.message("encoding \(pictures.count.counted("picture"))")
        }
        reporter.restart()
        return try encode(
            pictures,
            messages: reporter.message,
            progress: reporter.progress,
            isCancelled: { Interruption.isRequested }
        )
    }
}

/// One line of `--json`.
struct EncodingResult: Encodable {
    let path: String
    /// Names the content of the picture or pictures.
    let content: String
    let pictures: Int
    /// Rows that go to the transformer.
    let tokens: Int
    /// Digest of the text encoder's files.
    let encoder: String

    /// The facts of a file that was written.
    init(
        _ path: String,
        _ source: ReferenceFile.Source,
        pictures: Int,
        _ rows: ConditioningRows,
        _ encoder: EncoderIdentity
    ) {
        (self.path, content, self.pictures) = (path, source.content, pictures)
        tokens = rows.kinds.count { $0 == .image }
        self.encoder = encoder.digest
    }
}
