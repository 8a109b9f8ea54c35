import CKernels
import Foundation
import TestSupport
import Tensors
import Testing

@testable import Compute

/// What a vision tower's layers need besides those of the language model.
struct VisionOperatorTests {
    /// Observed at most 2e-7.
    static let normLimit = 8e-7
    /// The same where the mean is ten times the deviation; observed at most 8.3e-7.
    static let offsetNormLimit = 3e-6
    /// Observed at most 1.1e-7.
    static let activationLimit = 4e-7
    /// For one element; observed at most 2.7e-6.
    static let elementLimit = 8e-6
    /// Observed at most 4.5e-8.
    static let rotationLimit = 1.7e-7
    /// Observed at most 1.1e-7.
    static let tableLimit = 4e-7

    private static func layerNorm(_ x: Tensor, _ weight: Tensor, _ bias: Tensor, _ epsilon: Double)
        -> [Float]
    {
        let width = weight.count
        return (0..<x.count / width).flatMap { row in
            let values = (0..<width).map { Double(x.floats[row * width + $0]) }
            let mean = values.reduce(0, +) / Double(width)
            let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(width)
            let factor = 1 / (variance + epsilon).squareRoot()
            return values.enumerated().map { i, value in
                Float((value - mean) * factor * Double(weight.floats[i]) + Double(bias.floats[i]))
            }
        }
    }

    @Test(arguments: allLevels)
    func layerNormAgreesWithFormula(level: String) throws {
        let operators = try operators(level)
        var random = Random(1)
        for width in [1, 3, 15, 16, 17, 33, 48, 100, 1024, 4096] {
            let (x, weight, bias) = (
                random.tensor(3, 2 * width, range: 30), random.tensor(width), random.tensor(width)
            )
            let norm = LayerNorm(weight: weight, bias: bias, epsilon: 1e-6)
            // A mean far from zero, which must not be lost in the squares.
            for i in 0..<width { x.floats[width + i] += 300 }
            let expected = Self.layerNorm(x, weight, bias, 1e-6)
            let y = Tensor(guarded: x.shape)
            operators.layerNorm(x, norm, into: y)
            expectClose(y.elements, expected, limit: Self.offsetNormLimit, "\(width), offset")
            let first = Array(y.elements[..<width])
            expectClose(first, Array(expected[..<width]), limit: Self.normLimit, "\(width)")
            operators.layerNorm(x, norm, into: x)
            expectIdentical(x, y, "in place, width \(width)")
        }
    }

    @Test(arguments: allLevels)
    func geluAgreesWithFormula(level: String) throws {
        let operators = try operators(level)
        for count in [1, 3, 4, 7, 8, 15, 16, 17, 33, 1000, 16384 + 5] {
            let values = (0..<count).map { 12 * (Float($0) + 0.4) / Float(count) - 6 }
            let x = Tensor(guarded: values, count)
            operators.gelu(x)
            let expected = values.map { x in
                Float(0.5 * Double(x) * erfc(-Double(x) / 2.0.squareRoot()))
            }
            expectClose(x.elements, expected, limit: Self.activationLimit, "\(count)")
            // Relative to each element, far below zero, too.
            let worst = zip(x.elements, expected).map { abs(Double($0) / Double($1) - 1) }.max()
            #expect(worst ?? 1 < Self.elementLimit, "\(count)")
        }
        let large: [Float] = [-1e30, -1e4, -100, -20, 0, 20, 100, 1e4, 1e30, .infinity, .nan]
        let x = Tensor(guarded: large, large.count)
        operators.gelu(x)
        #expect(x.elements.dropLast() == large.dropLast().map { max(0, $0) }[...])
        #expect(x.elements[10].isNaN)
    }

