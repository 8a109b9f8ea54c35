import Tensors
import TestSupport
import Testing

@testable import Compute

struct DequantizeTests {
    /// Bytes as elements of a type of one byte.
    private func codes(_ bytes: [UInt8], _ type: ElementType, _ shape: [Int]) -> Tensor {
        let tensor = Tensor(guarded: shape, elementType: type)
        tensor.address.copyMemory(from: bytes, byteCount: bytes.count)
        return tensor
    }

    @Test func readsE4M3() {
        let bytes: [UInt8] = [0x00, 0x01, 0x07, 0x08, 0x38, 0x39, 0x7E, 0x80, 0x81, 0xFE]
        let values = dequantized(WeightMatrix(codes(bytes, .float8E4M3, [1, 10]))).elements
        #expect(values == [0, 0x1p-9, 7 * 0x1p-9, 0x1p-6, 1, 1.125, 448, -0, -0x1p-9, -448])
        #expect(values[7].sign == .minus)
        let nan = dequantized(WeightMatrix(codes([0x7F, 0xFF], .float8E4M3, [1, 2]))).elements
        #expect(nan.allSatisfy { $0.isNaN })
    }

    @Test func readsE5M2() {
        let bytes: [UInt8] = [0x00, 0x01, 0x03, 0x04, 0x3C, 0x3D, 0x7B, 0x7C, 0xFC, 0x81]
        let values = dequantized(WeightMatrix(codes(bytes, .float8E5M2, [1, 10]))).elements
        #expect(
            values == [
                0, 0x1p-16, 3 * 0x1p-16, 0x1p-14, 1, 1.25, 57344, .infinity, -.infinity, -0x1p-16,
            ]
        )
        let nan = dequantized(WeightMatrix(codes([0x7D, 0x7F, 0xFE], .float8E5M2, [1, 3])))
        #expect(nan.elements.allSatisfy { $0.isNaN })
    }

    @Test func scalesRows() {
        let integers = codes([1, 2, 0x80, 0xFF], .int8, [2, 2])
        #expect(dequantized(WeightMatrix(integers)).elements == [1, 2, -128, -1])
        let one = WeightMatrix(integers, scale: Tensor([0.5], shape: [1]))
        #expect(dequantized(one).elements == [0.5, 1, -64, -0.5])
        let rows = WeightMatrix(integers, scale: Tensor([3, -2], shape: [2]))
        #expect(dequantized(rows).elements == [3, 6, 256, 2])
        #expect(dequantized(rows.rows(1..<2)).elements == [256, 2])
    }

    @Test func copiesFloats() {
        let half = codes([0x00, 0x3C, 0x01, 0x80], .float16, [1, 2])
        #expect(dequantized(WeightMatrix(half)).elements == [1, -0x1p-24])
        let brain = codes([0x80, 0x3F, 0x49, 0x40], .bfloat16, [1, 2])
        #expect(dequantized(WeightMatrix(brain)).elements == [1, 3.140625])
        let whole = Tensor([1.5, -2], shape: [2, 1])
        #expect(dequantized(WeightMatrix(whole)).elements == [1.5, -2])
    }

    /// H_4 as it is written, H_16 by its definition as a product of two of them.
    @Test func buildsTheMatrix() {
        let four: [Float] = [1, 1, 1, -1, 1, 1, -1, 1, 1, -1, 1, 1, -1, 1, 1, 1]
        #expect(Hadamard(4).elements.elements == four.map { $0 / 2 })
        let sixteen = Hadamard(16).elements.elements
        for row in 0..<16 {
            for column in 0..<16 {
                let outer = four[row / 4 * 4 + column / 4]
                let inner = four[row % 4 * 4 + column % 4]
                #expect(sixteen[16 * row + column] == outer * inner / 4)
            }
        }
    }

    @Test(arguments: [4, 16, 64, 256, 1024])
    func rotatingTwiceGivesTheSame(size: Int) {
        var random = Random(3)
        let values = (0..<2 * size).map { _ in random.next() }
        let row = Tensor(values, shape: [2 * size])
        let hadamard = Hadamard(size)
        hadamard.multiply(row)
        #expect(largestDifference(row.elements, values) > 0.1)
        hadamard.multiply(row)
        #expect(largestDifference(row.elements, values) < Self.twiceLimit)
    }
    /// Observed: 6e-7.
    private static let twiceLimit: Float = 1.6e-6

    @Test func threadsChangeNothing() {
        var random = Random(4)
        let bytes = (0..<37 * 64).map { _ in UInt8(128 + 127 * random.next()) }
        let matrix = WeightMatrix(
            codes(bytes, .int8, [37, 64]),
            scale: Tensor((1...37).map { Float($0) / 100 }, shape: [37]),
            rotation: 16
        )
        let y = Tensor(zeros: [37, 64])
        dequantize(matrix, into: y, threads: 5)
        #expect(y.elements == dequantized(matrix).elements)
    }
}
