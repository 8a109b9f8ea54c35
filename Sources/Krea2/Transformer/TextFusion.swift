import Checkpoints
import Compute
import Tensors

/// Makes the transformer's text tokens from the text encoder's taps.
///
/// It depends on neither time nor picture, so it runs once per prompt.
struct TextFusion {
    let config: TransformerConfig
    /// Blocks over the taps of each token.
    let layerwise: [FusionBlock]
    /// Weights of the sum over the taps: `[taps]`.
    let projector: Tensor
    /// Blocks over the tokens.
    let refiner: [FusionBlock]
    /// Norm before the projection: `[text width]`, stored minus one.
    let norm: Tensor
    let hidden: Tensor
    let hiddenBias: Tensor
    let output: Tensor
    let outputBias: Tensor

    init(_ weights: WeightReader, _ config: TransformerConfig) {
        self.config = config
        let (width, textWidth) = (config.width, config.text.width)
        layerwise = (0..<config.layerwiseBlocks).map {
            FusionBlock(weights.scoped("txtfusion.layerwise_blocks.\($0)."), config.text)
        }
        projector = weights.small(
            "txtfusion.projector.weight",
            1,
            config.taps,
            orShapes: [[config.taps]]
        ).reshaped(config.taps)
        refiner = (0..<config.refinerBlocks).map {
            FusionBlock(weights.scoped("txtfusion.refiner_blocks.\($0)."), config.text)
        }
        norm = weights.small("txtmlp.0.scale", textWidth)
        hidden = weights.matrix("txtmlp.1.weight", width, textWidth)
        hiddenBias = weights.small("txtmlp.1.bias", width)
        output = weights.matrix("txtmlp.3.weight", width, width)
        outputBias = weights.small("txtmlp.3.bias", width)
    }
}

/// Attention and feed-forward with norms, without modulation.
struct FusionBlock {
    let attentionNorm: Tensor
    let attention: GatedAttention
    let feedForwardNorm: Tensor
    let feedForward: FeedForward

    init(_ weights: WeightReader, _ sizes: BlockSizes) {
        attentionNorm = weights.small("prenorm.scale", sizes.width)
        attention = GatedAttention(weights.scoped("attn."), sizes)
        feedForwardNorm = weights.small("postnorm.scale", sizes.width)
        feedForward = FeedForward(weights.scoped("mlp."), sizes)
    }
}

/// Buffers of the text fusion for a number of tokens.
struct TextFusionScratch {
    /// The taps as the text encoder leaves them: `[tokens, taps, text width]`; used up.
    let taps: Tensor
    /// `[tokens, text width]`
    let fused: Tensor
    /// `[tokens, width]`
    let hidden: Tensor
    let block: BlockScratch

    init(_ config: TransformerConfig, tokens: Int, taps: Tensor, _ arena: inout Arena) {
        self.taps = taps
        fused = arena.tensor("fused text", tokens, config.text.width)
        hidden = arena.tensor("text projection", tokens, config.width)
        block = BlockScratch(config.text, rows: tokens * config.taps, &arena)
    }
}

// MARK: Forward

extension TextFusion {
    /// Fuses the taps in `scratch` and projects them.
    ///
    /// - Parameters:
    ///   - scratch: Holds the taps; afterwards `fused` is what the reference calls fused text.
    ///   - operators: The arithmetic.
    ///   - progress: Told after each block.
    ///   - text: `[tokens, width]`: the transformer's text rows.
    func forward(
        _ scratch: TextFusionScratch,
        operators: Operators,
        progress: Checkpointing,
        into text: Tensor
    ) throws(GenerationError) {
        let (tokens, fused) = (scratch.taps.rows, scratch.fused)
        let rows = scratch.taps.reshaped(tokens * config.taps, config.text.width)

        for (index, block) in layerwise.enumerated() {
            forward(block, rows, sequence: config.taps, scratch.block, operators)
            try progress.check(rows, "layerwise block \(index)", operators)
        }
        operators.weightedSum(scratch.taps, weights: projector, into: fused)
        for (index, block) in refiner.enumerated() {
            forward(block, fused, sequence: tokens, scratch.block.prefix(tokens), operators)
            try progress.check(fused, "refiner block \(index)", operators)
        }

        let normed = scratch.block.normed.rows(0..<tokens)
        operators.rmsNorm(
            fused,
            weight: norm,
            stored: .minusOne,
            epsilon: config.epsilon,
            into: normed
        )
        operators.linear(normed, hidden, bias: hiddenBias, into: scratch.hidden)
        operators.geluTanh(scratch.hidden)
        operators.linear(scratch.hidden, output, bias: outputBias, into: text)
        try progress.check(text, "projection", operators)
    }

    private func forward(
        _ block: FusionBlock,
        _ x: Tensor,
        sequence: Int,
        _ scratch: BlockScratch,
        _ operators: Operators
    ) {
        let epsilon = config.epsilon
        operators.rmsNorm(
            x,
            weight: block.attentionNorm,
            stored: .minusOne,
            epsilon: epsilon,
            into: scratch.normed
        )
        block.attention.forward(
            scratch,
            sequence: sequence,
            rotary: nil,
            epsilon: epsilon,
            operators: operators
        )
        operators.gatedAdd(x, scratch.normed, gate: nil)

        operators.rmsNorm(
            x,
            weight: block.feedForwardNorm,
            stored: .minusOne,
            epsilon: epsilon,
            into: scratch.normed
        )
        block.feedForward.forward(scratch, operators: operators)
        operators.gatedAdd(x, scratch.normed, gate: nil)
    }
}
