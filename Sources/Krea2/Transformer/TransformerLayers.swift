import Checkpoints
import Compute
import Tensors

/// Attention whose output is gated, as in all blocks of the transformer.
struct GatedAttention: MatrixGroup {
    let sizes: BlockSizes
    private(set) var query: WeightMatrix
    private(set) var key: WeightMatrix
    private(set) var value: WeightMatrix
    /// Gate of the attention's output, before `output`; not to be confused with the feed-forward's.
    private(set) var gate: WeightMatrix
    private(set) var output: WeightMatrix
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

    var matrices: [WeightMatrix] { [query, key, value, gate, output] }

    func replacing(_ matrices: [WeightMatrix]) -> GatedAttention {
        var copy = self
        (copy.query, copy.key, copy.value) = (matrices[0], matrices[1], matrices[2])
        (copy.gate, copy.output) = (matrices[3], matrices[4])
        return copy
    }
}

/// The gated feed-forward network of all blocks.
struct FeedForward: MatrixGroup {
    private(set) var gate: WeightMatrix
    private(set) var up: WeightMatrix
    private(set) var down: WeightMatrix

    init(_ weights: WeightReader, _ sizes: BlockSizes) {
        gate = weights.matrix("gate.weight", sizes.feedForwardWidth, sizes.width)
        up = weights.matrix("up.weight", sizes.feedForwardWidth, sizes.width)
        down = weights.matrix("down.weight", sizes.width, sizes.feedForwardWidth)
    }

    var matrices: [WeightMatrix] { [gate, up, down] }

    func replacing(_ matrices: [WeightMatrix]) -> FeedForward {
        var copy = self
        (copy.gate, copy.up, copy.down) = (matrices[0], matrices[1], matrices[2])
        return copy
    }
}

/// Rows of a block, and which of them attend to which.
struct BlockRows {
    /// Rows that attend to each other: consecutive, and together all rows.
    let sequences: [Range<Int>]
    /// Rows of each sequence whose result is wanted; only their keys and values are made of others.
    let wanted: [Range<Int>]
    /// Angles of all rows; nil for none.
    let rotary: RotaryTable?

    /// Sequences whose rows are all wanted.
    init(_ sequences: [Range<Int>], rotary: RotaryTable? = nil) {
        self.init(sequences, wanted: sequences, rotary: rotary)
    }

    init(_ sequences: [Range<Int>], wanted: [Range<Int>], rotary: RotaryTable?) {
        (self.sequences, self.wanted, self.rotary) = (sequences, wanted, rotary)
    }

    /// The wanted rows in as few ranges as possible.
    var wantedRanges: [Range<Int>] {
        wanted.reduce(into: []) { ranges, rows in
            if let last = ranges.last, last.upperBound == rows.lowerBound {
                ranges[ranges.count - 1] = last.lowerBound..<rows.upperBound
            } else {
                ranges.append(rows)
            }
        }
    }
}

/// Buffers of one block for a number of rows; their type is that of the activations.
struct BlockScratch {
    /// Queries, and then what attention makes of them: `[rows, width]`.
    let query: Tensor
    let key: Tensor
    let value: Tensor
    let gate: Tensor
    /// Hidden activations of some rows; they take the memory of query, key, value and gate.
    let hidden: Tensor

    init(_ sizes: BlockSizes, rows: Int, _ activations: ElementType, _ arena: inout Arena) {
        let start = arena.position
        query = arena.tensor("query", rows, sizes.width, elementType: activations)
        key = arena.tensor("key", rows, sizes.keyValueWidth, elementType: activations)
        value = arena.tensor("value", rows, sizes.keyValueWidth, elementType: activations)
        gate = arena.tensor("attention gate", rows, sizes.width, elementType: activations)
        let end = arena.position
        arena.position = start
        // As many rows at once as fit there; a few are worth more memory.
        let rowBytes = sizes.feedForwardWidth * activations.byteCount
        let fitting = max((end - start) / rowBytes, 64)
        let chunks = (rows + fitting - 1) / fitting
        hidden = arena.tensor(
            "feed-forward",
            (rows + chunks - 1) / max(1, chunks),
            sizes.feedForwardWidth,
            elementType: activations
        )
        arena.position = max(end, arena.position)
    }
}

