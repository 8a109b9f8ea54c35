package import Tensors

/// A float32 copy of a tensor in new memory.
///
/// - Parameter tensor: Elements of any type that weights have, of any shape.
/// - Returns: The same values, exactly, in the same shape.
package func converted(_ tensor: Tensor) -> Tensor {
    let result = Tensor(zeros: tensor.shape)
    widen(tensor, into: result)
    return result
}

extension Tensor {
    /// Adds the elements of another tensor, times a factor.
    ///
    /// - Parameters:
    ///   - other: As many elements; float32, float16 or bfloat16.
    ///   - factor: Of all elements.
    package func add(_ other: Tensor, times factor: Float = 1) {
        precondition(other.count == count, "\(other.shape) to \(shape)")
        let (source, target) = (converted(other), floats)
        for i in 0..<count { target[i] += factor * source.floats[i] }
        withExtendedLifetime((self, source)) {}
    }

    /// Its one value; nil where there are none or several, or the type has no numbers to count with.
    package var number: Double? {
        guard count == 1 else { return nil }
        return switch elementType {
        case .float64: address.load(as: Double.self)
        case .int64: Double(address.load(as: Int64.self))
        case .int32: Double(address.load(as: Int32.self))
        case .float32, .float16, .bfloat16: Double(converted(self).elements[0])
        default: nil
        }
    }

    /// Whether no element is infinite or not a number; float32, float16 or bfloat16.
    package var isFinite: Bool {
        switch elementType {
        case .float32:
            let bits = address.assumingMemoryBound(to: UInt32.self)
            return Self.hasNone(0x7F80_0000, in: bits, count)
        case .float16, .bfloat16:
            let bits = address.assumingMemoryBound(to: UInt16.self)
            return Self.hasNone(elementType == .float16 ? 0x7C00 : 0x7F80, in: bits, count)
        default: preconditionFailure("\(elementType) is not computed with")
        }
    }

    /// Whether no element has all bits of its exponent set.
    private static func hasNone<Bits: FixedWidthInteger>(
        _ exponent: Bits,
        in elements: UnsafePointer<Bits>,
        _ count: Int
    ) -> Bool {
        var found: Bits = 0
        for i in 0..<count { found |= elements[i] & exponent == exponent ? 1 : 0 }
        return found == 0
    }
}

extension ConvolutionWeights {
    /// Packs a kernel of a checkpoint; of a causal kernel over time, what one picture meets.
    ///
    /// The frames before a single picture are zero, so only the last temporal slice counts.
    ///
    /// - Parameters:
    ///   - weight: `[output, input, 3, 3]` or `[output, input, frames, 3, 3]`; float32, float16 or
    ///     bfloat16.
    ///   - bias: `[output]`, float32.
    ///   - operators: Owner of the kernels that will run it.
    package init(lastSliceOf weight: Tensor, bias: Tensor, for operators: Operators) {
        precondition(weight.shape.count == 4 || weight.shape.count == 5, "\(weight.shape)")
        let (outputs, inputs) = (weight.shape[0], weight.shape[1])
        let frames = weight.shape.count == 5 ? weight.shape[2] : 1
        let kernel = Tensor(zeros: [outputs, 3, 3, inputs])
        // Keeps the copy alive while its elements are read.
        let copy = converted(weight)
        let (source, target) = (copy.floats, kernel.floats)
        for output in 0..<outputs {
            for input in 0..<inputs {
                let slice = source + ((output * inputs + input) * frames + frames - 1) * 9
                for tap in 0..<9 { target[(output * 9 + tap) * inputs + input] = slice[tap] }
            }
        }
        withExtendedLifetime(copy) {}
        self.init(kernel, bias: bias, for: operators)
    }
}
