import Tensors

/// Sizes of one run that its buffers follow.
struct RunSizes {
    /// Token ids of the prompt, and of the negative prompt where there is guidance.
    let idCounts: [Int]
    /// Tokens of each that the transformer sees.
    let textTokens: [Int]
    let packing: LatentPacking
}

/// All buffers of a run, cut from one arena.
///
/// What lives through the whole run comes first. Behind it the text stage, the transformer and the
/// autoencoder use the same memory, one after the other.
struct RunMemory {
    /// Fused text of each prompt: `[text tokens, width]`.
    let texts: [Tensor]
    /// Packed latent: `[image tokens, token width]`.
    let image: Tensor
    /// Output with the prompt, and with the negative one.
    let velocities: [Tensor]

    /// Taps of each prompt: `[text tokens, taps, text width]`.
    let taps: [Tensor]
    let encoder: TextEncoderScratch
    let fusions: [TextFusionScratch]
    let transformer: TransformerScratch
    let autoencoder: AutoencoderScratch

    /// Buffers with the stage they belong to, in order.
    let plan: [(stage: String, buffer: Arena.Buffer)]

    /// Cuts the buffers; on a measuring arena they only say how much memory they take.
    init(
        _ sizes: RunSizes,
        _ arithmetic: RunArithmetic,
        encoder encoderConfig: TextEncoderConfig,
        transformer config: TransformerConfig,
        autoencoder decoder: AutoencoderConfig,
        _ arena: inout Arena
    ) {
        var plan: [(stage: String, buffer: Arena.Buffer)] = []
        func note(_ stage: String, _ arena: Arena) {
            plan += arena.buffers.dropFirst(plan.count).map { (stage, $0) }
        }
        let packing = sizes.packing
        texts = sizes.textTokens.map { arena.tensor("text", $0, config.width) }
        image = arena.tensor("image tokens", packing.tokens, config.tokenWidth)
        velocities = sizes.textTokens.map { _ in
            arena.tensor("velocity", packing.tokens, config.tokenWidth)
        }
        note("whole run", arena)
        let stageStart = arena.position

        taps = sizes.textTokens.map { arena.tensor("taps", $0, config.taps, encoderConfig.width) }
        let textStart = arena.position
        encoder = TextEncoderScratch(
            encoderConfig,
            tokens: sizes.idCounts.reduce(0, +),
            arithmetic.activations(arithmetic.textEncoder),
            &arena
        )
        fusions = zip(sizes.textTokens, taps).map {
            arena.position = textStart
            return TextFusionScratch(
                config,
                tokens: $0,
                taps: $1,
                arithmetic.activations(arithmetic.textFusion),
                &arena
            )
        }
        note("text encoder", arena)

        arena.position = stageStart
        self.transformer = TransformerScratch(
            config,
            textTokens: sizes.textTokens,
            imageTokens: packing.tokens,
            arithmetic.activations(arithmetic.transformer),
            &arena
        )
        note("transformer", arena)

        arena.position = stageStart
        self.autoencoder = AutoencoderScratch(
            decoder,
            latentHeight: 2 * packing.gridHeight,
            latentWidth: 2 * packing.gridWidth,
            arena: &arena
        )
        note("autoencoder", arena)
        self.plan = plan
    }
}
