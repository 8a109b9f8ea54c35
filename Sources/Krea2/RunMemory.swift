import Tensors

/// Sizes of one run that its buffers follow.
struct RunSizes {
    /// Token ids of the prompt, and of the negative prompt where there is guidance.
    let idCounts: [Int]
    /// Tokens of each that the transformer sees.
    let textTokens: [Int]
    let packing: LatentPacking
    /// Groups of rows beside the prompt.
    let groups: [GroupSet.Sizes]
    let groupMode: ConditioningGroup.Mode
    /// Whether a picture is encoded first.
    let hasInitialImage: Bool
    /// Pictures in the transformer's sequence; nil for none.
    let wired: WiredRun?

    /// Rows of the groups that are in the transformer at a time, at most.
    var groupTokens: Int {
        let tokens = groups.map(\.tokens)
        return groupMode == .exact ? tokens.max() ?? 0 : tokens.reduce(0, +)
    }

    /// Latents of pictures that each prompt sees.
    var latents: [LatentPacking] { wired?.sizes.map(\.packing) ?? [] }

    /// Tokens of these latents.
    var latentTokens: Int { latents.reduce(0) { $0 + $1.tokens } }
}

/// All buffers of a run, cut from one arena.
///
/// What lives through the whole run comes first. Behind it the encoder of an initial image, the text
/// stage, the transformer and the decoder use the same memory, one after the other.
struct RunMemory {
    /// Fused text of each prompt: `[text tokens, width]`.
    let texts: [Tensor]
    /// Packed latent: `[image tokens, token width]`.
    let image: Tensor
    /// Output with the prompt, and with the negative one.
    let velocities: [Tensor]
    /// Injected rows of each group after text fusion: `[rows, width]`.
    let groups: [Tensor]
    /// Packed latents of pictures in the sequence: `[tokens, token width]`.
    let latents: [Tensor]

    /// For the initial image; nil without.
    let latentEncoder: AutoencoderScratch?
    /// For each picture in the sequence.
    let wiredEncoders: [AutoencoderScratch]
    /// Taps of each prompt: `[text tokens, taps, text width]`.
    let taps: [Tensor]
    let encoder: TextEncoderScratch
    let fusions: [TextFusionScratch]
    /// For each part of each group, and all of its rows after text fusion: `[rows, width]`.
    let groupFusions: [[(scratch: TextFusionScratch, rows: Tensor)]]
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
        autoencoder autoencoderConfig: AutoencoderConfig,
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
        groups = sizes.groups.map { arena.tensor("reference", $0.tokens, config.width) }
        latents = sizes.latents.map {
            arena.tensor("reference latent", $0.tokens, config.tokenWidth)
        }
        note("whole run", arena)
        let stageStart = arena.position
        func autoencoderScratch(
            _ part: AutoencoderPart,
            _ packing: LatentPacking,
            _ arena: inout Arena
        ) -> AutoencoderScratch {
            arena.position = stageStart
            return AutoencoderScratch(
                autoencoderConfig,
                for: part,
                latentHeight: 2 * packing.gridHeight,
                latentWidth: 2 * packing.gridWidth,
                arena: &arena
            )
        }

        latentEncoder =
            sizes.hasInitialImage ? autoencoderScratch(.encoder, packing, &arena) : nil
        note("initial image", arena)
        wiredEncoders = sizes.latents.map { autoencoderScratch(.encoder, $0, &arena) }
        note("references", arena)

        arena.position = stageStart
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
        groupFusions = sizes.groups.map { group in
            group.fusedTokens.map { tokens in
                arena.position = textStart
                let width = encoderConfig.width
                let taps = arena.tensor("reference taps", tokens, config.taps, width)
                let rows = arena.tensor("fused reference", tokens, config.width)
                let scratch = TextFusionScratch(
                    config,
                    tokens: tokens,
                    taps: taps,
                    arithmetic.activations(arithmetic.textFusion),
                    &arena
                )
                return (scratch, rows)
            }
        }
        note("text encoder", arena)

        arena.position = stageStart
        self.transformer = TransformerScratch(
            config,
            textTokens: sizes.textTokens,
            imageTokens: packing.tokens + sizes.latentTokens,
            groupTokens: sizes.groupTokens,
            times: sizes.wired?.wiring.isStill == true ? 2 : 1,
            arithmetic.activations(arithmetic.transformer),
            &arena
        )
        note("transformer", arena)

        self.autoencoder = autoencoderScratch(.decoder, packing, &arena)
        note("autoencoder", arena)
        self.plan = plan
    }
}
