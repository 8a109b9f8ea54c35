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
    /// Bytes of weights in use at a time: two layers; of the embeddings few rows are read.
    var residentByteCount: Int {
        2 * (layers.map { $0.matrices.reduce(0) { $0 + $1.byteCount } }.max() ?? 0)
    }
}

// MARK: Forward

extension TextEncoder {
    /// Encodes a prompt.
    ///
    /// - Parameters:
    ///   - ids: Prefix, prompt and suffix; each id is below the vocabulary.
    ///   - scratch: Buffers for as many tokens.
    ///   - operators: The arithmetic.
    ///   - watch: Asked and told after each layer.
    ///   - taps: `[ids.count − sliceStart, taps, width]`: the residual stream after each tapped
    ///     layer, without the rows of the template's prefix.
    /// - Throws: What `watch` finds.
    func forward(
        _ ids: [Int32],
        scratch: TextEncoderScratch,
        operators: Operators,
        watch: Watch,
        into taps: Tensor
    ) throws(GenerationError) {
        let rotary = rotaryTable(tokens: ids.count)
        operators.gather(embedding, ids.map(Int.init), into: scratch.residual)

        for (index, layer) in layers.enumerated() {
            if index + 1 < layers.count { checkpoint.prefetch(layers[index + 1].matrices) }
            forward(layer, rotary: rotary, scratch: scratch, operators: operators)
            checkpoint.release(layer.matrices)

            try watch.check(scratch.residual, "layer \(index + 1)", operators)
            if let tap = self.taps.firstIndex(of: index + 1) {
                for row in 0..<taps.rows {
                    taps.row(row).row(tap)
                        .copy(from: scratch.residual.row(row + PromptTemplate.sliceStart))
                }
            }
        }
    }

    /// Adds one layer's attention and feed-forward to the residual stream.
    private func forward(
        _ layer: TextEncoderLayer,
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
        operators.attention(
            scratch.query,
            scratch.key,
            scratch.value,
            heads: config.heads,
            keyValueHeads: config.keyValueHeads,
            mask: .causal(firstPosition: 0),
            into: scratch.query
        )
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
