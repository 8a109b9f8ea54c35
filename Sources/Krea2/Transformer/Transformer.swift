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

    private let files: TransformerFiles
    private let time: TimeEmbedding
    /// Projection of image tokens into the residual stream.
    private let input: WeightMatrix
    private let inputBias: Tensor
    let blocks: [TransformerBlock]
    /// Norm before the output: `[width]`, stored minus one.
    private let outputNorm: Tensor
    /// Scale and shift added to the time embedding: `[2, width]`.
    private let outputModulation: Tensor
    private let output: WeightMatrix
    private let outputBias: Tensor

    /// Reads all tensors and checks their shapes.
    ///
    /// - Parameters:
    ///   - files: The opened files.
    ///   - differences: What is added to norms and modulations, by their official names; float32.
    /// - Throws: One error that names everything missing, surplus, misshapen or mistyped.
    init(
        _ files: TransformerFiles,
        adding differences: [String: Tensor] = [:]
    ) throws(CheckpointError) {
        let (config, names) = (files.config, files.names)
        (self.config, self.files) = (config, files)
        let reader = WeightReader(
            files.checkpoint,
            rename: { names.stored($0) },
            adding: differences
        )
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

    /// The same with other norms and modulations; it may be used with the same matrices in memory.
    ///
    /// - Parameter differences: What is added to those of the files, by their official names.
    /// - Returns: A transformer with the sizes of this one.
    /// - Throws: When the files have changed.
    func adding(_ differences: [String: Tensor]) throws(CheckpointError) -> Transformer {
        try Transformer(files, adding: differences)
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

    /// The matrices that are in use together, in order.
    var matrixGroups: [[WeightMatrix]] { [attention.matrices, feedForward.matrices] }
}

/// What one evaluation sees besides the image: a prompt, or the negative one.
struct TransformerBranch {
    /// Fused text: `[text tokens, width]`.
    let text: Tensor
    /// Receives the velocity: `[image tokens, tokenWidth]`.
    let velocity: Tensor
    /// Pictures whose rows stand in the sequence, behind text and image.
    var latents: [LatentRows] = []
    /// What its rows see beside each other, in the order of sums; each in some block.
    var groups: [BranchGroup] = []
}

/// Buffers of the transformer for a picture and all of its prompts.
struct TransformerScratch {
    /// Residual stream of each branch, one after the other: `[text + image tokens, width]`, and
    /// latents where there are any; then that of the groups.
    let residual: Tensor
    let block: BlockScratch
    /// For each time of an evaluation: the image's, and that of clean latents.
    let times: [TimeScratch]
    /// For each time, its projection plus a block's own table: `[6, width]`.
    let modulations: [Tensor]

    init(
        _ config: TransformerConfig,
        textTokens: [Int],
        imageTokens: Int,
        groupTokens: Int = 0,
        times count: Int = 1,
        _ activations: ElementType,
        _ arena: inout Arena
    ) {
        let rows = textTokens.reduce(groupTokens) { $0 + $1 + imageTokens }
        residual = arena.tensor("residual", rows, config.width)
        var times: [TimeScratch] = []
        for _ in 0..<count { times.append(TimeScratch(config, &arena)) }
        self.times = times
        modulations = times.map { _ in arena.tensor("modulation", 6, config.width) }
        block = BlockScratch(config.block, rows: rows, activations, &arena)
    }
}

// MARK: Memory

extension Transformer {
    /// The matrices in the order in which an evaluation uses them.
    func order(_ policy: ArithmeticPolicy) -> MatrixSupply.Order {
        MatrixSupply.Order(
            groups: time.groups + blocks.flatMap(\.matrixGroups),
            checkpoint: files.checkpoint,
            policy: policy
        )
    }

    /// The matrices of one block in the order in which it uses them.
    func order(ofBlock index: Int, _ policy: ArithmeticPolicy) -> MatrixSupply.Order {
        MatrixSupply.Order(
            groups: blocks[index].matrixGroups,
            checkpoint: files.checkpoint,
            policy: policy
        )
    }

    /// Some matrices one by one, each in memory for itself.
    func order(of matrices: [WeightMatrix]) -> MatrixSupply.Order {
        MatrixSupply.Order(
            groups: matrices.map { [$0] },
            checkpoint: files.checkpoint,
            policy: .float32
        )
    }

    /// All matrices, those of text fusion too; a layer may have several, one after the other.
    var matrices: [WeightMatrix] {
        [input] + time.groups.flatMap(\.self) + textFusion.matrices + blockMatrices + [output]
    }

    /// The matrices of the blocks, which nearly all of the time goes to.
    var blockMatrices: [WeightMatrix] {
        blocks.flatMap { $0.attention.matrices + $0.feedForward.matrices }
    }
}

// MARK: Forward

extension Transformer {
    /// Predicts the velocity, noise minus clean, for all branches at once.
    ///
    /// - Parameters:
    ///   - image: Packed latent: `[image tokens, tokenWidth]`.
    ///   - branches: Prompts, and where the velocities go; those must not overlap the image.
    ///   - rotary: Angles of the branches' text and image tokens and latents, one branch after the
    ///     other; then those of the groups' rows; or of more.
    ///   - time: Noise level from 0 to 1.
    ///   - supply: The matrices, in the order that `order` gives.
    ///   - scratch: Buffers for as many tokens, or for more.
    ///   - operators: The arithmetic.
    ///   - watch: Asked and told after each block.
    ///   - observe: Sees the first branch's residual stream after each block; nil for no one.
    /// - Throws: What `watch` and `supply` find.
    func forward(
        _ image: Tensor,
        _ branches: [TransformerBranch],
        rotary: RotaryTable,
        time: Float,
        supply: MatrixSupply,
        scratch: TransformerScratch,
        operators: Operators,
        watch: Watch,
        observe: ((_ block: Int, Tensor) -> Void)? = nil
    ) throws(GenerationError) {
        let exact = Operators(sharing: operators, policy: .float32)
        let rows = TransformerRows(branches, imageTokens: image.rows)
        let x = scratch.residual.rows(0..<rows.count)
        // In each branch text tokens come first.
        for (branch, (sequence, place)) in zip(branches, zip(rows.sequences, rows.images)) {
            x.rows(sequence.lowerBound..<place.lowerBound).copy(from: branch.text)
            if place == rows.images[0] {
                exact.linear(image, input, bias: inputBias, into: x.rows(place))
            } else {
                x.rows(place).copy(from: x.rows(rows.images[0]))
            }
        }
        for (latent, place) in rows.latents {
            exact.linear(latent.tokens, input, bias: inputBias, into: x.rows(place))
        }
        rows.copyGroups(to: x)

        let times = rows.hasStillRows ? [time, 0] : [time]
        try self.time.forward(times, supply: supply, scratch: scratch.times, operators: exact)
        for (index, block) in blocks.enumerated() {
            // No one reads what the last block would make of the text.
            let isLast = index == blocks.count - 1 && observe == nil
            let blockRows = rows.block(index, wantsText: !isLast, rotary: rotary)
            try forward(block, x, blockRows, supply, scratch, operators)
            try watch.check(x, "block \(index)", operators)
            observe?(index, x.rows(0..<rows.images[0].upperBound))
        }

        for (branch, place) in zip(branches, rows.images) {
            project(x.rows(place), scratch, exact, into: branch.velocity)
            try watch.check(branch.velocity, "output", operators)
        }
    }

    /// Adds attention and the feed-forward to the residual stream.
    func forward(
        _ block: TransformerBlock,
        _ x: Tensor,
        _ rows: BlockRows,
        _ supply: MatrixSupply,
        _ scratch: TransformerScratch,
        _ operators: Operators
    ) throws(GenerationError) {
        // The order in the file is scale, shift, gate, for attention and then for feed-forward.
        for (modulation, time) in zip(scratch.modulations, scratch.times) {
            modulation.copy(from: time.projection)
            operators.gatedAdd(modulation, block.modulation, gate: nil)
        }
        func parts(_ weight: Tensor, from row: Int) -> [RowPart] {
            rows.times.map { part in
                let modulation = scratch.modulations[part.time]
                return RowPart(
                    rows: part.rows,
                    norm: norm(weight, modulation.row(row), modulation.row(row + 1)),
                    residualGate: modulation.row(row + 2)
                )
            }
        }

        try supply.load(block.attention).forward(
            x,
            parts: parts(block.attentionNorm, from: 0),
            rows: rows,
            epsilon: config.epsilon,
            scratch: scratch.block,
            operators: operators
        )
        supply.release()

        try supply.load(block.feedForward).forward(
            x,
            parts: parts(block.feedForwardNorm, from: 3).flatMap {
                $0.limited(to: rows.wantedRanges)
            },
            scratch: scratch.block,
            operators: operators
        )
        supply.release()
    }

    private func norm(_ weight: Tensor, _ scale: Tensor, _ shift: Tensor) -> RowNorm {
        RowNorm(
            weight: weight,
            stored: .minusOne,
            epsilon: config.epsilon,
            scale: scale,
            shift: shift
        )
    }

    /// The output layer on the image rows, modulated by the time embedding itself.
    private func project(
        _ x: Tensor,
        _ scratch: TransformerScratch,
        _ operators: Operators,
        into velocity: Tensor
    ) {
        for row in 0..<2 {
            let target = scratch.modulations[0].row(row)
            target.copy(from: outputModulation.row(row))
            operators.gatedAdd(
                target.reshaped(1, config.width),
                scratch.times[0].embedding,
                gate: nil
            )
        }
        let (scale, shift) = (scratch.modulations[0].row(0), scratch.modulations[0].row(1))
        let norm = norm(outputNorm, scale, shift)
        operators.linear(
            .normed(x, norm),
            [LinearLayer(output, bias: outputBias, into: velocity)]
        )
    }

    /// Rotary angles of text tokens, which do not rotate, and of a grid of image tokens.
    ///
    /// - Parameters:
    ///   - textTokens: Text tokens.
    ///   - gridHeight: Rows of image tokens.
    ///   - gridWidth: Image tokens in a row.
    /// - Returns: `[text + image tokens, headSize / 2]`.
    func rotaryTable(textTokens: Int, gridHeight: Int, gridWidth: Int) -> RotaryTable {
        let text = RotaryPosition.text(tokens: textTokens)
        return rotaryTable(text + RotaryPosition.grid(height: gridHeight, width: gridWidth))
    }

    /// Rotary angles of tokens at some positions.
    ///
    /// Angles are computed in double precision and rounded at the end, as in the reference.
    ///
    /// - Parameter positions: Of each token.
    /// - Returns: `[tokens, headSize / 2]`.
    func rotaryTable(_ positions: [RotaryPosition]) -> RotaryTable {
        let theta = Double(config.theta)
        let frequencies = config.rotaryAxes.map { size in
            (0..<size / 2).map { pow(theta, -2 * Double($0) / Double(size)) }
        }
        var all: [Double] = []
        for position in positions {
            let axes = [position.frame, position.row, position.column]
            for (place, axis) in zip(axes, frequencies) { all += axis.map { place * $0 } }
        }
        let shape = [positions.count, config.headSize / 2]
        return RotaryTable(
            cosine: Tensor(all.map { Float(cos($0)) }, shape: shape),
            sine: Tensor(all.map { Float(sin($0)) }, shape: shape),
            pairsAreAdjacent: true
        )
    }
}
