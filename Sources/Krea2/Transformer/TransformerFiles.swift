import Checkpoints

/// The opened files of the transformer: its tensors, their naming, and its sizes.
struct TransformerFiles {
    /// Tensors under the names of `names`, without what stands before them.
    let checkpoint: Checkpoint
    let names: TransformerNames
    let config: TransformerConfig

    /// Opens a folder, an index or a file.
    ///
    /// - Parameter path: A folder and that of an index may hold a `config.json`; beside single
    ///   files it may be another model's.
    /// - Throws: When it is not a Krea 2 transformer, or its sizes contradict each other.
    init(path: String) throws(CheckpointError) {
        (names, checkpoint) = try TransformerNames.recognise(try Checkpoint(path: path))
        let isSingleFile = path.hasSuffix(".safetensors")
        let file = isSingleFile ? nil : try ConfigurationFile(beside: path)
        config = try TransformerConfig(checkpoint, names, file)
    }
}
