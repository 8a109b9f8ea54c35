package import Tensors

/// The largest magnitude in a matrix.
///
/// - Parameters:
///   - x: `[rows, columns]`, float32.
///   - threads: Threads to use, 1 or more.
/// - Returns: The magnitude; nil where a value is NaN or infinite.
package func largestMagnitude(_ x: Tensor, threads: Int) -> Float? {
    let largest = Tensor(zeros: [max(x.rows, 1)])
    parallel(x.rows, threads: threads) { row, _ in
        largest.floats[row] = largestMagnitude(x.row(row))
    }
    let magnitude = largest.elements.reduce(0) { $1.isFinite ? max($0, $1) : .infinity }
    return magnitude.isFinite ? magnitude : nil
}

/// The largest magnitude in a row; infinity or NaN where one of the values is.
private func largestMagnitude(_ row: Tensor) -> Float {
    let values = UnsafeRawPointer(row.floats).assumingMemoryBound(to: Int32.self)
    // Without the sign, floats are in the order of their bits, and NaN comes last.
    var largest: Int32 = 0
    for i in 0..<row.count { largest = max(largest, values[i] & .max) }
    return Float(bitPattern: UInt32(bitPattern: largest))
}

/// The scale by which a float8 weight with this largest magnitude is divided.
///
/// Source: `recalculate` in ComfyUI's layouts of float8: the magnitude becomes the largest value,
/// 448. An all-zero weight gets a scale as well.
package func float8Scale(_ magnitude: Float) -> Float { max(magnitude / 448, smallestScale) }

/// Far above what underflows, far below any trained weight.
private let smallestScale: Float = 1e-30

/// Rounds x / scale to E4M3, half to even; what is too large becomes the largest value.
///
/// Source: `quantize_per_tensor_fp8` in comfy-kitchen 0.2.40, which multiplies by 1 / scale.
///
/// - Parameters:
///   - x: `[rows, columns]`, float32 and finite.
///   - scale: Above 0.
///   - codes: `[rows, columns]`, E4M3.
///   - threads: Threads to use, 1 or more.
package func quantizeFloat8(_ x: Tensor, scale: Float, into codes: Tensor, threads: Int) {
    precondition(codes.shape == x.shape && codes.elementType == .float8E4M3)
    let factor = 1 / scale
    parallel(x.rows, threads: threads) { row, _ in
        let (source, target) = (x.row(row), codes.row(row))
        let (values, bytes) = (source.floats, target.address.assumingMemoryBound(to: UInt8.self))
        for i in 0..<source.count {
            bytes[i] = Float8.codeE4M3(min(max(values[i] * factor, -448), 448))
        }
    }
}

/// Rounds each row to integers, half to even, with a scale that makes its largest magnitude 127.
///
/// Source: `quantize_int8_convrot_weight` and `quantize_int8_rowwise` in comfy-kitchen 0.2.40.
///
/// - Parameters:
///   - x: `[rows, columns]`, float32; used up.
///   - rotation: Values of a row that are rotated together before, by `Hadamard`; nil for none.
///   - codes: `[rows, columns]`, int8.
///   - scales: `[rows]`, float32.
///   - threads: Threads to use, 1 or more.
/// - Returns: Whether all values were finite; the codes mean nothing otherwise.
package func quantizeInt8(
    _ x: Tensor,
    rotation: Int?,
    into codes: Tensor,
    scales: Tensor,
    threads: Int
) -> Bool {
    precondition(codes.shape == x.shape && codes.elementType == .int8)
    precondition(scales.count == x.rows, "\(scales.shape) for \(x.shape)")
    parallel(x.rows, threads: threads) { row, _ in
        let (source, target) = (x.row(row), codes.row(row))
        let (values, bytes) = (source.floats, target.address.assumingMemoryBound(to: Int8.self))
        if let rotation { rotate(source, by: rotation) }
        let scale = max(largestMagnitude(source) / 127, smallestScale)
        scales.floats[row] = scale
        guard scale.isFinite else { return }
        for i in 0..<source.count {
            // The quotient is at most 127 and a little. The sum has no bits after the point.
            let rounded = values[i] / scale + 0x1.8p23
            bytes[i] = Int8(truncatingIfNeeded: Int32(bitPattern: rounded.bitPattern))
        }
    }
    return scales.elements.allSatisfy(\.isFinite)
}

