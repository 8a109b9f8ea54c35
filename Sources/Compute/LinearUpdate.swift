package import Tensors

/// What an adapter does to one linear layer.
///
/// y = w x + strength · (w' x − w x) with w' = w + scale · difference. With a magnitude (DoRA) the
/// rows or columns of w' are brought to these lengths. Several changes add up; only the factors of
/// rows and those of columns, where a layer gets both, multiply.
///
/// Source: "DoRA: Weight-Decomposed Low-Rank Adaptation", arXiv 2402.09353; `weight_decompose` of
/// ComfyUI for strengths other than 1.
package struct LayerChange: Sendable {
    /// Lengths of rows or columns.
    package enum Magnitude: Sendable {
        /// `[outputs]`
        case rows(Tensor)
        /// `[inputs]`
        case columns(Tensor)

        /// The lengths.
        package var lengths: Tensor {
            switch self {
            case .rows(let lengths), .columns(let lengths): lengths
            }
        }
    }

    /// nil where only the bias changes.
    package let difference: WeightDifference?
    package let scale: Float
    package let strength: Float
    package let magnitude: Magnitude?
    /// Is added to the bias, `[outputs]`, times `strength · biasScale`.
    package let bias: Tensor?
    package let biasScale: Float
    /// What brings rows or columns to their magnitude, by `ChangedLengths`; nil until it is known.
    var factors: Tensor?

    /// Combines the parts.
    package init(
        difference: WeightDifference?,
        scale: Float,
        strength: Float,
        magnitude: Magnitude? = nil,
        bias: Tensor? = nil,
        biasScale: Float = 1
    ) {
        (self.difference, self.scale, self.strength) = (difference, scale, strength)
        (self.magnitude, self.bias, self.biasScale) = (magnitude, bias, biasScale)
    }

    /// Factors of the rows, and of the columns.
    fileprivate var sides: (rows: Tensor?, columns: Tensor?) {
        precondition((magnitude == nil) == (factors == nil), "a magnitude without factors")
        if case .columns = magnitude { return (nil, factors) }
        return (factors, nil)
    }

    fileprivate var form: WeightDifference.Form? {
        difference?.form(isScaled: magnitude != nil)
    }
}

