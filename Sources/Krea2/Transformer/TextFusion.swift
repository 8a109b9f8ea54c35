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
    /// Weights of the sum over the taps: `[1, taps]`.
    let projector: WeightMatrix
    /// Blocks over the tokens.
    let refiner: [FusionBlock]
    /// Norm before the projection: `[text width]`, stored minus one.
    let norm: Tensor
    let projection: TextProjection
    let hiddenBias: Tensor
    let outputBias: Tensor

    init(_ weights: WeightReader, _ config: TransformerConfig) {
        self.config = config
        let (width, textWidth) = (config.width, config.text.width)
        layerwise = (0..<config.layerwiseBlocks).map {
            FusionBlock(weights.scoped("txtfusion.layerwise_blocks.\($0)."), config.text)
        }
        projector = WeightMatrix(
            weights.small("txtfusion.projector.weight", 1, config.taps, orShapes: [[config.taps]]),
            origin: .init(name: "txtfusion.projector")
        )
        refiner = (0..<config.refinerBlocks).map {
            FusionBlock(weights.scoped("txtfusion.refiner_blocks.\($0)."), config.text)
        }
        norm = weights.small("txtmlp.0.scale", textWidth)
        projection = TextProjection(
            hidden: weights.matrix("txtmlp.1.weight", width, textWidth),
            output: weights.matrix("txtmlp.3.weight", width, width)
        )
        hiddenBias = weights.small("txtmlp.1.bias", width)
        outputBias = weights.small("txtmlp.3.bias", width)
    }
}

/// Attention and feed-forward with norms, without modulation.
struct FusionBlock: MatrixGroup {
    let attentionNorm: Tensor
    private(set) var attention: GatedAttention
    let feedForwardNorm: Tensor
    private(set) var feedForward: FeedForward

    init(_ weights: WeightReader, _ sizes: BlockSizes) {
        attentionNorm = weights.small("prenorm.scale", sizes.width)
        attention = GatedAttention(weights.scoped("attn."), sizes)
        feedForwardNorm = weights.small("postnorm.scale", sizes.width)
        feedForward = FeedForward(weights.scoped("mlp."), sizes)
    }

    var matrices: [WeightMatrix] { attention.matrices + feedForward.matrices }

    func replacing(_ matrices: [WeightMatrix]) -> FusionBlock {
        var copy = self
        let count = attention.matrices.count
        copy.attention = attention.replacing(Array(matrices.prefix(count)))
        copy.feedForward = feedForward.replacing(Array(matrices.dropFirst(count)))
        return copy
    }
}

/// The two layers that bring fused text to the transformer's width.
struct TextProjection: MatrixGroup {
    private(set) var hidden: WeightMatrix
    private(set) var output: WeightMatrix

    var matrices: [WeightMatrix] { [hidden, output] }

    func replacing(_ matrices: [WeightMatrix]) -> TextProjection {
        TextProjection(hidden: matrices[0], output: matrices[1])
    }
}

/// Buffers of the text fusion for a number of tokens.
struct TextFusionScratch {
    /// The taps as the text encoder leaves them: `[tokens, taps, text width]`; used up.
    let taps: Tensor
    /// Text after fusion: `[tokens, text width]`.
    let fused: Tensor
    /// Inside of the projection: `[tokens, width]`.
    let hidden: Tensor
    let block: BlockScratch

    init(
        _ config: TransformerConfig,
        tokens: Int,
        taps: Tensor,
        _ activations: ElementType,
        _ arena: inout Arena
    ) {
        self.taps = taps
        fused = arena.tensor("fused text", tokens, config.text.width)
        hidden = arena.tensor("text projection", tokens, config.width)
        block = BlockScratch(config.text, rows: tokens * config.taps, activations, &arena)
    }
}

// MARK: Memory

extension TextFusion {
    /// All matrices.
    var matrices: [WeightMatrix] {
        (layerwise + refiner).flatMap(\.matrices) + [projector] + projection.matrices
    }

    /// The matrices in the order of their use.
    func order(_ policy: ArithmeticPolicy, _ checkpoint: Checkpoint) -> MatrixSupply.Order {
        MatrixSupply.Order(
            groups: (layerwise + refiner).map(\.matrices) + [projection.matrices],
            checkpoint: checkpoint,
            policy: policy
        )
    }
}

// MARK: Forward

extension TextFusion {
    /// Fuses the taps in `scratch` and projects them.
    ///
    /// - Parameters:
    ///   - scratch: Holds the taps; afterwards `fused` is what the reference calls fused text.
    ///   - supply: The matrices, in the order that `order` gives.
    ///   - operators: The arithmetic.
    ///   - watch: Asked and told after each block.
    ///   - keyLogs: Logarithms of how often each token counts: `[tokens]`; nil for once.
    ///   - text: `[tokens, width]`: the transformer's text rows.
    /// - Throws: What `watch` and `supply` find.
    func forward(
        _ scratch: TextFusionScratch,
        supply: MatrixSupply,
        operators: Operators,
        watch: Watch,
        keyLogs: Tensor? = nil,
        into text: Tensor
    ) throws(GenerationError) {
        let (tokens, fused) = (scratch.taps.rows, scratch.fused)
        let rows = scratch.taps.reshaped(tokens * config.taps, config.text.width)
        let sequences = (0..<tokens).map { $0 * config.taps..<($0 + 1) * config.taps }

        for (index, block) in layerwise.enumerated() {
            let block = try supply.load(block)
            forward(block, rows, BlockRows(sequences), scratch.block, operators)
            supply.release()
            try watch.check(rows, "layerwise block \(index)", operators)
        }
        operators.weightedSum(scratch.taps, weight: projector, into: fused)
        for (index, block) in refiner.enumerated() {
            let block = try supply.load(block)
            let all = BlockRows([BlockSequence(0..<tokens, keyLogs: keyLogs)])
            forward(block, fused, all, scratch.block, operators)
            supply.release()
            try watch.check(fused, "refiner block \(index)", operators)
        }

        let projection = try supply.load(projection)
        operators.linear(
            .normed(fused, rowNorm(norm)),
            [LinearLayer(projection.hidden, bias: hiddenBias, into: scratch.hidden)]
        )
        operators.geluTanh(scratch.hidden)
        operators.linear(scratch.hidden, projection.output, bias: outputBias, into: text)
        supply.release()
        try watch.check(text, "projection", operators)
    }

    private func rowNorm(_ weight: Tensor) -> RowNorm {
        RowNorm(weight: weight, stored: .minusOne, epsilon: config.epsilon)
    }

    private func forward(
        _ block: FusionBlock,
        _ x: Tensor,
        _ rows: BlockRows,
        _ scratch: BlockScratch,
        _ operators: Operators
    ) {
        func all(_ norm: Tensor) -> [RowPart] {
            [RowPart(rows: 0..<x.rows, norm: rowNorm(norm), residualGate: nil)]
        }
        block.attention.forward(
            x,
            parts: all(block.attentionNorm),
            rows: rows,
            epsilon: config.epsilon,
            scratch: scratch,
            operators: operators
        )
        block.feedForward.forward(
            x,
            parts: all(block.feedForwardNorm),
            scratch: scratch,
            operators: operators
        )
    }
}