/// Rounds to another type, half to even.
///
/// - Parameters:
///   - x: `[rows, columns]`, float32.
///   - y: `[rows, columns]`, float32, float16 or bfloat16.
///   - threads: Threads to use, 1 or more.
/// - Returns: Whether all finite values were small enough for the type.
package func narrow(_ x: Tensor, into y: Tensor, threads: Int) -> Bool {
    precondition(x.shape == y.shape, "\(x.shape) into \(y.shape)")
    let overflows = Tensor(zeros: [max(x.rows, 1)])
    parallel(x.rows, threads: threads) { row, _ in
        let (source, target) = (x.row(row), y.row(row))
        let (values, halves) = (source.floats, target.address.assumingMemoryBound(to: UInt16.self))
        var isTooLarge = false
        switch y.elementType {
        case .float32: target.copy(from: source)
        case .float16:
            for i in 0..<source.count {
                let half = Float16(values[i])
                halves[i] = half.bitPattern
                isTooLarge = isTooLarge || half.isInfinite && values[i].isFinite
            }
        case .bfloat16:
            for i in 0..<source.count {
                let half = bfloat16(values[i])
                halves[i] = half
                isTooLarge = isTooLarge || half & 0x7FFF == 0x7F80 && values[i].isFinite
            }
        default: preconditionFailure("\(y.elementType) is not rounded to")
        }
        overflows.floats[row] = isTooLarge ? 1 : 0
    }
    return overflows.elements.allSatisfy { $0 == 0 }
}

/// The bits of the nearest bfloat16; NaN stays NaN.
private func bfloat16(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    if value.isNaN { return UInt16(truncatingIfNeeded: bits >> 16) | 0x40 }
    return UInt16(truncatingIfNeeded: (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
}

extension Float8 {
    /// The code of E4M3 nearest to a value from −448 to 448, half to even.
    static func codeE4M3(_ value: Float) -> UInt8 {
        let sign = UInt8(truncatingIfNeeded: value.bitPattern >> 24) & 0x80
        let magnitude = value.bitPattern & 0x7FFF_FFFF
        if magnitude < Float(0x1p-6).bitPattern {
            // Below the normal ones all are multiples of 2⁻⁹, the last bit of 2¹⁴.
            let sum = Float(bitPattern: magnitude) + 0x1p14
            return sign | UInt8(truncatingIfNeeded: sum.bitPattern - Float(0x1p14).bitPattern)
        }
        let rounded = magnitude + 0x7_FFFF + (magnitude >> 20 & 1)
        return sign | UInt8(truncatingIfNeeded: (rounded >> 20) - (127 - 7) << 3)
    }
}

/// Multiplies each group of a row by H, in place: what `Hadamard` does, by sums of four.
///
/// - Parameters:
///   - row: Float32, as many elements as make whole groups.
///   - size: Elements of a group, a power of 4.
func rotate(_ row: Tensor, by size: Int) {
    let x = row.floats
    for group in stride(from: 0, to: row.count, by: size) {
        var step = 1
        while step < size {
            for first in stride(from: group, to: group + size, by: 4 * step) {
                for i in first..<first + step {
                    let (a, b) = (x[i], x[i + step])
                    let (c, d) = (x[i + 2 * step], x[i + 3 * step])
                    let (sum, difference) = (a + b, a - b)
                    x[i] = 0.5 * (sum + (c - d))
                    x[i + step] = 0.5 * (sum - (c - d))
                    x[i + 2 * step] = 0.5 * ((c + d) + difference)
                    x[i + 3 * step] = 0.5 * ((c + d) - difference)
                }
            }
            step *= 4
        }
    }
}
