import Checkpoints

/// A model whose parts are opened when a benchmark needs them.
public final class BenchmarkModel {
    /// A folder or a file with the transformer.
    public let path: String
    private let textEncoderPath: String?
    private let autoencoderPath: String?
    private let tokenizerPath: String?
    private let searchFolders: [String]
    /// Folders with its parts; nil to find them by the transformer, which must be there then.
    private let homes: [String]?

    /// Names a model; nothing is opened yet.
    ///
    /// - Parameters:
    ///   - path: As for `ModelFiles.locate`, and so the others.
    ///   - textEncoder: A file or folder that is taken instead of looking for one.
    ///   - autoencoder: A file or folder.
    ///   - tokenizer: A `tokenizer.json` or a folder.
    ///   - searchFolders: Tops of ComfyUI trees where missing parts are looked for last.
    public init(
        _ path: String,
        textEncoder: String? = nil,
        autoencoder: String? = nil,
        tokenizer: String? = nil,
        searchFolders: [String] = []
    ) {
        self.path = path
        homes = nil
        textEncoderPath = textEncoder
        autoencoderPath = autoencoder
        tokenizerPath = tokenizer
        self.searchFolders = searchFolders
    }

    /// A model whose transformer may be missing.
    init(_ path: String, homes: [String]) {
        self.path = path
        self.homes = homes
        (textEncoderPath, autoencoderPath, tokenizerPath) = (nil, nil, nil)
        searchFolders = []
    }

    /// All parts.
    func files() throws(GenerationError) -> ModelFiles {
        try ModelFiles.locate(
            path,
            textEncoder: textEncoderPath,
            autoencoder: autoencoderPath,
            tokenizer: tokenizerPath,
            searchFolders: searchFolders
        )
    }

    /// The transformer's file, index or folder.
    ///
    /// - Returns: A path that leads to something.
    /// - Throws: `.model` when there is none; `.request` when there are several.
    public func transformerPath() throws(GenerationError) -> String {
        try TransformerPlace(path).transformer
    }

    /// The transformer, opened.
    func transformer() throws(GenerationError) -> Transformer {
        let path = try transformerPath()
        return try opening { () throws(CheckpointError) in
            try Transformer(TransformerFiles(path: path))
        }
    }

    /// The text encoder's files, opened.
    private func textEncoderFiles() throws(GenerationError) -> TextEncoderFiles {
        let path: String
        if let textEncoderPath {
            path = textEncoderPath
        } else {
            path = try companions().textEncoder()
        }
        return try opening { () throws(CheckpointError) in try TextEncoderFiles(path: path) }
    }

    /// The text encoder's vision tower, opened; nil where there is none.
    func visionTower() throws(GenerationError) -> VisionTower? {
        let files = try textEncoderFiles()
        guard VisionFiles.root(of: files) != nil else { return nil }
        return try opening { () throws(CheckpointError) in try VisionTower(VisionFiles(files)) }
    }

    /// The text encoder, opened, with the layers that the model taps.
    func textEncoder() throws(GenerationError) -> TextEncoder {
        let (companions, files) = (try companions(), try textEncoderFiles())
        let index = try opening { () throws(CheckpointError) in
            try ModelIndex(path: companions.settings("model_index.json"))
        }
        let taps: [Int]
        if let known = index.taps {
            taps = known
        } else {
            taps = (0..<(try transformer().config.taps)).map { 2 + 3 * $0 }
        }
        return try opening { () throws(CheckpointError) in
            try TextEncoder(files, taps: taps)
        }
    }

    /// The autoencoder's files, opened.
    func autoencoder() throws(GenerationError) -> AutoencoderFiles {
        let path: String
        if let autoencoderPath {
            path = autoencoderPath
        } else {
            path = try companions().autoencoder()
        }
        return try opening { () throws(CheckpointError) in try AutoencoderFiles(path: path) }
    }

    private func companions() throws(GenerationError) -> CompanionSearch {
        let found: [String]
        if let homes { found = homes } else { found = try TransformerPlace(path).homes }
        return CompanionSearch(homes: found, searchFolders: searchFolders)
    }

    private func opening<Part>(
        _ body: () throws(CheckpointError) -> Part
    ) throws(GenerationError) -> Part {
        do { return try body() } catch { throw .model(error) }
    }
}
