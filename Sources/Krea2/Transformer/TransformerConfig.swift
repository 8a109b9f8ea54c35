import Checkpoints
import Compute

/// Sizes of the diffusion transformer.
///
/// Source: `SingleMMDiTConfig` in `mmdit.py` of krea-ai/krea-2; the keys of the configuration file
/// are those of diffusers 0.42.1 `Krea2Transformer2DModel`.
struct TransformerConfig: Sendable, Equatable {
    /// Width of the residual stream.
    var width: Int
    /// Query heads.
    var heads: Int
    /// Key and value heads, each shared by `heads / keyValueHeads` query heads.
    var keyValueHeads: Int
    /// Elements of a head.
    var headSize: Int
    /// Single-stream blocks.
    var blocks: Int
    /// Width of the feed-forward network.
    var feedForwardWidth: Int
    /// Values of one image token: latent channels times the area of a patch.
    var tokenWidth: Int
    /// Width of the sinusoidal time embedding.
    var timeWidth: Int
    /// Width, heads and feed-forward of the text fusion blocks.
    var text: BlockSizes
    /// Layers of the text encoder that are fused.
    var taps: Int
    /// Fusion blocks over the taps of each text token.
    var layerwiseBlocks: Int
    /// Fusion blocks over the text tokens.
    var refinerBlocks: Int
    /// Elements of a head that rotate with the frame, the row and the column of a token.
    var rotaryAxes: [Int]
    /// Base of the rotary frequencies.
    var theta: Float
    /// Added to the mean square in every norm.
    var epsilon: Float

    /// The sizes that a single-stream block's layers follow.
    var block: BlockSizes {
        BlockSizes(
            width: width,
            heads: heads,
            keyValueHeads: keyValueHeads,
            headSize: headSize,
            feedForwardWidth: feedForwardWidth
        )
    }

}

extension TransformerConfig {
    /// The sizes of the released models.
    static let released = TransformerConfig(
        width: 6144,
        heads: 48,
        keyValueHeads: 12,
        headSize: 128,
        blocks: 28,
        feedForwardWidth: 16384,
        tokenWidth: 64,
        timeWidth: 256,
        text: BlockSizes(
            width: 2560,
            heads: 20,
            keyValueHeads: 20,
            headSize: 128,
            feedForwardWidth: 6912
        ),
        taps: 12,
        layerwiseBlocks: 2,
        refinerBlocks: 2,
        rotaryAxes: [32, 48, 48],
        theta: 1000,
        epsilon: 1e-5
    )

    /// Takes sizes from `config.json` where there is one, and from the tensors' shapes.
    ///
    /// - Parameters:
    ///   - checkpoint: Tensors of the transformer.
    ///   - names: Their naming.
    ///   - file: `config.json`; nil when there is none.
    /// - Throws: When a size is in neither, or the sizes contradict each other.
    init(
        _ checkpoint: Checkpoint,
        _ names: TransformerNames,
        _ file: ConfigurationFile?
    ) throws(CheckpointError) {
        let sizes = SizeReader(checkpoint, file, rename: names.stored)
        let block = "blocks.0.attn."
        headSize = try sizes.read("attention_head_dim", or: block + "qknorm.qnorm.scale", 0)
        heads = try sizes.read(
            "num_attention_heads",
            or: block + "wq.weight",
            0,
            dividedBy: headSize
        )
        keyValueHeads = try sizes.read(
            "num_key_value_heads",
            or: block + "wk.weight",
            0,
            dividedBy: headSize
        )
        width = heads * headSize
        blocks = try sizes.count("num_layers", or: "blocks.")
        feedForwardWidth = try sizes.read("intermediate_size", or: "blocks.0.mlp.up.weight", 0)
        tokenWidth = try sizes.read("in_channels", or: "first.weight", 1)
        timeWidth = try sizes.read("timestep_embed_dim", or: "tmlp.0.weight", 1)
        taps = try sizes.read("num_text_layers", or: "txtfusion.projector.weight", -1)
        layerwiseBlocks = try sizes.count(
            "num_layerwise_text_blocks",
            or: "txtfusion.layerwise_blocks."
        )
        refinerBlocks = try sizes.count("num_refiner_text_blocks", or: "txtfusion.refiner_blocks.")
        text = try Self.text(sizes, file)
        // One sixteenth of the head times 12 rotates with row and column, the rest with the frame.
        let unit = headSize / 16
        rotaryAxes =
            try file?.integers("axes_dims_rope") ?? [headSize - 12 * unit, 6 * unit, 6 * unit]
        theta = try sizes.number("rope_theta", default: 1000)
        epsilon = try sizes.number("norm_eps", default: 1e-5)
        try check(file?.path ?? checkpoint.path)
    }

