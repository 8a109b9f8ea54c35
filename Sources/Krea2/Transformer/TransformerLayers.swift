import Checkpoints
import Compute
import Tensors

/// Attention whose output is gated, as in all blocks of the transformer.
struct GatedAttention {
    let sizes: BlockSizes
    let query: Tensor
    let key: Tensor
    let value: Tensor
    /// Gate of the attention's output, before `output`; not to be confused with the feed-forward's.
    let gate: Tensor
    let output: Tensor
    /// Root-mean-square norms of each head, `[headSize]`, stored minus one.
    let queryNorm: Tensor
    let keyNorm: Tensor

    init(_ weights: WeightReader, _ sizes: BlockSizes) {
        self.sizes = sizes
        let width = sizes.width
        query = weights.matrix("wq.weight", width, width)
        key = weights.matrix("wk.weight", sizes.keyValueWidth, width)
        value = weights.matrix("wv.weight", sizes.keyValueWidth, width)
        gate = weights.matrix("gate.weight", width, width)
        output = weights.matrix("wo.weight", width, width)
        queryNorm = weights.small("qknorm.qnorm.scale", sizes.headSize)
        keyNorm = weights.small("qknorm.knorm.scale", sizes.headSize)
    }

    var matrices: [Tensor] { [query, key, value, gate, output] }
}

/// The gated feed-forward network of all blocks.
struct FeedForward {
    let gate: Tensor
    let up: Tensor
    let down: Tensor

    init(_ weights: WeightReader, _ sizes: BlockSizes) {
        gate = weights.matrix("gate.weight", sizes.feedForwardWidth, sizes.width)
        up = weights.matrix("up.weight", sizes.feedForwardWidth, sizes.width)
        down = weights.matrix("down.weight", sizes.width, sizes.feedForwardWidth)
    }

    var matrices: [Tensor] { [gate, up, down] }
}

/// Buffers of one block for a number of rows.
struct BlockScratch {
    /// Input and then output of each layer: `[rows, width]`.
    let normed: Tensor
    let query: Tensor
    let key: Tensor
    let value: Tensor
    let gate: Tensor
    /// Hidden activations of some rows; they take the memory of query, key, value and gate.
    let hiddenGate: Tensor
    let hiddenUp: Tensor

    init(_ sizes: BlockSizes, rows: Int, _ arena: inout Arena) {
        normed = arena.tensor("normed", rows, sizes.width)
        let start = arena.position
        query = arena.tensor("query", rows, sizes.width)
        key = arena.tensor("key", rows, sizes.keyValueWidth)
        value = arena.tensor("value", rows, sizes.keyValueWidth)
        gate = arena.tensor("attention gate", rows, sizes.width)
        let end = arena.position
        arena.position = start
        // As many rows at once as fit there; a few are worth more memory.
        let fitting = (end - start) / (8 * sizes.feedForwardWidth)
        let chunk = min(rows, max(fitting, 64))
        hiddenGate = arena.tensor("feed-forward gate", chunk, sizes.feedForwardWidth)
        hiddenUp = arena.tensor("feed-forward up", chunk, sizes.feedForwardWidth)
        arena.position = max(end, arena.position)
    }

    /// The same buffers for fewer rows.
    func prefix(_ rows: Int) -> BlockScratch {
        BlockScratch(
            normed: normed.rows(0..<rows),
            query: query.rows(0..<rows),
            key: key.rows(0..<rows),
            value: value.rows(0..<rows),
            gate: gate.rows(0..<rows),
            hiddenGate: hiddenGate,
            hiddenUp: hiddenUp
        )
    }

    private init(
        normed: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        gate: Tensor,
        hiddenGate: Tensor,
        hiddenUp: Tensor
    ) {
        self.normed = normed
        self.query = query
        self.key = key
        self.value = value
        self.gate = gate
        self.hiddenGate = hiddenGate
        self.hiddenUp = hiddenUp
    }
}

// MARK: Forward

extension GatedAttention {
    /// Replaces the normed rows by the attention's output.
    ///
    /// - Parameters:
    ///   - scratch: `normed` holds the input, and afterwards the output.
    ///   - sequence: Rows that attend to each other; the rows are whole sequences.
    ///   - rotary: Angles of each row; nil for none.
    ///   - epsilon: Of the head norms.
    ///   - operators: The arithmetic.
    func forward(
        _ scratch: BlockScratch,
        sequence: Int,
        rotary: RotaryTable?,
        epsilon: Float,
        operators: Operators
    ) {
        operators.linear(scratch.normed, query, into: scratch.query)
        operators.linear(scratch.normed, key, into: scratch.key)
        operators.linear(scratch.normed, value, into: scratch.value)
        operators.linear(scratch.normed, gate, into: scratch.gate)

        for (heads, norm) in [(scratch.query, queryNorm), (scratch.key, keyNorm)] {
            operators.headNorm(
                heads,
                weight: norm,
                stored: .minusOne,
                epsilon: epsilon,
                rotary: rotary
            )
        }
        for first in stride(from: 0, to: scratch.query.rows, by: sequence) {
            let rows = first..<first + sequence
            operators.attention(
                scratch.query.rows(rows),
                scratch.key.rows(rows),
                scratch.value.rows(rows),
                heads: sizes.heads,
                keyValueHeads: sizes.keyValueHeads,
                into: scratch.query.rows(rows)
            )
        }

        operators.sigmoidMultiply(scratch.query, by: scratch.gate)
        operators.linear(scratch.query, output, into: scratch.normed)
    }
}

extension FeedForward {
    /// Replaces the normed rows by the network's output, some rows at a time.
    ///
    /// - Parameters:
    ///   - scratch: `normed` holds the input, and afterwards the output.
    ///   - operators: The arithmetic.
    func forward(_ scratch: BlockScratch, operators: Operators) {
        let (rows, chunk) = (scratch.normed.rows, scratch.hiddenGate.rows)
        for first in stride(from: 0, to: rows, by: chunk) {
            let x = scratch.normed.rows(first..<min(first + chunk, rows))
            let hidden = scratch.hiddenGate.rows(0..<x.rows)
            let factor = scratch.hiddenUp.rows(0..<x.rows)
            operators.linear(x, gate, into: hidden)
            operators.linear(x, up, into: factor)
            operators.siluMultiply(hidden, by: factor)
            operators.linear(hidden, down, into: x)
        }
    }
}
