import Checkpoints
import Compute
import Glibc
import Tensors

/// The diffusion transformer: predicts the velocity of noisy image tokens.
///
/// Source: `SingleStreamDiT` in `mmdit.py` of krea-ai/krea-2; diffusers 0.42.1
/// `Krea2Transformer2DModel`.
struct Transformer {
    let config: TransformerConfig
    let textFusion: TextFusion

    private let checkpoint: Checkpoint
    private let time: TimeEmbedding
    /// Projection of image tokens into the residual stream.
    private let input: Tensor
    private let inputBias: Tensor
    private let blocks: [TransformerBlock]
    /// Norm before the output: `[width]`, stored minus one.
    private let outputNorm: Tensor
    /// Scale and shift added to the time embedding: `[2, width]`.
    private let outputModulation: Tensor
    private let output: Tensor
    private let outputBias: Tensor

    /// Reads all tensors and checks their shapes.
    ///
    /// - Parameter files: The opened files.
    /// - Throws: One error that names everything missing, surplus, misshapen or mistyped.
    init(_ files: TransformerFiles) throws(CheckpointError) {
        let config = files.config
        self.config = config
        checkpoint = files.checkpoint
        let names = files.names
        let reader = WeightReader(checkpoint, rename: { names.stored($0) })
        let width = config.width
        input = reader.matrix("first.weight", width, config.tokenWidth)
        inputBias = reader.small("first.bias", width)
        time = TimeEmbedding(reader, config)
        textFusion = TextFusion(reader, config)
        blocks = (0..<config.blocks).map {
            TransformerBlock(reader.scoped("blocks.\($0)."), config)
        }
        outputNorm = reader.small("last.norm.scale", width)
        outputModulation = reader.small(
            "last.modulation.lin",
            2,
            width,
            orShapes: [[2 * width], [1, 2, width]]
        )
        output = reader.matrix("last.linear.weight", config.tokenWidth, width)
        outputBias = reader.small("last.linear.bias", config.tokenWidth)
        try reader.finish(ignoring: TransformerNames.isStray)
    }
}

/// One single-stream block's tensors.
struct TransformerBlock {
    /// Scales, shifts and gates added to the time projection: `[6 · width]`.
    let modulation: Tensor
    let attentionNorm: Tensor
    let attention: GatedAttention
    let feedForwardNorm: Tensor
    let feedForward: FeedForward

    init(_ weights: WeightReader, _ config: TransformerConfig) {
        let width = config.width
        modulation = weights.small("mod.lin", 6 * width, orShapes: [[6, width], [1, 6, width]])
        attentionNorm = weights.small("prenorm.scale", width)
        attention = GatedAttention(weights.scoped("attn."), config.block)
        feedForwardNorm = weights.small("postnorm.scale", width)
        feedForward = FeedForward(weights.scoped("mlp."), config.block)
    }

    /// The large ones, which are read ahead and dropped again.
    var matrices: [Tensor] { attention.matrices + feedForward.matrices }
}

/// Buffers of the transformer for a picture and the longest of its prompts.
struct TransformerScratch {
    /// Residual stream: `[text + image tokens, width]`.
    let residual: Tensor
    let block: BlockScratch
    let time: TimeScratch
    /// Time projection plus a block's own table: `[6, width]`.
    let modulation: Tensor

    init(_ config: TransformerConfig, textTokens: Int, imageTokens: Int, _ arena: inout Arena) {
        let rows = textTokens + imageTokens
        residual = arena.tensor("residual", rows, config.width)
        time = TimeScratch(config, &arena)
        modulation = arena.tensor("modulation", 6, config.width)
        block = BlockScratch(config.block, rows: rows, &arena)
    }
}

// MARK: Memory

extension Transformer {
    /// Bytes of weights in use at a time: two blocks and everything else.
    var residentByteCount: Int {
        let sizes = blocks.map { $0.matrices.reduce(0) { $0 + $1.byteCount } }
        return checkpoint.byteCount - sizes.reduce(0, +) + 2 * (sizes.max() ?? 0)
    }
}

// MARK: Forward

