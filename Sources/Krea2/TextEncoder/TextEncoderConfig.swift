import Checkpoints
import Compute

/// Sizes of the text encoder's language model.
///
/// Source: transformers 5.23 `Qwen3VLTextConfig`, and 4.57 for the older form of the file.
struct TextEncoderConfig: Sendable, Equatable {
    /// Width of the residual stream.
    var width: Int
    /// Layers the checkpoint has.
    var layers: Int
    /// Query heads; together they may be wider or narrower than `width`.
    var heads: Int
    /// Key and value heads, each shared by `heads / keyValueHeads` query heads.
    var keyValueHeads: Int
    /// Elements of a head.
    var headSize: Int
    /// Width of the feed-forward network.
    var feedForwardWidth: Int
    /// Rows of the embedding table.
    var vocabulary: Int
    /// Added to the mean square in every norm.
    var epsilon: Float
    /// Base of the rotary frequencies.
    var theta: Float
    /// Every third frequency from the second on belongs to a picture's rows, from the third on to its
    /// columns, as many of each as this says; all others count tokens.
    var rowFrequencies: Int
    var columnFrequencies: Int

    /// Takes sizes from `config.json` where there is one, and from the tensors' shapes.
    ///
    /// - Parameters:
    ///   - checkpoint: Tensors under the names of the language model, from `embed_tokens` on.
    ///   - file: The whole `config.json`.
    /// - Throws: When a size is in neither, or the sizes contradict each other.
    init(_ checkpoint: Checkpoint, _ file: ConfigurationFile?) throws(CheckpointError) {
        let text = if let object = try file?.object("text_config") { object } else { file }
        let sizes = SizeReader(checkpoint, text)
        let attention = "layers.0.self_attn."
        width = try sizes.read("hidden_size", or: "embed_tokens.weight", 1)
        vocabulary = try sizes.read("vocab_size", or: "embed_tokens.weight", 0)
        layers = try sizes.count("num_hidden_layers", or: "layers.")
        headSize = try sizes.read("head_dim", or: attention + "q_norm.weight", 0)
        heads = try sizes.read(
            "num_attention_heads",
            or: attention + "q_proj.weight",
            0,
            dividedBy: headSize
        )
        keyValueHeads = try sizes.read(
            "num_key_value_heads",
            or: attention + "k_proj.weight",
            0,
            dividedBy: headSize
        )
        feedForwardWidth = try sizes.read("intermediate_size", or: "layers.0.mlp.up_proj.weight", 0)
        epsilon = try sizes.number("rms_norm_eps", default: 1e-6)
        // Two dialects: rotary settings in an object of their own, or θ beside the others.
        let rotary = try text?.object("rope_parameters")
        theta = try SizeReader(checkpoint, rotary ?? text).number("rope_theta", default: 5_000_000)
        let scaling = try text?.object("rope_scaling")
        let sections = try (rotary ?? scaling)?.integers("mrope_section")
        // The released model has 24, 20 and 20 of 64.
        let share = headSize / 2 * 20 / 64
        (rowFrequencies, columnFrequencies) = (share, share)
        if let sections {
            guard sections.count == 3, sections.allSatisfy({ $0 <= headSize / 2 }) else {
                throw .damaged(
                    path: file?.path ?? checkpoint.path,
                    tensor: nil,
                    found: "\"mrope_section\" \(sections)",
                    expected: "three counts of at most \(headSize / 2) frequencies"
                )
            }
            (rowFrequencies, columnFrequencies) = (sections[1], sections[2])
        }
        guard keyValueHeads > 0, heads > 0, heads.isMultiple(of: keyValueHeads),
            headSize.isMultiple(of: 2), headSize <= Operators.largestNormedHead,
            max(width, feedForwardWidth, heads * headSize) <= Operators.longestRow
        else {
            throw .damaged(
                path: file?.path ?? checkpoint.path,
                tensor: nil,
                found: "\(heads) heads, \(keyValueHeads) key-value heads of \(headSize), width "
                    + "\(width), feed-forward \(feedForwardWidth)",
                expected: "heads of an even size up to 256, shared evenly, and no width above "
                    + "\(Operators.longestRow)"
            )
        }
    }
}