    @Test(arguments: allLevels, [1, 3])
    func normsOfGroupsComeFirst(level: String, threads: Int) throws {
        let operators = try operators(level, threads: threads)
        var random = Random(2)
        for groups in [1, 4] {
            let x = random.tensor(29, 4 * 18)
            let weight = WeightMatrix(random.weight(300, 4 * 18, .bfloat16))
            let width = 4 * 18 / groups
            let norm = LayerNorm(
                weight: random.tensor(width),
                bias: random.tensor(width),
                epsilon: 1e-6
            )
            let (y, normed) = (Tensor(guarded: [29, 300]), x.guardedCopy())
            operators.linear(.layerNormed(x, norm), [LinearLayer(weight, into: y)])
            operators.layerNorm(normed, norm, into: normed)
            let expected = Tensor(guarded: [29, 300])
            operators.linear(normed, weight, into: expected)
            expectIdentical(y, expected, "\(groups) groups")
        }
    }

    @Test(arguments: allLevels, [1, 3])
    func biasesComeBeforeWhatFollows(level: String, threads: Int) throws {
        let operators = try operators(level, threads: threads)
        var random = Random(3)
        let (rows, heads, headSize) = (29, 5, 52)
        let columns = heads * headSize
        let (x, bias) = (random.tensor(rows, 70), random.tensor(columns))
        let weight = WeightMatrix(random.weight(columns, 70, .bfloat16))
        let products = Tensor(guarded: [rows, columns])
        operators.linear(x, weight, bias: bias, into: products)

        for activation in [Activation.gelu, .geluTanh] {
            let (y, expected) = (Tensor(guarded: products.shape), products.guardedCopy())
            operators.linear(
                .rows(x),
                [LinearLayer(weight, bias: bias, activation: activation, into: y)]
            )
            if activation == .gelu {
                operators.gelu(expected)
            } else {
                operators.geluTanh(expected)
            }
            expectIdentical(y, expected, "\(activation)")
        }

        let sum = random.tensor(rows, columns)
        let expectedSum = sum.guardedCopy()
        operators.gatedAdd(expectedSum, products, gate: nil)
        operators.linear(.rows(x), [LinearLayer(weight, bias: bias, addingTo: sum)])
        expectIdentical(sum, expectedSum, "sum")

        let rotary = RotaryTable(
            cosine: random.tensor(rows, headSize / 2),
            sine: random.tensor(rows, headSize / 2),
            pairsAreAdjacent: false
        )
        let y = Tensor(guarded: products.shape)
        operators.linear(
            .rows(x),
            [LinearLayer(weight, bias: bias, heads: HeadNorm(rotating: rotary), into: y)]
        )
        expectClose(y.elements, rotated(products, rotary), limit: Self.rotationLimit, "heads")
    }

    /// Halves of heads turned by the table's angles.
    private func rotated(_ x: Tensor, _ table: RotaryTable) -> [Float] {
        let half = table.cosine.rowCount
        var result = x.elements
        for head in 0..<x.count / (2 * half) {
            let row = head * 2 * half / x.rowCount
            for m in 0..<half {
                let (a, b) = (head * 2 * half + m, head * 2 * half + half + m)
                let c = Double(table.cosine.floats[row * half + m])
                let s = Double(table.sine.floats[row * half + m])
                let (first, second) = (Double(x.floats[a]), Double(x.floats[b]))
                result[a] = Float(first * c - second * s)
                result[b] = Float(first * s + second * c)
            }
        }
        return result
    }

    @Test(arguments: allLevels, [ElementType.float32, .bfloat16, .int8])
    func rowsOfATableAreAddedWithWeights(level: String, type: ElementType) throws {
        let operators = try operators(level, threads: 2)
        var random = Random(4)
        let (entries, width) = (9, 32)
        let matrix = WeightMatrix(
            random.weight(entries, width, type),
            scale: type == .int8 ? random.tensor(entries) : nil,
            rotation: type == .int8 ? 16 : nil
        )
        let terms = (0..<40).map { row in
            (0..<row % 5).map { (id: (row + 3 * $0) % entries, weight: random.next()) }
        }
        let y = random.tensor(terms.count, width)
        let values = dequantized(matrix)
        let expected = terms.enumerated().flatMap { row, terms in
            (0..<width).map { column in
                terms.reduce(Double(y.floats[row * width + column])) { sum, term in
                    sum + Double(term.weight) * Double(values.floats[term.id * width + column])
                }
            }
        }
        operators.gather(matrix, terms, addingTo: y)
        expectClose(y.elements, expected.map { Float($0) }, limit: Self.tableLimit)
    }
}
