import Krea2
/// How strongly the prompt is preferred over the negative prompt.
enum GuidanceChoice: Equatable, Sendable {
    /// `--cfg`: off at 0.
    case official(Float)
    /// `--cfg-scale`: off at 1. Twice the precision, so that 1.1 is the same as `--cfg 0.1`.
    case scale(Double)

    /// The value in the reference's convention.
    var official: Float {
        switch self {
        case .official(let value): value
        case .scale(let value): Float(value - 1)
        }
    }
}

/// Everything that `krea2 generate` can be told.
struct GenerateSettings: Equatable, Sendable {
    /// As given; `-` means standard input.
    var prompt: String?
    var negativePrompt: String?
    var model: String?
    var textEncoder: String?
    var autoencoder: String?
    var tokenizer: String?
    var variant: Variant?
    var size: SizeChoice?
    var steps: Int?
    var guidance: GuidanceChoice?
    var shift: Double?
    var seed: UInt64?
    var imageCount = 1
    var loras: [LoRAChoice] = []
    var isLoRALenient = false
    /// By name.
    var sliders: [String: Int] = [:]
    var sliderFiles: [String] = []
    var hasRandomSliders = false
    var references: [ReferenceChoice] = []
    var moodboards: [MoodboardChoice] = []
    var referenceMode = ConditioningGroup.Mode.attention
    /// nil to go by the manifests of LoRAs, like the boost.
    var wiring: WiringChoice?
    var referenceBoost: Float?
    var allowsOtherEncoder = false
    var isCacheOff = false
    /// As given, like the mask.
    var initialImage: String?
    var strength: Double?
    var mask: String?
    var output = "krea2-{seed}.png"
    var precision = Precision.automatic
    var memory: Int?
    var threads: Int?
    var isPlan = false
    var dump: String?
    var progress = ProgressStyle.auto
    var hasMetadata = true
    var isJSON = false
    var isVerbose = false
    var isQuiet = false
    var overwrites = false
}

extension GenerateSettings {
    /// The options of `krea2 generate`.
    static let table = OptionTable<GenerateSettings>(
        command: "generate",
        positional: Positional(name: "PROMPT", counts: 0...1),
        options: [configOption] + promptOptions + modelOptions + pictureOptions + loraOptions
            + referenceOptions + initialImageOptions + outputOptions + reportOptions
    )

    private static let configOption = Option<GenerateSettings>(
        "config",
        value: "FILE",
        completion: .files,
        isConfigurable: false,
        help: "JSON object with the long names of these options as keys; flags win over it"
    ) { _, path throws(ValueError) in
        // Read before anything is applied; only the path itself is checked here.
        _ = try String.path(path)
    }

    private static let promptOptions: [Option<GenerateSettings>] = [
        Option(
            "prompt",
            short: "p",
            value: "TEXT",
            help: "what to draw; - reads standard input and drops one line break at its end"
        ) { $0.prompt = $1 },
        Option(
            "negative-prompt",
            short: "n",
            value: "TEXT",
            help: "what to move away from; refused when guidance is off"
        ) { $0.negativePrompt = $1 },
    ]

    private static let modelOptions: [Option<GenerateSettings>] = [
        .path(
            "model",
            short: "m",
            value: "PATH|NAME",
            help: "diffusers directory, single safetensors file, or a name that krea2 models list "
                + "shows; default: the first of that list, the embedded mini-turbo unless "
                + "variables name another",
            \.model
        ),
        .path(
            "text-encoder",
            help: "text encoder of a single-file model; default: found beside it",
            \.textEncoder
        ),
        .path(
            "vae",
            help: "autoencoder of a single-file model; default: found beside it",
            \.autoencoder
        ),
        .path(
            "tokenizer",
            help: "tokenizer.json, or the folder with the tokenizer's files; default: found beside "
                + "the model",
            \.tokenizer
        ),
        Option(
            "variant",
            value: "turbo|raw",
            completion: .words(Variant.allCases.map(\.rawValue)),
            help: "overrides what the files say; it chooses steps, cfg and mu"
        ) { (settings, word) throws(ValueError) in settings.variant = try .choice(word) },
    ]

