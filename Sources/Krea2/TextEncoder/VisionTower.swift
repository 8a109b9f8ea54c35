import Checkpoints
import Compute
import Glibc
import Tensors

/// The part of Qwen3-VL that makes tokens of pictures.
///
/// Source: transformers 5.23 `modeling_qwen3_vl.py`, `Qwen3VLVisionModel`.
struct VisionTower {
    let config: VisionConfig

    private let checkpoint: Checkpoint
    /// Makes rows of patches: `[width, 3 · side · side]`, float32.
    private let embedding: WeightMatrix
    private let embeddingBias: Tensor
    /// Positions of a square of patches, row by row: `[side · side, width]`.
    private let positions: WeightMatrix
    private let blocks: [VisionBlock]
    /// Makes the tokens that take the place of embeddings.
    private let merger: VisionMerger
    /// Make what is added after the language model's first layers, one for each.
    private let deepstack: [VisionMerger]

    /// Checks all tensors, and reads the small ones.
    ///
    /// - Parameter files: The opened files.
    /// - Throws: One error that names everything missing, surplus, misshapen or mistyped.
    init(_ files: VisionFiles) throws(CheckpointError) {
        let config = files.config
        self.config = config
        checkpoint = files.checkpoint
        let reader = WeightReader(checkpoint)
        embedding = Self.stillEmbedding(reader, config)
        embeddingBias = reader.small("patch_embed.proj.bias", config.width)
        positions = reader.matrix(
            "pos_embed.weight",
            config.tableSide * config.tableSide,
            config.width
        )
        blocks = (0..<config.blocks).map { VisionBlock(reader.scoped("blocks.\($0)."), config) }
        merger = VisionMerger(reader.scoped("merger."), config, normedWidth: config.width)
        deepstack = config.deepstackBlocks.indices.map {
            VisionMerger(
                reader.scoped("deepstack_merger_list.\($0)."),
                config,
                normedWidth: config.mergedWidth
            )
        }
        try reader.finish()
    }

    /// The embedding of patches whose frames are all the same: the sum over the frames.
    private static func stillEmbedding(
        _ reader: WeightReader,
        _ config: VisionConfig
    ) -> WeightMatrix {
        let (name, side, frames) = ("patch_embed.proj.weight", config.patch, config.frames)
        let shape = [config.width, 3, frames, side, side]
        let matrix = reader.weightMatrix(
            name,
            config.width,
            frames * config.patchWidth,
            storedAs: shape
        )
        // Nothing is made of a size that the file does not confirm.
        guard reader.shape(name) == shape, matrix.rows == config.width else { return matrix }
        let values = dequantized(matrix).elements
        let area = side * side
        var still = [Float](repeating: 0, count: config.width * config.patchWidth)
        for plane in 0..<3 * config.width {
            for frame in 0..<frames {
                let first = (plane * frames + frame) * area
                for i in 0..<area { still[plane * area + i] += values[first + i] }
            }
        }
        return WeightMatrix(Tensor(still, shape: [config.width, config.patchWidth]))
    }
}

/// One block's tensors; all linear layers and norms have biases.
struct VisionBlock: MatrixGroup {
    let attentionNorm: LayerNorm
    /// Query, key and value below each other: `[3 · width, width]`.
    private(set) var queryKeyValue: WeightMatrix
    let queryKeyValueBias: Tensor
    private(set) var output: WeightMatrix
    let outputBias: Tensor
    let feedForwardNorm: LayerNorm
    private(set) var up: WeightMatrix
    let upBias: Tensor
    private(set) var down: WeightMatrix
    let downBias: Tensor

    init(_ weights: WeightReader, _ config: VisionConfig) {
        let (width, hidden) = (config.width, config.feedForwardWidth)
        attentionNorm = weights.layerNorm("norm1", width)
        queryKeyValue = weights.matrix("attn.qkv.weight", 3 * width, width)
        queryKeyValueBias = weights.small("attn.qkv.bias", 3 * width)
        output = weights.matrix("attn.proj.weight", width, width)
        outputBias = weights.small("attn.proj.bias", width)
        feedForwardNorm = weights.layerNorm("norm2", width)
        up = weights.matrix("mlp.linear_fc1.weight", hidden, width)
        upBias = weights.small("mlp.linear_fc1.bias", hidden)
        down = weights.matrix("mlp.linear_fc2.weight", width, hidden)
        downBias = weights.small("mlp.linear_fc2.bias", width)
    }

    var matrices: [WeightMatrix] { [queryKeyValue, output, up, down] }

    func replacing(_ matrices: [WeightMatrix]) -> VisionBlock {
        var copy = self
        (copy.queryKeyValue, copy.output) = (matrices[0], matrices[1])
        (copy.up, copy.down) = (matrices[2], matrices[3])
        return copy
    }
}

/// What makes one token of a square of patches.
struct VisionMerger: MatrixGroup {
    /// Of each patch, or of all of a token together.
    let norm: LayerNorm
    private(set) var hidden: WeightMatrix
    let hiddenBias: Tensor
    private(set) var output: WeightMatrix
    let outputBias: Tensor

