import JSON
package import Tensors

/// How a weight is stored.
package enum WeightFormat: Sendable, Hashable {
    /// Each element is a value: float32, float16 or bfloat16.
    case plain
    /// 8-bit floats of this type, times a scale if there is one.
    case float8(ElementType)
    /// 8-bit integers times a scale; `rotation` values of a row are rotated together, nil for none.
    case int8(rotation: Int?)
    /// Quantised in a form of this name, which is not read.
    case unsupported(String)
    /// Elements that are no weights of any known form.
    case other

    /// The forms of quantisation that are read, for messages.
    static let supportedNames = "float8_e4m3fn, float8_e5m2 or int8_tensorwise"
    /// Values of a row that are rotated together, where the file does not say.
    static let usualRotation = 256
    /// Most values of a row that are rotated together; released files have 256.
    package static let largestRotation = 1024

    /// What a type stands for where nothing more is said.
    init(_ elementType: ElementType) {
        self =
            switch elementType {
            case .float32, .float16, .bfloat16: .plain
            case .float8E4M3, .float8E5M2: .float8(elementType)
            default: .other
            }
    }
}

/// Why what a file says about a weight cannot be used, in two parts of a sentence.
struct WeightFault: Error, Equatable {
    let found: String
    let expected: String
}

/// What a file says about how the weight of one module is quantised.
///
/// Source: `_load_quantized_module` in ComfyUI's `comfy/ops.py`: an object with `format` and, for
/// rotated integers, `convrot` and `convrot_groupsize`, the last two also inside `params`. What else
/// there is concerns how ComfyUI computes.
struct QuantizationNote: Equatable {
    /// Such as `int8_tensorwise`; nil in files by an early exporter, which left it out.
    let format: String?
    /// Values of a row that are rotated together; nil for no rotation.
    let rotation: Int?

    /// Reads the object.
    init(_ value: JSONValue) throws(WeightFault) {
        guard case .object(let members) = value else {
            throw WeightFault(found: "\(value)", expected: "an object")
        }
        let nested: [String: JSONValue]
        switch members["params"] {
        case nil, .null: nested = [:]
        case .object(let object): nested = object
        case let other?: throw WeightFault(found: "params \(other)", expected: "an object")
        }
        func member(_ key: String) -> JSONValue? {
            let value = members[key] ?? nested[key]
            return value == .null ? nil : value
        }

        switch member("format") {
        case nil: format = nil
        case .string(let name): format = name
        case let other?: throw WeightFault(found: "format \(other)", expected: "a text")
        }
        switch member("convrot") {
        case nil, .bool(false): rotation = nil
        case .bool(true): rotation = try Self.rotation(member("convrot_groupsize"))
        case let other?: throw WeightFault(found: "convrot \(other)", expected: "true or false")
        }
    }

    private static func rotation(_ value: JSONValue?) throws(WeightFault) -> Int {
        guard let value else { return WeightFormat.usualRotation }
        guard case .integer(let size) = value, isRotation(size) else {
            throw WeightFault(
                found: "convrot_groupsize \(value)",
                expected: "a power of 4 from 4 to \(WeightFormat.largestRotation)"
            )
        }
        return size
    }

    /// Whether as many values can be rotated together.
    private static func isRotation(_ size: Int) -> Bool {
        (4...WeightFormat.largestRotation).contains(size) && size & (size - 1) == 0
            && size.trailingZeroBitCount.isMultiple(of: 2)
    }

    /// The form that the note gives a weight of a type.
    ///
    /// - Throws: When the elements are of another type than the form has.
    func format(of elementType: ElementType) throws(WeightFault) -> WeightFormat {
        let isFloat8 = elementType == .float8E4M3 || elementType == .float8E5M2
        let found: WeightFormat
        switch format {
        case "float8_e4m3fn": found = .float8(.float8E4M3)
        case "float8_e5m2": found = .float8(.float8E5M2)
        case "int8_tensorwise", "int8_rowwise": found = .int8(rotation: rotation)
        case nil where elementType == .int8: found = .int8(rotation: rotation)
        case nil where isFloat8: found = .float8(elementType)
        case nil: throw WeightFault(found: "no format", expected: "the name of one")
        case let name?: return .unsupported(name)
        }
        let name = format ?? elementType.rawValue
        switch found {
        case .float8(let type) where type == elementType:
            guard rotation == nil else {
                throw WeightFault(found: "\(name) with convrot", expected: "no rotation")
            }
        case .int8 where elementType == .int8: break
        default: throw WeightFault(found: "\(name)", expected: "a form of \(elementType.rawValue)")
        }
        return found
    }
}