    /// Sizes of the text fusion blocks.
    private static func text(
        _ sizes: SizeReader,
        _ file: ConfigurationFile?
    ) throws(CheckpointError) -> BlockSizes {
        let fusion = "txtfusion.layerwise_blocks.0."
        let textWidth = try sizes.read("text_hidden_dim", or: "txtmlp.0.scale", 0)
        let textHeads: Int
        if let value = try file?.integer("text_num_attention_heads") {
            textHeads = value
        } else {
            let norm = fusion + "attn.qknorm.qnorm.scale"
            textHeads = textWidth / (try sizes.length(norm, 0))
        }
        let textHeadSize = textWidth / max(1, textHeads)
        return BlockSizes(
            width: textWidth,
            heads: textHeads,
            keyValueHeads: try sizes.read(
                "text_num_key_value_heads",
                or: fusion + "attn.wk.weight",
                0,
                dividedBy: max(1, textHeadSize)
            ),
            headSize: textHeadSize,
            feedForwardWidth: try sizes.read(
                "text_intermediate_size",
                or: fusion + "mlp.up.weight",
                0
            )
        )
    }

    private func check(_ path: String) throws(CheckpointError) {
        for (name, sizes) in [("block", block), ("text fusion", text)] {
            guard sizes.areConsistent else {
                throw .damaged(
                    path: path,
                    tensor: nil,
                    found: "\(name): \(sizes.heads) heads, \(sizes.keyValueHeads) key-value heads "
                        + "of \(sizes.headSize), width \(sizes.width), feed-forward "
                        + "\(sizes.feedForwardWidth)",
                    expected: "heads that fill the width, of at most 256, shared evenly, and no "
                        + "width above \(Operators.longestRow)"
                )
            }
        }
        guard rotaryAxes.count == 3, rotaryAxes.allSatisfy({ $0.isMultiple(of: 2) }),
            rotaryAxes.reduce(0, +) == headSize, tokenWidth.isMultiple(of: 4),
            timeWidth.isMultiple(of: 2), max(tokenWidth, timeWidth) <= Operators.longestRow
        else {
            throw .damaged(
                path: path,
                tensor: nil,
                found: "rotary axes \(rotaryAxes), \(tokenWidth) channels, time width \(timeWidth)",
                expected: "three even axes that add up to \(headSize), whole patches of 2 × 2"
            )
        }
    }
}

/// Sizes of one block: attention and feed-forward.
struct BlockSizes: Sendable, Equatable {
    var width: Int
    var heads: Int
    var keyValueHeads: Int
    var headSize: Int
    var feedForwardWidth: Int

    /// Width of all key heads together.
    var keyValueWidth: Int { keyValueHeads * headSize }

    /// Whether the heads fill the width and can be shared evenly, and the operators can do it.
    var areConsistent: Bool {
        heads > 0 && keyValueHeads > 0 && heads * headSize == width
            && heads.isMultiple(of: keyValueHeads) && headSize <= Operators.largestNormedHead
            && max(width, feedForwardWidth) <= Operators.longestRow
    }
}
