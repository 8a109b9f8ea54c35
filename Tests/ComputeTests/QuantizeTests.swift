import Tensors
import TestSupport
import Testing

@testable import Compute

struct QuantizeTests {
    private func bytes(_ tensor: Tensor) -> [UInt8] {
        Array(UnsafeRawBufferPointer(start: tensor.address, count: tensor.byteCount))
    }

    // MARK: E4M3

    @Test func everyCodeIsItsOwnNearest() {
        for code in UInt8.min...UInt8.max where code & 0x7F != 0x7F {
            #expect(Float8.codeE4M3(Float8.valuesE4M3[Int(code)]) == code)
        }
    }

    @Test func halvesGoToEvenCodes() {
        for code in 0..<UInt8(126) {
            let (low, high) = (
                Float8.valuesE4M3[Int(code)], Float8.valuesE4M3[Int(code) + 1]
            )
            let middle = (low + high) / 2
            let even = code & 1 == 0 ? code : code + 1
            #expect(Float8.codeE4M3(middle) == even, "\(code)")
            #expect(Float8.codeE4M3(-middle) == even | 0x80, "\(code)")
            #expect(Float8.codeE4M3(middle.nextDown) == code, "\(code)")
            #expect(Float8.codeE4M3(middle.nextUp) == code + 1, "\(code)")
        }
    }

    @Test func largeValuesSaturate() {
        let x = Tensor([1000, -1000, 448, -449, 1, 0], shape: [2, 3])
        let codes = Tensor(guarded: [2, 3], elementType: .float8E4M3)
        quantizeFloat8(x, scale: 1, into: codes, threads: 2)
        #expect(bytes(codes) == [0x7E, 0xFE, 0x7E, 0xFE, 0x38, 0x00])
        quantizeFloat8(x, scale: 0.5, into: codes, threads: 1)
        #expect(bytes(codes)[4] == 0x40)
    }

    @Test func scalesReachTheLargestValue() {
        var random = Random(5)
        let x = random.tensor(7, 33, range: 0.02)
        let magnitude = largestMagnitude(x, threads: 3)
        #expect(magnitude == x.elements.map(abs).max())
        let codes = Tensor(guarded: [7, 33], elementType: .float8E4M3)
        let scale = float8Scale(magnitude ?? 0)
        quantizeFloat8(x, scale: scale, into: codes, threads: 3)
        #expect(bytes(codes).contains { $0 & 0x7F == 0x7E })
        let back = dequantized(WeightMatrix(codes, scale: Tensor([scale], shape: [1])))
        #expect(relativeError(back.elements, x.elements) < Self.float8Limit)
        #expect(float8Scale(0) > 0)
    }
    /// Observed: 0.023.
    private static let float8Limit = 0.05

    // MARK: Integers

    @Test func roundsRowsHalfToEven() {
        let x = Tensor([127, 0.5, 1.5, 2.5, -0.5, -1.5, 0, 0, 0, 0, 0, 0], shape: [2, 6])
        let codes = Tensor(guarded: [2, 6], elementType: .int8)
        let scales = Tensor(guarded: [2])
        #expect(quantizeInt8(x, rotation: nil, into: codes, scales: scales, threads: 2))
        #expect(
            bytes(codes).map { Int8(bitPattern: $0) } == [127, 0, 2, 2, 0, -2] + [0, 0, 0, 0, 0, 0]
        )
        #expect(scales.elements[0] == 1 && scales.elements[1] > 0)
    }

    @Test(arguments: [nil, 4, 16, 64, 256])
    func integersComeNear(rotation: Int?) {
        var random = Random(6)
        let x = random.tensor(5, 512)
        let values = x.elements
        let codes = Tensor(guarded: [5, 512], elementType: .int8)
        let scales = Tensor(guarded: [5])
        #expect(quantizeInt8(x, rotation: rotation, into: codes, scales: scales, threads: 2))
        let back = dequantized(WeightMatrix(codes, scale: scales, rotation: rotation))
        #expect(relativeError(back.elements, values) < Self.int8Limit)
        for row in 0..<5 {
            let largest = bytes(codes.rows(row..<row + 1)).map { Int8(bitPattern: $0).magnitude }
            #expect(largest.max() == 127)
        }
    }
    /// Observed: 0.0072.
    private static let int8Limit = 0.02

    @Test(arguments: [4, 16, 64, 256, 1024])
    func fastRotationAgreesWithTheMatrix(size: Int) {
        var random = Random(7)
        let fast = random.tensor(3 * size)
        let plain = Tensor(fast.elements, shape: [3 * size])
        rotate(fast, by: size)
        Hadamard(size).multiply(plain)
        #expect(relativeError(fast.elements, plain.elements) < Self.rotationLimit)
    }
    /// Observed: 2.4e-7.
    private static let rotationLimit = 8e-7

    @Test(arguments: [Float.nan, .infinity, -.infinity])
    func refusesWhatIsNotFinite(value: Float) {
        let x = Tensor([0, 1, 2, value, 4, 5, 6, 7], shape: [2, 4])
        #expect(largestMagnitude(x, threads: 1) == nil)
        let codes = Tensor(guarded: [2, 4], elementType: .int8)
        let scales = Tensor(guarded: [2])
        #expect(!quantizeInt8(x, rotation: 4, into: codes, scales: scales, threads: 1))
        // The sum of four is not finite either.
        let large = Tensor([Float](repeating: .greatestFiniteMagnitude, count: 8), shape: [2, 4])
        #expect(!quantizeInt8(large, rotation: 4, into: codes, scales: scales, threads: 1))
    }

    // MARK: Other types

    @Test func roundsToHalves() {
        let ties: [Float] = [1 + 0x1p-8, 1 + 0x3p-8, 1 + 0x1p-11, 1 + 0x3p-11, -0.1, 1e-30]
        let x = Tensor(ties + [.nan, .infinity], shape: [2, 4])
        let brain = Tensor(guarded: [2, 4], elementType: .bfloat16)
        #expect(narrow(x, into: brain, threads: 2))
        let brains = dequantized(WeightMatrix(brain)).elements
        #expect(brains[0] == 1 && brains[1] == 1 + 0x1p-6 && brains[2] == 1)
        #expect(brains[6].isNaN && brains[7] == .infinity)
        let half = Tensor(guarded: [2, 4], elementType: .float16)
        #expect(narrow(x, into: half, threads: 1))
        let halves = dequantized(WeightMatrix(half)).elements
        #expect(halves[2] == 1 && halves[3] == 1 + 0x1p-9 && halves[5] == 0 && halves[6].isNaN)
        let whole = Tensor(guarded: [2, 4])
        #expect(narrow(x, into: whole, threads: 1) && bytes(whole) == bytes(x))
    }

    @Test func tellsWhatDoesNotFit() {
        let half = Tensor(guarded: [1, 1], elementType: .float16)
        #expect(narrow(Tensor([65519], shape: [1, 1]), into: half, threads: 1))
        #expect(!narrow(Tensor([-65520], shape: [1, 1]), into: half, threads: 1))
        let brain = Tensor(guarded: [1, 1], elementType: .bfloat16)
        #expect(
            !narrow(Tensor([.greatestFiniteMagnitude], shape: [1, 1]), into: brain, threads: 1)
        )
    }
}
