import CKernels
package import Tensors

/// In what linear layers multiply; sums are float32, or exact integers.
package enum Arithmetic: Int, Sendable, CaseIterable {
    case float32
    /// Activations and weights rounded to bfloat16.
    case bfloat16
    /// Activations quantised row by row when they are used, weights as they are stored or
    /// quantised row by row; both rotated where that was asked for.
    case int8

    var kernelName: arithmetic {
        switch self {
        case .float32: .float32
        case .bfloat16: .bfloat16
        case .int8: .int8
        }
    }
}

/// How a network computes on the kernels of this machine.
package struct ArithmeticPolicy: Sendable, Equatable {
    /// Arithmetic of layers whose weights are stored as floating-point numbers.
    package let floats: Arithmetic
    /// Arithmetic of layers whose weights are stored as int8.
    package let integers: Arithmetic

    /// All layers in float32.
    package static let float32 = ArithmeticPolicy(floats: .float32, integers: .float32)
    /// All layers in bfloat16.
    package static let bfloat16 = ArithmeticPolicy(floats: .bfloat16, integers: .bfloat16)
    /// All layers in int8; see `Operators.quantize` for weights that are not.
    package static let int8 = ArithmeticPolicy(floats: .int8, integers: .int8)
    /// Each layer as its weights are stored.
    package static let stored = ArithmeticPolicy(floats: .bfloat16, integers: .int8)

    /// What the kernels can do of this: float32 where there are no instructions for the rest.
    package func supported(by kernels: Kernels) -> ArithmeticPolicy {
        func best(_ wanted: Arithmetic) -> Arithmetic {
            if kernels.supports(wanted) { return wanted }
            return kernels.supports(.bfloat16) && wanted == .int8 ? .bfloat16 : .float32
        }
        return ArithmeticPolicy(floats: best(floats), integers: best(integers))
    }

    /// How activations between two layers are stored.
    package func activations(on kernels: Kernels) -> ElementType {
        self == .float32 || !kernels.supports(.bfloat16) ? .float32 : .bfloat16
    }

    /// Arithmetic for one matrix.
    ///
    /// Sums of very long rows would not fit in int32; such layers are computed in float32, and so
    /// are those whose weights should have been quantised.
    package func arithmetic(for matrix: WeightMatrix) -> Arithmetic {
        let isInteger = matrix.elements.elementType == .int8
        let wanted = isInteger ? integers : floats
        guard wanted == .int8 else { return wanted }
        return isInteger && Self.fitsIntegers(matrix) ? .int8 : .float32
    }

    /// Whether a layer is to be computed in int8 and its weights must be quantised for that.
    package func quantizes(_ matrix: WeightMatrix) -> Bool {
        floats == .int8 && matrix.elements.elementType != .int8 && Self.fitsIntegers(matrix)
    }

    /// Σ |q · (w + 128)| stays below 2³¹ up to rows of this length.
    private static func fitsIntegers(_ matrix: WeightMatrix) -> Bool { matrix.columns <= 65536 }
}
