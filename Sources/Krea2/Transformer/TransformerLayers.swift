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

/// Consecutive rows that are modulated alike.
struct TimedRows: Equatable {
    let rows: Range<Int>
    /// Which of the evaluation's times modulates them.
    let time: Int
}

/// Consecutive rows, what they are normed by before layers, and what scales what is added to them.
struct RowPart {
    let rows: Range<Int>
    let norm: RowNorm
    /// `[width]`; nil for 1.
    let residualGate: Tensor?

    /// What of it lies in some ranges.
    func limited(to ranges: [Range<Int>]) -> [RowPart] {
        ranges.map { $0.clamped(to: rows) }.filter { !$0.isEmpty }.map {
            RowPart(rows: $0, norm: norm, residualGate: residualGate)
        }
    }
}

/// Rows of a block, and which of them attend to which.
struct BlockRows {
    let sequences: [BlockSequence]
    /// Angles of all rows; nil for none.
    let rotary: RotaryTable?
    /// What modulates the rows, all of them in order; empty where nothing does.
    let times: [TimedRows]

    /// Sequences whose rows are all wanted.
    init(_ sequences: [Range<Int>], rotary: RotaryTable? = nil) {
        self.init(sequences.map { BlockSequence($0) }, rotary: rotary)
    }

    init(_ sequences: [BlockSequence], rotary: RotaryTable? = nil, times: [TimedRows] = []) {
        (self.sequences, self.rotary, self.times) = (sequences, rotary, times)
    }

    /// The wanted rows in as few ranges as possible.
    var wantedRanges: [Range<Int>] {
        let wanted = sequences.flatMap { $0.spans.map(\.queries) }
        return wanted.sorted { $0.lowerBound < $1.lowerBound }.reduce(into: []) { ranges, rows in
            if let last = ranges.last, last.upperBound == rows.lowerBound {
                ranges[ranges.count - 1] = last.lowerBound..<rows.upperBound
            } else {
                ranges.append(rows)
            }
        }
    }
}

/// Rows that attend to each other, and groups of rows that they see beside that.
struct BlockSequence {
    /// Consecutive rows whose keys all queries read.
    let rows: Range<Int>
    /// Rows whose result is wanted, with the groups that they see; of others, only keys and values
    /// are made.
    let spans: [AttentionSpan]

    /// Rows that see nothing else.
    ///
    /// - Parameters:
    ///   - rows: All of them.
    ///   - keyLogs: Logarithms of how often each of the rows counts: `[rows]`; nil for once.
    init(_ rows: Range<Int>, keyLogs: Tensor? = nil) {
        self.init(rows, spans: [AttentionSpan(rows, keyLogs: keyLogs)])
    }

    /// Rows of which some, and rows of groups, see groups.
    init(_ rows: Range<Int>, spans: [AttentionSpan]) {
        (self.rows, self.spans) = (rows, spans)
    }

    /// Whether no row sees a group.
    var isPlain: Bool { spans.allSatisfy(\.families.isEmpty) }
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
    ///   - parts: All rows of x in order, with what norms and scales them.
    ///   - rows: Which rows attend to which.
    ///   - epsilon: Of the head norms.
    ///   - scratch: Buffers for at least as many rows.
    ///   - operators: The arithmetic.
    func forward(
        _ x: Tensor,
        parts: [RowPart],
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
        func keyLayers(_ range: Range<Int>) -> [LinearLayer] {
            [
                LinearLayer(key, heads: headNorm(keyNorm, range), into: scratch.key.rows(range)),
                LinearLayer(value, into: scratch.value.rows(range)),
            ]
        }
        func project(_ range: Range<Int>, _ norm: RowNorm, _ layers: [LinearLayer]) {
            operators.linear(.normed(x.rows(range), norm), layers)
        }
        let wanted = rows.wantedRanges
        for part in parts {
            let ranges = part.limited(to: wanted).map(\.rows)
            if ranges == [part.rows] {
                project(part.rows, part.norm, queryLayers(part.rows) + keyLayers(part.rows))
            } else {
                project(part.rows, part.norm, keyLayers(part.rows))
                for range in ranges { project(range, part.norm, queryLayers(range)) }
            }
        }

        for sequence in rows.sequences { attend(sequence, scratch, operators) }
        for part in parts.flatMap({ $0.limited(to: wanted) }) {
            operators.linear(
                .gated(scratch.query.rows(part.rows), by: scratch.gate.rows(part.rows)),
                [LinearLayer(output, addingTo: x.rows(part.rows), gate: part.residualGate)]
            )
        }
    }
}

extension GatedAttention {
    /// Replaces the wanted queries by what they read.
    private func attend(
        _ sequence: BlockSequence,
        _ scratch: BlockScratch,
        _ operators: Operators
    ) {
        guard sequence.isPlain else {
            operators.attention(
                scratch.query,
                scratch.key,
                scratch.value,
                heads: sizes.heads,
                keyValueHeads: sizes.keyValueHeads,
                base: sequence.rows,
                spans: sequence.spans,
                into: scratch.query
            )
            return
        }
        for span in sequence.spans {
            operators.attention(
                scratch.query.rows(span.queries),
                scratch.key.rows(sequence.rows),
                scratch.value.rows(sequence.rows),
                heads: sizes.heads,
                keyValueHeads: sizes.keyValueHeads,
                keyLogs: span.keyLogs,
                into: scratch.query.rows(span.queries)
            )
        }
    }
}

extension FeedForward {
    /// Adds the network's output to the residual stream, some rows at a time.
    ///
    /// - Parameters:
    ///   - x: Residual stream: `[rows, width]`.
    ///   - parts: Rows that are wanted, with what norms and scales them.
    ///   - scratch: Buffers.
    ///   - operators: The arithmetic.
    func forward(
        _ x: Tensor,
        parts: [RowPart],
        scratch: BlockScratch,
        operators: Operators
    ) {
        for part in parts {
            let end = part.rows.upperBound
            for first in stride(from: part.rows.lowerBound, to: end, by: scratch.hidden.rows) {
                let rows = first..<min(first + scratch.hidden.rows, end)
                let hidden = scratch.hidden.rows(0..<rows.count)
                operators.linear(
                    .normed(x.rows(rows), part.norm),
                    [LinearLayer(gate: gate, up: up, into: hidden)]
                )
                operators.linear(
                    .rows(hidden),
                    [LinearLayer(down, addingTo: x.rows(rows), gate: part.residualGate)]
                )
            }
        }
    }
}
