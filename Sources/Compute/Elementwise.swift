import CKernels
import Synchronization
package import Tensors

/// How a norm's weight is stored.
package enum NormWeight: Sendable {
    /// The factor itself, as in the text encoder.
    case plain
    /// The factor minus one, as in the transformer.
    case minusOne

    var offset: Float { self == .plain ? 0 : 1 }
}

/// Root-mean-square norm of each row, with an optional modulation after it.
///
/// y = x / √(mean x² + ε) ⊙ weight, then (1 + scale) ⊙ y + shift.
package struct RowNorm: Sendable {
    /// `[width]`.
    let weight: Tensor
    /// How the weight is stored.
    let stored: NormWeight
    /// ε.
    let epsilon: Float
    /// `[width]`, together with `shift` or not at all.
    let scale: Tensor?
    /// `[width]`.
    let shift: Tensor?

    /// Combines the parts.
    package init(
        weight: Tensor,
        stored: NormWeight,
        epsilon: Float,
        scale: Tensor? = nil,
        shift: Tensor? = nil
    ) {
        precondition((scale == nil) == (shift == nil))
        precondition((scale ?? weight).count == weight.count)
        precondition((shift ?? weight).count == weight.count)
        (self.weight, self.stored, self.epsilon) = (weight, stored, epsilon)
        (self.scale, self.shift) = (scale, shift)
    }
}

/// Norm of each row's deviation from its mean.
///
/// y = (x − mean x) / √(variance x + ε) ⊙ weight + bias.
package struct LayerNorm: Sendable {
    /// `[width]`.
    let weight: Tensor
    /// `[width]`.
    let bias: Tensor
    /// ε.
    let epsilon: Float

    /// Combines the parts.
    package init(weight: Tensor, bias: Tensor, epsilon: Float) {
        precondition(weight.count == bias.count)
        (self.weight, self.bias, self.epsilon) = (weight, bias, epsilon)
    }

    /// Norms groups of as many elements as the weight has: `[groups, width]`; y may be x.
    func apply(
        _ y: UnsafeMutablePointer<Float>,
        _ x: UnsafePointer<Float>,
        groups: Int,
        _ table: kernel_table
    ) {
        table.layer_norm(y, x, weight.floats, bias.floats, groups, weight.count, epsilon)
    }
}

/// Root-mean-square norm of every head, if wanted, then rotary embedding.
package struct HeadNorm: Sendable {
    /// `[headSize]`; nil for no norm.
    let weight: Tensor?
    /// How the weight is stored.
    let stored: NormWeight
    /// Added to the mean square.
    let epsilon: Float
    /// Angles of each row; nil leaves the heads unrotated.
    let rotary: RotaryTable?
    let headSize: Int

    /// Combines the parts.
    package init(weight: Tensor, stored: NormWeight, epsilon: Float, rotary: RotaryTable?) {
        precondition(rotary.map { $0.cosine.rowCount == weight.count / 2 } ?? true)
        self.weight = weight
        self.stored = stored
        self.epsilon = epsilon
        self.rotary = rotary
        headSize = weight.count
    }

    /// Heads that are rotated alone.
    package init(rotating rotary: RotaryTable) {
        (weight, stored, epsilon) = (nil, .plain, 0)
        self.rotary = rotary
        headSize = 2 * rotary.cosine.rowCount
    }

    /// Applies it in place to some columns of whole heads: `[rows, columns]`.
    func apply(
        _ x: UnsafeMutablePointer<Float>,
        stride: Int,
        rows: Range<Int>,
        columns: Range<Int>,
        _ table: kernel_table
    ) {
        precondition(rotary.map { rows.upperBound <= $0.cosine.rows } ?? true)
        let angles = rows.lowerBound * (headSize / 2)
        var task = head_norm_task(
            x: x,
            stride: stride,
            rows: rows.count,
            heads: columns.count / headSize,
            head_size: headSize,
            weight: weight.map { UnsafePointer($0.floats) },
            offset: stored.offset,
            epsilon: epsilon,
            cosine: rotary.map { UnsafePointer($0.cosine.floats + angles) },
            sine: rotary.map { UnsafePointer($0.sine.floats + angles) },
            adjacent_pairs: rotary?.pairsAreAdjacent ?? false
        )
        table.head_norm(&task)
    }
}

/// Cosines and sines of rotary position embedding, one row a token.
package struct RotaryTable: Sendable {
    /// `[tokens, headSize / 2]`.
    package let cosine: Tensor
    /// `[tokens, headSize / 2]`.
    package let sine: Tensor
    /// Whether elements (2m, 2m + 1) rotate together; else (m, m + headSize / 2).
    package let pairsAreAdjacent: Bool

    /// The angles of several sequences, one after the other; all rotate the same pairs.
    package init(joining tables: [RotaryTable]) {
        func joined(_ part: (RotaryTable) -> Tensor) -> Tensor {
            let parts = tables.map(part)
            let width = parts.first?.rowCount ?? 0
            let rows = parts.reduce(0) { $0 + $1.rows }
            return Tensor(parts.flatMap(\.elements), shape: [rows, width])
        }
        self.init(
            cosine: joined(\.cosine),
            sine: joined(\.sine),
            pairsAreAdjacent: tables.first?.pairsAreAdjacent ?? false
        )
    }

    /// The angles of some tokens.
    package func rows(_ range: Range<Int>) -> RotaryTable {
        RotaryTable(
            cosine: cosine.rows(range),
            sine: sine.rows(range),
            pairsAreAdjacent: pairsAreAdjacent
        )
    }

    /// Combines the two tables.
    package init(cosine: Tensor, sine: Tensor, pairsAreAdjacent: Bool) {
        precondition(cosine.shape == sine.shape)
        self.cosine = cosine
        self.sine = sine
        self.pairsAreAdjacent = pairsAreAdjacent
    }
}

