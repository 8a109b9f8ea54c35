import Checkpoints

/// Where the transformer of a model is, and where its companions may be.
struct TransformerPlace: Equatable {
    /// A safetensors file, an index of shards, or a folder with either.
    let transformer: String
    /// Folders that may hold the other parts, the nearest first.
    let homes: [String]

    /// The single files of the official repositories.
    private static let officialNames = Variant.allCases.map { $0.rawValue + ".safetensors" }

    /// Finds the transformer of the model at `path`.
    ///
    /// - Parameters:
    ///   - path: A file or folder.
    ///   - option: How a user names another one, for errors.
    /// - Throws: `.model` when there is none; `.request` when there are several.
    init(_ path: String, option: String = "--model PATH") throws(GenerationError) {
        switch PathText.kind(path) {
        case nil: throw .model(.missing(path: path))
        case .other:
            throw .model(.unreadable(path: path, reason: "it is neither a file nor a folder"))
        case .file: self.init(transformer: path, in: PathText.parent(path))
        case .folder: try self.init(folder: path, option: option)
        }
    }

    /// A transformer that is in `folder`, or is this folder.
    private init(transformer: String, in folder: String) {
        let name = PathText.components(folder).last ?? ""
        let isInside = PathText.transformerFolders.contains(name)
        self.init(
            transformer: transformer,
            homes: [folder] + (isInside ? [PathText.parent(folder)] : [])
        )
    }

    private init(transformer: String, homes: [String]) {
        self.transformer = transformer
        self.homes = homes
    }

    private init(folder: String, option: String) throws(GenerationError) {
        let diffusers = PathText.inside(folder, "transformer")
        if PathText.kind(diffusers) == .folder {
            self.init(transformer: diffusers, homes: [folder])
            return
        }
        let files = try WeightNames(in: folder)
        if files.hasIndex {
            self.init(transformer: folder, in: folder)
            return
        }
        let official = files.names.filter(Self.officialNames.contains)
        if let name = try Self.only(official, in: folder, option) {
            self.init(transformer: PathText.inside(folder, name), in: folder)
            return
        }
        let trees = ["diffusion_models", "unet"].map { PathText.inside(folder, $0) }
        for tree in trees {
            let names = try WeightNames(in: tree).names
            let named = names.filter { $0.lowercased().contains("krea") }
            if let name = try Self.only(named.isEmpty ? names : named, in: tree, option) {
                self.init(transformer: PathText.inside(tree, name), in: tree)
                return
            }
        }
        if let name = try Self.only(files.names, in: folder, option) {
            self.init(transformer: PathText.inside(folder, name), in: folder)
            return
        }
        throw .model(
            .missingCompanion(
                part: "transformer",
                option: option,
                lookedAt: [diffusers, PathText.inside(folder, "*.safetensors")]
                    + trees.map { PathText.inside($0, "*.safetensors") }
            )
        )
    }

    /// The name, when there is one; fails when there are several.
    private static func only(
        _ names: [String],
        in folder: String,
        _ option: String
    ) throws(GenerationError) -> String? {
        guard names.count <= 1 else {
            throw .severalFiles("models", names.map { PathText.inside(folder, $0) }, option)
        }
        return names.first
    }
}

/// The weight files in a folder, hidden ones left out.
struct WeightNames {
    /// Names of safetensors files, sorted.
    let names: [String]
    /// Whether an index of shards is among the files.
    let hasIndex: Bool

    /// Lists a folder; empty when there is none at this path.
    ///
    /// - Throws: `.model(.unreadable)`.
    init(in folder: String) throws(GenerationError) {
        let all = try PathText.names(in: folder).filter { !$0.hasPrefix(".") }
        hasIndex = all.contains { $0.hasSuffix(".safetensors.index.json") }
        names = all.filter {
            $0.hasSuffix(".safetensors") && PathText.kind(PathText.inside(folder, $0)) == .file
        }
    }
}

extension GenerationError {
    /// The user has to choose one of several files with an option.
    static func severalFiles(_ what: String, _ paths: [String], _ option: String) -> Self {
        let most = 8
        let others = paths.count > most ? " and \(paths.count - most) more" : ""
        return .request(
            "several \(what) and nothing to tell which to take: "
                + paths.prefix(most).joined(separator: ", ") + others
                + "; choose one with \(option)"
        )
    }
}
