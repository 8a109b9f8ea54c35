import Krea2

/// Which parts of a model are converted.
enum PartChoice: String, CaseIterable, Sendable {
    case transformer
    case textEncoder = "text-encoder"
    case both

    /// The parts; nil stands for what the model is.
    var parts: [ConversionPart] {
        switch self {
        case .transformer: [.transformer]
        case .textEncoder: [.textEncoder]
        case .both: [.transformer, .textEncoder]
        }
    }
}

/// Everything that `krea2 convert` can be told.
struct ConvertSettings: Equatable, Sendable {
    var format: ConversionFormat?
    var output: String?
    var part: PartChoice?
    var overwrites = false
    var threads: Int?
    var progress = ProgressStyle.auto
    var isJSON = false
    var isQuiet = false
}

extension ConvertSettings {
    /// The options of `krea2 convert`.
    static let table = OptionTable<ConvertSettings>(
        command: "convert",
        positional: Positional(name: "MODEL", counts: 1...1, completion: .files),
        options: fileOptions + reportOptions
    )

    private static let fileOptions: [Option<ConvertSettings>] = [
        Option(
            "to",
            value: "FORM",
            completion: .words(ConversionFormat.allCases.map(\.rawValue)),
            help: "fp8_scaled, int8_convrot, bf16, f16 or f32"
        ) { (settings, word) throws(ValueError) in settings.format = try .choice(word) },
        Option(
            "output",
            short: "o",
            value: "PATH",
            completion: .files,
            help: "the new safetensors file, or a folder, where it gets a name as in ComfyUI"
        ) { (settings, path) throws(ValueError) in settings.output = try .path(path) },
        Option(
            "part",
            value: "PART",
            completion: .words(PartChoice.allCases.map(\.rawValue)),
            help: "transformer, text-encoder or both, of a whole model; default: what MODEL is, or "
                + "the transformer"
        ) { (settings, word) throws(ValueError) in settings.part = try .choice(word) },
        Option("force", help: "replace files that exist") { settings, _ in
            settings.overwrites = true
        },
    ]

    private static let reportOptions: [Option<ConvertSettings>] = [
        Option(
            "threads",
            short: "t",
            value: "N",
            help: "1 to 1024; default: the physical cores the process may use"
        ) { (settings, text) throws(ValueError) in settings.threads = try .whole(text, in: 1...1024)
        },
        Option(
            "progress",
            value: "STYLE",
            completion: .words(ProgressStyle.allCases.map(\.rawValue)),
            help: "auto, plain, json or none, on standard error; auto is a bar on a terminal and "
                + "a line for each tenth otherwise"
        ) { (settings, word) throws(ValueError) in settings.progress = try .choice(word) },
        Option("json", help: "results as JSON lines instead of paths") { settings, _ in
            settings.isJSON = true
        },
        Option("quiet", help: "nothing on standard error but errors") { settings, _ in
            settings.isQuiet = true
        },
    ]
}
