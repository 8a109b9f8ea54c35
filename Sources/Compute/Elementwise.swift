import CKernels
package import Tensors

/// How a norm's weight is stored.
package enum NormWeight: Sendable {
    /// The factor itself, as in the text encoder.
    case plain
    /// The factor minus one, as in the transformer.
    case minusOne

    var offset: Float { self == .plain ? 0 : 1 }
}

/// Cosines and sines of rotary position embedding, one row a token.
package struct RotaryTable: Sendable {
    /// `[tokens, headSize / 2]`.
    package let cosine: Tensor
    /// `[tokens, headSize / 2]`.
    package let sine: Tensor
    /// Whether elements (2m, 2m + 1) rotate together; else (m, m + headSize / 2).
    package let pairsAreAdjacent: Bool

    /// Combines the two tables.
    package init(cosine: Tensor, sine: Tensor, pairsAreAdjacent: Bool) {
        precondition(cosine.shape == sine.shape)
        self.cosine = cosine
        self.sine = sine
        self.pairsAreAdjacent = pairsAreAdjacent
    }
}

extension Operators {
    /// Root-mean-square norm of each row, with an optional modulation after it.
    ///
    /// y = x / √(mean x² + ε) ⊙ weight, then (1 + scale) ⊙ y + shift.
    ///
    /// - Parameters:
    ///   - x: `[rows, width]`.
    ///   - weight: `[width]`.
    ///   - stored: How the weight is stored.
    ///   - epsilon: ε.
    ///   - scale: `[width]`, together with `shift` or not at all.
    ///   - shift: `[width]`.
    ///   - y: Like x, and may be x.
    package func rmsNorm(
        _ x: Tensor,
        weight: Tensor,
        stored: NormWeight,
        epsilon: Float,
        scale: Tensor? = nil,
        shift: Tensor? = nil,
        into y: Tensor
    ) {
        let width = weight.count
        precondition(x.count == y.count && x.count.isMultiple(of: width))
        precondition((scale == nil) == (shift == nil))
        precondition((scale?.count ?? width) == width && (shift?.count ?? width) == width)
        parallelRows(x.count / width, grain: grain(width)) { rows in
            table.rms_norm(
                y.floats + rows.lowerBound * width,
                x.floats + rows.lowerBound * width,
                weight.floats,
                scale?.floats,
                shift?.floats,
                rows.count,
                width,
                stored.offset,
                epsilon
            )
        }
    }

    /// Root-mean-square norm of every head, then rotary embedding, in place.
    ///
    /// - Parameters:
    ///   - x: `[tokens, heads · headSize]`.
    ///   - weight: `[headSize]`.
    ///   - stored: How the weight is stored.
    ///   - epsilon: Added to the mean square.
    ///   - rotary: Angles of each token; nil leaves the heads unrotated.
    package func headNorm(
        _ x: Tensor,
        weight: Tensor,
        stored: NormWeight,
        epsilon: Float,
        rotary: RotaryTable?
    ) {
        let (headSize, width) = (weight.count, x.rowCount)
        precondition(width.isMultiple(of: headSize))
        precondition(rotary.map { $0.cosine.shape == [x.rows, headSize / 2] } ?? true)
        parallelRows(x.rows, grain: grain(width)) { rows in
            let angles = rows.lowerBound * (headSize / 2)
            var task = head_norm_task(
                x: x.floats + rows.lowerBound * width,
                stride: width,
                rows: rows.count,
                heads: width / headSize,
                head_size: headSize,
                weight: UnsafePointer(weight.floats),
                offset: stored.offset,
                epsilon: epsilon,
                cosine: rotary.map { UnsafePointer($0.cosine.floats + angles) },
                sine: rotary.map { UnsafePointer($0.sine.floats + angles) },
                adjacent_pairs: rotary?.pairsAreAdjacent ?? false
            )
            table.head_norm(&task)
        }
    }

    /// Scales every pixel to length √channels, times gamma, then optionally applies silu.
    ///
    /// - Parameters:
    ///   - x: `[…, channels]`.
    ///   - gamma: `[channels]`.
    ///   - silu: Whether to multiply the result by its sigmoid.
    ///   - y: Like x, and may be x.
    package func channelNorm(_ x: Tensor, gamma: Tensor, silu: Bool, into y: Tensor) {
        let width = gamma.count
        precondition(x.count == y.count && x.count.isMultiple(of: width))
        parallelRows(x.count / width, grain: grain(width)) { rows in
            let first = rows.lowerBound * width
            table.channel_norm(
                y.floats + first,
                x.floats + first,
                gamma.floats,
                rows.count,
                width,
                silu
            )
        }
    }

    /// gate = silu(gate) ⊙ up, element by element; both have the same shape.
    package func siluMultiply(_ gate: Tensor, by up: Tensor) {
        precondition(gate.count == up.count)
        parallelRows(gate.count, grain: 16384) { range in
            let first = range.lowerBound
            table.silu_multiply(gate.floats + first, up.floats + first, range.count)
        }
    }

    /// x = x ⊙ sigmoid(gate), element by element; both have the same shape.
    package func sigmoidMultiply(_ x: Tensor, by gate: Tensor) {
        precondition(x.count == gate.count)
        parallelRows(x.count, grain: 16384) { range in
            let first = range.lowerBound
            table.sigmoid_multiply(x.floats + first, gate.floats + first, range.count)
        }
    }

    /// The tanh form of GELU, in place.
    package func geluTanh(_ x: Tensor) {
        parallelRows(x.count, grain: 16384) { range in
            table.gelu_tanh(x.floats + range.lowerBound, range.count)
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
        table.all_finite(x.floats, x.count)
    }
}
