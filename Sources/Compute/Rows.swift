package import Tensors

extension Operators {
    /// y[i] = table[ids[i]], widened to float32.
    ///
    /// - Parameters:
    ///   - table: `[entries, width]`, float32, float16 or bfloat16.
    ///   - ids: Entries to take, each below `entries`.
    ///   - y: `[ids.count, width]`, float32.
    package func gather(_ table: Tensor, _ ids: [Int], into y: Tensor) {
        precondition(y.shape == [ids.count, table.rowCount], "\(y.shape) from \(table.shape)")
        for (row, id) in ids.enumerated() { widen(table.row(id), into: y.row(row)) }
    }

    /// y[r] = Σ_i weights[i] · x[r, i].
    ///
    /// - Parameters:
    ///   - x: `[rows, terms, width]`.
    ///   - weights: `[terms]`.
    ///   - y: `[rows, width]`; must not overlap x.
    package func weightedSum(_ x: Tensor, weights: Tensor, into y: Tensor) {
        let (terms, width) = (x.shape[1], x.shape[2])
        precondition(weights.count == terms && y.shape == [x.rows, width])
        parallelRows(x.rows, grain: grain(terms * width)) { rows in
            for row in rows {
                let (sums, source) = (y.floats + row * width, x.floats + row * terms * width)
                for column in 0..<width {
                    var sum: Float = 0
                    for term in 0..<terms {
                        sum += weights.floats[term] * source[term * width + column]
                    }
                    sums[column] = sum
                }
            }
        }
    }
}

/// The elements as float32: the tensor itself if they are, else a new one.
///
/// - Parameter tensor: Float32, float16 or bfloat16; small, such as a norm's weight.
/// - Returns: A float32 tensor of the same shape.
package func converted(_ tensor: Tensor) -> Tensor {
    guard tensor.elementType != .float32 else { return tensor }
    let result = Tensor(zeros: tensor.shape)
    widen(tensor, into: result)
    return result
}

/// Copies elements of any type that is computed with to float32 ones.
private func widen(_ source: Tensor, into y: Tensor) {
    let target = y.floats
    switch source.elementType {
    case .float32:
        y.copy(from: source.reshaped(y.shape))
    case .float16:
        let halves = source.address.assumingMemoryBound(to: UInt16.self)
        for i in 0..<source.count { target[i] = Float(Float16(bitPattern: halves[i])) }
    case .bfloat16:
        let halves = source.address.assumingMemoryBound(to: UInt16.self)
        for i in 0..<source.count { target[i] = Float(bitPattern: UInt32(halves[i]) << 16) }
    default:
        preconditionFailure("\(source.elementType) is not computed with")
    }
}
