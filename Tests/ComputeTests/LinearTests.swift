@testable import Compute
import TestSupport
import Tensors
import Testing

/// One product of activations and weights.
struct LinearCase {
    var rows: Int
    var columns: Int
    var k: Int
    var type = ElementType.float32
    var hasBias = false
    var adding = false

    /// Sizes below, at and above the register tiles and the packed blocks, for every weight type.
    static let sweep: [LinearCase] = {
        let tiles = [1, 3, 12, 13, 45].flatMap { rows in
            [1, 31, 32, 33, 257, 300].map { LinearCase(rows: rows, columns: $0, k: 257) }
        }
        let depths = [1, 7, 64, 255, 256, 257, 600].flatMap { k in
            [(1, 1), (13, 33), (45, 300)].map { LinearCase(rows: $0.0, columns: $0.1, k: k) }
        }
        return (tiles + depths).enumerated().flatMap { index, sizes in
            [
                ElementType.float32, .float16, .bfloat16, .float8E4M3, .float8E5M2, .int8,
            ].map { type in
                var sizes = sizes
                sizes.type = type
                (sizes.hasBias, sizes.adding) = (index & 1 == 1, index & 2 == 2)
                return sizes
            }
        }
    }()

    /// Runs the case on one implementation.
    func run(_ operators: Operators) -> Tensor {
        let (x, weight, bias, y) = inputs()
        operators.linear(x, WeightMatrix(weight), bias: bias, into: y, adding: adding)
        return y
    }

    /// The formula in float64.
    func direct() -> [Float] {
        let (x, weight, bias, y) = inputs()
        let (a, b) = (x.exactElements, weight.exactElements)
        return (0..<rows * columns).map { i in
            let (row, column) = (i / columns * k, i % columns * k)
            var sum = 0.0
            for j in 0..<k { sum += a[row + j] * b[column + j] }
            sum += bias.map { Double($0.floats[i % columns]) } ?? 0
            return Float(sum + (adding ? Double(y.floats[i]) : 0))
        }
    }

    private func inputs() -> (x: Tensor, weight: Tensor, bias: Tensor?, y: Tensor) {
        var random = Random(UInt64(rows * 1_000_000 + columns * 1000 + k))
        return (
            random.tensor(rows, k), random.weight(columns, k, type),
            hasBias ? random.tensor(columns) : nil, random.tensor(rows, columns)
        )
    }
}

struct LinearTests {
    /// Observed at most 7.9e-7.
    static let scalarLimit = 3e-6
    /// Observed at most 1.5e-6, for a single sum that nearly cancels.
    static let levelLimit = 5e-6

    @Test func scalarAgreesWithFormula() throws {
        let scalar = try operators("scalar")
        for sizes in LinearCase.sweep where sizes.rows <= 13 || sizes.k <= 64 {
            let y = sizes.run(scalar).elements
            expectClose(y, sizes.direct(), limit: Self.scalarLimit, "\(sizes)")
        }
    }

    @Test(arguments: fastLevels)
    func agreesWithScalar(level: String) throws {
        let (scalar, fast) = (try operators("scalar"), try operators(level))
        for sizes in LinearCase.sweep {
            let expected = sizes.run(scalar).elements
            expectClose(sizes.run(fast).elements, expected, limit: Self.levelLimit, "\(sizes)")
        }
    }

    @Test(arguments: allLevels)
    func widensEveryElementExactly(level: String) throws {
        let operators = try operators(level)
        let one = Tensor(guarded: [1], 1, 1)
        let types: [(ElementType, Int)] = [
            (.float16, 65536), (.bfloat16, 65536), (.float8E4M3, 256), (.float8E5M2, 256),
            (.int8, 256),
        ]
        for (type, count) in types {
            let weight = Tensor(guarded: [count, 1], elementType: type)
            for bits in 0..<count {
                if count == 256 {
                    weight.address.assumingMemoryBound(to: UInt8.self)[bits] = UInt8(bits)
                } else {
                    weight.address.assumingMemoryBound(to: UInt16.self)[bits] = UInt16(bits)
                }
            }
            let y = Tensor(guarded: [1, count])
            operators.linear(one, WeightMatrix(weight), into: y)
            // A whole row at once takes other code than one element.
            let row = Tensor(guarded: [1, count])
            operators.gather(WeightMatrix(weight.reshaped(1, count)), [0], into: row)
            for found in [y, row] {
                let wrong = zip(found.elements, weight.exactElements).enumerated().filter {
                    let (found, expected) = $0.element
                    return found.isNaN ? !expected.isNaN : Double(found) != expected
                }
                #expect(wrong.isEmpty, "\(type) bits \(wrong.prefix(5).map(\.offset))")
            }
        }
    }

    @Test(arguments: allLevels)
    func doesNotSwallowNaN(level: String) throws {
        let operators = try operators(level)
        var random = Random(3)
        for column in [0, 5, 31, 32, 36] {
            let (x, weight) = (random.tensor(14, 70), random.tensor(37, 70))
            weight.floats[column * 70 + 69] = .nan
            let y = Tensor(guarded: [14, 37])
            operators.linear(x, WeightMatrix(weight), into: y)
            let spoiled = y.elements.map(\.isNaN)
            #expect(spoiled == (0..<14 * 37).map { $0 % 37 == column })
        }
    }

    @Test(arguments: allLevels)
    func packsMoreRowsThanFitAtOnce(level: String) throws {
        // Less than a hundred rows of this length fit at once; most elements are 0.
        let (k, rows) = (Operators.longestRow, 150)
        let (x, weight) = (Tensor(zeros: [rows, k]), Tensor(zeros: [2, k]))
        for row in 0..<rows { x.floats[row * k + 1701 * row] = Float(row + 1) }
        for row in 0..<rows { weight.floats[k + 1701 * row] = Float(row + 2) }
        let y = Tensor(guarded: [rows, 2])
        try operators(level, threads: 2).linear(x, WeightMatrix(weight), into: y)
        for row in 0..<rows {
            #expect(y.row(row).elements == [0, Float((row + 1) * (row + 2))])
        }
    }
}
