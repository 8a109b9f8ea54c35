import Krea2

/// In which form `krea2 bench` writes its rows.
enum BenchFormat: String, CaseIterable, Sendable {
    case markdown = "md"
    case csv
    case json
    /// One object a line, as soon as it is known.
    case jsonLines = "jsonl"
}

/// Which model of random weights is written.
enum SyntheticChoice: String, CaseIterable, Sendable {
    /// The released shapes.
    case full
    /// A few megabytes.
    case tiny
}

/// Everything that `krea2 bench` can be told.
struct BenchSettings: Sendable {
    var repetitions = 5
    var precisions: [Precision] = []
    var threads = [Engine.defaultThreads]
    var sizes = [PictureSize(width: 1024, height: 1024)]
    var tokens = [64]
    var rows = [45, 1032, 4160]
    var matrices: [BenchmarkMatrix]?
    var weights: [BenchmarkWeights] = [.bfloat16]
    var loraRanks = [0]
    var references = [BenchmarkReferences(count: 0, rows: 0)]
    var steps: Int?
    var model: String?
    var textEncoder: String?
    var autoencoder: String?
    var tokenizer: String?
    var memory: Int?
    var synthetic: SyntheticChoice?
    var blocks = 2
    var layers = 4
    var temporary: String?
    var format = BenchFormat.markdown
    var isQuiet = false
}

extension BenchSettings {
    /// The options of `krea2 bench`.
    static let table = OptionTable<BenchSettings>(
        command: "bench",
        positional: Positional(
            name: "GROUP…|calibrate",
            counts: 0...BenchmarkGroup.allCases.count,
            completion: .words(BenchmarkGroup.allCases.map(\.rawValue) + ["calibrate"])
        ),
        options: runOptions + shapeOptions + modelOptions + syntheticOptions + reportOptions
    )

    /// Options that concern `calibrate`.
    static let calibrationOptions: Set = ["threads", "model", "output", "quiet"]

    private static let runOptions: [Option<BenchSettings>] = [
        Option("repetitions", short: "r", value: "N", help: "of each row, in turn; default 5") {
            (settings, text) throws(ValueError) in
            settings.repetitions = try .whole(text, in: 1...1000)
        },
        Option(
            "precision",
            value: "LIST",
            completion: .words(Precision.allCases.map(\.rawValue)),
            help: "f32, bf16, int8, auto; default: all of them for gemm and attention, auto, which "
                + "follows the file, for the rest"
        ) { (settings, text) throws(ValueError) in
            settings.precisions = try list(text) { word throws(ValueError) in try .choice(word) }
        },
        numbers(
            "threads",
            short: "t",
            in: 1...1024,
            help: "1 to 1024; default: the physical cores the process may use",
            \.threads
        ),
    ]

    private static let shapeOptions: [Option<BenchSettings>] = [
        Option(
            "size",
            value: "LIST",
            help: "sizes of pictures, WxH in multiples of 16; default 1024x1024"
        ) { (settings, text) throws(ValueError) in
            settings.sizes = try list(text, size)
        },
        numbers(
            "tokens",
            in: 1...512,
            help: "text tokens: for te all that it encodes, more than 34, else those that the "
                + "transformer sees; default 64",
            \.tokens
        ),
        numbers("rows", in: 1...16384, help: "rows of gemm; default 45,1032,4160", \.rows),
        Option(
            "matrices",
            value: "LIST",
            help: "inputs and outputs of gemm, such as 6144x16384; default: those of a block"
        ) { (settings, text) throws(ValueError) in
            settings.matrices = try list(text, matrix)
        },
        Option(
            "weights",
            value: "LIST",
            completion: .words(BenchmarkWeights.allCases.map(\.rawValue)),
            help: "how random weights are stored: f32, f16, bf16, fp8; default bf16"
        ) { (settings, text) throws(ValueError) in
            settings.weights = try list(text) { word throws(ValueError) in try .choice(word) }
        },
        numbers(
            "lora-rank",
            in: 0...1024,
            help: "rank of a random LoRA on all layers of block and dit; several cost as much as "
                + "one with the sum of their ranks; default 0, none",
            \.loraRanks
        ),
        Option(
            "references",
            value: "LIST",
            help: "style references in block and dit, COUNTxROWS, such as 4x144, or -4x144 for "
                + "negative ones; default 0, none"
        ) { (settings, text) throws(ValueError) in
            settings.references = try list(text, referenceRows)
        },
        Option("steps", value: "N", help: "steps of e2e; default: turbo 8, raw 52") {
            (settings, text) throws(ValueError) in
            settings.steps = try .whole(text, in: GenerationRequest.stepRange)
        },
    ]