extension Transformer {
    /// Predicts the velocity, noise minus clean.
    ///
    /// - Parameters:
    ///   - image: Packed latent: `[image tokens, tokenWidth]`.
    ///   - text: Fused text: `[text tokens, width]`.
    ///   - time: Noise level from 0 to 1.
    ///   - rotary: Angles of text and image tokens.
    ///   - scratch: Buffers for at least as many tokens.
    ///   - operators: The arithmetic.
    ///   - watch: Asked and told after each block.
    ///   - observe: Sees the residual stream after each block.
    ///   - velocity: Like `image`; must not overlap it.
    /// - Throws: What `watch` finds.
    func forward(
        _ image: Tensor,
        text: Tensor,
        time: Float,
        rotary: RotaryTable,
        scratch: TransformerScratch,
        operators: Operators,
        watch: Watch,
        observe: (_ block: Int, Tensor) -> Void = { _, _ in },
        into velocity: Tensor
    ) throws(GenerationError) {
        let rows = text.rows + image.rows
        let x = scratch.residual.rows(0..<rows)
        let buffers = scratch.block.prefix(rows)

        // Text tokens come first.
        x.rows(0..<text.rows).copy(from: text)
        operators.linear(image, input, bias: inputBias, into: x.rows(text.rows..<rows))
        self.time.forward(time, scratch: scratch.time, operators: operators)

        for (index, block) in blocks.enumerated() {
            // The next block is read ahead; after the last one, the first of the next step.
            checkpoint.prefetch(blocks[(index + 1) % blocks.count].matrices)
            scratch.modulation.copy(from: scratch.time.projection)
            operators.gatedAdd(scratch.modulation, block.modulation, gate: nil)
            forward(block, x, scratch.modulation, rotary, buffers, operators)
            checkpoint.release(block.matrices)

            try watch.check(x, "block \(index)", operators)
            observe(index, x)
        }

        project(x.rows(text.rows..<rows), scratch, buffers, operators, into: velocity)
        try watch.check(velocity, "output", operators)
    }

    /// Adds attention and the feed-forward to the residual stream.
    private func forward(
        _ block: TransformerBlock,
        _ x: Tensor,
        _ modulation: Tensor,
        _ rotary: RotaryTable,
        _ scratch: BlockScratch,
        _ operators: Operators
    ) {
        // The order in the file is scale, shift, gate, for attention and then for feed-forward.
        operators.rmsNorm(
            x,
            weight: block.attentionNorm,
            stored: .minusOne,
            epsilon: config.epsilon,
            scale: modulation.row(0),
            shift: modulation.row(1),
            into: scratch.normed
        )
        block.attention.forward(
            scratch,
            sequence: x.rows,
            rotary: rotary,
            epsilon: config.epsilon,
            operators: operators
        )
        operators.gatedAdd(x, scratch.normed, gate: modulation.row(2))

        operators.rmsNorm(
            x,
            weight: block.feedForwardNorm,
            stored: .minusOne,
            epsilon: config.epsilon,
            scale: modulation.row(3),
            shift: modulation.row(4),
            into: scratch.normed
        )
        block.feedForward.forward(scratch, operators: operators)
        operators.gatedAdd(x, scratch.normed, gate: modulation.row(5))
    }

    /// The output layer on the image rows, modulated by the time embedding itself.
    private func project(
        _ x: Tensor,
        _ scratch: TransformerScratch,
        _ buffers: BlockScratch,
        _ operators: Operators,
        into velocity: Tensor
    ) {
        for row in 0..<2 {
            let target = scratch.modulation.row(row)
            target.copy(from: outputModulation.row(row))
            operators.gatedAdd(
                target.reshaped(1, config.width),
                scratch.time.embedding,
                gate: nil
            )
        }
        let normed = buffers.normed.rows(0..<x.rows)
        operators.rmsNorm(
            x,
            weight: outputNorm,
            stored: .minusOne,
            epsilon: config.epsilon,
            scale: scratch.modulation.row(0),
            shift: scratch.modulation.row(1),
            into: normed
        )
        operators.linear(normed, output, bias: outputBias, into: velocity)
    }

    /// Rotary angles of text tokens, which do not rotate, and of a grid of image tokens.
    ///
    /// Angles are computed in double precision and rounded at the end, as in the reference.
    ///
    /// - Parameters:
    ///   - textTokens: Text tokens.
    ///   - gridHeight: Rows of image tokens.
    ///   - gridWidth: Image tokens in a row.
    /// - Returns: `[text + image tokens, headSize / 2]`.
    func rotaryTable(textTokens: Int, gridHeight: Int, gridWidth: Int) -> RotaryTable {
        let theta = Double(config.theta)
        let frequencies = config.rotaryAxes.map { size in
            (0..<size / 2).map { pow(theta, -2 * Double($0) / Double(size)) }
        }
        func angles(_ position: [Int]) -> [Double] {
            zip(position, frequencies).flatMap { position, axis in
                axis.map { Double(position) * $0 }
            }
        }
        var all: [Double] = []
        for _ in 0..<textTokens { all += angles([0, 0, 0]) }
        for row in 0..<gridHeight {
            for column in 0..<gridWidth { all += angles([0, row, column]) }
        }
        let shape = [textTokens + gridHeight * gridWidth, config.headSize / 2]
        return RotaryTable(
            cosine: Tensor(all.map { Float(cos($0)) }, shape: shape),
            sine: Tensor(all.map { Float(sin($0)) }, shape: shape),
            pairsAreAdjacent: true
        )
    }
}
