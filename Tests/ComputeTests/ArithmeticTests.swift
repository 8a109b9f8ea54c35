import CKernels
import TestSupport
import Tensors
import Testing

@testable import Compute

/// Linear layers in bfloat16 and int8.
struct ArithmeticTests {
    /// Sums of exact products in another order; observed at most 8.5e-7.
    static let bfloat16Limit = 3e-6
    /// One rounding of each sum, two of scales; observed at most 1.2e-7.
    static let int8Limit = 5e-7

    private static let sizes = [
        (1, 1, 1), (1, 33, 7), (12, 32, 64), (13, 257, 512), (45, 300, 515), (30, 65, 1030),
    ]
    private static let floatTypes = [
        ElementType.float32, .float16, .bfloat16, .float8E4M3, .float8E5M2,
    ]

    /// x, a weight, and room for the result.
    private func inputs(
        _ sizes: (rows: Int, columns: Int, k: Int),
        _ type: ElementType
    ) -> (x: Tensor, weight: Tensor, y: Tensor) {
        var random = Random(UInt64(sizes.rows * 1000 + sizes.columns))
        return (
            random.tensor(sizes.rows, sizes.k), random.weight(sizes.columns, sizes.k, type),
            Tensor(guarded: [sizes.rows, sizes.columns])
        )
    }

