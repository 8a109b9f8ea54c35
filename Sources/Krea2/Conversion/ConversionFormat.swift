import Checkpoints
import Tensors

/// What the large matrices of a model can be stored as.
public enum ConversionFormat: String, Sendable, CaseIterable {
    /// E4M3 with a scale for each matrix.
    case float8 = "fp8_scaled"
    /// Integers of 8 bits with a scale for each row, rotated where the width allows.
    case int8 = "int8_convrot"
    case bfloat16 = "bf16"
    case float16 = "f16"
    case float32 = "f32"

    /// The type of a whole file; nil for quantised forms, which concern matrices alone.
    var elementType: ElementType? {
        switch self {
        case .float8, .int8: nil
        case .bfloat16: .bfloat16
        case .float16: .float16
        case .float32: .float32
        }
    }
}

/// What becomes of one tensor.
enum TensorConversion: Equatable {
    /// The same elements.
    case copy
    /// The same quantised elements, scale and form.
    case keep
    /// Rounded to another type, or widened.
    case narrow(ElementType)
    case float8
    /// `rotation` values of a row are rotated together; nil for none.
    case int8(rotation: Int?)

    /// What part a tensor plays in a model.
    enum Role {
        /// A large matrix of a block, which is what quantised forms are for.
        case matrix
        /// Another tensor of two or more axes, which is stored as a whole file is.
        case table
        /// A norm, a bias, a modulation, an input or an output layer: these stay as they are.
        case small
    }

    /// Chooses for one tensor.
    init(_ weight: StoredWeight, _ role: Role, to format: ConversionFormat) {
        let isQuantized = weight.scale != nil || weight.format.isInteger
        switch format {
        case _ where weight.format == .other: self = .copy
        case .float8 where role == .matrix:
            self = weight.format == .float8(.float8E4M3) ? .keep : .float8
        case .int8 where role == .matrix:
            let rotation = Self.rotation(weight.columns)
            self = weight.format == .int8(rotation: rotation) ? .keep : .int8(rotation: rotation)
        case .float8, .int8:
            self = isQuantized ? .keep : .copy
        case .bfloat16, .float16, .float32:
            let type = format.elementType ?? weight.record.elementType
            let concerns = role != .small || format == .float32 || weight.format != .plain
            self = concerns && weight.record.elementType != type ? .narrow(type) : .copy
        }
    }

    /// The largest power of 4 up to the usual one that divides a width; nil where none does.
    private static func rotation(_ columns: Int) -> Int? {
        [256, 64, 16, 4].first { columns.isMultiple(of: $0) }
    }
}

extension WeightFormat {
    /// Whether the elements are integers with a scale.
    fileprivate var isInteger: Bool { if case .int8 = self { true } else { false } }

    /// The name that ComfyUI has for the form, with what it needs to know besides.
    ///
    /// Source: `_quantized_weight_state_dict` in ComfyUI's `comfy/ops.py`.
    var note: String? {
        switch self {
        case .float8(.float8E5M2): #"{"format": "float8_e5m2"}"#
        case .float8: #"{"format": "float8_e4m3fn"}"#
        case .int8(nil): #"{"format": "int8_tensorwise"}"#
        case .int8(let rotation?):
            #"{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": \#(rotation)}"#
        case .plain, .unsupported, .other: nil
        }
    }
}
