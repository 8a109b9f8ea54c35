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
        for (row, id) in ids.enumerated() { widenRow(matrix, id, into: y.floats + row * width) }
    }

    /// y[i] += Σ_t weight[t] · matrix[id[t]] over the terms t of row i.
    ///
    /// - Parameters:
    ///   - matrix: `[entries, width]`, of any type that weights are stored in; a row fits into a
    ///     linear layer.
    ///   - terms: For each row of y, entries to take, each below `entries`, and their weights.
    ///   - y: `[terms.count, width]`, float32.
    package func gather(
        _ matrix: WeightMatrix,
        _ terms: [[(id: Int, weight: Float)]],
        addingTo y: Tensor
    ) {
        let width = matrix.columns
        precondition(y.shape == [terms.count, width] && width <= Self.longestRow, "\(y.shape)")
        parallelTasks(terms.count) { row, worker in
            let (entry, sum) = workspace(worker).rows
            for column in 0..<width { sum[column] = 0 }
            for term in terms[row] {
                widenRow(matrix, term.id, into: entry)
                for column in 0..<width { sum[column] += term.weight * entry[column] }
            }
            let target = y.floats + row * width
            for column in 0..<width { target[column] += sum[column] }
        }
    }

    /// One row of a stored matrix, in float32.
    private func widenRow(
        _ matrix: WeightMatrix,
        _ id: Int,
        into target: UnsafeMutablePointer<Float>
    ) {
        let (width, source) = (matrix.columns, matrix.elements.row(id))
        table.widen(target, source.address, source.kernelType, width)
        if let scale = matrix.scale {
            let factor = scale.floats[scale.count == 1 ? 0 : id]
            for column in 0..<width { target[column] *= factor }
        }
        if let rotation = matrix.rotation { table.rotate(target, width, rotation) }
    }

    /// y[r] = Σ_i weight[i] · x[r, i].
    ///
    /// - Parameters:
    ///   - x: `[rows, terms, width]`.
    ///   - weight: `[1, terms]`, float32.
    ///   - y: `[rows, width]`; must not overlap x.
    package func weightedSum(_ x: Tensor, weight: WeightMatrix, into y: Tensor) {
        let (terms, width) = (x.shape[1], x.shape[2])
        precondition(weight.elements.shape == [1, terms] && y.shape == [x.rows, width])
        let (weights, bias) = updatedRow(weight)
        parallelRows(x.rows, grain: grain(terms * width)) { rows in
            for row in rows {
                let (sums, source) = (y.floats + row * width, x.floats + row * terms * width)
                for column in 0..<width {
                    var sum = bias
                    for term in 0..<terms {
                        sum += weights[term] * source[term * width + column]
                    }
                    sums[column] = sum
                }
            }
        }
    }

    /// The elements of a matrix of one row, and a bias, with what is added to them.
    private func updatedRow(_ weight: WeightMatrix) -> (weights: [Float], bias: Float) {
        guard updates[weight] != nil else { return (weight.elements.elements, 0) }
        // The layer's outputs for each input alone, and for none.
        let (count, exact) = (weight.columns, Operators(sharing: self, policy: .float32))
        let (x, y) = (Tensor(zeros: [count + 1, count]), Tensor(zeros: [count + 1, 1]))
        for i in 0..<count { x.row(i).floats[i] = 1 }
        exact.linear(x, weight, into: y)
        let bias = y.floats[count]
        return (y.elements.dropLast().map { $0 - bias }, bias)
    }
}
