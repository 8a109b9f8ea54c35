import Krea2

/// What `krea2 models` can be told.
struct ModelsSettings: Equatable, Sendable {
    var isJSON = false

    static let table = OptionTable<ModelsSettings>(
        command: "models",
        positional: Positional(
            name: "list|path|ensure",
            counts: 1...2,
            completion: .words(["list", "path", "ensure"])
        ),
        options: [
            .flag("json", help: "JSON instead of text", \.isJSON)
        ]
    )
}

/// `krea2 models`: what is found where.
enum Models {
    static let command = Command(
        ModelsSettings.table,
        summary: "what models are found where",
        synopsis: "list | path [NAME] | ensure [NAME]",
        notes: """

            list shows every model found: name, place and path. path prints the path of one. ensure \
            checks that all parts of one are there and names the first that is missing. NAME is a \
            path or a name from the list; without it the one that generate would take.

            Looked at, in this order: KREA2_MODEL, OSS_TURBO and OSS_RAW, the embedded mini-turbo and \
            mini-raw (weights/mini in a folder above the executable, or in the current one), the \
            Hugging Face cache (HF_HUB_CACHE, HF_HOME, ~/.cache/huggingface/hub), and the folders \
            of KREA2_MODELS with diffusion_models, text_encoders and vae in them. The network is \
            never used.
            """,
        body: run
    )

    private static func run(
        _ scan: OptionTable<ModelsSettings>.Scan,
        _ console: Console
    ) throws(Failure) {
        var settings = ModelsSettings()
        try ModelsSettings.table.apply(scan.given, to: &settings)
        let discovery = ModelDiscovery(console)
        let name = scan.positionals.count > 1 ? scan.positionals[1] : nil
        switch scan.positionals[0] {
        case "list":
            if let name {
                throw .usage("unexpected argument '\(name)'", of: "models list")
            }
            try list(discovery, settings, console)
        case "path":
            let found = try discovery.resolve(name)
            try console.print(settings.isJSON ? JSONText.pretty(Row(found)) : found.path)
        case "ensure":
            try ensure(try discovery.resolve(name), discovery, settings, console)
        case let action:
            throw .usage("'\(action)' is not one of list, path, ensure", of: "models")
        }
    }

    private static func list(
        _ discovery: ModelDiscovery,
        _ settings: ModelsSettings,
        _ console: Console
    ) throws(Failure) {
        let found = discovery.all()
        if settings.isJSON {
            try console.print(JSONText.pretty(found.map(Row.init)))
            return
        }
        if found.isEmpty {
            console.note("krea2: no model found in \(discovery.places)")
        }
        let width = found.map(\.name.count).max() ?? 0
        for model in found {
            let name = model.name + String(repeating: " ", count: width - model.name.count)
            try console.print("\(name)  \(model.path)  (\(model.origin.rawValue))")
        }
    }

    private static func ensure(
        _ found: ModelDiscovery.Found,
        _ discovery: ModelDiscovery,
        _ settings: ModelsSettings,
        _ console: Console
    ) throws(Failure) {
        let files: ModelFiles
        do {
            files = try ModelFiles.locate(found.path, searchFolders: discovery.searchFolders)
        } catch {
            throw Failure(error)
        }
        let parts = [
            ("transformer", files.transformer),
            ("text encoder", files.textEncoder),
            ("tokenizer", files.tokenizer),
            ("autoencoder", files.autoencoder),
        ]
        for (name, path) in parts where FileKind(of: path) == nil {
            throw Failure(.noInput, "\(path): no such file or folder; it should be the \(name)")
        }
        if settings.isJSON {
            try console.print(JSONText.pretty(Dictionary(uniqueKeysWithValues: parts)))
            return
        }
        for (name, path) in parts {
            try console.print("\(name): \(path)")
        }
    }

    /// One model in `--json`.
    private struct Row: Encodable {
        let name: String
        let path: String
        let origin: String
        let variant: String?

        init(_ found: ModelDiscovery.Found) {
            name = found.name
            path = found.path
            origin = found.origin.rawValue
            variant = found.variant?.rawValue
        }
    }
}
