import CKernels
import Foundation
import TestSupport
import Tensors
import Testing

@testable import Compute

/// Counts below, at and above the vectors, and above what one task takes.
private let counts = [1, 3, 4, 7, 8, 15, 16, 17, 33, 1000, 16384 + 5]

private func sigmoid(_ x: Float) -> Double { 1 / (1 + exp(-Double(x))) }

struct ElementwiseTests {
    /// Observed at most 1e-7.
    static let limit = 4e-7
    /// Observed at most 1.1e-7 for one element.
    static let elementLimit = 4e-7

    @Test(arguments: allLevels)
    func activationsAgreeWithFormulas(level: String) throws {
        let operators = try operators(level)
        var random = Random(1)
        for count in counts {
            let (x, y) = (random.tensor(count, range: 12), random.tensor(count))
            let silu = x.guardedCopy()
            operators.table.silu_multiply(silu.floats, y.floats, count)
            let siluExpected = zip(x.elements, y.elements).map {
                Float(Double($0) * sigmoid($0) * Double($1))
            }
            expectClose(silu.elements, siluExpected, limit: Self.limit, "silu, \(count)")

            let gated = y.guardedCopy()
            operators.table.sigmoid_multiply(gated.floats, x.floats, count)
            let gatedExpected = zip(x.elements, y.elements).map { Float(sigmoid($0) * Double($1)) }
            expectClose(gated.elements, gatedExpected, limit: Self.limit, "sigmoid, \(count)")

            // Far below zero the formula cancels, so one element must not be all there is.
            x.floats[0] = 3
            let gelu = x.guardedCopy()
            operators.geluTanh(gelu)
            let geluExpected = x.elements.map { x in
                let x = Double(x)
                return Float(
                    0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
                )
            }
            expectClose(gelu.elements, geluExpected, limit: Self.limit, "gelu, \(count)")
        }
    }

    @Test(arguments: allLevels)
    func sigmoidIsExactInEveryRange(level: String) throws {
        let operators = try operators(level)
        let gates = (0...4000).map { Float($0) / 4000 * 174 - 87 }
        let (x, gate) = (Tensor(guarded: [1, 4001]), Tensor(guarded: gates, 1, 4001))
        x.write([Float](repeating: 1, count: 4001))
        operators.table.sigmoid_multiply(x.floats, gate.floats, 4001)
        let worst = zip(x.elements, gates).map { abs(Double($0) / sigmoid($1) - 1) }.max()
        #expect(worst ?? 1 < Self.elementLimit)
    }

    @Test(arguments: allLevels)
    func activationsKeepTheirLimits(level: String) throws {
        let operators = try operators(level)
        let large: [Float] = [-1e30, -1e4, -100, -89, 89, 100, 1e4, 1e30, .nan, .infinity]
        func run(_ body: (Tensor) -> Void) -> [Float] {
            let x = Tensor(guarded: large, large.count)
            body(x)
            return x.elements
        }
        let ones = Tensor(guarded: [Float](repeating: 1, count: large.count), large.count)
        let gates = run { gate in
            let x = ones.guardedCopy()
            operators.table.sigmoid_multiply(x.floats, gate.floats, large.count)
            gate.copy(from: x)
        }
        let results = [
            run { operators.table.silu_multiply($0.floats, ones.floats, large.count) },
            run { operators.geluTanh($0) },
            zip(gates, large).map { gate, x in x.isNaN ? gate : gate * x },
        ]
        for result in results {
            for i in 0..<8 {
                #expect(abs(result[i] - max(0, large[i])) <= 1e-7 * abs(large[i]))
            }
            #expect(result[8].isNaN && result[9] == .infinity)
        }
    }

    @Test(arguments: allLevels)
    func gatedAddAgreesWithFormula(level: String) throws {
        let operators = try operators(level)
        var random = Random(2)
        for width in [1, 3, 15, 16, 17, 33, 384] {
            let (x, y, gate) = (
                random.tensor(4, width), random.tensor(4, width), random.tensor(width)
            )
            for factor in [nil, gate] {
                let sum = x.guardedCopy()
                operators.gatedAdd(sum, y, gate: factor)
                let expected = (0..<4 * width).map { i in
                    let product = Double(factor?.floats[i % width] ?? 1) * Double(y.floats[i])
                    return Float(Double(x.floats[i]) + product)
                }
                expectClose(sum.elements, expected, limit: Self.limit, "width \(width)")
            }
        }
    }

    @Test(arguments: allLevels)
    func findsWhatIsNotFiniteEverywhere(level: String) throws {
        let operators = try operators(level)
        for count in Array(1...34) + [63, 64, 65, 100] {
            let x = Tensor(
                guarded: [Float](repeating: .greatestFiniteMagnitude, count: count),
                count
            )
            #expect(operators.isFinite(x))
            for i in 0..<count {
                for value in [Float.nan, -.nan, .signalingNaN, .infinity, -.infinity] {
                    x.floats[i] = value
                    if operators.isFinite(x) { Issue.record("\(value) at \(i) of \(count)") }
                }
                x.floats[i] = -.leastNonzeroMagnitude
            }
            #expect(operators.isFinite(x))
        }
    }
}
