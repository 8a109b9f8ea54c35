import FoundationEssentials
import Krea2

/// Finds models without a network: what the environment and the usual folders hold.
///
/// A pure function of the environment and of what the disk shows, both given by the caller.
struct ModelDiscovery: Sendable {
    /// What discovery needs to see of the disk.
    struct Disk: Sendable {
        var kind: @Sendable (_ path: String) -> FileKind?
        /// Names in a folder, in no particular order; empty when it cannot be read.
        var names: @Sendable (_ folder: String) -> [String]
        /// The text of a small file.
        var text: @Sendable (_ path: String) -> String?
    }

    /// A model and how it was found.
    struct Found: Equatable, Sendable {
        /// What `--model` accepts for it.
        var name: String
        var path: String
        var origin: Origin
        /// What the place says; `nil` where it says nothing.
        var variant: Variant?
    }

    /// Where a model was found; the raw value is what people read.
    enum Origin: String, Sendable {
        case argument = "--model"
        case krea2Model = "KREA2_MODEL"
        case officialTurbo = "OSS_TURBO"
        case officialRaw = "OSS_RAW"
        case embedded = "embedded"
        case cache = "Hugging Face cache"
        case folders = "KREA2_MODELS"

        /// The variant that the place itself states, whatever the file is called.
        var variant: Variant? {
            switch self {
            case .officialTurbo: .turbo
            case .officialRaw: .raw
            default: nil
            }
        }
    }

    /// The environment variables it reads.
    static let variables = [
        "KREA2_MODEL", "OSS_TURBO", "OSS_RAW", "HF_HUB_CACHE", "HF_HOME", "HOME", "KREA2_MODELS",
    ]

    let environment: [String: String]
    let disk: Disk
    /// Folders that may hold the embedded checkpoint, the nearest first.
    var embeddedFolders: [String] = []
}

extension ModelDiscovery {
    /// Every model that is there, the preferred one first.
    func all() -> [Found] {
        var found: [Found] = []
        if let path = environment["KREA2_MODEL"], disk.kind(path) != nil {
            found.append(
                Found(
                    name: path.stem,
                    path: path,
                    origin: .krea2Model,
                    variant: Variant(named: path)
                )
            )
        }
        for (origin, variant) in [(Origin.officialTurbo, Variant.turbo), (.officialRaw, .raw)] {
            guard let path = environment[origin.rawValue], disk.kind(path) != nil else { continue }
            found.append(
                Found(name: variant.rawValue, path: path, origin: origin, variant: variant)
            )
        }
        found += embedded
        for (repository, variant) in [("Krea-2-Turbo", Variant.turbo), ("Krea-2-Raw", .raw)] {
            guard let path = snapshot(of: repository, variant) else { continue }
            found.append(
                Found(
                    name: "krea/\(repository)",
                    path: path,
                    origin: .cache,
                    variant: variant
                )
            )
        }
        for root in searchFolders {
            found += models(in: root)
        }
        return found
    }

    /// The model that `--model` names, or the preferred one when it names none.
    ///
    /// - Parameters:
    ///   - request: A path or a name; `nil` for the default.
    ///   - variant: Preferred among several defaults; never a reason to fail.
    /// - Returns: A model whose path exists.
    /// - Throws: Exit code 66 naming every place that was looked at.
    func resolve(_ request: String?, variant: Variant? = nil) throws(Failure) -> Found {
        guard let request else { return try preferred(variant) }
        if disk.kind(request) != nil {
            return Found(
                name: request.stem,
                path: request,
                origin: .argument,
                variant: Variant(named: request)
            )
        }
        let name = request.lowercased()
        let found = all()
        // "turbo" alone means a released model: the embedded ones have names of their own.
        let match =
            found.first { $0.name.lowercased() == name }
            ?? found.first { $0.name.lowercased().hasSuffix("/" + name) }
            ?? found.first { $0.origin != .embedded && $0.variant?.rawValue == name }
        guard let match else {
            throw Failure(
                .noInput,
                "\(request): neither a file or folder nor a model found in \(places); "
                    + "krea2 models list shows what there is"
            )
        }
        return match
    }

    /// ComfyUI-style folders of `KREA2_MODELS`, separated by colons.
    var searchFolders: [String] {
        (environment["KREA2_MODELS"] ?? "").split(separator: ":").map(String.init)
    }

    /// Every place looked at, in words.
    var places: String {
        let direct = ["KREA2_MODEL", "OSS_TURBO", "OSS_RAW"].map { described($0) }
        let embedded = embeddedFolders.isEmpty ? [] : [EmbeddedModel.inWords]
        let cache = hubCache.map { ["the Hugging Face cache \($0)"] } ?? []
        return (direct + embedded + cache + [described("KREA2_MODELS")]).joined(separator: ", ")
    }

