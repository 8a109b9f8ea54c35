import Tensors

extension WeightDifference {
    /// The square of its Frobenius norm.
    ///
    /// - Parameter operators: The kernels; products are float32.
    /// - Returns: The sum of all elements' squares.
    package func squaredNorm(_ operators: Operators) -> Double {
        switch self {
        case .lowRank(let down, let up):
            // ‖up · down‖² is the sum over up ⊙ (up · down · downᵀ).
            let (down, up) = (converted(down), converted(up))
            let gram = Tensor(zeros: [down.rows, down.rows])
            let product = Tensor(zeros: up.shape)
            let operators = Operators(sharing: operators, policy: .float32)
            operators.linear(down, WeightMatrix(down), into: gram)
            operators.linear(up, WeightMatrix(gram), into: product)
            return max(0, product.dot(up))
        case .kronecker(let left, let right, let range):
            let (left, right) = (left.matrix.squaredRows, right.matrix.squaredRows)
            return range.reduce(0) { $0 + left[$1 / right.count] * right[$1 % right.count] }
        case .hadamard, .difference:
            let rows = DifferenceRows(self, operators)
            let block = Tensor(zeros: [min(outputs, DifferenceRows.count), inputs])
            return stride(from: 0, to: outputs, by: block.rows).reduce(0) { sum, first in
                let range = first..<min(first + block.rows, outputs)
                let values = block.rows(0..<range.count)
                rows.write(range, into: values)
                return sum + values.dot(values)
            }
        }
    }
}

extension Tensor {
    /// The sum of the products of its float32 elements with those of another.
    fileprivate func dot(_ other: Tensor) -> Double {
        let (x, y) = (floats, other.floats)
        var sum = 0.0
        for i in 0..<count { sum += Double(x[i]) * Double(y[i]) }
        return withExtendedLifetime((self, other)) { sum }
    }

    /// The square of each row's length.
    fileprivate var squaredRows: [Double] { (0..<rows).map { row($0).dot(row($0)) } }
}
