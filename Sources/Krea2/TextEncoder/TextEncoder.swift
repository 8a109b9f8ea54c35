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

    /// Files that must not change while it computes; told of each finished layer.
    func watch(_ finished: @escaping () -> Void) -> Watch {
        Watch(stage: "text encoder", checkpoint: checkpoint, finished: finished)
    }
}

// MARK: Forward

extension TextEncoder {
    /// Fails when a token has no embedding.
    func checkVocabulary(_ ids: [Int32]) throws(GenerationError) {
        let largest = ids.max() ?? 0
        guard largest < config.vocabulary else {
            throw .model(
                .damaged(
                    path: checkpoint.path,
                    tensor: nil,
                    found: "embeddings of \(config.vocabulary) tokens",
                    expected:
                        "more than \(largest), a token of the prompt; the tokenizer is another"
                )
            )
        }
    }

    /// Encodes prompts; all go through a layer together, so that its weights are read once.
    ///
    /// - Parameters:
    ///   - prompts: For each one, the ids of prefix, prompt and suffix, below the vocabulary, and the
    ///     pictures among them.
    ///   - supply: The matrices, in the order that `order` gives.
    ///   - scratch: Buffers for as many tokens.
    ///   - operators: The arithmetic.
    ///   - watch: Asked and told after each layer.
    ///   - convention: When a picture's rows are tapped.
    ///   - taps: For each prompt, `[ids.count − sliceStart, taps, width]`, float32 or bfloat16: the
    ///     residual stream after each tapped layer, without the rows of the template's prefix.
    /// - Throws: What `watch` and `supply` find.
    func forward(
        _ prompts: [TokenSequence],
        supply: MatrixSupply,
        scratch: TextEncoderScratch,
        operators: Operators,
        watch: Watch,
        convention: TapConvention = .beforeDeepstack,
        into taps: [Tensor]
    ) throws(GenerationError) {
        let rotary = RotaryTable(joining: prompts.map { rotaryTable($0.positions) })
        let sequences = prompts.reduce(into: [Range<Int>]()) { ranges, prompt in
            let first = ranges.last?.upperBound ?? 0
            ranges.append(first..<first + prompt.ids.count)
        }
        operators.gather(
            embedding,
            prompts.flatMap { $0.ids.map(Int.init) },
            into: scratch.residual
        )
        let pictures = zip(prompts, sequences).flatMap { prompt, sequence in
            prompt.pictures.map { picture in
                (picture, scratch.residual.rows(picture.rows(from: sequence.lowerBound)))
            }
        }
        for (picture, rows) in pictures { rows.copy(from: picture.features) }

        for (index, layer) in layers.enumerated() {
            let loaded = try supply.load(layer)
            forward(loaded, sequences, rotary: rotary, scratch: scratch, operators: operators)
            supply.release()

            try watch.check(scratch.residual, "layer \(index + 1)", operators)
            func tap() {
                guard let place = self.taps.firstIndex(of: index + 1) else { return }
                for (taps, sequence) in zip(taps, sequences) {
                    let rows = sequence.dropFirst(PromptTemplate.sliceStart)
                    keep(scratch.residual, rows, operators, into: taps, place)
                }
            }
            if convention == .beforeDeepstack { tap() }
            for (picture, rows) in pictures where index < picture.deepstack.count {
                operators.gatedAdd(rows, picture.deepstack[index], gate: nil)
            }
            if convention == .afterDeepstack { tap() }
        }
    }

    /// Copies rows of the residual stream to one place of the taps, in their type.
    private func keep(
        _ residual: Tensor,
        _ rows: Range<Int>,
        _ operators: Operators,
        into taps: Tensor,
        _ place: Int
    ) {
        for (row, source) in rows.enumerated() {
            let (target, values) = (taps.row(row).row(place), residual.row(source))
            if target.elementType == .bfloat16 {
                operators.narrow(values, into: target)
            } else {
                target.copy(from: values)
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

    /// Angles of positions, whose three axes coincide for text.
    ///
    /// Frequencies and angles are rounded to float32 where the reference rounds them.
    private func rotaryTable(_ positions: [TokenPosition]) -> RotaryTable {
        let half = config.headSize / 2
        let frequencies = (0..<half).map { index in
            1 / powf(config.theta, Float(2 * index) / Float(config.headSize))
        }
        let angles = positions.flatMap { position in
            frequencies.enumerated().map { index, frequency in
                Float(axis(of: index, position)) * frequency
            }
        }
        return RotaryTable(
            cosine: Tensor(angles.map { cosf($0) }, shape: [positions.count, half]),
            sine: Tensor(angles.map { sinf($0) }, shape: [positions.count, half]),
            pairsAreAdjacent: false
        )
    }
    /// The coordinate that a frequency turns with: the axes take turns.
    private func axis(of frequency: Int, _ position: TokenPosition) -> Int {
        switch frequency % 3 {
        case 1 where frequency / 3 < config.rowFrequencies: position.row
        case 2 where frequency / 3 < config.columnFrequencies: position.column
        default: position.time
        }
    }
}
