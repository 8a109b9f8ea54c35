import Checkpoints

/// The opened files of the autoencoder: its tensors, their naming, and its sizes.
struct AutoencoderFiles {
    /// Tensors under the names of `names`, without what stands before them.
    let checkpoint: Checkpoint
    let names: AutoencoderNames
    let config: AutoencoderConfig

    /// Opens a folder, an index or a file.
    ///
    /// - Parameter path: A folder and that of an index may hold a `config.json`; beside single
    ///   files it may be another model's.
    /// - Throws: When it is not a Qwen-Image autoencoder, or its sizes are not supported.
    init(path: String) throws(CheckpointError) {
        let isSingleFile = path.hasSuffix(".safetensors")
        let file = isSingleFile ? nil : try ConfigurationFile(beside: path)
        try self.init(try Checkpoint(path: path), file)
    }

    /// Takes tensors with their settings.
    init(_ checkpoint: Checkpoint, _ file: ConfigurationFile?) throws(CheckpointError) {
        (names, self.checkpoint) = try AutoencoderNames.recognise(checkpoint)
        config = try AutoencoderConfig(self.checkpoint, names, file)
    }
}
