/// Models that LoRAs are made for, told from names.
enum LoRAFamily {
    /// Parts of names that tell a model, the surest first.
    private static let marks: [(String, [String])] = [
        ("a Control-LoRA of another model", ["lora_controlnet", "control_model", "input_hint"]),
        ("FLUX or HunyuanVideo", ["double_blocks", "single_blocks", "single_transformer_blocks"]),
        ("HiDream", ["double_stream_blocks", "single_stream_blocks"]),
        ("Stable Diffusion 3", ["joint_blocks"]),
        ("AuraFlow", ["joint_transformer_blocks"]),
        ("Qwen-Image", ["img_mlp", "txt_mlp", "img_mod", "txt_mod"]),
        ("FLUX, Qwen-Image or Stable Diffusion 3", ["add_k_proj", "to_add_out", "ff_context"]),
        ("Stable Diffusion XL", ["lora_unet_input_blocks", "lora_unet_output_blocks"]),
        (
            "Stable Diffusion",
            ["down_blocks", "up_blocks", "mid_block", "input_blocks", "output_blocks"]
        ),
        ("Cosmos or Anima", ["adaln_modulation", "cross_attn.q_proj", "cross_attn_q_proj"]),
        ("Wan", ["cross_attn", "self_attn.q.", "self_attn_q."]),
        (
            "Z-Image or Lumina",
            ["attention.qkv", "attention_qkv", "noise_refiner", "context_refiner", "feed_forward"]
        ),
        ("a language model", ["self_attn.q_proj", "self_attn_q_proj", "mlp.gate_proj"]),
        ("LTX-Video, PixArt or Wan", ["attn1", "attn2"]),
    ]

    /// Which Stable Diffusion has text of this width.
    private static let textWidths = [
        768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL",
    ]

    /// Models with a transformer of this width.
    private static let widths = [
        256: "Krea 2 mini", 1536: "Stable Diffusion 3", 3072: "FLUX or Qwen-Image",
        3840: "Z-Image", 5120: "Wan", 6144: "Krea 2",
    ]

    /// The model that tensors are likely to come from, and one that tells it.
    ///
    /// - Parameter tensors: Names that Krea 2 has not, with their shapes.
    /// - Returns: nil where no well-known model has such names.
    static func of(_ tensors: [(name: String, shape: [Int])]) -> (name: String, key: String)? {
        for (family, parts) in marks {
            func isMark(_ name: String) -> Bool { parts.contains { name.contains($0) } }
            guard let mark = tensors.first(where: { isMark($0.name) }) else { continue }
            guard family == "Stable Diffusion" else { return (family, mark.name) }
            let text = tensors.first { $0.name.contains("attn2") && $0.name.contains("to_k") }
            return (text?.shape.last.flatMap { textWidths[$0] } ?? family, mark.name)
        }
        return nil
    }

    /// What a transformer of this width is, in words.
    static func transformer(width: Int) -> String {
        "a transformer of width \(width)" + (widths[width].map { " (\($0))" } ?? "")
    }
}
