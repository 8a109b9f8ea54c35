import Checkpoints
import Compute
import Glibc
import Tensors
import Tokenization

/// The language model of Qwen3-VL, up to the last layer that is tapped.
///
/// Source: transformers 5.23 `modeling_qwen3_vl.py`, `Qwen3VLTextModel`.
struct TextEncoder {
    let config: TextEncoderConfig
    /// Layers after which the residual stream is kept, counted from 1, ascending.
    let taps: [Int]

    private let checkpoint: Checkpoint
    private let embedding: WeightMatrix
    private let layers: [TextEncoderLayer]

    /// Reads the layers that are needed and checks their shapes.
    ///
    /// - Parameters:
    ///   - part: The opened files.
    ///   - taps: Layers to keep, counted from 1, ascending.
    /// - Throws: One error that names everything missing, surplus, misshapen or mistyped.
    init(_ part: TextEncoderFiles, taps: [Int]) throws(CheckpointError) {
        config = part.config
        checkpoint = part.checkpoint
        self.taps = taps
        let needed = taps.last ?? 0
        guard needed <= config.layers else {
            throw .damaged(
                path: part.checkpoint.path,
                tensor: nil,
                found: "\(config.layers) layers",
                expected: "at least \(needed), the last that is tapped"
            )
        }
        let reader = WeightReader(checkpoint)
        embedding = reader.matrix("embed_tokens.weight", config.vocabulary, config.width)
        layers = (0..<needed).map { TextEncoderLayer(reader.scoped("layers.\($0)."), part.config) }
        try reader.finish(ignoring: { TextEncoderFiles.isUnused($0, after: needed) })
    }
}

/// One decoder layer's tensors.
struct TextEncoderLayer: MatrixGroup {
    let attentionNorm: Tensor
    private(set) var query: WeightMatrix
    private(set) var key: WeightMatrix
    private(set) var value: WeightMatrix
    private(set) var output: WeightMatrix
    /// Root-mean-square norms of each head: `[headSize]`.
    let queryNorm: Tensor
    let keyNorm: Tensor
    let feedForwardNorm: Tensor
    private(set) var gate: WeightMatrix
    private(set) var up: WeightMatrix
    private(set) var down: WeightMatrix

    init(_ weights: WeightReader, _ config: TextEncoderConfig) {
        let (width, headSize) = (config.width, config.headSize)
        let queryWidth = config.heads * headSize
        let keyWidth = config.keyValueHeads * headSize
        attentionNorm = weights.small("input_layernorm.weight", width)
        query = weights.matrix("self_attn.q_proj.weight", queryWidth, width)
        key = weights.matrix("self_attn.k_proj.weight", keyWidth, width)
        value = weights.matrix("self_attn.v_proj.weight", keyWidth, width)
        output = weights.matrix("self_attn.o_proj.weight", width, queryWidth)
        queryNorm = weights.small("self_attn.q_norm.weight", headSize)
        keyNorm = weights.small("self_attn.k_norm.weight", headSize)
        feedForwardNorm = weights.small("post_attention_layernorm.weight", width)
        gate = weights.matrix("mlp.gate_proj.weight", config.feedForwardWidth, width)
        up = weights.matrix("mlp.up_proj.weight", config.feedForwardWidth, width)
        down = weights.matrix("mlp.down_proj.weight", width, config.feedForwardWidth)
    }

    var matrices: [WeightMatrix] { [query, key, value, output, gate, up, down] }

    func replacing(_ matrices: [WeightMatrix]) -> TextEncoderLayer {
        var copy = self
        (copy.query, copy.key, copy.value) = (matrices[0], matrices[1], matrices[2])
        copy.output = matrices[3]
        (copy.gate, copy.up, copy.down) = (matrices[4], matrices[5], matrices[6])
        return copy
    }
}

/// Buffers of the encoder for a number of tokens.
struct TextEncoderScratch {
    let residual: Tensor
    let query: Tensor
    let key: Tensor
    let value: Tensor
    let hidden: Tensor

    init(
        _ config: TextEncoderConfig,
        tokens: Int,
        _ activations: ElementType,
        _ arena: inout Arena
    ) {
        func buffer(_ name: String, _ width: Int) -> Tensor {
            arena.tensor(name, tokens, width, elementType: activations)
        }
        let keyWidth = config.keyValueHeads * config.headSize
        residual = arena.tensor("residual", tokens, config.width)
        query = buffer("query", config.heads * config.headSize)
        key = buffer("key", keyWidth)
        value = buffer("value", keyWidth)
        hidden = buffer("feed-forward", config.feedForwardWidth)
    }
}

// MARK: Memory