    init(_ weights: WeightReader, _ config: VisionConfig, normedWidth: Int) {
        let width = config.mergedWidth
        norm = weights.layerNorm("norm", normedWidth)
        hidden = weights.matrix("linear_fc1.weight", width, width)
        hiddenBias = weights.small("linear_fc1.bias", width)
        output = weights.matrix("linear_fc2.weight", config.outputWidth, width)
        outputBias = weights.small("linear_fc2.bias", config.outputWidth)
    }

    var matrices: [WeightMatrix] { [hidden, output] }

    func replacing(_ matrices: [WeightMatrix]) -> VisionMerger {
        var copy = self
        (copy.hidden, copy.output) = (matrices[0], matrices[1])
        return copy
    }
}

extension WeightReader {
    /// A norm of this width with weight and bias.
    fileprivate func layerNorm(_ name: String, _ width: Int) -> LayerNorm {
        LayerNorm(
            weight: small("\(name).weight", width),
            bias: small("\(name).bias", width),
            epsilon: VisionConfig.epsilon
        )
    }
}

// MARK: Memory

/// What the tower makes of some pictures, one after the other.
struct VisionFeatures {
    /// `[tokens, output width]`.
    let tokens: Tensor
    /// One for each layer of the language model that gets something: `[tokens, output width]`.
    let deepstack: [Tensor]

    init(_ config: VisionConfig, tokens count: Int, _ arena: inout Arena) {
        tokens = arena.tensor("picture tokens", count, config.outputWidth)
        deepstack = config.deepstackBlocks.map { _ in
            arena.tensor("deepstack", count, config.outputWidth)
        }
    }
}

/// Buffers of the tower for a number of patches.
struct VisionScratch {
    /// Residual stream: `[patches, width]`.
    let residual: Tensor
    /// Patches of the pictures: `[patches, 3 · side · side]`; later it is the others' memory.
    let patches: Tensor
    /// Queries, and then what attention makes of them: `[patches, width]`.
    let query: Tensor
    let key: Tensor
    let value: Tensor
    /// Hidden activations of some patches, in the memory of query, key and value.
    let hidden: Tensor
    /// Hidden activations of all tokens in a merger: the query's memory.
    let merged: Tensor

    init(
        _ config: VisionConfig,
        patches count: Int,
        _ activations: ElementType,
        _ arena: inout Arena
    ) {
        func buffer(_ name: String, _ rows: Int, _ width: Int) -> Tensor {
            arena.tensor(name, rows, width, elementType: activations)
        }
        residual = arena.tensor("residual", count, config.width)
        let start = arena.position
        patches = arena.tensor("patches", count, config.patchWidth)
        let patchesEnd = arena.position
        arena.position = start
        query = buffer("query", count, config.width)
        key = buffer("key", count, config.width)
        value = buffer("value", count, config.width)
        let end = arena.position
        arena.position = start
        // As many rows at once as fit there; a few are worth more memory.
        let fitting = max((end - start) / (config.feedForwardWidth * activations.byteCount), 64)
        let chunks = max((count + fitting - 1) / fitting, 1)
        hidden = buffer("feed-forward", (count + chunks - 1) / chunks, config.feedForwardWidth)
        arena.position = max(patchesEnd, end, arena.position)
        let tokens = count / (config.merge * config.merge)
        merged = query.reshaped(tokens, config.mergedWidth)
    }
}

extension VisionTower {
    /// The matrices in the order of their use.
    func order(_ policy: ArithmeticPolicy) -> MatrixSupply.Order {
        var groups: [[WeightMatrix]] = []
        for (index, block) in blocks.enumerated() {
            groups.append(block.matrices)
            if let place = config.deepstackBlocks.firstIndex(of: index) {
                groups.append(deepstack[place].matrices)
            }
        }
        return MatrixSupply.Order(
            groups: groups + [merger.matrices],
            checkpoint: checkpoint,
            policy: policy
        )
    }

    /// Blocks and mergers, each of which counts as one step.
    var steps: Int { blocks.count + deepstack.count + 1 }

    /// Files that must not change while it computes.
    func watch(_ finished: @escaping () -> Void) -> Watch {
        Watch(stage: "vision tower", checkpoint: checkpoint, finished: finished)
    }
}

// MARK: Forward

