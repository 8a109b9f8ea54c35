import Checkpoints

/// The two namings of the transformer's tensors.
///
/// The engine asks for the official names.
///
/// Source: state dict of `mmdit.py` in krea-ai/krea-2; diffusers 0.42.1
/// `Krea2Transformer2DModel`.
enum TransformerNames: Sendable {
    /// `blocks.0.attn.wq.weight`
    case official
    /// `transformer_blocks.0.attn.to_q.weight`
    case diffusers

    /// What may stand before all names.
    private static let prefixes = [
        "", "model.diffusion_model.", "diffusion_model.", "transformer.", "model.transformer.",
        "module.", "model.",
    ]

    /// Finds out which naming and prefix a checkpoint has.
    ///
    /// - Parameter checkpoint: Tensors as the files name them.
    /// - Returns: The naming, and the checkpoint without the prefix.
    /// - Throws: When it is not a Krea 2 transformer.
    static func recognise(
        _ checkpoint: Checkpoint
    ) throws(CheckpointError) -> (TransformerNames, Checkpoint) {
        for names in [TransformerNames.official, .diffusers] {
            let marks = ["first.weight", "txtfusion.projector.weight"].map(names.stored)
            for prefix in prefixes
            where marks.allSatisfy({ checkpoint.record(prefix + $0) != nil }) {
                return (names, prefix.isEmpty ? checkpoint : checkpoint.strippingPrefix(prefix))
            }
        }
        throw .damaged(
            path: checkpoint.path,
            tensor: nil,
            found: "neither first.weight and txtfusion.projector.weight nor diffusers' names",
            expected: "a Krea 2 transformer"
        )
    }

    /// The name in the file for an official name, or for the beginning of one.
    func stored(_ official: String) -> String {
        guard self == .diffusers else { return official }
        for (first, renamed) in Self.roots where official.hasPrefix(first) {
            return renamed + Self.renamedInside(official.dropFirst(first.count))
        }
        return official
    }

    /// The official name for a name in the file; one that is unknown stays as it is.
    func official(_ stored: String) -> String {
        guard self == .diffusers else { return stored }
        for (first, renamed) in Self.roots where stored.hasPrefix(renamed) {
            let rest = stored.dropFirst(renamed.count)
            for (end, renamedEnd) in Self.ends where rest.hasSuffix(renamedEnd) {
                return first + rest.dropLast(renamedEnd.count) + end
            }
            return first + rest
        }
        return stored
    }

    private static let roots = [
        ("first.", "img_in."), ("tmlp.0.", "time_embed.linear_1."),
        ("tmlp.2.", "time_embed.linear_2."), ("tproj.1.", "time_mod_proj."),
        ("txtmlp.0.scale", "txt_in.norm.weight"), ("txtmlp.1.", "txt_in.linear_1."),
        ("txtmlp.3.", "txt_in.linear_2."), ("txtfusion.", "text_fusion."),
        ("blocks.", "transformer_blocks."), ("last.norm.scale", "final_layer.norm.weight"),
        ("last.modulation.lin", "final_layer.scale_shift_table"),
        ("last.linear.", "final_layer.linear."),
    ]

    /// The end of a name inside a block, which both kinds of block share.
    private static func renamedInside(_ rest: Substring) -> String {
        for (end, renamed) in ends where rest.hasSuffix(end) {
            return rest.dropLast(end.count) + renamed
        }
        return String(rest)
    }

    private static let ends = [
        ("mod.lin", "scale_shift_table"), ("prenorm.scale", "norm1.weight"),
        ("postnorm.scale", "norm2.weight"), ("attn.wq.weight", "attn.to_q.weight"),
        ("attn.wk.weight", "attn.to_k.weight"), ("attn.wv.weight", "attn.to_v.weight"),
        ("attn.gate.weight", "attn.to_gate.weight"), ("attn.wo.weight", "attn.to_out.0.weight"),
        ("attn.qknorm.qnorm.scale", "attn.norm_q.weight"),
        ("attn.qknorm.knorm.scale", "attn.norm_k.weight"), ("mlp.gate.weight", "ff.gate.weight"),
        ("mlp.up.weight", "ff.up.weight"), ("mlp.down.weight", "ff.down.weight"),
    ]

    /// Whether a tensor without its prefix is one that some files carry to no purpose.
    static func isStray(_ name: String) -> Bool {
        name.hasPrefix("last.down.") || name.hasPrefix("last.up.")
    }
}