extension TextEncoder {
    /// The matrices in the order of their use.
    func order(_ policy: ArithmeticPolicy) -> MatrixSupply.Order {
        MatrixSupply.Order(groups: layers.map(\.matrices), checkpoint: checkpoint, policy: policy)
    }
}

// MARK: Forward

extension TextEncoder {
    /// Encodes prompts; all go through a layer together, so that its weights are read once.
    ///
    /// - Parameters:
    ///   - prompts: For each one, the ids of prefix, prompt and suffix, below the vocabulary.
    ///   - supply: The matrices, in the order that `order` gives.
    ///   - scratch: Buffers for as many tokens.
    ///   - operators: The arithmetic.
    ///   - watch: Asked and told after each layer.
    ///   - taps: For each prompt, `[ids.count − sliceStart, taps, width]`: the residual stream after
    ///     each tapped layer, without the rows of the template's prefix.
    /// - Throws: What `watch` and `supply` find.
    func forward(
        _ prompts: [[Int32]],
        supply: MatrixSupply,
        scratch: TextEncoderScratch,
        operators: Operators,
        watch: Watch,
        into taps: [Tensor]
    ) throws(GenerationError) {
        let rotary = RotaryTable(joining: prompts.map { rotaryTable(tokens: $0.count) })
        let sequences = prompts.reduce(into: [Range<Int>]()) { ranges, ids in
            let first = ranges.last?.upperBound ?? 0
            ranges.append(first..<first + ids.count)
        }
        operators.gather(embedding, prompts.flatMap { $0.map(Int.init) }, into: scratch.residual)

        for (index, layer) in layers.enumerated() {
            let loaded = try supply.load(layer)
            forward(loaded, sequences, rotary: rotary, scratch: scratch, operators: operators)
            supply.release()

            try watch.check(scratch.residual, "layer \(index + 1)", operators)
            guard let tap = self.taps.firstIndex(of: index + 1) else { continue }
            for (taps, sequence) in zip(taps, sequences) {
                for row in 0..<taps.rows {
                    let source = sequence.lowerBound + PromptTemplate.sliceStart + row
                    taps.row(row).row(tap).copy(from: scratch.residual.row(source))
                }
            }
        }
    }

    /// Adds one layer's attention and feed-forward to the residual stream.
    private func forward(
        _ layer: TextEncoderLayer,
        _ sequences: [Range<Int>],
        rotary: RotaryTable,
        scratch: TextEncoderScratch,
        operators: Operators
    ) {
        let x = scratch.residual
        func rowNorm(_ weight: Tensor) -> RowNorm {
            RowNorm(weight: weight, stored: .plain, epsilon: config.epsilon)
        }
        func headNorm(_ weight: Tensor) -> HeadNorm {
            HeadNorm(weight: weight, stored: .plain, epsilon: config.epsilon, rotary: rotary)
        }

        operators.linear(
            .normed(x, rowNorm(layer.attentionNorm)),
            [
                LinearLayer(layer.query, heads: headNorm(layer.queryNorm), into: scratch.query),
                LinearLayer(layer.key, heads: headNorm(layer.keyNorm), into: scratch.key),
                LinearLayer(layer.value, into: scratch.value),
            ]
        )
        for rows in sequences {
            operators.attention(
                scratch.query.rows(rows),
                scratch.key.rows(rows),
                scratch.value.rows(rows),
                heads: config.heads,
                keyValueHeads: config.keyValueHeads,
                mask: .causal(firstPosition: 0),
                into: scratch.query.rows(rows)
            )
        }
        operators.linear(.rows(scratch.query), [LinearLayer(layer.output, addingTo: x)])

        operators.linear(
            .normed(x, rowNorm(layer.feedForwardNorm)),
            [LinearLayer(gate: layer.gate, up: layer.up, into: scratch.hidden)]
        )
        operators.linear(.rows(scratch.hidden), [LinearLayer(layer.down, addingTo: x)])
    }

    /// Angles of positions 0 and up; a picture's three axes coincide for text.
    ///
    /// Frequencies and angles are rounded to float32 where the reference rounds them.
    private func rotaryTable(tokens: Int) -> RotaryTable {
        let half = config.headSize / 2
        let frequencies = (0..<half).map { index in
            1 / powf(config.theta, Float(2 * index) / Float(config.headSize))
        }
        let angles = (0..<tokens).flatMap { token in frequencies.map { Float(token) * $0 } }
        return RotaryTable(
            cosine: Tensor(angles.map { cosf($0) }, shape: [tokens, half]),
            sine: Tensor(angles.map { sinf($0) }, shape: [tokens, half]),
            pairsAreAdjacent: false
        )
    }
}
