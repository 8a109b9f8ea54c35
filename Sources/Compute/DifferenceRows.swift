import CKernels
package import Tensors

/// Rows of a difference, as many at a time as are wanted; the whole is never formed.
struct DifferenceRows {
    private enum Source {
        /// The element-wise product of products left · right, of which right is transposed.
        case products([(left: Tensor, right: WeightMatrix)])
        case kronecker(Tensor, Tensor, firstRow: Int)
        case stored(Tensor)
    }

    private let source: Source
    private let operators: Operators
    /// Rows that are worth a call.
    static let count = 64

    /// Prepares what all rows need.
    ///
    /// - Parameters:
    ///   - difference: The difference.
    ///   - operators: The kernels; products are float32.
    init(_ difference: WeightDifference, _ operators: Operators) {
        self.operators = Operators(sharing: operators, policy: .float32)
        source =
            switch difference {
            case .lowRank(let down, let up):
                .products([(converted(up), Self.transposed(down))])
            case .hadamard(let a, let b, let c, let d):
                .products([
                    (converted(a), Self.transposed(b)), (converted(c), Self.transposed(d)),
                ])
            case .kronecker(let left, let right, let rows):
                .kronecker(left.matrix, right.matrix, firstRow: rows.lowerBound)
            case .difference(let matrix):
                .stored(matrix)
            }
    }

    private static func transposed(_ matrix: Tensor) -> WeightMatrix {
        let (source, result) = (converted(matrix), Tensor(zeros: [matrix.rowCount, matrix.rows]))
        let (from, to) = (source.floats, result.floats)
        for row in 0..<matrix.rows {
            for column in 0..<matrix.rowCount {
                to[column * matrix.rows + row] = from[row * matrix.rowCount + column]
            }
        }
        return withExtendedLifetime(source) { WeightMatrix(result) }
    }

    /// Writes rows `range` into `y`: `[range.count, inputs]`, float32.
    func write(_ range: Range<Int>, into y: Tensor) {
        switch source {
        case .products(let products):
            for (index, (left, right)) in products.enumerated() {
                let target = index == 0 ? y : Tensor(zeros: y.shape)
                operators.linear(left.rows(range), right, into: target)
                if index > 0 { operators.table.multiply(y.floats, target.floats, y.count) }
                withExtendedLifetime(target) {}
            }
        case .kronecker(let left, let right, let firstRow):
            for (index, row) in range.enumerated() {
                let (i, j) = (firstRow + row).quotientAndRemainder(dividingBy: right.rows)
                outerProduct(left.row(i), right.row(j), into: y.row(index))
            }
        case .stored(let matrix):
            widen(matrix.rows(range), into: y)
        }
    }
}

/// Lengths of the rows, or of the columns, of a weight and a difference together, once all rows of
/// the weight have passed by.
package struct ChangedLengths {
    private let difference: DifferenceRows
    private let scale: Float
    private let areRows: Bool
    private var squares: [Double]
    private let operators: Operators

    /// Starts with no rows.
    ///
    /// - Parameters:
    ///   - change: A change with a magnitude.
    ///   - operators: The kernels.
    package init(_ change: LayerChange, _ operators: Operators) {
        guard let difference = change.difference, let magnitude = change.magnitude else {
            preconditionFailure("a change without a magnitude")
        }
        self.difference = DifferenceRows(difference, operators)
        self.operators = operators
        scale = change.scale
        if case .rows = magnitude { areRows = true } else { areRows = false }
        squares = [Double](repeating: 0, count: areRows ? difference.outputs : difference.inputs)
    }

    /// Adds some rows of the weight, whose place its origin tells.
    package mutating func add(_ weight: WeightMatrix) {
        let (first, operators, areRows) = (weight.origin?.firstRow ?? 0, operators, areRows)
        let sums = Tensor(zeros: [min(DifferenceRows.count, weight.rows), weight.columns])
        for start in stride(from: 0, to: weight.rows, by: sums.rows) {
            let range = start..<min(start + sums.rows, weight.rows)
            let y = sums.rows(0..<range.count)
            difference.write(first + range.lowerBound..<first + range.upperBound, into: y)
            operators.add(weight, range, to: y, times: scale)
            squares.withUnsafeMutableBufferPointer { squares in
                if areRows {
                    let rows = first + range.lowerBound..<first + range.upperBound
                    operators.squareRows(y, UnsafeMutableBufferPointer(rebasing: squares[rows]))
                } else {
                    operators.addSquaresOfColumns(y, squares)
                }
            }
        }
    }

    /// What gives the rows or columns the lengths of a magnitude; 0 where there is no length.
    fileprivate func factors(_ magnitude: Tensor) -> Tensor {
        let factors = zip(converted(magnitude).elements, squares).map { magnitude, square in
            square > 0 ? Float(Double(magnitude) / square.squareRoot()) : 0
        }
        return Tensor(factors, shape: [factors.count])
    }
}

extension LayerChange {
    /// Completes a change with a magnitude.
    ///
    /// - Parameter lengths: Of the change itself, once all rows of the weight have passed by.
    package mutating func setFactors(by lengths: ChangedLengths) {
        factors = magnitude.map { lengths.factors($0.lengths) }
    }
}

extension Operators {
    /// squares[r] = Σ_i x[r, i]².
    fileprivate func squareRows(_ x: Tensor, _ squares: UnsafeMutableBufferPointer<Double>) {
        let (values, columns) = (x.floats, x.rowCount)
        parallelTasks(x.rows) { row, _ in
            var sum = 0.0
            for i in row * columns..<(row + 1) * columns {
                sum += Double(values[i]) * Double(values[i])
            }
            squares[row] = sum
        }
        withExtendedLifetime(x) {}
    }

    /// squares[i] += Σ_r x[r, i]².
    fileprivate func addSquaresOfColumns(
        _ x: Tensor,
        _ squares: UnsafeMutableBufferPointer<Double>
    ) {
        let (values, columns) = (x.floats, x.rowCount)
        parallelRows(columns, grain: 256) { range in
            for row in 0..<x.rows {
                for i in range {
                    let value = Double(values[row * columns + i])
                    squares[i] += value * value
                }
            }
        }
        withExtendedLifetime(x) {}
    }

    /// y = scale · y + rows `range` of a weight, dequantised.
    fileprivate func add(
        _ weight: WeightMatrix,
        _ range: Range<Int>,
        to y: Tensor,
        times scale: Float
    ) {
        let values = Tensor(zeros: y.shape)
        parallelTasks(range.count) { row, _ in
            gather(weight, [range.lowerBound + row], into: values.rows(row..<row + 1))
            let (target, source) = (y.row(row).floats, values.row(row).floats)
            for i in 0..<y.rowCount { target[i] = scale * target[i] + source[i] }
        }
    }
}
