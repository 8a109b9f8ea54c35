import Checkpoints

/// The opened files of the autoencoder, and its sizes.
struct AutoencoderFiles {
    let checkpoint: Checkpoint
    let config: AutoencoderConfig

    /// Opens a folder, an index or a file.
    ///
    /// - Parameter path: There may be a `config.json`; ComfyUI's single files have none.
    /// - Throws: When it is not a Qwen-Image autoencoder, or its sizes are not supported.
    init(path: String) throws(CheckpointError) {
        checkpoint = try Checkpoint(path: path)
        let file = try ConfigurationFile(
            besideWeights: path,
            className: "AutoencoderKLQwenImage"
        )
        if let file, let bytes = try ConfigurationFile.contents(of: file.path) {
            config = try AutoencoderConfig(json: bytes, path: file.path)
        } else {
            let (tensors, names) = AutoencoderNames.recognise(checkpoint)
            config = try AutoencoderConfig(shapesOf: tensors, names)
        }
    }
}
