import Checkpoints

/// The opened files of the transformer: its tensors, their naming, and its sizes.
struct TransformerFiles {
    /// Tensors under the names of `names`, without what stands before them.
    let checkpoint: Checkpoint
    let names: TransformerNames
    let config: TransformerConfig

    /// Opens a folder, an index or a file.
    ///
    /// - Parameter path: There may be a `config.json`; official single files have none.
    /// - Throws: When it is not a Krea 2 transformer, or its sizes contradict each other.
    init(path: String) throws(CheckpointError) {
        (names, checkpoint) = try TransformerNames.recognise(try Checkpoint(path: path))
        let file = try ConfigurationFile(beside: path, className: "Krea2Transformer2DModel")
        config = try TransformerConfig(checkpoint, names, file)
    }
}
