import CKernels
import TestSupport
import Tensors
import Testing

@testable import Compute

/// The loops that measure what the instructions of a level can do at most.
struct SaturationTests {
    /// Two lanes and the sum of their products, which is exact.
    private func lanes(_ arithmetic: Arithmetic) -> (x: UInt32, w: UInt32, product: Float) {
        switch arithmetic {
        case .float32: (Float(1.5).bitPattern, Float(2).bitPattern, 3)
        // 1.5 · 2 − 0.5 · 4
        case .bfloat16: (0xBF00_3FC0, 0x4080_4000, 1)
        // −4 · 25 + 3 · 50 − 2 · 100 + 1 · 200
        case .int8: (0xFC03_FE01, 0x1932_64C8, 50)
        }
    }

    @Test(arguments: Kernels.allNames)
    func everyRoundIsInEverySum(level: String) throws {
        let operators = try operators(level)
        for arithmetic in Arithmetic.allCases
        where Kernels(operators.table).supports(arithmetic) {
            let products = operators.table.products(arithmetic)
            let (x, w, product) = lanes(arithmetic)
            let sums = Tensor(guarded: [products.row_panel, products.column_panel])
            let integers = UnsafeMutableRawPointer(sums.floats)
                .assumingMemoryBound(to: Int32.self)
            for rounds in [0, 1, 2, 1001] {
                for i in 0..<sums.count {
                    if arithmetic == .int8 {
                        integers[i] = Int32(i)
                    } else {
                        sums.floats[i] = Float(i)
                    }
                }
                products.saturate(sums.floats, x, w, rounds)
                let found = (0..<sums.count).map {
                    arithmetic == .int8 ? Float(integers[$0]) : sums.floats[$0]
                }
                let wrong = found.indices.first {
                    found[$0] != Float($0) + Float(rounds) * product
                }
                #expect(wrong == nil, "\(arithmetic), \(rounds) rounds")
            }
        }
    }

    @Test(arguments: Kernels.allNames, [1, 3])
    func countsTheOperationsOfAllThreads(level: String, threads: Int) throws {
        let operators = try operators(level, threads: threads)
        let kernels = Kernels(operators.table)
        for arithmetic in Arithmetic.allCases where kernels.supports(arithmetic) {
            let products = operators.table.products(arithmetic)
            let sums = products.row_panel * products.column_panel
            let elements = [Arithmetic.float32: 1, .bfloat16: 2, .int8: 4][arithmetic]
            #expect(products.group == elements)
            #expect(kernels.operationsPerRound(arithmetic) == 2 * sums * products.group)
            let operations = operators.saturate(arithmetic, rounds: 80)
            #expect(operations == Double(threads * 80 * 2 * sums * products.group))
            #expect(operators.saturate(arithmetic, rounds: 0) == 0)
        }
    }

    /// What the measurement multiplies must stay small, or the sums of integers would overflow.
    @Test func integersOfTheMeasurementCancel() throws {
        let operators = try operators("scalar")
        _ = operators.saturate(.int8, rounds: 8000)
        let sums = UnsafeMutableRawPointer(operators.workspace(0).sums.0)
            .assumingMemoryBound(to: Int32.self)
        #expect(sums[0] == 0)
    }
}
