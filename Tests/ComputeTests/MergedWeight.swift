import Tensors

@testable import Compute

/// A weight with its changes, formed as their definitions say, in float64.
struct MergedWeight {
    let rows: Int
    let columns: Int
    var values: [Double]
    var bias: [Double]

    /// A weight without changes.
    init(_ weight: WeightMatrix) {
        (rows, columns) = (weight.rows, weight.columns)
        values = dequantized(weight).elements.map { Double($0) }
        bias = [Double](repeating: 0, count: rows)
    }

    /// A weight and everything that changes it; each change sees the weight as it was.
    init(_ weight: WeightMatrix, _ changes: [LayerChange]) {
        let base = MergedWeight(weight)
        self = base
        for change in changes {
            let changed = base.changed(change)
            let strength = Double(change.strength)
            for i in values.indices { values[i] += strength * (changed[i] - base.values[i]) }
            guard let added = change.bias?.exactElements else { continue }
            for i in bias.indices { bias[i] += strength * Double(change.biasScale) * added[i] }
        }
    }

    /// As a weight in float32.
    var matrix: WeightMatrix {
        WeightMatrix(Tensor(values.map { Float($0) }, shape: [rows, columns]))
    }

    /// The products with rows `[rows, columns]`, and the bias, by the reference kernels.
    func products(_ x: Tensor) throws -> [Float] {
        let y = Tensor(zeros: [x.rows, rows])
        let bias = Tensor(bias.map { Float($0) }, shape: [rows])
        try operators("scalar").linear(x, matrix, bias: bias, into: y)
        return y.elements
    }

    private func changed(_ change: LayerChange) -> [Double] {
        guard let difference = change.difference else { return values }
        var changed = values
        for (i, value) in Self.dense(difference).enumerated() {
            changed[i] += Double(change.scale) * value
        }
        switch change.magnitude {
        case nil:
            break
        case .rows(let lengths):
            for (row, length) in lengths.exactElements.enumerated() {
                rescale(&changed, (0..<columns).map { row * columns + $0 }, to: length)
            }
        case .columns(let lengths):
            for (column, length) in lengths.exactElements.enumerated() {
                rescale(&changed, (0..<rows).map { $0 * columns + column }, to: length)
            }
        }
        return changed
    }

    private func rescale(_ values: inout [Double], _ places: [Int], to length: Double) {
        let square = places.reduce(0) { $0 + values[$1] * values[$1] }
        for place in places { values[place] *= length / square.squareRoot() }
    }

    /// All elements of a difference.
    private static func dense(_ difference: WeightDifference) -> [Double] {
        switch difference {
        case .lowRank(let down, let up):
            return product(up, down)
        case .hadamard(let a, let b, let c, let d):
            return zip(product(a, b), product(c, d)).map { $0 * $1 }
        case .kronecker(let left, let right, let rows):
            let (l, r) = (dense(left), dense(right))
            let (width, height, inner) = (left.shape[1], right.shape[0], right.shape[1])
            return rows.flatMap { row in
                (0..<width * inner).map { column in
                    l[row / height * width + column / inner]
                        * r[row % height * inner + column % inner]
                }
            }
        case .difference(let matrix):
            return matrix.exactElements
        }
    }

    private static func dense(_ factor: WeightDifference.Factor) -> [Double] {
        switch factor {
        case .full(let matrix): matrix.exactElements
        case .product(let a, let b): product(a, b)
        }
    }

    private static func product(_ a: Tensor, _ b: Tensor) -> [Double] {
        let (x, y, inner, columns) = (a.exactElements, b.exactElements, b.rows, b.rowCount)
        return (0..<a.rows * columns).map { i in
            (0..<inner).reduce(0) {
                $0 + x[i / columns * inner + $1] * y[$1 * columns + i % columns]
            }
        }
    }
}
