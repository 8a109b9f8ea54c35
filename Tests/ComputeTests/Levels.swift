import Compute
import TestSupport
import Tensors
import Testing

/// Names of the kernels that differ in float32, the reference first.
let allLevels = ["scalar"] + fastLevels
/// Names of those that are compared with the reference.
let fastLevels = ["generic", "avx2", "avx512"]
/// The same for bfloat16.
let fastBfloat16Levels = ["avx512bf16"]
/// The same for int8.
let fastInt8Levels = ["avxvnni", "avx512vnni", "avx512bf16"]

/// Operators on the kernels called `level`; skips the test where the CPU lacks them.
func operators(
    _ level: String,
    threads: Int = 1,
    policy: ArithmeticPolicy = .float32
) throws -> Operators {
    guard let kernels = Kernels(named: level) else { try Test.cancel("this CPU lacks \(level)") }
    return Operators(kernels: kernels, threads: threads, policy: policy)
}

/// Expects two results to differ by at most `limit` relative to the size of the second.
func expectClose(
    _ result: [Float],
    _ expected: [Float],
    limit: Double,
    _ label: @autoclosure () -> String = "",
    sourceLocation: SourceLocation = #_sourceLocation
) {
    let error = relativeError(result, expected)
    guard error > limit || error.isNaN else { return }
    Issue.record(
        "\(label()): error \(error), largest \(largestDifference(result, expected))",
        sourceLocation: sourceLocation
    )
}

/// Expects the same bits, NaN included.
func expectIdentical(
    _ result: Tensor,
    _ expected: Tensor,
    _ label: @autoclosure () -> String = "",
    sourceLocation: SourceLocation = #_sourceLocation
) {
    let (a, b) = (result.elements.map(\.bitPattern), expected.elements.map(\.bitPattern))
    #expect(a == b, "\(label())", sourceLocation: sourceLocation)
}