// MARK: Forward

extension GatedAttention {
    /// Adds the attention's output to the residual stream.
    ///
    /// - Parameters:
    ///   - x: Residual stream: `[rows, width]`.
    ///   - norm: Comes before the layers.
    ///   - residualGate: Multiplies what is added: `[width]`; nil for 1.
    ///   - rows: Which rows attend to which.
    ///   - epsilon: Of the head norms.
    ///   - scratch: Buffers for at least as many rows.
    ///   - operators: The arithmetic.
    func forward(
        _ x: Tensor,
        norm: RowNorm,
        residualGate: Tensor?,
        rows: BlockRows,
        epsilon: Float,
        scratch: BlockScratch,
        operators: Operators
    ) {
        func headNorm(_ weight: Tensor, _ range: Range<Int>) -> HeadNorm {
            let rotary = rows.rotary?.rows(range)
            return HeadNorm(weight: weight, stored: .minusOne, epsilon: epsilon, rotary: rotary)
        }
        func queryLayers(_ range: Range<Int>) -> [LinearLayer] {
            let norm = headNorm(queryNorm, range)
            return [
                LinearLayer(query, heads: norm, into: scratch.query.rows(range)),
                LinearLayer(gate, into: scratch.gate.rows(range)),
            ]
        }
        let all = 0..<x.rows
        let keyLayers = [
            LinearLayer(key, heads: headNorm(keyNorm, all), into: scratch.key.rows(all)),
            LinearLayer(value, into: scratch.value.rows(all)),
        ]
        if rows.wantedRanges == [all] {
            operators.linear(.normed(x, norm), queryLayers(all) + keyLayers)
        } else {
            operators.linear(.normed(x, norm), keyLayers)
            for range in rows.wantedRanges {
                operators.linear(.normed(x.rows(range), norm), queryLayers(range))
            }
        }

        for (sequence, wanted) in zip(rows.sequences, rows.wanted) {
            operators.attention(
                scratch.query.rows(wanted),
                scratch.key.rows(sequence),
                scratch.value.rows(sequence),
                heads: sizes.heads,
                keyValueHeads: sizes.keyValueHeads,
                into: scratch.query.rows(wanted)
            )
        }
        for range in rows.wantedRanges {
            operators.linear(
                .gated(scratch.query.rows(range), by: scratch.gate.rows(range)),
                [LinearLayer(output, addingTo: x.rows(range), gate: residualGate)]
            )
        }
    }
}

extension FeedForward {
    /// Adds the network's output to the residual stream, some rows at a time.
    ///
    /// - Parameters:
    ///   - x: Residual stream: `[rows, width]`.
    ///   - norm: Comes before the layers.
    ///   - residualGate: Multiplies what is added: `[width]`; nil for 1.
    ///   - ranges: Rows that are wanted.
    ///   - scratch: Buffers.
    ///   - operators: The arithmetic.
    func forward(
        _ x: Tensor,
        norm: RowNorm,
        residualGate: Tensor?,
        ranges: [Range<Int>],
        scratch: BlockScratch,
        operators: Operators
    ) {
        for range in ranges {
            for first in stride(
                from: range.lowerBound,
                to: range.upperBound,
                by: scratch.hidden.rows
            ) {
                let rows = first..<min(first + scratch.hidden.rows, range.upperBound)
                let hidden = scratch.hidden.rows(0..<rows.count)
                operators.linear(
                    .normed(x.rows(rows), norm),
                    [LinearLayer(gate: gate, up: up, into: hidden)]
                )
                operators.linear(
                    .rows(hidden),
                    [LinearLayer(down, addingTo: x.rows(rows), gate: residualGate)]
                )
            }
        }
    }
}
