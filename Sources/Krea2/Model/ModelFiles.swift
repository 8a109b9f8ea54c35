import Checkpoints

/// Where the parts of one model are.
public struct ModelFiles: Sendable, Equatable {
    /// A safetensors file, an index of shards, or a folder with either.
    public var transformer: String
    /// A safetensors file, an index of shards, or a folder with either.
    public var textEncoder: String
    /// A `tokenizer.json`, or a folder with the tokenizer's files.
    public var tokenizer: String
    /// A safetensors file, an index of shards, or a folder with either.
    public var autoencoder: String
    /// `model_index.json`, if there is one.
    public var modelIndex: String?
    /// `scheduler_config.json`, if there is one.
    public var scheduler: String?

    /// Names all parts.
    ///
    /// - Parameters:
    ///   - transformer: A safetensors file, an index, or a folder.
    ///   - textEncoder: The same of the text encoder.
    ///   - tokenizer: A `tokenizer.json`, or a folder with the tokenizer's files.
    ///   - autoencoder: The same as `transformer` of the autoencoder.
    ///   - modelIndex: `model_index.json`, if there is one.
    ///   - scheduler: `scheduler_config.json`, if there is one.
    public init(
        transformer: String,
        textEncoder: String,
        tokenizer: String,
        autoencoder: String,
        modelIndex: String? = nil,
        scheduler: String? = nil
    ) {
        self.transformer = transformer
        self.textEncoder = textEncoder
        self.tokenizer = tokenizer
        self.autoencoder = autoencoder
        self.modelIndex = modelIndex
        self.scheduler = scheduler
    }

    /// Finds the parts of a model.
    ///
    /// `path` is one of:
    ///
    /// - a diffusers folder, with `transformer/`, `text_encoder/`, `tokenizer/`, `vae/`;
    /// - a transformer's file or index, with the other parts beside it under these names, or in a
    ///   ComfyUI tree (`diffusion_models/` or `unet/`, `text_encoders/`, `vae/`);
    /// - the folder of such a file, or the top of such a tree, when it holds only one model.
    ///
    /// Files are looked for, not opened.
    ///
    /// - Parameters:
    ///   - path: The model.
    ///   - textEncoder: A file or folder that is taken instead of looking for one; so for the next.
    ///   - autoencoder: A file or folder.
    ///   - tokenizer: A `tokenizer.json` or a folder.
    ///   - searchFolders: Tops of ComfyUI trees where missing parts are looked for last.
    /// - Returns: Paths that lead to something.
    /// - Throws: `.model(.missing)`; `.model(.missingCompanion)` with every place looked at;
    ///   `.model(.unreadable)`; `.request` when the user has to choose between files.
    public static func locate(
        _ path: String,
        textEncoder: String? = nil,
        autoencoder: String? = nil,
        tokenizer: String? = nil,
        searchFolders: [String] = []
    ) throws(GenerationError) -> ModelFiles {
        let place = try TransformerPlace(path)
        let companions = CompanionSearch(homes: place.homes, searchFolders: searchFolders)
        let encoder = try existing(textEncoder) { () throws(GenerationError) in
            try companions.textEncoder()
        }
        return ModelFiles(
            transformer: place.transformer,
            textEncoder: encoder,
            tokenizer: try existing(tokenizer) { () throws(GenerationError) in
                try companions.tokenizer(textEncoder: encoder)
            },
            autoencoder: try existing(autoencoder, or: companions.autoencoder),
            modelIndex: companions.settings("model_index.json"),
            scheduler: companions.settings("scheduler/scheduler_config.json")
        )
    }

    /// The path that the user gave, where something must be, or else what `search` finds.
    private static func existing(
        _ path: String?,
        or search: () throws(GenerationError) -> String
    ) throws(GenerationError) -> String {
        guard let path else { return try search() }
        guard PathText.kind(path) != nil else { throw .model(.missing(path: path)) }
        return path
    }
}
