import Checkpoints

/// The text encoder's vision tower in its files: its tensors under one naming, and its sizes.
struct VisionFiles {
    /// Tensors of the tower, from `patch_embed` and `blocks.N` on.
    let checkpoint: Checkpoint
    let config: VisionConfig

    private static let first = "visual.patch_embed.proj.weight"

    /// What stands before `visual.` in the names of the tower's tensors; nil where there is none.
    static func root(of files: TextEncoderFiles) -> String? {
        files.whole.prefixes(of: first).first
    }

    /// Finds the tower in the files of a text encoder.
    ///
    /// - Parameter files: The opened files; text alone needs no tower.
    /// - Throws: `.damaged` when there is none, or it is of another model.
    init(_ files: TextEncoderFiles) throws(CheckpointError) {
        let whole = files.whole
        guard let root = Self.root(of: files) else {
            throw .damaged(
                path: whole.path,
                tensor: nil,
                found: "no tensor \(Self.first), so no vision tower",
                expected: "Qwen3-VL-4B with its visual.* tensors, which pictures need"
            )
        }
        checkpoint = whole.strippingPrefix(root + "visual.")
        config = try VisionConfig(checkpoint, files.settings)
        guard config.outputWidth == files.config.width else {
            throw .damaged(
                path: files.settings?.path ?? whole.path,
                tensor: nil,
                found: "a vision tower for width \(config.outputWidth)",
                expected: "\(files.config.width), the language model's width"
            )
        }
    }
}
