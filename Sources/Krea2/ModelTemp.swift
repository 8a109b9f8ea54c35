import Checkpoints
public enum Variant: String, Sendable, CaseIterable { case turbo, raw }
public struct ModelFiles: Sendable, Equatable {
    public var transformer: String
    public var textEncoder: String
    public var tokenizer: String
    public var autoencoder: String
    public var modelIndex: String?
    public static func locate(
        _ path: String, textEncoder: String? = nil, autoencoder: String? = nil,
        tokenizer: String? = nil, searchFolders: [String] = []
    ) throws(GenerationError) -> ModelFiles {
        ModelFiles(transformer: path + "/transformer", textEncoder: textEncoder ?? path + "/text_encoder",
          tokenizer: tokenizer ?? path + "/tokenizer", autoencoder: autoencoder ?? path + "/vae", modelIndex: path + "/model_index.json")
    }
}
