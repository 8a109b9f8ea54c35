import Checkpoints

extension Conversion {
    /// Finds the files of one part of a model.
    ///
    /// - Parameters:
    ///   - path: A transformer or text encoder (file, index or folder), or a model's folder in any of
    ///     the forms that `ModelFiles.locate` knows.
    ///   - part: Which part; nil for what `path` is, or the transformer of a model.
    ///   - searchFolders: Tops of ComfyUI trees where a text encoder is looked for last.
    /// - Returns: A path that `Conversion` opens.
    /// - Throws: `.model` when there is nothing; `.request` when it is the other part, or the user has
    ///   to choose between files.
    public static func locate(
        _ path: String,
        part: ConversionPart? = nil,
        searchFolders: [String] = []
    ) throws(GenerationError) -> String {
        guard PathText.kind(path) != nil else { throw .model(.missing(path: path)) }
        switch (try ownPart(path), part ?? .transformer) {
        case (.textEncoder?, .textEncoder): return path
        case (.textEncoder?, .transformer) where part == nil: return path
        case (.textEncoder?, .transformer):
            throw .request("\(path) is a text encoder, not a transformer")
        case (_, .transformer): return try TransformerPlace(path, option: option).transformer
        case (_, .textEncoder):
            let place = try TransformerPlace(path, option: option)
            return try CompanionSearch(homes: place.homes, searchFolders: searchFolders)
                .textEncoder(option: option)
        }
    }

    /// How a user names other files.
    private static let option = "another MODEL"

    /// The part whose weights are right at a path; nil where it is a folder with more than them.
    private static func ownPart(_ path: String) throws(GenerationError) -> ConversionPart? {
        do throws(CheckpointError) {
            return ConversionTensors.part(of: try Checkpoint(path: path))
        } catch .noWeights, .ambiguous {
            return nil
        } catch {
            throw .model(error)
        }
    }
}
