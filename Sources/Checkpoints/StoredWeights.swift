import JSON
package import Tensors

/// One tensor of a checkpoint with all that tells its values.
package struct StoredWeight: Sendable {
    /// Name in the checkpoint.
    package let name: String
    /// What the header says about the elements.
    package let record: TensorRecord
    /// How they are stored.
    package fileprivate(set) var format: WeightFormat
    /// The tensor with the scale; nil where there is none.
    package fileprivate(set) var scale: String?
    /// Other tensors of the file that belong to this one: scales, notes.
    package fileprivate(set) var companions: [String] = []
    /// What is wrong with what the file says about it.
    package fileprivate(set) var problems: [WeightProblem] = []

    /// A tensor of which nothing is known but its type.
    fileprivate init(_ name: String, _ record: TensorRecord) {
        self.name = name
        self.record = record
        format = WeightFormat(record.elementType)
    }

    /// Length of the first axis; 1 for a single element.
    package var rows: Int { record.shape.first ?? 1 }
    /// Elements in one entry of the first axis.
    package var columns: Int { record.shape.dropFirst().reduce(1, *) }
}

/// The weights of a checkpoint, of which some may be quantised, each in its own form.
///
/// How the weight of module P, the tensor `P.weight`, is stored is told by, in this order:
/// - `P.comfy_quant`, a tensor whose bytes are a JSON object;
/// - the same object under `layers`, P in the header's text `_quantization_metadata`;
/// - its type: eight-bit floats are values, integers must have a scale.
///
/// `P.weight_scale` or, in older files, `P.scale_weight` is the scale, wherever it is found. What
/// those files have besides, `P.scale_input`, `P.input_scale` and a tensor `scaled_fp8` that marks
/// them, concerns activations and is passed over.
///
/// Source: `_load_quantized_module` in `comfy/ops.py` and `convert_old_quants` in `comfy/utils.py`
/// of ComfyUI.
package struct StoredWeights: Sendable {
    /// Where the tensors are.
    package let checkpoint: Checkpoint
    /// What is wrong with the notes in the headers.
    package let problems: [WeightProblem]

    /// Notes in the headers by module.
    private let notes: [String: JSONValue]

    /// A tensor that marks files of the older kind.
    static let marker = "scaled_fp8"
    /// Longest `comfy_quant` tensor read; the usual ones have 72 bytes.
    private static let longestNote = 1 << 16
    private static let weightSuffix = ".weight"

    /// Reads the notes in the headers.
    package init(_ checkpoint: Checkpoint) {
        self.checkpoint = checkpoint
        var notes: [String: JSONValue] = [:]
        var problems: [WeightProblem] = []
        for file in checkpoint.files {
            do throws(WeightFault) {
                for (module, note) in try Self.notes(file) {
                    guard notes.updateValue(note, forKey: module).map({ $0 == note }) ?? true else {
                        throw WeightFault(
                            found: "\(quoted(module)) otherwise than in another shard",
                            expected: "the same"
                        )
                    }
                }
            } catch {
                problems.append(
                    .invalidNotes(file: file.path, found: error.found, expected: error.expected)
                )
            }
        }
        self.notes = notes
        self.problems = problems
    }

    /// The notes in one file's header by module.
    private static func notes(
        _ file: SafetensorsFile
    ) throws(WeightFault) -> [String: JSONValue] {
        guard let text = file.metadata["_quantization_metadata"] else { return [:] }
        guard case .object(let root) = try parsed(Array(text.utf8)) else {
            throw WeightFault(found: "no object", expected: "one with layers")
        }
        switch root["layers"] {
        case nil, .null: return [:]
        case .object(let layers): return layers
        case let other?: throw WeightFault(found: "layers \(other)", expected: "an object")
        }
    }

    private static func parsed(_ bytes: [UInt8]) throws(WeightFault) -> JSONValue {
        do throws(JSONParser.Failure) {
            return try JSONParser.parse(bytes)
        } catch {
            throw WeightFault(
                found: "\(error.problem) at byte \(error.position)",
                expected: "JSON"
            )
        }
    }

    /// All weights and other tensors, in the order of their names; what belongs to another tensor is
    /// not listed for itself.
    package var all: [StoredWeight] {
        let weights = checkpoint.names.compactMap(weight)
        let companions = Set(weights.flatMap(\.companions))
        return weights.filter { !companions.contains($0.name) && $0.name != Self.marker }
    }
}

// MARK: Forms

extension StoredWeights {
    /// What the file says about a tensor, nil when there is none of this name.
    package func weight(_ name: String) -> StoredWeight? {
        guard let record = checkpoint.record(name) else { return nil }
        var weight = StoredWeight(name, record)
        guard name.hasSuffix(Self.weightSuffix) else { return weight }
        let module = String(name.dropLast(Self.weightSuffix.count))
        do throws(WeightFault) {
            if let note = try note(on: module) {
                weight.format = try note.format(of: record.elementType)
            } else if record.elementType == .int8, !present(module, Self.scales).isEmpty {
                weight.format = .int8(rotation: nil)
            }
        } catch {
            let note = "\(module).comfy_quant"
            let place = checkpoint.record(note) == nil ? name : note
            weight.problems.append(invalid(place, error.found, error.expected))
            weight.format = .other
            weight.companions = present(module, Self.ignored + Self.scales + Self.unread)
            return weight
        }
        weight.companions = present(module, Self.ignored)
        switch weight.format {
        case .float8, .int8:
            let scales = present(module, Self.scales)
            weight.companions += scales
            weight.scale = scales.first
            if scales.count > 1 {
                weight.problems.append(
                    invalid(name, scales.joined(separator: " and "), "one scale")
                )
            }
            weight.problems += layoutProblems(weight, module)
        case .unsupported:
            // Its own parts are not reported as well.
            weight.companions += present(module, Self.scales + Self.unread)
        case .plain, .other: break
        }
        return weight
    }

