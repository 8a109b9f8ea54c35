import Krea2

/// What `krea2 inspect` can be told.
struct InspectSettings: Equatable, Sendable {
    var isJSON = false

    static let table = OptionTable<InspectSettings>(
        command: "inspect",
        positional: Positional(name: "FILE", counts: 1...10_000, completion: .files),
        options: [
            .flag("json", help: "one JSON object a file instead of text", \.isJSON)
        ]
    )
}

/// `krea2 inspect`: what model files and generated pictures are, from their headers.
enum Inspect {
    static let command = Command(
        InspectSettings.table,
        summary: "what a model, a LoRA, a reference or a generated picture is",
        synopsis: "[options] FILE...",
        notes: """

            Weights are not read, but for the notes that say how they are quantised. Of a picture it prints the size and the text in it: the settings \
            that made it. Of weights it prints what they are, their sizes, element types, forms of \
            quantisation and metadata. FILE is a PNG, a safetensors file, an index of shards, or a folder.
            """,
        body: run
    )

    private static func run(
        _ scan: OptionTable<InspectSettings>.Scan,
        _ console: Console
    ) throws(Failure) {
        var settings = InspectSettings()
        try InspectSettings.table.apply(scan.given, to: &settings)
        // A bad file does not hide what the others are; the first failure gives the exit code.
        var last: Failure?
        for path in scan.positionals {
            do {
                for report in try reports(path) {
                    try console.print(settings.isJSON ? report.json : report.text)
                }
            } catch {
                if let last { console.note(last.line) }
                last = Failure(last?.code ?? error.code, error.message)
            }
        }
        if let last { throw last }
    }

    /// One thing's facts, ready to print.
    struct Report {
        var text: String
        var json: String
    }

    private static func reports(_ path: String) throws(Failure) -> [Report] {
        if let picture = try PictureReport(path: path) {
            return [Report(text: picture.text, json: picture.json)]
        }
        let parts = partFolders(of: path)
        var reports: [Report] = []
        for part in parts.isEmpty ? [path] : parts {
            let model: ModelInspection
            do {
                model = try ModelInspection(path: part)
            } catch {
                throw Failure(error)
            }
            let report = ModelReport(model)
            reports.append(Report(text: report.text, json: report.json))
        }
        return reports
    }

    /// The folders with weights in a diffusers directory; empty for anything else.
    private static func partFolders(of path: String) -> [String] {
        guard FileKind(of: path) == .folder else { return [] }
        return ["transformer", "text_encoder", "vae"].map { "\(path)/\($0)" }
            .filter { FileKind(of: $0) == .folder }
    }
}

/// The facts of one set of weights, in words.
struct ModelReport {
    private let model: ModelInspection

    init(_ model: ModelInspection) {
        self.model = model
    }

    /// Several lines for people.
    var text: String {
        let types = model.elementTypes.map {
            "\($0.name) \($0.tensorCount) (\(byteText($0.byteCount)))"
        }
        let sizes = model.sizes.map { "\($0.name) \($0.value)" }
        var lines = ["\(model.path): \(kindText)"]
        if model.files.count > 1 { lines.append("  files     \(model.files.count)") }
        lines.append(
            "  tensors   \(model.tensorCount), \(model.parameterCount) elements, "
                + byteText(model.byteCount)
        )
        lines.append("  types     \(types.joined(separator: ", "))")
        for form in model.quantized {
            lines.append(
                "  quantised \(form.name): \(form.tensorCount) (\(byteText(form.byteCount)))"
            )
        }
        for row in model.lora?.rows ?? [] {
            lines.append("  \(row.name.padded(to: 9)) \(row.value)")
        }
        if !sizes.isEmpty { lines.append("  sizes     \(sizes.joined(separator: ", "))") }
        if !model.prefix.isEmpty { lines.append("  prefix    \(model.prefix)") }
        // The notes on quantisation are shown above, in other words.
        for key in model.metadata.keys.sorted() where key != "_quantization_metadata" {
            lines.append("  metadata  \(key) = \(model.metadata[key] ?? "")")
        }
        return lines.map(\.escapingControls).joined(separator: "\n")
    }

    /// One line for programs.
    var json: String {
        let facts = Facts(
            file: model.path,
            kind: model.kind.rawValue,
            prefix: model.prefix,
            files: model.files,
            tensorCount: model.tensorCount,
            parameterCount: model.parameterCount,
            byteCount: model.byteCount,
            elementTypes: model.elementTypes.map {
                .init(name: $0.name, tensorCount: $0.tensorCount, byteCount: $0.byteCount)
            },
            quantized: model.quantized.map {
                .init(name: $0.name, tensorCount: $0.tensorCount, byteCount: $0.byteCount)
            },
            sizes: Dictionary(
                model.sizes.map { ($0.name, $0.value) },
                uniquingKeysWith: { first, _ in first }
            ),
            metadata: model.metadata,
            lora: model.lora.map {
                .init(
                    dialects: $0.dialects,
                    methods: $0.methods,
                    ranks: $0.ranks,
                    modules: $0.moduleCount,
                    otherModel: $0.otherModel
                )
            }
        )
        return JSONText.line(facts)
    }

    private var kindText: String {
        switch model.kind {
        case .officialTransformer: "Krea 2 transformer, official names"
        case .diffusersTransformer: "Krea 2 transformer, diffusers names"
        case .textEncoder: "Qwen3-VL text encoder"
        case .plainLanguageModel: "Qwen3 language model without vision, not Krea 2's text encoder"
        case .diffusersAutoencoder: "Qwen-Image autoencoder, diffusers names"
        case .wanAutoencoder: "Qwen-Image autoencoder, Wan names"
        case .lora: (model.lora?.title ?? "LoRA") + "; krea2 lora check tells more"
        case .dump: "intermediate tensors of krea2 generate --dump"
        case .reference: "style reference, for generate --style-reference"
        case .moodboard: "moodboard, for generate --moodboard"
        case .encodedPrompt: "encoded prompt, from the cache"
        case .unknown: "tensors of no known model"
        }
    }

    private struct Facts: Encodable {
        struct LoRA: Encodable {
            let dialects: [String]
            let methods: [String: Int]
            let ranks: [Int]
            let modules: Int
            let otherModel: String?
        }

        struct TypeCount: Encodable {
            let name: String
            let tensorCount: Int
            let byteCount: Int
        }

        let file: String
        let kind: String
        let prefix: String
        let files: [String]
        let tensorCount: Int
        let parameterCount: Int
        let byteCount: Int
        let elementTypes: [TypeCount]
        let quantized: [TypeCount]
        let sizes: [String: Int]
        let metadata: [String: String]
        let lora: LoRA?
    }
}
