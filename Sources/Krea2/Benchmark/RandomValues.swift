import Compute
import Tensors

/// Tensors whose values do not matter but should be of usual size: zeros take less power, and
/// denormal numbers more time.
///
/// Normal values are drawn once, a prime number of them. A tensor takes them in a circle, so that
/// rows do not repeat each other.
final class RandomValues {
    private let values: Tensor
    private var circles: [Circle: Tensor] = [:]

    private static let count = 16_381

    /// Values of one type, with one mean and deviation.
    private struct Circle: Hashable {
        let type: ElementType
        let mean: Float
        let deviation: Float
    }

    /// Draws the values.
    init() {
        values = Tensor(Noise.normal(count: Self.count, seed: 1), shape: [1, Self.count])
    }

    /// Values with a mean and a deviation: `[count]`.
    ///
    /// - Parameters:
    ///   - type: Float32, float16, bfloat16 or E4M3.
    ///   - mean: Of the values.
    ///   - deviation: Of the values.
    /// - Returns: The same tensor each time; not to be written to.
    func circle(_ type: ElementType, mean: Float = 0, deviation: Float = 1) -> Tensor {
        let key = Circle(type: type, mean: mean, deviation: deviation)
        if let circle = circles[key] { return circle }
        let floats = Tensor(values.elements.map { mean + deviation * $0 }, shape: values.shape)
        let circle = Tensor(
            Storage(byteCount: Self.count * type.byteCount),
            byteOffset: 0,
            shape: values.shape,
            elementType: type
        )
        if type == .float8E4M3 {
            quantizeFloat8(floats, scale: 1, into: circle, threads: 1)
        } else {
            _ = narrow(floats, into: circle, threads: 1)
        }
        circles[key] = circle.reshaped(Self.count)
        return circle.reshaped(Self.count)
    }

    /// A new tensor of such values.
    ///
    /// - Parameters:
    ///   - shape: Sizes, slowest axis first.
    ///   - type: As for `circle`.
    ///   - deviation: Of the values, whose mean is 0.
    /// - Returns: A tensor in memory of its own.
    func tensor(
        _ shape: [Int],
        _ type: ElementType = .float32,
        deviation: Float = 1
    ) -> Tensor {
        let tensor = Tensor(
            Storage(byteCount: shape.reduce(type.byteCount, *)),
            byteOffset: 0,
            shape: shape,
            elementType: type
        )
        let (flat, circle) = (
            tensor.reshaped(tensor.count), circle(type, deviation: deviation)
        )
        for first in stride(from: 0, to: flat.count, by: Self.count) {
            let count = min(Self.count, flat.count - first)
            flat.rows(first..<first + count).copy(from: circle.rows(0..<count))
        }
        return tensor
    }

    /// A matrix that keeps the variance of what it is multiplied with: `[rows, columns]`.
    func matrix(_ rows: Int, _ columns: Int, _ type: ElementType) -> WeightMatrix {
        let deviation = 1 / Float(max(1, columns)).squareRoot()
        return WeightMatrix(tensor([rows, columns], type, deviation: deviation))
    }

    /// The same values, rotated and quantised row by row as for `--precision int8`.
    func quantized(_ matrix: WeightMatrix, _ operators: Operators) -> WeightMatrix {
        let elements = Tensor(
            Storage(byteCount: matrix.rows * matrix.columns),
            byteOffset: 0,
            shape: [matrix.rows, matrix.columns],
            elementType: .int8
        )
        return operators.quantize(matrix, into: elements, scale: Tensor(zeros: [matrix.rows]))
    }
}