extension Operators {
    /// Norms each row of x: `[rows, width]`, float32; y is like x, and may be x.
    package func rmsNorm(_ x: Tensor, _ norm: RowNorm, into y: Tensor) {
        let width = norm.weight.count
        precondition(x.count == y.count && x.count.isMultiple(of: width))
        parallelRows(x.count / width, grain: grain(width)) { rows in
            table.rms_norm(
                y.floats + rows.lowerBound * width,
                x.floats + rows.lowerBound * width,
                norm.weight.floats,
                norm.scale?.floats,
                norm.shift?.floats,
                rows.count,
                width,
                norm.stored.offset,
                norm.epsilon
            )
        }
    }

    /// Norms each group of `norm`'s width in x: `[rows, groups · width]`; y is like x, and may be x.
    package func layerNorm(_ x: Tensor, _ norm: LayerNorm, into y: Tensor) {
        let width = norm.weight.count
        precondition(x.count == y.count && x.count.isMultiple(of: width))
        parallelRows(x.count / width, grain: grain(width)) { rows in
            let first = rows.lowerBound * width
            norm.apply(y.floats + first, x.floats + first, groups: rows.count, table)
        }
    }

    /// Norms and rotates every head of x in place: `[tokens, heads · headSize]`, float32.
    package func headNorm(_ x: Tensor, _ norm: HeadNorm) {
        let width = x.rowCount
        precondition(width.isMultiple(of: norm.headSize))
        parallelRows(x.rows, grain: grain(width)) { rows in
            let first = x.floats + rows.lowerBound * width
            norm.apply(first, stride: width, rows: rows, columns: 0..<width, table)
        }
    }

    /// Scales every pixel to length √channels, times gamma, then optionally applies silu.
    ///
    /// - Parameters:
    ///   - x: `[…, channels]`.
    ///   - gamma: `[channels]`.
    ///   - silu: Whether to multiply the result by its sigmoid.
    ///   - y: Like x, and may be x; or bfloat16.
    package func channelNorm(_ x: Tensor, gamma: Tensor, silu: Bool, into y: Tensor) {
        let width = gamma.count
        precondition(x.count == y.count && x.count.isMultiple(of: width))
        parallelRows(x.count / width, grain: grain(width)) { rows in
            for row in rows {
                finishPixel(
                    x.floats + row * width,
                    gamma: gamma,
                    silu: silu,
                    into: y,
                    at: row * width
                )
            }
        }
    }

    /// Norms one pixel and stores it as elements `offset` and up of y, in y's type.
    func finishPixel(
        _ pixel: UnsafePointer<Float>,
        gamma: Tensor,
        silu: Bool,
        into y: Tensor,
        at offset: Int
    ) {
        let width = gamma.count
        guard y.elementType == .bfloat16 else {
            table.channel_norm(y.floats + offset, pixel, gamma.floats, 1, width, silu)
            return
        }
        let halves = y.address.assumingMemoryBound(to: UInt16.self) + offset
        withUnsafeTemporaryAllocation(of: Float.self, capacity: width) { normed in
            guard let first = normed.baseAddress else { return }
            table.channel_norm(first, pixel, gamma.floats, 1, width, silu)
            table.narrow(halves, first, width)
        }
    }

    /// y = x, rounded to bfloat16; both have as many elements.
    package func narrow(_ x: Tensor, into y: Tensor) {
        precondition(x.count == y.count && y.elementType == .bfloat16)
        let halves = y.address.assumingMemoryBound(to: UInt16.self)
        parallelRows(x.count, grain: 16384) { range in
            table.narrow(halves + range.lowerBound, x.floats + range.lowerBound, range.count)
        }
    }

    /// The tanh form of GELU, in place.
    package func geluTanh(_ x: Tensor) {
        parallelRows(x.count, grain: 16384) { range in
            table.gelu_tanh(x.floats + range.lowerBound, range.count)
        }
    }

    /// The exact form of GELU, x Φ(x), in place.
    package func gelu(_ x: Tensor) {
        parallelRows(x.count, grain: 16384) { range in
            table.gelu(x.floats + range.lowerBound, range.count)
        }
    }

    /// x += gate ⊙ y for every row.
    ///
    /// - Parameters:
    ///   - x: `[rows, width]`, updated in place.
    ///   - y: Like x.
    ///   - gate: `[width]`; nil for 1.
    package func gatedAdd(_ x: Tensor, _ y: Tensor, gate: Tensor?) {
        let width = gate?.count ?? x.rowCount
        precondition(x.count == y.count && x.count.isMultiple(of: width))
        parallelRows(x.count / width, grain: grain(width)) { rows in
            let first = rows.lowerBound * width
            table.gated_add(x.floats + first, y.floats + first, gate?.floats, rows.count, width)
        }
    }

    /// Whether no element is infinite or not a number.
    package func isFinite(_ x: Tensor) -> Bool {
        let found = Atomic(true)
        parallelRows(x.count, grain: 1 << 20) { range in
            let isFinite = table.all_finite(x.floats + range.lowerBound, range.count)
            if !isFinite { found.store(false, ordering: .relaxed) }
        }
        return found.load(ordering: .relaxed)
    }
}
