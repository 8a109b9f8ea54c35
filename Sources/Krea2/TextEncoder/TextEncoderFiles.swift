import Checkpoints

/// The opened files of the text encoder: its tensors under one naming, and its sizes.
struct TextEncoderFiles {
    /// Tensors of the language model, from `embed_tokens` and `layers.N` on.
    let checkpoint: Checkpoint
    /// All tensors under their names in the files.
    let whole: Checkpoint
    let config: TextEncoderConfig
    /// The whole `config.json`; nil where there is none.
    let settings: ConfigurationFile?

    /// Opens a folder, an index or a file, and makes sure that it is a Qwen3-VL.
    ///
    /// - Parameter path: The folder may hold a `config.json`; so may the folder of a file.
    /// - Throws: Also when it is a plain Qwen3, which has the same shapes but other weights.
    init(path: String) throws(CheckpointError) {
        let whole = try Checkpoint(path: path)
        self.whole = whole
        let prefix = try Self.prefix(whole)
        settings = try Self.configuration(of: whole, prefix)
        checkpoint = whole.strippingPrefix(prefix)
        config = try TextEncoderConfig(checkpoint, settings)
    }

    /// What stands before `embed_tokens.weight`.
    private static func prefix(_ checkpoint: Checkpoint) throws(CheckpointError) -> String {
        let name = "embed_tokens.weight"
        guard let prefix = checkpoint.prefixes(of: name).first else {
            throw .damaged(
                path: checkpoint.path,
                tensor: nil,
                found: "no embed_tokens.weight",
                expected: "a Qwen3-VL-4B text encoder"
            )
        }
        return prefix
    }

    /// The settings, where there are any; fails unless the files are a Qwen3-VL's.
    private static func configuration(
        of checkpoint: Checkpoint,
        _ prefix: String
    ) throws(CheckpointError) -> ConfigurationFile? {
        let file = try ConfigurationFile(beside: checkpoint.path)
        let type = try file?.string("model_type")
        if type?.hasPrefix("qwen3_vl") ?? false { return file }
        // Language-model weights alone cannot be told from Qwen3-4B, whose shapes are the same, but
        // for the names of one that is part of something larger.
        let isPart =
            prefix.hasSuffix("language_model.")
            || checkpoint.names.contains(where: { $0.contains("visual.") })
        guard isPart else {
            throw .damaged(
                path: checkpoint.path,
                tensor: nil,
                found: type.map { "a model of type \($0)" }
                    ?? "a language model without vision tower, such as Qwen3-4B",
                expected: "Qwen3-VL-4B, whose files have tensors named visual.* or language_model.*"
            )
        }
        return nil
    }

    /// Whether a tensor takes no part in encoding text with the first `layers` layers.
    ///
    /// - Parameters:
    ///   - name: Name without the language model's prefix.
    ///   - layers: Layers that are run.
    /// - Returns: Whether it may be left unread.
    static func isUnused(_ name: String, after layers: Int) -> Bool {
        if name == "norm.weight" || name.hasPrefix("visual.") || name.hasPrefix("lm_head.") {
            return true
        }
        guard name.hasPrefix("layers."), let index = Int(name.dropFirst(7).prefix { $0 != "." })
        else { return false }
        return index >= layers
    }
}