    /// A list of whole numbers.
    private static func numbers(
        _ name: String,
        short: Character? = nil,
        in range: ClosedRange<Int>,
        help: String,
        _ place: any Option<BenchSettings>.Place<[Int]>
    ) -> Option<BenchSettings> {
        Option(name, short: short, value: "LIST", help: help) {
            (settings, text) throws(ValueError) in
            settings[keyPath: place] = try list(text) { number throws(ValueError) in
                try .whole(number, in: range)
            }
        }
    }

    private static let modelOptions: [Option<BenchSettings>] = [
        .path(
            "model",
            short: "m",
            value: "PATH|NAME",
            help:
                "as for generate; groups that need one take the first that krea2 models list shows",
            \.model
        ),
        .path("text-encoder", help: "as for generate", \.textEncoder),
        .path("vae", help: "as for generate", \.autoencoder),
        .path("tokenizer", help: "as for generate", \.tokenizer),
        .memory(
            \.memory,
            help: "most memory for dit and e2e, such as 8GiB; default: four fifths of what is free"
        ),
    ]

    private static let syntheticOptions: [Option<BenchSettings>] = [
        Option(
            "synthetic",
            value: "full|tiny",
            completion: .words(SyntheticChoice.allCases.map(\.rawValue)),
            excludes: ["model", "text-encoder", "vae", "tokenizer"],
            help:
                "random weights instead of a model: the released shapes, or a few megabytes; they "
                + "are written to disk and removed at the end"
        ) { (settings, word) throws(ValueError) in settings.synthetic = try .choice(word) },
        Option("blocks", value: "N", help: "blocks of the random transformer; default 2") {
            (settings, text) throws(ValueError) in settings.blocks = try .whole(text, in: 1...100)
        },
        Option("layers", value: "N", help: "layers of the random text encoder; default 4") {
            (settings, text) throws(ValueError) in settings.layers = try .whole(text, in: 1...100)
        },
        .path(
            "temporary",
            value: "DIR",
            help: "where random weights go; default: TMPDIR, or /var/tmp",
            \.temporary
        ),
    ]

    private static let reportOptions: [Option<BenchSettings>] = [
        Option(
            "output",
            short: "o",
            value: "md|csv|json|jsonl",
            completion: .words(BenchFormat.allCases.map(\.rawValue)),
            help: "form of the rows on standard output; default md"
        ) { (settings, word) throws(ValueError) in settings.format = try .choice(word) },
        .flag("quiet", help: "nothing on standard error but errors", \.isQuiet),
    ]
}

// MARK: Values

extension BenchSettings {
    /// Reads `WIDTHxHEIGHT` in multiples of 16.
    private static func size(_ text: String) throws(ValueError) -> PictureSize {
        let (width, height) = try pair(text, "WIDTHxHEIGHT, such as 1024x768", PictureSize.sides)
        let size = PictureSize(width: width, height: height)
        guard size == size.rounded else {
            throw ValueError(reason: "'\(text)' has sides that are no multiples of 16")
        }
        return size
    }

    /// Reads `COUNTxROWS`, or 0.
    private static func referenceRows(_ text: String) throws(ValueError) -> BenchmarkReferences {
        guard text != "0" else { return BenchmarkReferences(count: 0, rows: 0) }
        let isNegative = text.hasPrefix("-")
        let size = String(text.dropFirst(isNegative ? 1 : 0))
        let (count, rows) = try pair(size, "0 or COUNTxROWS, such as 4x144", 1...1024)
        guard count * rows <= 16384 else {
            throw ValueError(reason: "'\(text)' has more than 16384 rows")
        }
        return BenchmarkReferences(count: count, rows: rows, isNegative: isNegative)
    }

    /// Reads `INPUTSxOUTPUTS`.
    private static func matrix(_ text: String) throws(ValueError) -> BenchmarkMatrix {
        let (inputs, outputs) = try pair(text, "INPUTSxOUTPUTS, such as 6144x16384", 1...65536)
        guard inputs * outputs <= 1 << 28 else {
            throw ValueError(reason: "'\(text)' has more than 268435456 elements")
        }
        let released = BenchmarkMatrix.released.first {
            $0.inputs == inputs && $0.outputs == outputs
        }
        return released ?? BenchmarkMatrix("matrix", inputs: inputs, outputs: outputs)
    }

    private static func pair(
        _ text: String,
        _ form: String,
        _ range: ClosedRange<Int>
    ) throws(ValueError) -> (Int, Int) {
        let parts = text.lowercased().split(separator: "x", omittingEmptySubsequences: false)
        guard parts.count == 2 else { throw ValueError(reason: "'\(text)' is not \(form)") }
        return (try .whole(String(parts[0]), in: range), try .whole(String(parts[1]), in: range))
    }
}
