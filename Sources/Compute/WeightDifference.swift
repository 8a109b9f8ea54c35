package import Tensors

/// The difference between two weights of a linear layer, as the files of adapters store it.
///
/// Tensors are float32, float16 or bfloat16.
///
/// Source: PEFT's LoRA; `LohaModule` and `LokrModule` of LyCORIS.
package enum WeightDifference: Sendable {
    /// up · down: `[outputs, rank]` times `[rank, inputs]`.
    case lowRank(down: Tensor, up: Tensor)
    /// (a · b) ⊙ (c · d), each `[outputs, rank]` times `[rank, inputs]`.
    case hadamard(a: Tensor, b: Tensor, c: Tensor, d: Tensor)
    /// Some rows of the Kronecker product of two matrices.
    case kronecker(Factor, Factor, rows: Range<Int>)
    /// The difference itself, `[outputs, inputs]`.
    case difference(Tensor)

    /// A factor of a Kronecker product.
    package enum Factor: Sendable {
        case full(Tensor)
        case product(Tensor, Tensor)

        /// Rows and columns.
        package var shape: [Int] {
            switch self {
            case .full(let matrix): matrix.shape
            case .product(let a, let b): [a.shape[0], b.shape[1]]
            }
        }
    }

    /// Outputs of the layer.
    var outputs: Int {
        switch self {
        case .lowRank(_, let up): up.rows
        case .hadamard(let a, _, _, _): a.rows
        case .kronecker(_, _, let rows): rows.count
        case .difference(let matrix): matrix.rows
        }
    }

    /// Inputs of the layer.
    var inputs: Int {
        switch self {
        case .lowRank(let down, _): down.rowCount
        case .hadamard(_, let b, _, _): b.rowCount
        case .kronecker(let left, let right, _): left.shape[1] * right.shape[1]
        case .difference(let matrix): matrix.rowCount
        }
    }
}

// MARK: Forms

extension WeightDifference {
    /// How rows are multiplied with a difference.
    enum Form: Equatable {
        /// With two factors, one after the other.
        case factors(rank: Int)
        /// As in a Kronecker product, without forming it.
        case blocks
        /// With the difference itself.
        case dense
    }

    /// The form that takes the fewest multiplications.
    ///
    /// - Parameter isScaled: Whether rows or columns get factors, which leaves no Kronecker product.
    /// - Returns: The form.
    func form(isScaled: Bool) -> Form {
        let (outputs, inputs) = (Double(outputs), Double(inputs))
        var costs = [(Form.dense, outputs * inputs)]
        if let rank { costs.append((.factors(rank: rank), Double(rank) * (outputs + inputs))) }
        if case .kronecker(_, let right, let rows) = self, !isScaled {
            // Outputs of a block fill at least a panel; the left factor is applied without kernels.
            let (height, blocks) = (max(right.shape[0], 32), Self.blocks(rows, right).count)
            let cost = Double(blocks) * (Double(height * right.shape[1]) + 4 * inputs)
            costs.append((.blocks, cost))
        }
        return costs.min { $0.1 < $1.1 }?.0 ?? .dense
    }

    /// Inner size of its two factors; nil for none, or too large a one.
    private var rank: Int? {
        let ranks: [Int]
        switch self {
        case .lowRank(let down, _): ranks = [down.rows]
        case .hadamard(_, let b, _, let d): ranks = [b.rows, d.rows]
        case .kronecker(let left, let right, _): ranks = [left.rank, right.rank]
        case .difference: return nil
        }
        let (rank, overflow) = ranks.reduce((1, false)) {
            let (product, overflow) = $0.0.multipliedReportingOverflow(by: $1)
            return (product, $0.1 || overflow)
        }
        return overflow ? nil : rank
    }

    /// The difference as up · down, in float32: `[rank, inputs]` and `[outputs, rank]`.
    ///
    /// (a b) ⊙ (c d) is the product of row-wise Kronecker products of a and c with column-wise ones
    /// of b and d; (x y) ⊗ (l r) is (x ⊗ l) (y ⊗ r).
    ///
    /// - Returns: The factors; nil where there are none.
    func factors() -> (down: Tensor, up: Tensor)? {
        switch self {
        case .lowRank(let down, let up):
            return (converted(down), converted(up))
        case .hadamard(let a, let b, let c, let d):
            let (a, b, c, d) = (converted(a), converted(b), converted(c), converted(d))
            let up = Tensor(zeros: [a.rows, a.rowCount * c.rowCount])
            for row in 0..<a.rows { outerProduct(a.row(row), c.row(row), into: up.row(row)) }
            let down = Tensor(zeros: [b.rows * d.rows, b.rowCount])
            for row in 0..<down.rows {
                let (x, y) = (b.row(row / d.rows).floats, d.row(row % d.rows).floats)
                let target = down.row(row).floats
                for i in 0..<down.rowCount { target[i] = x[i] * y[i] }
            }
            withExtendedLifetime((b, d)) {}
            return (down, up)
        case .kronecker(let left, let right, let rows):
            let (x, y) = left.factors
            let (l, r) = right.factors
            return (
                kroneckerRows(y, r, 0..<y.rows * r.rows), kroneckerRows(x, l, rows)
            )
        case .difference:
            return nil
        }
    }

    /// The rows of the left factor of a Kronecker product that rows of the product come from.
    static func blocks(_ rows: Range<Int>, _ right: Factor) -> Range<Int> {
        let height = right.shape[0]
        return rows.lowerBound / height..<(rows.upperBound + height - 1) / height
    }
}

/// Rows `range` of the Kronecker product of two float32 matrices.
private func kroneckerRows(_ x: Tensor, _ y: Tensor, _ range: Range<Int>) -> Tensor {
    let product = Tensor(zeros: [range.count, x.rowCount * y.rowCount])
    for (index, row) in range.enumerated() {
        outerProduct(x.row(row / y.rows), y.row(row % y.rows), into: product.row(index))
    }
    return product
}

/// y = all elements of `a` times all of `b`, those of `b` next to each other; all float32.
func outerProduct(_ a: Tensor, _ b: Tensor, into y: Tensor) {
    let (count, source, target) = (b.count, b.floats, y.floats)
    for (i, x) in a.elements.enumerated() {
        for j in 0..<count { target[i * count + j] = x * source[j] }
    }
}

extension WeightDifference.Factor {
    /// The smallest inner size of two matrices whose product it is.
    fileprivate var rank: Int {
        let most = min(shape[0], shape[1])
        if case .product(_, let b) = self { return min(b.rows, most) }
        return most
    }

    /// Two matrices of that inner size, in float32.
    fileprivate var factors: (Tensor, Tensor) {
        if case .product(let a, let b) = self, b.rows == rank {
            return (converted(a), converted(b))
        }
        let matrix = matrix
        let identity = Tensor(zeros: [rank, rank])
        for i in 0..<rank { identity.floats[i * rank + i] = 1 }
        return matrix.rows == rank ? (identity, matrix) : (matrix, identity)
    }

    /// The factor as one matrix, in float32.
    var matrix: Tensor {
        switch self {
        case .full(let matrix): return converted(matrix)
        case .product(let a, let b):
            let (a, b) = (converted(a), converted(b))
            let product = Tensor(zeros: [a.rows, b.rowCount])
            for row in 0..<a.rows {
                let target = product.row(row).floats
                for (k, x) in a.row(row).elements.enumerated() {
                    let source = b.row(k).floats
                    for i in 0..<b.rowCount { target[i] += x * source[i] }
                }
            }
            withExtendedLifetime((b, product)) {}
            return product
        }
    }
}
