/// A tensor's name in a LoRA file, taken apart.
struct LoRAKey: Sendable, Equatable {
    /// What a tensor is to its module.
    enum Part: Sendable, Hashable {
        /// Factors of up · down: `[rank, inputs]` and `[outputs, rank]`.
        case down, up
        /// Added to the bias with the factors: `[outputs]`.
        case upBias
        /// One number, or what stands for it.
        case alpha
        /// Lengths of the rows or columns of the changed weight (DoRA).
        case magnitude
        /// Factors of the element-wise product (w1a · w1b) ⊙ (w2a · w2b) (LoHa).
        case hadamard1A, hadamard1B, hadamard2A, hadamard2B
        /// Factors of the Kronecker product of w1 and w2, each of which may be a product (LoKr).
        case kronecker1, kronecker1A, kronecker1B, kronecker2, kronecker2A, kronecker2B
        /// The change itself: of the weight, and of the bias.
        case difference, biasDifference
        /// Of a method that is not read; `name` says which.
        case unsupported(name: String)
    }

    /// What the names of a module mean.
    enum Naming: Sendable, Equatable {
        /// Of the transformer, with dots.
        case dotted
        /// Of the transformer, with underscores for dots.
        case flattened
        /// Of the text encoder.
        case textEncoder
    }

    /// The whole name without its end.
    let path: Substring
    /// What stands before the module's name, such as `diffusion_model.`.
    let prefix: String
    /// Name of the module without what stands before all names.
    let module: Substring
    let naming: Naming
    let part: Part
    /// What follows the module's name, such as `.lora_A.weight`.
    let end: String

    /// Takes a name apart; nil where its end is unknown.
    init?(_ name: String) {
        guard let (end, part) = Self.ends.first(where: { name.hasSuffix($0.0) }) else { return nil }
        (self.end, self.part) = (end, part)
        path = name.dropLast(end.count)
        let known = Self.prefixes.first { name.hasPrefix($0.0) }
        (prefix, naming) = known ?? ("", .dotted)
        module = path.dropFirst(prefix.count)
    }

    /// What stands before all names; one that begins another comes after it.
    ///
    /// Source: PEFT (`base_model.model.`), diffusers (`transformer.`), ComfyUI
    /// (`diffusion_model.`), kohya's sd-scripts (`lora_unet_`, `lora_te_`), OneTrainer
    /// (`lora_transformer_`), LyCORIS (`lycoris_`).
    private static let prefixes: [(String, Naming)] = [
        ("base_model.model.text_encoder.", .textEncoder),
        ("base_model.model.diffusion_model.", .dotted),
        ("base_model.model.transformer.", .dotted),
        ("base_model.model.", .dotted),
        ("model.diffusion_model.", .dotted),
        ("diffusion_model.", .dotted),
        ("transformer.base_model.model.", .dotted),
        ("transformer.", .dotted),
        ("text_encoder.", .textEncoder),
        ("text_encoders.", .textEncoder),
        ("lora_te_", .textEncoder),
        ("lora_te1_", .textEncoder),
        ("lora_unet_", .flattened),
        ("lora_transformer_", .flattened),
        ("lycoris_", .flattened),
    ]

    /// Ends of names; one that ends in another comes first.
    private static let ends: [(String, Part)] = {
        let factors: [(String, Part)] = [
            (".lora_A", .down), (".lora_B", .up), (".lora_down", .down), (".lora_up", .up),
            (".lora_magnitude_vector", .magnitude),
        ]
        // PEFT names the adapter, too, and trainers write or leave out the parameter's name.
        let variants = factors.flatMap { name, part in
            [".default.weight", ".weight", ".default", ""].map { (name + $0, part) }
        }
        let others: [(String, Part)] = [
            (".lora.down.weight", .down), (".lora.up.weight", .up),
            (".lora_B.bias", .upBias), (".lora_B.default.bias", .upBias),
            (".lora_up.bias", .upBias), (".alpha", .alpha), (".dora_scale", .magnitude),
            (".hada_w1_a", .hadamard1A), (".hada_w1_b", .hadamard1B),
            (".hada_w2_a", .hadamard2A), (".hada_w2_b", .hadamard2B),
            (".lokr_w1", .kronecker1), (".lokr_w1_a", .kronecker1A),
            (".lokr_w1_b", .kronecker1B), (".lokr_w2", .kronecker2),
            (".lokr_w2_a", .kronecker2A), (".lokr_w2_b", .kronecker2B),
            (".diff", .difference), (".w_norm", .difference), (".diff_b", .biasDifference),
        ]
        return variants + others + unsupportedEnds
    }()

    /// Ends of names of methods that are not read; the last are those of plain checkpoints.
    ///
    /// Source: LyCORIS, PEFT and ComfyUI's `comfy/weight_adapter`.
    private static let unsupportedEnds: [(String, Part)] = [
        ("LoRA of a convolution", [".lora_mid.weight", ".lora_mid", ".lokr_t2"]),
        ("LoHa of a convolution", [".hada_t1", ".hada_t2"]),
        ("OFT", [".oft_blocks", ".oft_diag", ".oft_R.weight", ".oft_R.default.weight"]),
        ("BOFT", [".boft_R", ".boft_s", ".boft_R.default", ".boft_s.default"]),
        ("GLoRA", [".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight", ".bm.weight"]),
        ("IA3", [".on_input", ".ia3_l", ".ia3_l.default"]),
        ("VeRA", [".vera_lambda_b", ".vera_lambda_d"]),
        ("LoRA of an embedding", [".lora_embedding_A", ".lora_embedding_B"]),
        ("a Control-LoRA", [".reshape_weight"]),
        ("the bias of a norm", [".b_norm"]),
        (
            "a whole weight, as in a checkpoint or a Control-LoRA,",
            [".set_weight", ".weight", ".bias"]
        ),
    ].flatMap { name, ends in ends.map { ($0, .unsupported(name: name)) } }
}
