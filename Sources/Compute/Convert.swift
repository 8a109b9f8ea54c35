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
