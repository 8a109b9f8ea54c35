import CKernels
package import Tensors

extension Operators {
    /// y[i] = matrix[ids[i]], in float32.
    ///
    /// - Parameters:
    ///   - matrix: `[entries, width]`, of any type that weights are stored in.
    ///   - ids: Entries to take, each below `entries`.
    ///   - y: `[ids.count, width]`, float32.
    package func gather(_ matrix: WeightMatrix, _ ids: [Int], into y: Tensor) {
        let width = matrix.columns
        precondition(y.shape == [ids.count, width], "\(y.shape) from \(matrix.elements.shape)")
        for (row, id) in ids.enumerated() {
            let target = y.floats + row * width
            let source = matrix.elements.row(id)
            table.widen(target, source.address, source.kernelType, width)
            if let scale = matrix.scale {
                let factor = scale.floats[scale.count == 1 ? 0 : id]
                for column in 0..<width { target[column] *= factor }
            }
            if let rotation = matrix.rotation { table.rotate(target, width, rotation) }
        }
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
