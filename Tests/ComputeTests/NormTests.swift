import Compute
import Foundation
import TestSupport
import Tensors
import Testing

/// Widths below, at and above the vectors, and some of the models'.
private let widths = [1, 3, 15, 16, 17, 33, 48, 100, 384, 6144]
private let epsilon: Float = 1e-5

/// Float64 norms.
private enum Direct {
    static func rmsNorm(
        _ x: Tensor,
        _ weight: Tensor,
        _ offset: Double,
        scale: Tensor? = nil,
        shift: Tensor? = nil
    ) -> [Float] {
        let width = weight.count
        let inverse = rowSquares(x, width).map {
            1 / ($0 / Double(width) + Double(epsilon)).squareRoot()
        }
        return (0..<x.count).map { i in
            let factor = inverse[i / width] * (offset + Double(weight.floats[i % width]))
            let normed = Double(x.floats[i]) * factor
            guard let scale, let shift else { return Float(normed) }
            return Float(
                (1 + Double(scale.floats[i % width])) * normed + Double(shift.floats[i % width])
            )
        }
    }

    /// Rotates normed heads; `pair` gives the two elements of pair m.
    static func rotate(
        _ heads: [Float],
        _ table: RotaryTable,
        width: Int,
        pair: (Int) -> (Int, Int)
    ) -> [Float] {
        let half = table.cosine.rowCount
        var rotated = heads
        for head in 0..<heads.count / (2 * half) {
            let token = head * 2 * half / width
            for m in 0..<half {
                let (a, b) = (head * 2 * half + pair(m).0, head * 2 * half + pair(m).1)
                let c = Double(table.cosine.floats[token * half + m])
                let s = Double(table.sine.floats[token * half + m])
                rotated[a] = Float(Double(heads[a]) * c - Double(heads[b]) * s)
                rotated[b] = Float(Double(heads[a]) * s + Double(heads[b]) * c)
            }
        }
        return rotated
    }

    static func channelNorm(_ x: Tensor, _ gamma: Tensor, silu: Bool) -> [Float] {
        let width = gamma.count
        let lengths = rowSquares(x, width).map { max($0.squareRoot(), 1e-12) }
        return (0..<x.count).map { i in
            let normed =
                Double(x.floats[i]) / lengths[i / width] * Double(width).squareRoot()
                * Double(gamma.floats[i % width])
            return Float(silu ? normed / (1 + exp(-normed)) : normed)
        }
    }

    private static func rowSquares(_ x: Tensor, _ width: Int) -> [Double] {
        (0..<x.count / width).map { row in
            var sum = 0.0
            for i in row * width..<(row + 1) * width {
                sum += Double(x.floats[i]) * Double(x.floats[i])
            }
            return sum
        }
    }
}

struct NormTests {
    /// Observed at most 2.0e-6: the reference adds 6144 squares one after the other.
    static let rmsLimit = 6e-6
    /// Observed at most 1.2e-7.
    static let headLimit = 4.5e-7
    /// Observed at most 1.5e-7.
    static let channelLimit = 5.5e-7

    @Test(arguments: allLevels)
    func rmsNormAgreesWithFormula(level: String) throws {
        let operators = try operators(level)
        var random = Random(1)
        for width in widths {
            let rows = width > 1000 ? 1 : 5
            let (x, weight) = (random.tensor(rows, width, range: 30), random.tensor(width))
            let (scale, shift) = (random.tensor(width), random.tensor(width))
            for (stored, offset) in [(NormWeight.plain, 0.0), (.minusOne, 1)] {
                let y = Tensor(guarded: x.shape)
                let plain = RowNorm(weight: weight, stored: stored, epsilon: epsilon)
                operators.rmsNorm(x, plain, into: y)
                let expected = Direct.rmsNorm(x, weight, offset)
                expectClose(y.elements, expected, limit: Self.rmsLimit, "width \(width)")

                let modulated = x.guardedCopy()
                let norm = RowNorm(
                    weight: weight,
                    stored: stored,
                    epsilon: epsilon,
                    scale: scale,
                    shift: shift
                )
                operators.rmsNorm(modulated, norm, into: modulated)
                expectClose(
                    modulated.elements,
                    Direct.rmsNorm(x, weight, offset, scale: scale, shift: shift),
                    limit: Self.rmsLimit,
                    "modulated, in place, width \(width)"
                )
            }
        }
    }

