import Tensors
import TestSupport

/// Repeatable numbers between −1 and 1.
struct Random {
    private var generator: SeededGenerator

    init(_ seed: UInt64) { generator = SeededGenerator(seed: seed) }

    mutating func next() -> Float {
        Float(Int64(bitPattern: generator.next()) >> 40) * 0x1p-23
    }

    /// A guarded tensor of numbers between −`range` and `range`.
    mutating func tensor(_ shape: Int..., range: Float = 1) -> Tensor {
        let tensor = Tensor(guarded: shape)
        let floats = tensor.floats
        for i in 0..<tensor.count { floats[i] = range * next() }
        return tensor
    }

    /// A guarded weight matrix `[columns, k]` of a given type.
    mutating func weight(_ columns: Int, _ k: Int, _ type: ElementType) -> Tensor {
        let tensor = Tensor(guarded: [columns, k], elementType: type)
        let halves = tensor.address.assumingMemoryBound(to: UInt16.self)
        let bytes = tensor.address.assumingMemoryBound(to: UInt8.self)
        for i in 0..<tensor.count {
            let value = next()
            switch type {
            case .float16: halves[i] = Float16(value).bitPattern
            case .bfloat16: halves[i] = UInt16(truncatingIfNeeded: value.bitPattern >> 16)
            case .int8: bytes[i] = UInt8(bitPattern: Int8(value * 127))
            // Exponents around that of 1, either sign.
            case .float8E4M3: bytes[i] = UInt8(64 + value * 31) & 0x7F | (i % 3 == 0 ? 0x80 : 0)
            case .float8E5M2: bytes[i] = UInt8(60 + value * 15) | (i % 3 == 0 ? 0x80 : 0)
            default: tensor.floats[i] = value
            }
        }
        return tensor
    }
}
