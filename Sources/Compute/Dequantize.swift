package import Tensors

/// The values of a stored matrix, in plain loops: what fast kernels are compared with.
///
/// Bit for bit what ComfyUI's decoders give in float32: elements are widened, multiplied by the
/// scale, and then each group of `rotation` values is multiplied by H. Sums run in order over 128
/// terms at a time, as torch's products on the CPU do for groups of 16, 64 and 256; groups of other
/// sizes may differ from it in last bits.
///
/// Source: `dequantize_per_tensor_fp8`, `dequantize_int8_simple` and
/// `dequantize_int8_convrot_weight` in comfy-kitchen 0.2.40.
///
/// - Parameter matrix: Elements of any type that a `WeightMatrix` has.
/// - Returns: `[rows, columns]`, float32, in new memory.
package func dequantized(_ matrix: WeightMatrix) -> Tensor {
    let y = Tensor(zeros: [matrix.rows, matrix.columns])
    dequantize(matrix, into: y, threads: 1)
    return y
}

/// The values of a stored matrix, as `dequantized` gives them.
///
/// - Parameters:
///   - matrix: Elements of any type that a `WeightMatrix` has.
///   - y: `[rows, columns]`, float32.
///   - threads: Threads to use, 1 or more.
package func dequantize(_ matrix: WeightMatrix, into y: Tensor, threads: Int) {
    precondition(y.shape == [matrix.rows, matrix.columns], "\(y.shape) from \(matrix.rows) rows")
    let rotation = matrix.rotation.map { Hadamard($0) }
    parallel(matrix.rows, threads: threads) { row, _ in
        let target = y.row(row)
        widen(matrix.elements.row(row), into: target)
        if let scale = matrix.scale {
            let (factor, values) = (scale.floats[scale.count == 1 ? 0 : row], target.floats)
            for column in 0..<target.count { values[column] *= factor }
        }
        rotation?.multiply(target)
    }
}

extension WeightMatrix {
    /// Some of the rows, with their scales.
    package func rows(_ range: Range<Int>) -> WeightMatrix {
        WeightMatrix(
            elements.rows(range),
            scale: scale.map { $0.count == 1 ? $0 : $0.rows(range) },
            rotation: rotation,
            origin: origin.map { .init(name: $0.name, firstRow: $0.firstRow + range.lowerBound) }
        )
    }
}

// MARK: Elements

/// Copies elements of any type that weights have to float32 ones.
func widen(_ source: Tensor, into y: Tensor) {
    let (target, count) = (y.floats, source.count)
    switch source.elementType {
    case .float32:
        y.copy(from: source)
    case .float16:
        let halves = source.address.assumingMemoryBound(to: Float16.self)
        for i in 0..<count { target[i] = Float(halves[i]) }
    case .bfloat16:
        let halves = source.address.assumingMemoryBound(to: UInt16.self)
        for i in 0..<count { target[i] = Float(bitPattern: UInt32(halves[i]) << 16) }
    case .float8E4M3, .float8E5M2:
        let codes = source.address.assumingMemoryBound(to: UInt8.self)
        let values = source.elementType == .float8E4M3 ? Float8.valuesE4M3 : Float8.valuesE5M2
        for i in 0..<count { target[i] = values[Int(codes[i])] }
    case .int8:
        let integers = source.address.assumingMemoryBound(to: Int8.self)
        for i in 0..<count { target[i] = Float(integers[i]) }
    default:
        preconditionFailure("\(source.elementType) is not computed with")
    }
}

/// Floats of eight bits.
///
/// Source: "OCP 8-bit Floating Point Specification", revision 1.0.
enum Float8 {
    /// Values of all codes of E4M3: no infinities, NaN where all bits but the sign are set.
    static let valuesE4M3 = (0...UInt8.max).map { code in
        code & 0x7F == 0x7F ? .nan : value(code, fractionBits: 3, bias: 7)
    }

    /// Values of all codes of E5M2, which has infinities and NaN as IEEE 754 does.
    static let valuesE5M2 = (0...UInt8.max).map { code in
        code & 0x7F > 0x7C ? .nan : value(code, fractionBits: 2, bias: 15, infinity: 31)
    }

    /// The value of a code that is not NaN.
    ///
    /// - Parameters:
    ///   - code: Sign, exponent, fraction.
    ///   - fractionBits: Bits of the fraction.
    ///   - bias: What the exponent's field of 1 has.
    ///   - infinity: Exponent's field that stands for infinity.
    /// - Returns: The value, exactly.
    private static func value(
        _ code: UInt8,
        fractionBits: Int,
        bias: Int,
        infinity: Int? = nil
    ) -> Float {
        let one = 1 << fractionBits
        let exponent = Int(code & 0x7F) >> fractionBits
        let fraction = Int(code) & (one - 1)
        let significand = exponent == 0 ? fraction : one + fraction
        let magnitude: Float =
            exponent == infinity
            ? .infinity
            : Float(
                sign: .plus,
                exponent: max(exponent, 1) - bias - fractionBits,
                significand: Float(significand)
            )
        return code & 0x80 == 0 ? magnitude : -magnitude
    }
}

// MARK: Rotation

/// The matrix H_G: symmetric, orthogonal, all elements ±1/√G.
///
/// H_4 = ½ [[1, 1, 1, −1], [1, 1, −1, 1], [1, −1, 1, 1], [−1, 1, 1, 1]], H_4G = H_G ⊗ H_4.
///
/// Source: `_build_hadamard` in comfy-kitchen 0.2.40.
struct Hadamard {
    /// `[size, size]`, float32.
    let elements: Tensor

    private var size: Int { elements.rows }
    /// Terms that are summed before they are added to the others.
    private static let chunk = 128

    /// Builds the matrix of a size that is a power of 4.
    init(_ size: Int) {
        let magnitude = 1 / Float(size).squareRoot()
        elements = Tensor(zeros: [size, size])
        for row in 0..<size {
            for column in 0..<size {
                // In base 4, H_4 is negative where the digits of row and column add up to 3.
                let both = row ^ column
                let negative = (both & both >> 1 & 0x5555_5555).nonzeroBitCount
                elements.floats[row * size + column] =
                    negative.isMultiple(of: 2) ? magnitude : -magnitude
            }
        }
    }

    /// Replaces each group of a row by its product with the matrix.
    ///
    /// - Parameter row: Float32, as many elements as make whole groups.
    func multiply(_ row: Tensor) {
        let size = size
        withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * size) { buffer in
            guard let sums = buffer.baseAddress else { return }
            let part = sums + size
            for start in stride(from: 0, to: row.count, by: size) {
                let group = row.floats + start
                for first in stride(from: 0, to: size, by: Self.chunk) {
                    part.update(repeating: 0, count: size)
                    for term in first..<min(first + Self.chunk, size) {
                        let (factor, weights) = (group[term], elements.floats + term * size)
                        for column in 0..<size { part[column] += factor * weights[column] }
                    }
                    if first == 0 {
                        sums.update(from: part, count: size)
                    } else {
                        for column in 0..<size { sums[column] += part[column] }
                    }
                }
                group.update(from: sums, count: size)
            }
        }
    }
}