    @Test(arguments: allLevels, [2, 6, 16, 48, 128, 130])
    func headNormAgreesWithFormula(level: String, headSize: Int) throws {
        let operators = try operators(level)
        var random = Random(2)
        let (x, weight) = (random.tensor(5, 3 * headSize), random.tensor(headSize))
        let (cosine, sine) = (random.tensor(5, headSize / 2), random.tensor(5, headSize / 2))
        for (stored, offset) in [(NormWeight.plain, 0.0), (.minusOne, 1)] {
            let normed = Direct.rmsNorm(x, weight, offset)
            let plain = x.guardedCopy()
            func norm(_ rotary: RotaryTable?) -> HeadNorm {
                HeadNorm(weight: weight, stored: stored, epsilon: epsilon, rotary: rotary)
            }
            operators.headNorm(plain, norm(nil))
            expectClose(plain.elements, normed, limit: Self.headLimit, "not rotated")

            for adjacent in [false, true] {
                let table = RotaryTable(cosine: cosine, sine: sine, pairsAreAdjacent: adjacent)
                let y = x.guardedCopy()
                operators.headNorm(y, norm(table))
                let expected = Direct.rotate(normed, table, width: 3 * headSize) {
                    adjacent ? (2 * $0, 2 * $0 + 1) : ($0, $0 + headSize / 2)
                }
                expectClose(y.elements, expected, limit: Self.headLimit, "adjacent: \(adjacent)")
            }
        }
    }

    @Test(arguments: allLevels)
    func headNormAcceptsOddHeadsWithoutRotation(level: String) throws {
        let operators = try operators(level)
        var random = Random(4)
        let (x, weight) = (random.tensor(3, 4 * 9), random.tensor(9))
        let expected = Direct.rmsNorm(x, weight, 0)
        let norm = HeadNorm(weight: weight, stored: .plain, epsilon: epsilon, rotary: nil)
        operators.headNorm(x, norm)
        expectClose(x.elements, expected, limit: Self.headLimit)
    }

    @Test(arguments: allLevels, [false, true])
    func channelNormAgreesWithFormula(level: String, silu: Bool) throws {
        let operators = try operators(level)
        var random = Random(3)
        for width in widths where width < 1000 {
            let (x, gamma) = (random.tensor(2, 3, width, range: 9), random.tensor(width))
            // The second pixel is zero, the third almost.
            for i in 0..<width { x.floats[width + i] = 0 }
            for i in 0..<width { x.floats[2 * width + i] *= 1e-15 }
            let y = Tensor(guarded: x.shape)
            operators.channelNorm(x, gamma: gamma, silu: silu, into: y)
            let expected = Direct.channelNorm(x, gamma, silu: silu)
            expectClose(y.elements, expected, limit: Self.channelLimit, "width \(width)")
            #expect(y.elements[width..<2 * width].allSatisfy { $0 == 0 })
            operators.channelNorm(x, gamma: gamma, silu: silu, into: x)
            expectIdentical(x, y, "in place")
        }
    }

    @Test(arguments: allLevels)
    func spreadsNaN(level: String) throws {
        let operators = try operators(level)
        var random = Random(6)
        for element in [0, 15, 16, 32] {
            let (x, weight) = (random.tensor(3, 33), random.tensor(33))
            x.floats[33 + element] = .nan
            let y = Tensor(guarded: [3, 33])
            let norm = RowNorm(weight: weight, stored: .plain, epsilon: epsilon)
            operators.rmsNorm(x, norm, into: y)
            #expect(y.elements.map(\.isNaN) == (0..<99).map { $0 / 33 == 1 })
            operators.channelNorm(x, gamma: weight, silu: true, into: y)
            #expect(y.floats[33 + element].isNaN)
            operators.headNorm(
                x,
                HeadNorm(weight: weight, stored: .plain, epsilon: epsilon, rotary: nil)
            )
            #expect(x.elements.map(\.isNaN) == (0..<99).map { $0 / 33 == 1 })
        }
    }
}