extension VisionTower {
    /// Makes tokens of pictures; all go through a block together, so that its weights are read once.
    ///
    /// - Parameters:
    ///   - pictures: The pictures with their grids.
    ///   - supply: The matrices, in the order that `order` gives.
    ///   - scratch: Buffers for as many patches.
    ///   - operators: The arithmetic.
    ///   - watch: Asked and told after each block and merger.
    ///   - features: Receives the tokens of all pictures.
    /// - Throws: What `watch` and `supply` find.
    func forward(
        _ pictures: [(picture: VisionPicture, grid: VisionGrid)],
        supply: MatrixSupply,
        scratch: VisionScratch,
        operators: Operators,
        watch: Watch,
        into features: VisionFeatures
    ) throws(GenerationError) {
        let x = scratch.residual
        var sequences: [Range<Int>] = []
        for (picture, grid) in pictures {
            let first = sequences.last?.upperBound ?? 0
            sequences.append(first..<first + grid.patches)
            picture.write(grid, into: scratch.patches.rows(first..<first + grid.patches))
        }
        operators.linear(scratch.patches, embedding, bias: embeddingBias, into: x)
        let terms = pictures.flatMap { $0.grid.tableTerms(side: config.tableSide) }
        operators.gather(positions, terms, addingTo: x)
        let rotary = rotaryTable(pictures.flatMap { $0.grid.places })

        for (index, block) in blocks.enumerated() {
            let loaded = try supply.load(block)
            forward(loaded, sequences, rotary, scratch, operators)
            supply.release()
            try watch.check(x, "block \(index + 1)", operators)
            guard let place = config.deepstackBlocks.firstIndex(of: index) else { continue }
            let merger = try supply.load(deepstack[place])
            merge(x, merger, scratch, operators, into: features.deepstack[place])
            supply.release()
            try watch.check(features.deepstack[place], "deepstack \(place + 1)", operators)
        }
        let last = try supply.load(merger)
        merge(x, last, scratch, operators, into: features.tokens)
        supply.release()
        try watch.check(features.tokens, "merger", operators)
    }

    /// Adds one block's attention and feed-forward to the residual stream.
    private func forward(
        _ block: VisionBlock,
        _ sequences: [Range<Int>],
        _ rotary: RotaryTable,
        _ scratch: VisionScratch,
        _ operators: Operators
    ) {
        let (x, width) = (scratch.residual, config.width)
        func part(_ index: Int) -> (weight: WeightMatrix, bias: Tensor) {
            let rows = index * width..<(index + 1) * width
            return (block.queryKeyValue.rows(rows), block.queryKeyValueBias.rows(rows))
        }
        let (query, key, value) = (part(0), part(1), part(2))
        let heads = HeadNorm(rotating: rotary)
        operators.linear(
            .layerNormed(x, block.attentionNorm),
            [
                LinearLayer(query.weight, bias: query.bias, heads: heads, into: scratch.query),
                LinearLayer(key.weight, bias: key.bias, heads: heads, into: scratch.key),
                LinearLayer(value.weight, bias: value.bias, into: scratch.value),
            ]
        )
        for rows in sequences {
            operators.attention(
                scratch.query.rows(rows),
                scratch.key.rows(rows),
                scratch.value.rows(rows),
                heads: config.heads,
                keyValueHeads: config.heads,
                into: scratch.query.rows(rows)
            )
        }
        operators.linear(
            .rows(scratch.query),
            [LinearLayer(block.output, bias: block.outputBias, addingTo: x)]
        )

        for first in stride(from: 0, to: x.rows, by: scratch.hidden.rows) {
            let rows = x.rows(first..<min(first + scratch.hidden.rows, x.rows))
            let hidden = scratch.hidden.rows(0..<rows.rows)
            operators.linear(
                .layerNormed(rows, block.feedForwardNorm),
                [
                    LinearLayer(block.up, bias: block.upBias, activation: .geluTanh, into: hidden)
                ]
            )
            operators.linear(
                .rows(hidden),
                [LinearLayer(block.down, bias: block.downBias, addingTo: rows)]
            )
        }
    }

    /// Makes tokens of the residual stream.
    private func merge(
        _ x: Tensor,
        _ merger: VisionMerger,
        _ scratch: VisionScratch,
        _ operators: Operators,
        into tokens: Tensor
    ) {
        let rows = x.reshaped(scratch.merged.shape)
        operators.linear(
            .layerNormed(rows, merger.norm),
            [
                LinearLayer(
                    merger.hidden,
                    bias: merger.hiddenBias,
                    activation: .gelu,
                    into: scratch.merged
                )
            ]
        )
        operators.linear(scratch.merged, merger.output, bias: merger.outputBias, into: tokens)
    }

    /// Angles of patches: one half of them turns with the row, the other with the column.
    ///
    /// Frequencies and angles are rounded to float32 where the reference rounds them.
    private func rotaryTable(_ places: [(row: Int, column: Int)]) -> RotaryTable {
        let (half, quarter) = (config.headSize / 2, config.headSize / 4)
        let frequencies = (0..<quarter).map { index in
            1 / powf(config.theta, Float(2 * index) / Float(half))
        }
        let angles = places.flatMap { place in
            frequencies.map { Float(place.row) * $0 } + frequencies.map { Float(place.column) * $0 }
        }
        return RotaryTable(
            cosine: Tensor(angles.map { cosf($0) }, shape: [places.count, half]),
            sine: Tensor(angles.map { sinf($0) }, shape: [places.count, half]),
            pairsAreAdjacent: false
        )
    }
}
