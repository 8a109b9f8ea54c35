import Checkpoints

/// Finds the parts that belong to a transformer.
struct CompanionSearch {
    /// Folders of the model, the nearest first.
    let homes: [String]
    /// Tops of ComfyUI trees that are looked at last.
    let searchFolders: [String]

    private var roots: [String] { homes + searchFolders }

    /// The settings file of this name in the nearest of the model's folders.
    func settings(_ name: String) -> String? {
        homes.map { PathText.inside($0, name) }.first { PathText.kind($0) == .file }
    }
}

// MARK: Text encoder

extension CompanionSearch {
    /// The folder `text_encoder/`, or the best file in `text_encoders/`.
    ///
    /// - Parameter option: How a user names another one, for errors.
    /// - Returns: Its path.
    /// - Throws: `.model` when there is none; `.request` when several files are equally good.
    func textEncoder(
        option: String = "--text-encoder PATH"
    ) throws(GenerationError) -> String {
        for root in roots {
            let folder = PathText.inside(root, "text_encoder")
            if PathText.kind(folder) == .folder { return folder }
            let files = PathText.inside(root, "text_encoders")
            let named = try WeightNames(in: files).names.filter(Self.isNamedLikeTextEncoder)
            let exact = named.filter { $0.lowercased().contains("bf16") }
            let best = exact.isEmpty ? named : exact
            guard best.count <= 1 else {
                throw .severalFiles(
                    "text encoders",
                    best.map { PathText.inside(files, $0) },
                    option
                )
            }
            if let name = best.first { return PathText.inside(files, name) }
        }
        // A lone file under another name; which model it is shows when it is opened.
        for root in roots {
            let files = PathText.inside(root, "text_encoders")
            let names = try WeightNames(in: files).names
            if names.count == 1 { return PathText.inside(files, names[0]) }
        }
        throw missing(
            "text encoder",
            option,
            ["text_encoder", "text_encoders/*qwen3vl_4b*.safetensors"]
        )
    }

    /// Whether a file has the name of the encoder, such as `qwen3vl_4b_bf16` or `Qwen3-VL-4B`.
    private static func isNamedLikeTextEncoder(_ name: String) -> Bool {
        name.lowercased().filter { $0.isLetter || $0.isNumber }.contains("qwen3vl4b")
    }
}

// MARK: Autoencoder

extension CompanionSearch {
    /// The folder `vae/` of a diffusers model, or the best file in `vae/`.
    ///
    /// - Throws: `.model` when there is none.
    func autoencoder() throws(GenerationError) -> String {
        for root in roots {
            let folder = PathText.inside(root, "vae")
            let files = try WeightNames(in: folder)
            let isDiffusers = files.names.contains("diffusion_pytorch_model.safetensors")
            if isDiffusers || files.hasIndex { return folder }
            let name = "qwen_image_vae.safetensors"
            if files.names.contains(name) { return PathText.inside(folder, name) }
        }
        // Autoencoders of other models have these names too; which it is shows when it is opened.
        for root in roots {
            let folder = PathText.inside(root, "vae")
            let names = try WeightNames(in: folder).names
            let wan = names.first { $0.lowercased() == "wan_2.1_vae.safetensors" }
            if let name = names.count == 1 ? names[0] : wan {
                return PathText.inside(folder, name)
            }
        }
        throw missing(
            "autoencoder",
            "--vae PATH",
            ["vae/diffusion_pytorch_model.safetensors", "vae/qwen_image_vae.safetensors"]
        )
    }
}

// MARK: Tokenizer

extension CompanionSearch {
    /// The folder with the tokenizer's files.
    ///
    /// - Parameter textEncoder: Where the text encoder is; its surroundings are looked at too.
    /// - Returns: A folder with `tokenizer.json` or `vocab.json`.
    /// - Throws: `.model` when there is none.
    func tokenizer(textEncoder: String) throws(GenerationError) -> String {
        let isFolder = PathText.kind(textEncoder) == .folder
        let folder = isFolder ? textEncoder : PathText.parent(textEncoder)
        let places =
            homes.map { PathText.inside($0, "tokenizer") }
            + [
                PathText.inside(PathText.parent(folder), "tokenizer"),
                PathText.inside(folder, "tokenizer"),
                folder,
            ]
            + searchFolders.map { PathText.inside($0, "tokenizer") }
        let names = ["tokenizer.json", "vocab.json"]
        for place in places
        where names.contains(where: { PathText.kind(PathText.inside(place, $0)) == .file }) {
            return place
        }
        throw .model(
            .missingCompanion(
                part: "tokenizer (tokenizer.json, or vocab.json and merges.txt)",
                option: "--tokenizer PATH",
                lookedAt: places.reduce(into: []) { unique, place in
                    if !unique.contains(place) { unique.append(place) }
                }
            )
        )
    }

    /// The error for a part that is under none of `names` in any of the folders.
    private func missing(_ part: String, _ option: String, _ names: [String]) -> GenerationError {
        let places = roots.flatMap { root in names.map { PathText.inside(root, $0) } }
        return .model(.missingCompanion(part: part, option: option, lookedAt: places))
    }
}