    private func described(_ variable: String) -> String {
        environment[variable].map { "\(variable) (\($0))" } ?? "\(variable) (not set)"
    }

    private func preferred(_ variant: Variant?) throws(Failure) -> Found {
        let variables = variant == .raw ? ["OSS_RAW", "OSS_TURBO"] : ["OSS_TURBO", "OSS_RAW"]
        for variable in ["KREA2_MODEL"] + variables {
            guard let path = environment[variable], disk.kind(path) == nil else { continue }
            throw Failure(
                .noInput,
                "\(path): no such file or folder; \(variable) names it, correct or unset it"
            )
        }
        var found = all()
        if let first = found.first, first.origin == .krea2Model { return first }
        // Who names a released model wants one, of whatever variant.
        if found.first?.origin != .embedded { found.removeAll { $0.origin == .embedded } }
        let wanted = found.first { variant != nil && $0.variant == variant }
        guard let choice = wanted ?? found.first else {
            throw Failure(
                .noInput,
                "no model found in \(places); give one with --model, or run scripts/quickstart"
            )
        }
        return choice
    }
}

extension ModelDiscovery {
    /// The embedded models, Turbo first, from the first folder that holds any.
    private var embedded: [Found] {
        for folder in embeddedFolders {
            let found = Variant.allCases.map { variant in
                Found(
                    name: "mini-\(variant.rawValue)",
                    path: "\(folder)/\(variant.rawValue).safetensors",
                    origin: .embedded,
                    variant: variant
                )
            }.filter { disk.kind($0.path) == .file }
            if !found.isEmpty { return found }
        }
        return []
    }

    /// The folder of the Hugging Face cache that holds repositories.
    private var hubCache: String? {
        environment["HF_HUB_CACHE"]
            ?? environment["HF_HOME"].map { "\($0)/hub" }
            ?? environment["HOME"].map { "\($0)/.cache/huggingface/hub" }
    }

    /// The model in the newest known snapshot of a repository: its folder, or the single file in it.
    private func snapshot(of repository: String, _ variant: Variant) -> String? {
        guard let hubCache else { return nil }
        let root = "\(hubCache)/models--krea--\(repository)"
        var revisions = disk.names("\(root)/snapshots").sorted()
        if let main = disk.text("\(root)/refs/main")?.firstLine, revisions.contains(main) {
            revisions.append(main)
        }
        for revision in revisions.reversed() {
            let folder = "\(root)/snapshots/\(revision)"
            let hasFolders =
                disk.kind("\(folder)/model_index.json") == .file
                && disk.kind("\(folder)/transformer") == .folder
            if hasFolders { return folder }
            let file = "\(folder)/\(variant.rawValue).safetensors"
            if disk.kind(file) == .file { return file }
        }
        return nil
    }

    /// The Krea 2 files of a ComfyUI-style folder, and the diffusers folders directly inside it.
    private func models(in root: String) -> [Found] {
        let transformers = "\(root)/diffusion_models"
        let files = disk.names(transformers).sorted().filter { name in
            name.hasSuffix(".safetensors") && name.lowercased().contains("krea")
                && disk.kind("\(transformers)/\(name)") == .file
        }.map { "\(transformers)/\($0)" }
        let folders = disk.names(root).sorted().map { "\(root)/\($0)" }.filter { folder in
            disk.kind("\(folder)/model_index.json") == .file
        }
        return (files + folders).map { path in
            Found(
                name: path.stem,
                path: path,
                origin: .folders,
                variant: Variant(named: path)
            )
        }
    }
}

extension Variant {
    /// The variant whose name is a word of a file name, if just one is.
    fileprivate init?(named path: String) {
        let words = path.lastComponent.lowercased().split { !$0.isLetter }
        switch (words.contains("turbo"), words.contains("raw")) {
        case (true, false): self = .turbo
        case (false, true): self = .raw
        default: return nil
        }
    }
}

extension String {
    fileprivate var firstLine: String? {
        split(whereSeparator: \.isNewline).first.map(String.init)
    }
}

extension ModelDiscovery {
    /// Discovery on the real disk, in the surroundings that a command sees.
    init(_ console: Console) {
        self.init(
            environment: console.environment,
            disk: .real,
            embeddedFolders: console.embeddedFolders
        )
    }
}

extension ModelDiscovery.Disk {
    /// The real disk.
    static let real = ModelDiscovery.Disk(
        kind: { FileKind(of: $0) },
        names: { (try? FileManager.default.contentsOfDirectory(atPath: $0)) ?? [] },
        text: { path in
            FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) }
        }
    )
}