    private static let pictureOptions: [Option<GenerateSettings>] = [
        Option(
            "aspect-ratio",
            value: "A:B",
            completion: .words(AspectRatio.allCases.map(\.rawValue)),
            excludes: ["size", "width", "height"],
            help: "1:1, 4:3, 3:2, 16:9, 2.35:1, 4:5, 2:3 or 9:16: the documented size of the "
                + "checkpoint's resolution class; default 1:1"
        ) { (settings, word) throws(ValueError) in settings.size = .aspect(try .choice(word)) },
        Option(
            "size",
            value: "WxH",
            excludes: ["width", "height"],
            help: "size in pixels, sides 64 to 4096, rounded up to multiples of 16"
        ) { (settings, text) throws(ValueError) in settings.size = try SizeChoice(parsing: text) },
        Option("width", short: "W", value: "N", help: "width in pixels, as in --size") {
            (settings, text) throws(ValueError) in
            let width = try Int.whole(text, in: PictureSize.sides)
            settings.size = (settings.size ?? .sides(width: nil, height: nil)).with(width: width)
        },
        Option("height", short: "H", value: "N", help: "height in pixels, as in --size") {
            (settings, text) throws(ValueError) in
            let height = try Int.whole(text, in: PictureSize.sides)
            settings.size = (settings.size ?? .sides(width: nil, height: nil)).with(height: height)
        },
        Option("steps", value: "N", help: "1 to 1000; default: turbo 8, raw 52") {
            (settings, text) throws(ValueError) in
            settings.steps = try .whole(text, in: GenerationRequest.stepRange)
        },
        Option(
            "cfg",
            value: "G",
            excludes: ["cfg-scale"],
            help: "guidance in Krea's convention, 0 is off; default: turbo 0, raw 3.5"
        ) { (settings, text) throws(ValueError) in
            settings.guidance = .official(try .decimal(text, in: GenerationRequest.guidanceRange))
        },
        Option(
            "cfg-scale",
            value: "S",
            help: "guidance in the other convention, S = G + 1, 1 is off"
        ) { (settings, text) throws(ValueError) in
            settings.guidance = .scale(try .decimal(text, in: 1...101))
        },
        Option(
            "mu",
            value: "X",
            help: "timestep shift, -10 to 10; default: turbo 1.15, raw by resolution"
        ) { (settings, text) throws(ValueError) in
            settings.shift = try .decimal(text, in: -10...10)
        },
        Option(
            "seed",
            short: "s",
            value: "N",
            help: "0 to 9223372036854775807; picture i uses seed + i; default: random, and printed"
        ) { (settings, text) throws(ValueError) in
            settings.seed = try .whole(text, in: 0...UInt64(Int64.max))
        },
        Option("num-images", value: "N", help: "how many pictures, 1 to 100; default 1") {
            (settings, text) throws(ValueError) in
            settings.imageCount = try .whole(text, in: 1...100)
        },
    ]

    private static let outputOptions: [Option<GenerateSettings>] = [
        Option(
            "output",
            short: "o",
            value: "PATH",
            completion: .files,
            help: "where the picture goes; {seed}, {index} (from 0) and %03d are filled in; "
                + "- writes the PNG to standard output; default krea2-{seed}.png"
        ) { (settings, path) throws(ValueError) in
            _ = try OutputNames(path)
            settings.output = path
        },
        .flag("force", help: "replace files that exist", \.overwrites),
        Option("no-metadata", help: "leave the PNG text chunks out") { settings, _ in
            settings.hasMetadata = false
        },
        .path("dump", help: "write intermediate tensors to this safetensors file", \.dump),
    ]

    private static let reportOptions: [Option<GenerateSettings>] = [
        Option(
            "precision",
            value: "f32|bf16|int8|auto",
            completion: .words(Precision.allCases.map(\.rawValue)),
            help: "arithmetic of the linear layers; default auto, which follows the file"
        ) { (settings, word) throws(ValueError) in settings.precision = try .choice(word) },
        .memory(
            \.memory,
            help: "most memory to use, such as 8GiB; weights beyond it are read from disk in each "
                + "step; default: four fifths of what is free"
        ),
        .threads(\.threads),
        Option("plan", help: "print the predicted memory, disk reads and time, and stop") {
            settings,
            _ in settings.isPlan = true
        },
        .progress(\.progress, lines: "one line a step"),
        .flag("json", help: "results as JSON lines instead of paths", \.isJSON),
        Option(
            "verbose",
            short: "v",
            excludes: ["quiet"],
            help: "also tell about the model's files and the memory plan"
        ) { settings, _ in
            settings.isVerbose = true
            settings.isQuiet = false
        },
        Option("quiet", help: "nothing on standard error but errors") { settings, _ in
            settings.isQuiet = true
            settings.isVerbose = false
        },
    ]
}
