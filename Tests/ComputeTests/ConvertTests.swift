import Tensors
import TestSupport
import Testing

@testable import Compute

/// Weights of other element types, and of kernels over time.
struct ConvertTests {
    private static let values: [Float] = [0, -1.5, 0.0078125, 240, -.infinity]

    @Test func widensFloat16() {
        let source = halves(Self.values.map { Float16($0).bitPattern }, .float16)
        #expect(converted(source).elements == Self.values)
    }

    @Test func widensBFloat16() {
        let source = halves(Self.values.map { UInt16($0.bitPattern >> 16) }, .bfloat16)
        #expect(converted(source).elements == Self.values)
    }

    @Test func copiesFloat32() {
        let source = Tensor(Self.values, shape: [5])
        let copy = converted(source)
        source.write([1, 2, 3, 4, 5])
        #expect(copy.elements == Self.values)
    }

    /// A kernel over three frames does what its last slice, written out, does.
    @Test func takesTheLastSlice() {
        let operators = Operators(threads: 1)
        let (inputs, outputs) = (2, 3)
        let weight = Tensor(zeros: [outputs, inputs, 3, 3, 3])
        weight.write((0..<weight.count).map { Float($0 % 23) - 11 })
        let (all, bias) = (weight.elements, Tensor([1, 2, 3], shape: [outputs]))
        let slice = Tensor(zeros: [outputs, inputs, 3, 3])
        let kernel = Tensor(zeros: [outputs, 3, 3, inputs])
        var (sliced, packed) = (slice.elements, kernel.elements)
        for output in 0..<outputs {
            for input in 0..<inputs {
                for tap in 0..<9 {
                    let value = all[(output * inputs + input) * 27 + 18 + tap]
                    sliced[(output * inputs + input) * 9 + tap] = value
                    packed[(output * 9 + tap) * inputs + input] = value
                }
            }
        }
        slice.write(sliced)
        kernel.write(packed)

        let image = Tensor((0..<40).map { Float($0 * 7 % 13) }, shape: [4, 5, inputs])
        let results = [
            ConvolutionWeights(kernel, bias: bias, for: operators),
            ConvolutionWeights(lastSliceOf: weight, bias: bias, for: operators),
            ConvolutionWeights(lastSliceOf: slice, bias: bias, for: operators),
        ].map { weights in
            let y = Tensor(zeros: [4, 5, outputs])
            let source = ImageRows(image, firstRow: 0, imageHeight: 4)
            operators.convolution(source, weights, rows: 0..<4, into: y)
            return y.elements
        }
        #expect(results[0].contains { $0 != 0 })
        #expect(results[1] == results[0] && results[2] == results[0])
    }

    private func halves(_ bits: [UInt16], _ type: ElementType) -> Tensor {
        let storage = Storage(byteCount: 2 * bits.count)
        bits.withUnsafeBytes { storage.bytes.copyMemory(from: $0) }
        return Tensor(storage, byteOffset: 0, shape: [bits.count], elementType: type)
    }
}
