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
        .path(
            "output",
            short: "o",
            help: "the new safetensors file, or a folder, where it gets a name as in ComfyUI",
            \.output
        ),
        Option(
            "part",
            value: "PART",
            completion: .words(PartChoice.allCases.map(\.rawValue)),
            help: "transformer, text-encoder or both, of a whole model; default: what MODEL is, or "
                + "the transformer"
        ) { (settings, word) throws(ValueError) in settings.part = try .choice(word) },
        .flag("force", help: "replace files that exist", \.overwrites),
    ]

    private static let reportOptions: [Option<ConvertSettings>] = [
        .threads(\.threads),
        .progress(\.progress, lines: "a line for each tenth"),
        .flag("json", help: "results as JSON lines instead of paths", \.isJSON),
        .flag("quiet", help: "nothing on standard error but errors", \.isQuiet),
    ]
}
