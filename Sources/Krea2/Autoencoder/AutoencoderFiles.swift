import Checkpoints

/// The opened files of the autoencoder: its tensors, their naming, and its sizes.
struct AutoencoderFiles {
    /// Tensors under the names of `names`, without what stands before them.
    let checkpoint: Checkpoint
    let names: AutoencoderNames
    let config: AutoencoderConfig

    /// Opens a folder, an index or a file.
    ///
    /// - Parameter path: There may be a `config.json`; ComfyUI's single files have none.
    /// - Throws: When it is not a Qwen-Image autoencoder, or its sizes are not supported.
    init(path: String) throws(CheckpointError) {
        let checkpoint = try Checkpoint(path: path)
        let file = try ConfigurationFile(beside: path, className: "AutoencoderKLQwenImage")
        try self.init(checkpoint, file)
    }

    /// Takes tensors with their settings.
    init(_ checkpoint: Checkpoint, _ file: ConfigurationFile?) throws(CheckpointError) {
        (names, self.checkpoint) = try AutoencoderNames.recognise(checkpoint)
        config = try AutoencoderConfig(self.checkpoint, names, file)
    }
}