/// What is added to the products of a linear layer, whose weight stays as it is.
///
/// y = outputScale ⊙ (w (inputScale ⊙ x)) + up (down x) + Σ (left ⊗ right) x + bias.
package struct LinearUpdate: Sendable {
    /// A Kronecker product.
    struct Block: Sendable {
        /// Float32; nil for [[1]].
        let left: Tensor?
        let right: WeightMatrix
        /// Its row that is the first output.
        let firstRow: Int
    }

    /// The factors of all changes that have some, next to each other.
    private(set) var down: WeightMatrix?
    private(set) var up: WeightMatrix?
    private(set) var blocks: [Block] = []
    private(set) var outputScale: Tensor?
    private(set) var inputScale: Tensor?
    private(set) var bias: Tensor?
    let size: Size

    /// Whether it adds products.
    var hasTerms: Bool { down != nil || !blocks.isEmpty }

    /// Combines the changes of a layer, in their order.
    ///
    /// - Parameters:
    ///   - changes: Those with a magnitude have its factors.
    ///   - type: How matrices are stored: float32 or bfloat16.
    ///   - operators: The kernels that differences are made with.
    package init(_ changes: [LayerChange], storedAs type: ElementType, _ operators: Operators) {
        size = Size(changes, storedAs: type)
        outputScale = Self.blend(changes.map { ($0.sides.rows, $0.strength) })
        inputScale = Self.blend(changes.map { ($0.sides.columns, $0.strength) })
        bias = Self.bias(changes)
        let threads = operators.threads
        addFactors(changes.filter { if case .factors = $0.form { true } else { false } }) {
            WeightMatrix(stored($0, as: type, threads))
        }
        for change in changes where change.form == .blocks {
            guard case .kronecker(let left, let right, let rows) = change.difference else {
                continue
            }
            let used = WeightDifference.blocks(rows, right)
            let (matrix, factor) = (left.matrix.rows(used), change.strength * change.scale)
            for i in 0..<matrix.count { matrix.floats[i] *= factor }
            blocks.append(
                Block(
                    left: matrix,
                    right: WeightMatrix(stored(right.matrix, as: type, threads)),
                    firstRow: rows.lowerBound - used.lowerBound * right.shape[0]
                )
            )
        }
        let dense = changes.filter { $0.form == .dense }
        if !dense.isEmpty {
            let sum = Self.dense(dense, storedAs: type, operators)
            blocks.append(Block(left: nil, right: sum, firstRow: 0))
        }
    }

    private mutating func addFactors(
        _ changes: [LayerChange],
        _ stored: (Tensor) -> WeightMatrix
    ) {
        let parts = changes.compactMap { change in
            change.difference?.factors().map { ($0.down, $0.up, change) }
        }
        guard let first = parts.first else { return }
        let rank = parts.reduce(0) { $0 + $1.0.rows }
        let down = Tensor(zeros: [rank, first.0.rowCount])
        let up = Tensor(zeros: [first.1.rows, rank])
        var start = 0
        for (partDown, partUp, change) in parts {
            let (rows, columns) = change.sides
            let range = start..<start + partDown.rows
            down.rows(range).copy(from: partDown)
            if let columns {
                for row in range { multiply(down.row(row), columns) }
            }
            for row in 0..<up.rows {
                let factor = change.strength * change.scale * (rows?.floats[row] ?? 1)
                let (target, source) = (up.row(row).floats + start, partUp.row(row).floats)
                for i in 0..<range.count { target[i] = factor * source[i] }
            }
            start = range.upperBound
        }
        withExtendedLifetime(parts) {}
        (self.down, self.up) = (stored(down), stored(up))
    }

    /// Σ strength · scale · rows ⊙ difference ⊙ columns.
    private static func dense(
        _ changes: [LayerChange],
        storedAs type: ElementType,
        _ operators: Operators
    ) -> WeightMatrix {
        guard let first = changes[0].difference else { preconditionFailure("no difference") }
        let (outputs, inputs) = (first.outputs, first.inputs)
        let parts = changes.compactMap { change in
            change.difference.map { (DifferenceRows($0, operators), change) }
        }
        let result = Tensor([outputs, inputs], type)
        let (sum, part) = (
            Tensor(zeros: [DifferenceRows.count, inputs]),
            Tensor(zeros: [DifferenceRows.count, inputs])
        )
        for start in stride(from: 0, to: outputs, by: DifferenceRows.count) {
            let range = start..<min(start + DifferenceRows.count, outputs)
            for (index, (source, change)) in parts.enumerated() {
                let (rows, columns) = change.sides
                source.write(range, into: part.rows(0..<range.count))
                for row in 0..<range.count {
                    if let columns { multiply(part.row(row), columns) }
                    let own = rows?.floats[range.lowerBound + row] ?? 1
                    let factor = change.strength * change.scale * own
                    let (target, source) = (sum.row(row).floats, part.row(row).floats)
                    for i in 0..<inputs {
                        target[i] = factor * source[i] + (index == 0 ? 0 : target[i])
                    }
                }
            }
            _ = narrow(
                sum.rows(0..<range.count),
                into: result.rows(range),
                threads: operators.threads
            )
        }
        return withExtendedLifetime((sum, part)) { WeightMatrix(result) }
    }

    /// 1 + Σ strength · (factor − 1); nil where there are no factors.
    private static func blend(_ factors: [(Tensor?, strength: Float)]) -> Tensor? {
        factors.reduce(nil) { sum, next in
            guard let factors = next.0 else { return sum }
            let old = sum?.elements ?? [Float](repeating: 1, count: factors.count)
            let new = zip(old, factors.elements).map { $0 + next.strength * ($1 - 1) }
            return Tensor(new, shape: [new.count])
        }
    }

    private static func bias(_ changes: [LayerChange]) -> Tensor? {
        changes.reduce(nil) { sum, change in
            guard let bias = change.bias else { return sum }
            let old = sum?.elements ?? [Float](repeating: 0, count: bias.count)
            let factor = change.strength * change.biasScale
            let new = zip(old, converted(bias).elements).map { $0 + factor * $1 }
            return Tensor(new, shape: [new.count])
        }
    }
}

