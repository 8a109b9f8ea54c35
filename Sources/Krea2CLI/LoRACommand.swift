import Krea2

/// What `krea2 lora` can be told.
struct LoRACommandSettings: Equatable, Sendable {
    var models: [String] = []
    var threads: Int?
    var isJSON = false
    var isLoRALenient = false
    /// Prompts of a trial where none are given: every model knows them.
    static let usualPrompts = [
        "a red boat in the centre by the sea", "a big green fish in the centre",
    ]

    var prompts: [String] = []
    var seeds: [UInt64] = [0]
    var scales: [Float] = [0, 0.5, 1, 1.5]
    var size: SizeChoice?
    var steps: Int?
    var memory: Int?
    var output: String?
    var overwrites = false

    static let table = OptionTable<LoRACommandSettings>(
        command: "lora",
        positional: Positional(name: "check|trial FILE", counts: 2...10_000, completion: .files),
        options: checkOptions + trialOptions
    )

    private static let checkOptions: [Option<LoRACommandSettings>] = [
        Option(
            "model",
            short: "m",
            value: "PATH|NAME",
            completion: .files,
            isRepeatable: true,
            help:
                "model, as in generate; check: default the sizes of the released ones; trial: may "
                + "be repeated, default the first Turbo and the first RAW that are found"
        ) { (settings, path) throws(ValueError) in settings.models.append(try .path(path)) },
        .threads(\.threads),
        .flag("json", help: "check: one JSON object a file instead of text", \.isJSON),
    ]

    private static let trialOptions: [Option<LoRACommandSettings>] = [
        Option(
            "prompt",
            short: "p",
            value: "TEXT",
            isRepeatable: true,
            help: "trial: what to draw; may be repeated, default "
                + usualPrompts.map { "'\($0)'" }.joined(separator: " and ")
        ) { $0.prompts.append($1) },
        Option("scales", value: "LIST", help: "trial: scales of the LoRA; default 0,0.5,1,1.5") {
            (settings, text) throws(ValueError) in
            settings.scales = try list(text) { number throws(ValueError) in
                try .decimal(number, in: LoRAChoice.scaleRange)
            }
        },
        Option("seeds", value: "LIST", help: "trial: seeds of the pictures; default 0") {
            (settings, text) throws(ValueError) in
            settings.seeds = try list(text) { number throws(ValueError) in
                try .whole(number, in: 0...UInt64(Int64.max))
            }
        },
        Option("size", value: "WxH", help: "trial: as in generate") {
            (settings, text) throws(ValueError) in settings.size = try SizeChoice(parsing: text)
        },
        Option("steps", value: "N", help: "trial: as in generate") {
            (settings, text) throws(ValueError) in
            settings.steps = try .whole(text, in: GenerationRequest.stepRange)
        },
        .memory(\.memory, help: "trial: as in generate"),
        .flag("lora-lenient", help: "trial: as in generate", \.isLoRALenient),
        .path(
            "output",
            short: "o",
            help: "trial: the sheet, default NAME-trial.png; the table is beside it, with .csv",
            \.output
        ),
        .flag("force", help: "trial: replace files that exist", \.overwrites),
    ]
}

/// `krea2 lora`: what LoRA files do.
enum LoRACommand {
    static let command = Command(
        LoRACommandSettings.table,
        summary: "what a LoRA file changes, and whether it can be used",
        synopsis: "check FILE... | trial FILE [options]",
        notes: """

            check tells who wrote a file, how it stores its changes, how many layers of the model \
            it reaches, what of it cannot be used and why, and how much it changes each block: the \
            Frobenius norm of all changes of weights at scale 1. Exit code 65 when one of the files \
            cannot be used or changes nothing.

            trial draws the same prompts and seeds with the LoRA at several scales, on Turbo and on \
            RAW, and puts them on one sheet, with a table beside it: the settings of each picture, \
            the seconds it took, and how much it differs from the one without the LoRA: the root \
            mean square of all bytes' differences.
            """,
        body: run
    )

    private static func run(
        _ scan: OptionTable<LoRACommandSettings>.Scan,
        _ console: Console
    ) throws(Failure) {
        var settings = LoRACommandSettings()
        try LoRACommandSettings.table.apply(scan.given, to: &settings)
        switch scan.positionals[0] {
        case "check": try check(Array(scan.positionals.dropFirst()), settings, console)
        case "trial":
            guard scan.positionals.count == 2 else {
                throw .usage("unexpected argument '\(scan.positionals[2])'", of: "lora")
            }
            let file = scan.positionals[1]
            try LoRATrial(file, settings, console).run(file)
        case let action: throw .usage("'\(action)' is not one of check, trial", of: "lora")
        }
    }

    private static func check(
        _ paths: [String],
        _ settings: LoRACommandSettings,
        _ console: Console
    ) throws(Failure) {
        guard settings.models.count <= 1 else {
            throw .usage("check takes one --model", of: "lora")
        }
        var model: String?
        if let name = settings.models.first {
            model = try ModelDiscovery(console).resolve(name).path
        }
        // A bad file does not hide what the others are; the first failure gives the exit code.
        var last: Failure?
        for path in paths {
            do {
                try check(path, model, settings, console)
            } catch {
                if let last { console.note(last.line) }
                last = Failure(last?.code ?? error.code, error.message)
            }
        }
        if let last { throw last }
    }

    private static func check(
        _ path: String,
        _ model: String?,
        _ settings: LoRACommandSettings,
        _ console: Console
    ) throws(Failure) {
        let check: LoRACheck
        do {
            check = try LoRACheck(
                path: path,
                model: model,
                threads: settings.threads ?? Engine.defaultThreads
            )
        } catch {
            throw Failure(error, of: "lora")
        }
        let report = LoRACheckReport(check, model: settings.models.first)
        try console.print(settings.isJSON ? report.json : report.text)
        guard check.isUsable else { throw Failure(.badData, "\(path): \(report.verdict)") }
    }
}