    private func rounded(_ value: Double) -> Double {
        let bits = Float(value).bitPattern
        return Double(Float(bitPattern: (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000))
    }

    // MARK: bfloat16

    @Test func scalarBfloat16MultipliesRoundedElements() throws {
        let operators = try operators("scalar", policy: .bfloat16)
        for type in Self.floatTypes + [.int8] {
            let (x, weight, y) = inputs((13, 33, 70), type)
            operators.linear(x, WeightMatrix(weight), into: y)
            let (a, b) = (x.exactElements.map(rounded), weight.exactElements.map(rounded))
            let expected = (0..<y.count).map { i in
                let (row, column) = (i / 33 * 70, i % 33 * 70)
                return Float((0..<70).reduce(0) { $0 + a[row + $1] * b[column + $1] })
            }
            expectClose(y.elements, expected, limit: Self.bfloat16Limit, "\(type)")
        }
    }

    @Test(arguments: fastBfloat16Levels)
    func bfloat16AgreesWithScalar(level: String) throws {
        let scalar = try operators("scalar", policy: .bfloat16)
        let fast = try operators(level, policy: .bfloat16)
        for sizes in Self.sizes {
            for type in Self.floatTypes + [.int8] {
                let (x, weight, y) = inputs(sizes, type)
                let expected = Tensor(guarded: y.shape)
                scalar.linear(x, WeightMatrix(weight), into: expected)
                fast.linear(x, WeightMatrix(weight), into: y)
                let label = "\(sizes), \(type)"
                expectClose(y.elements, expected.elements, limit: Self.bfloat16Limit, label)
            }
        }
    }

    @Test(arguments: ["scalar"] + fastBfloat16Levels)
    func bfloat16ActivationsAreThoseRounded(level: String) throws {
        let operators = try operators(level, policy: .bfloat16)
        let (x, weight, y) = inputs((13, 70, 70), .bfloat16)
        let narrow = Tensor(guarded: x.shape, elementType: .bfloat16)
        operators.narrow(x, into: narrow)
        #expect(narrow.exactElements == x.exactElements.map(rounded))
        operators.linear(x, WeightMatrix(weight), into: y)
        let (again, stored) = (
            Tensor(guarded: y.shape), Tensor(guarded: y.shape, elementType: .bfloat16)
        )
        operators.linear(narrow, WeightMatrix(weight), into: again)
        operators.linear(narrow, WeightMatrix(weight), into: stored)
        expectIdentical(again, y)
        #expect(stored.exactElements == y.exactElements.map(rounded))
    }

    // MARK: int8

    @Test func scalarInt8QuantisesRows() throws {
        let operators = try operators("scalar", policy: .int8)
        let (x, weight, y) = inputs((13, 33, 70), .int8)
        operators.linear(x, WeightMatrix(weight), into: y)
        let b = weight.exactElements
        let expected = (0..<13).flatMap { row in
            let a = x.row(row).elements
            let largest = a.map(abs).max() ?? 0
            let q = a.map { Double(($0 * (127 / largest)).rounded(.toNearestOrEven)) }
            return (0..<33).map { column in
                let sum = (0..<70).reduce(0) { $0 + q[$1] * b[column * 70 + $1] }
                return Float(sum * Double(largest / 127))
            }
        }
        expectClose(y.elements, expected, limit: Self.int8Limit)
    }

    @Test(arguments: fastInt8Levels)
    func int8GivesTheBitsOfScalar(level: String) throws {
        let scalar = try operators("scalar", policy: .int8)
        let fast = try operators(level, policy: .int8)
        for sizes in Self.sizes {
            let (x, weight, y) = inputs(sizes, .int8)
            var random = Random(5)
            let matrix = WeightMatrix(
                weight,
                scale: random.tensor(sizes.1),
                rotation: Operators.rotation(columns: sizes.2)
            )
            let expected = Tensor(guarded: y.shape)
            scalar.linear(x, matrix, into: expected)
            fast.linear(x, matrix, into: y)
            expectIdentical(y, expected, "\(sizes)")
        }
    }

    @Test(arguments: ["scalar"] + fastInt8Levels)
    func int8LeavesWhatIsNotFinite(level: String) throws {
        let operators = try operators(level, policy: .int8)
        for value in [Float.nan, .infinity] {
            let (x, weight, y) = inputs((3, 33, 70), .int8)
            x.floats[70 + 69] = value
            for i in 0..<70 { x.floats[140 + i] = 0 }
            operators.linear(x, WeightMatrix(weight), into: y)
            #expect(y.row(1).elements.allSatisfy { !$0.isFinite })
            #expect(y.row(0).elements.allSatisfy { $0.isFinite })
            #expect(y.row(2).elements.allSatisfy { $0 == 0 })
        }
    }

    @Test(arguments: ["scalar"] + fastInt8Levels)
    func rowsTooLongForIntegersAreComputedInFloat32(level: String) throws {
        let operators = try operators(level, policy: .int8)
        let k = 65540
        let (x, weight) = (Tensor(zeros: [1, k]), Tensor(guarded: [1, k], elementType: .int8))
        for i in 0..<k {
            x.floats[i] = 1
            weight.address.assumingMemoryBound(to: Int8.self)[i] = 127
        }
        let y = Tensor(zeros: [1, 1])
        operators.linear(x, WeightMatrix(weight), into: y)
        #expect(y.elements == [Float(127 * k)])
    }

    // MARK: Scales and rotation

    /// Every storage and arithmetic against the dequantised matrix.
    @Test(
        arguments: ["scalar", "avx2", "avx512bf16"],
        [ArithmeticPolicy.float32, .bfloat16, .stored]
    )
    func scaledMatricesAreTheirDequantisedValues(level: String, policy: ArithmeticPolicy) throws {
        let exact = try operators(level)
        let operators = try operators(level, policy: policy)
        for type in [ElementType.int8, .float8E4M3, .float8E5M2, .bfloat16] {
            for scales in [nil, 1, 40] {
                for rotation in [nil, 4, 64] {
                    let (x, weight, y) = inputs((13, 40, 128), type)
                    var random = Random(6)
                    let scale = scales.map { random.tensor($0) }
                    let matrix = WeightMatrix(weight, scale: scale, rotation: rotation)
                    operators.linear(x, matrix, into: y)
                    let expected = Tensor(guarded: y.shape)
                    exact.linear(x, WeightMatrix(dequantized(matrix)), into: expected)
                    let arithmetic = operators.policy.arithmetic(for: matrix)
                    let limit =
                        switch arithmetic {
                        case .float32: 3e-6
                        case .bfloat16: 0.01
                        case .int8: 0.02
                        }
                    expectClose(
                        y.elements,
                        expected.elements,
                        limit: limit,
                        "\(type), scales \(scales ?? 0), rotation \(rotation ?? 0)"
                    )
                }
            }
        }
    }

    @Test(arguments: ["scalar", "generic", "avx2", "avx512"], [4, 16, 64, 256, 1024])
    func rotationIsTheHadamardMatrix(level: String, group: Int) throws {
        let operators = try operators(level)
        var random = Random(7)
        let (x, one) = (random.tensor(3, 2 * group), Tensor(guarded: [1, 2 * group]))
        // An identity matrix, rotated, is the Hadamard matrix itself.
        let identity = Tensor(zeros: [2 * group, 2 * group])
        for i in 0..<2 * group { identity.floats[i * 2 * group + i] = 1 }
        let matrix = dequantized(WeightMatrix(identity, rotation: group))
        for row in 0..<3 {
            one.copy(from: x.rows(row..<row + 1))
            let found = one.guardedCopy()
            operators.table.rotate(found.floats, found.count, group)
            let expected = Tensor(guarded: one.shape)
            operators.linear(one, WeightMatrix(matrix), into: expected)
            expectClose(found.elements, expected.elements, limit: 1e-6)
            operators.table.rotate(found.floats, found.count, group)
            expectClose(found.elements, one.elements, limit: 1e-6, "twice")
        }
    }

    @Test(arguments: ["scalar", "generic", "avx2", "avx512"])
    func quantisingLosesHalfAStepAtMost(level: String) throws {
        let (operators, scalar) = (try operators(level), try operators("scalar"))
        var random = Random(8)
        for columns in [7, 12, 80, 320, 512] {
            let matrix = WeightMatrix(random.weight(5, columns, .bfloat16))
            func quantized(_ operators: Operators) -> WeightMatrix {
                operators.quantize(
                    matrix,
                    into: Tensor(guarded: [5, columns], elementType: .int8),
                    scale: Tensor(guarded: [5])
                )
            }
            let (found, reference) = (quantized(operators), quantized(scalar))
            #expect(found.rotation == [7: nil, 12: 4, 80: 16, 320: 64, 512: 256][columns] ?? nil)
            #expect(found.elements.exactElements == reference.elements.exactElements)
            #expect(found.scale?.elements == reference.scale?.elements)
            // Rotated back, no row has moved further than its scale allows.
            let (values, wanted) = (dequantized(found), dequantized(matrix))
            for row in 0..<5 {
                let error = zip(values.row(row).elements, wanted.row(row).elements)
                    .reduce(0.0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }.squareRoot()
                let scale = Double(found.scale?.floats[row] ?? 0)
                #expect(error < 0.51 * scale * Double(columns).squareRoot())
            }
        }
    }
}

extension ArithmeticPolicy: CustomTestStringConvertible {
    /// The two arithmetics.
    public var testDescription: String { "\(floats), \(integers)" }
}