/// Multiplies the elements of x by those of y, both float32.
private func multiply(_ x: Tensor, _ y: Tensor) {
    let (target, factors) = (x.floats, y.floats)
    for i in 0..<x.count { target[i] *= factors[i] }
}

/// A float32 matrix as another type.
private func stored(_ x: Tensor, as type: ElementType, _ threads: Int) -> Tensor {
    guard type != .float32 else { return x }
    let result = Tensor(x.shape, type)
    _ = narrow(x, into: result, threads: threads)
    return result
}

extension Tensor {
    /// Zeros of a type.
    fileprivate init(_ shape: [Int], _ type: ElementType) {
        let storage = Storage(byteCount: shape.reduce(type.byteCount, *))
        self.init(storage, byteOffset: 0, shape: shape, elementType: type)
    }
}

// MARK: Memory

extension LinearUpdate {
    /// What an update takes of memory.
    package struct Size: Sendable {
        /// Bytes of the matrices.
        package private(set) var byteCount = 0
        /// Bytes of scratch memory for each row of activations, and the number of buffers.
        private(set) var rowByteCount = 0
        private(set) var bufferCount = 0

        /// Counts from shapes alone.
        ///
        /// - Parameters:
        ///   - changes: All changes of the layer.
        ///   - type: How matrices are stored.
        package init(_ changes: [LayerChange], storedAs type: ElementType) {
            var hasDense = false
            for case let (change, difference?) in changes.map({ ($0, $0.difference) }) {
                let (outputs, inputs) = (difference.outputs, difference.inputs)
                switch difference.form(isScaled: change.magnitude != nil) {
                case .factors(let rank):
                    byteCount += rank * (outputs + inputs) * type.byteCount
                    // As they are computed, and packed.
                    rowByteCount += 8 * rank
                    bufferCount += 2
                case .blocks:
                    guard case .kronecker(let left, let right, let rows) = difference else {
                        continue
                    }
                    let count = WeightDifference.blocks(rows, right).count
                    byteCount += 4 * count * left.shape[1]
                    byteCount += right.shape.reduce(type.byteCount, *)
                    rowByteCount += 4 * count * right.shape[1]
                    bufferCount += 1
                case .dense:
                    if !hasDense { byteCount += outputs * inputs * type.byteCount }
                    hasDense = true
                }
            }
        }
    }
}

/// Updates of linear layers by the names of their weights.
package struct LinearUpdates: Sendable {
    private let updates: [String: LinearUpdate]
    /// Bytes of scratch memory that computing with them takes.
    let scratchByteCount: Int

    /// No updates.
    package static let none = LinearUpdates([:])

    /// Collects updates.
    ///
    /// - Parameter updates: By `WeightMatrix.Origin.name`.
    package init(_ updates: [String: LinearUpdate]) {
        self.init(updates, usualScratch: Self.usualScratch)
    }

    /// Collects updates with other scratch memory than usual.
    init(_ updates: [String: LinearUpdate], usualScratch: Int) {
        self.updates = updates
        scratchByteCount = Self.scratchByteCount(updates.values.map(\.size), usualScratch)
    }

    /// Bytes of scratch memory for updates of these sizes.
    package static func scratchByteCount(_ sizes: [LinearUpdate.Size]) -> Int {
        scratchByteCount(sizes, usualScratch)
    }

    /// At least some rows' of as many layers as read the same ones.
    private static func scratchByteCount(_ sizes: [LinearUpdate.Size], _ usual: Int) -> Int {
        let least = sizes.map {
            layersTogether * (rowsTogether * $0.rowByteCount + Arena.alignment * $0.bufferCount)
        }
        return least.max().map { max($0, usual) } ?? 0
    }

    /// Enough for all rows of a large picture at usual ranks.
    private static let usualScratch = 32 << 20

    /// Query, key, value and gate read the same rows.
    private static let layersTogether = 4
    private static let rowsTogether = 16

    /// What is added to the products with a matrix, which may be some rows of the layer's; nil for
    /// nothing.
    subscript(weight: WeightMatrix) -> LinearUpdate? {
        updates.isEmpty ? nil : weight.origin.flatMap { updates[$0.name] }
    }
}