    private static let scales = ["weight_scale", "scale_weight"]
    /// What is read elsewhere or not at all.
    private static let ignored = ["comfy_quant", "input_scale", "scale_input"]
    /// Parts of forms that are not read.
    private static let unread = [
        "weight_scale_2", "pre_quant_scale", "weight_s_rel", "weight_s_channel", "weight_codebook",
        "weight_zeros",
    ]

    /// Those of a module's tensors that are there.
    private func present(_ module: String, _ ends: [String]) -> [String] {
        ends.map { "\(module).\($0)" }.filter { checkpoint.record($0) != nil }
    }

    /// What the file says about a module; nil where it says nothing.
    private func note(on module: String) throws(WeightFault) -> QuantizationNote? {
        let name = "\(module).comfy_quant"
        if let record = checkpoint.record(name) {
            guard record.elementType == .uint8, record.range.count <= Self.longestNote,
                let tensor = checkpoint.tensor(name)
            else {
                throw WeightFault(
                    found: "\(record.range.count) bytes of \(record.elementType.rawValue)",
                    expected: "U8, at most \(Self.longestNote) bytes"
                )
            }
            return try QuantizationNote(try Self.parsed(tensor.bytes))
        }
        // Some exporters leave the file's prefix out.
        guard let value = notes[checkpoint.nameInFile(module)] ?? notes[module] else { return nil }
        return try QuantizationNote(value)
    }

    /// What is wrong with the sizes and types of a weight and its scale.
    private func layoutProblems(_ weight: StoredWeight, _ module: String) -> [WeightProblem] {
        var problems: [WeightProblem] = []
        if case .int8(let rotation) = weight.format {
            if let rotation, !weight.columns.isMultiple(of: rotation) {
                problems.append(
                    invalid(
                        weight.name,
                        "\(weight.columns) columns, rotated in groups of \(rotation)",
                        "groups that divide them"
                    )
                )
            }
            if weight.scale == nil {
                problems.append(
                    .missing(
                        tensor: checkpoint.nameInFile("\(module).weight_scale"),
                        file: checkpoint.file(of: weight.name)
                    )
                )
            }
        }
        guard let scale = weight.scale, let record = checkpoint.record(scale) else {
            return problems
        }
        if !record.elementType.isComputable {
            problems.append(
                .mistyped(
                    tensor: checkpoint.nameInFile(scale),
                    file: checkpoint.file(of: scale),
                    found: record.elementType.rawValue
                )
            )
        }
        let shapes = [[], [1], [weight.rows], [weight.rows, 1]]
        if !shapes.contains(record.shape), record.shape != [1, 1] {
            problems.append(
                .misshapen(
                    tensor: checkpoint.nameInFile(scale),
                    file: checkpoint.file(of: scale),
                    found: record.shape,
                    expected: shapes
                )
            )
        }
        return problems
    }

    private func invalid(_ name: String, _ found: String, _ expected: String) -> WeightProblem {
        .invalid(
            tensor: checkpoint.nameInFile(name),
            file: checkpoint.file(of: name),
            found: found,
            expected: expected
        )
    }
}

// MARK: Values

extension StoredWeights {
    /// A weight that has no problems as a matrix; its scale is copied, its elements are not.
    ///
    /// Tensors of more than two axes become `[first axis, all others]`.
    ///
    /// - Parameter weight: One of this checkpoint; neither `.unsupported` nor `.other`.
    /// - Returns: The matrix; nil with a problem where the scale is not finite.
    package func matrix(_ weight: StoredWeight) -> (matrix: WeightMatrix?, problem: WeightProblem?)
    {
        guard let elements = checkpoint.tensor(weight.name) else {
            return (nil, .missing(tensor: weight.name, file: checkpoint.path))
        }
        let scale = weight.scale.flatMap { checkpoint.tensor($0) }.map(\.widened)
        if let scale, let name = weight.scale, !scale.elements.allSatisfy(\.isFinite) {
            return (nil, invalid(name, "NaN or infinity", "finite numbers"))
        }
        let rotation: Int? = if case .int8(let rotation) = weight.format { rotation } else { nil }
        let matrix = WeightMatrix(
            elements.reshaped(weight.rows, weight.columns),
            scale: scale,
            rotation: rotation
        )
        return (matrix, nil)
    }
}

extension Tensor {
    /// The bytes of all elements.
    fileprivate var bytes: [UInt8] {
        count == 0 ? [] : Array(UnsafeRawBufferPointer(start: address, count: byteCount))
    }

    /// A float32 copy of float32, float16 or bfloat16 elements, as one axis.
    fileprivate var widened: Tensor {
        let copy = Tensor(zeros: [count])
        for index in 0..<count {
            let source = address + index * elementType.byteCount
            copy.floats[index] =
                switch elementType {
                case .float16: Float(source.load(as: Float16.self))
                case .bfloat16: Float(bitPattern: UInt32(source.load(as: UInt16.self)) << 16)
                default: source.load(as: Float.self)
                }
        }
        return copy
    }
}
