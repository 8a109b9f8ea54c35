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

    /// Bytes of the float32 copies that a part makes, from shapes alone; padding is left out.
    func byteCount(of part: AutoencoderPart) -> Int {
        checkpoint.names.reduce(0) { sum, name in
            guard !names.isUnused(name, by: part), let shape = checkpoint.record(name)?.shape
            else { return sum }
            // Of a kernel over time, height and width, only the last slice in time is kept.
            let isOverTime = shape.count == 5 && shape[2] > 0
            return sum + 4 * shape.reduce(1, *) / (isOverTime ? shape[2] : 1)
        }
    }
}
