import Checkpoints
import Tensors

/// A checkpoint in another storage type, planned but not yet written.
///
/// Quantised forms concern the large matrices of the blocks, as in the files that ComfyUI reads:
/// 256 of the transformer, 252 of the text encoder. All else keeps its type. The other types are
/// those of matrices and, of the text encoder, of embeddings and the vision tower; float32 is that
/// of everything. What is quantised in another form is dequantised first.
public struct Conversion: Sendable {
    /// What is converted.
    public let part: ConversionPart
    /// What it is converted to.
    public let format: ConversionFormat
    /// File, index or folder that is read.
    public let source: String
    /// Tensors of the source that the new file will have, scales and notes not counted.
    public var tensorCount: Int { pieces.count }
    /// Those of them that are stored in another way than before.
    public let convertedCount: Int
    /// Bytes of the source's tensors.
    public let sourceByteCount: Int
    /// Bytes of the new file.
    public var byteCount: Int { layout.byteCount }
    /// Names of the files that ComfyUI's folders have, such as
    /// `diffusion_models/krea2_turbo_int8_convrot.safetensors`.
    public let suggestedPath: String

    let stored: StoredWeights
    let pieces: [ConversionPiece]
    let layout: SafetensorsLayout
    /// A short name for the source's content.
    let digest: String

    /// Opens weights, which must be a transformer or a text encoder, and checks what can be checked
    /// without reading them.
    ///
    /// - Parameters:
    ///   - path: A safetensors file, an index of shards, or a folder with either.
    ///   - format: What to convert to.
    /// - Throws: `.model`, also with everything in the files that is quantised in a way that cannot
    ///   be read.
    public init(path: String, to format: ConversionFormat) throws(GenerationError) {
        do {
            let tensors = try ConversionTensors(path: path)
            let stored = StoredWeights(tensors.checkpoint)
            let pieces = stored.all.compactMap { ConversionPiece($0, tensors, to: format) }
            try Self.check(stored, pieces)
            let digest = try tensors.checkpoint.digest()
            part = tensors.part
            self.format = format
            source = path
            convertedCount = pieces.count { $0.conversion != .copy && $0.conversion != .keep }
            sourceByteCount = tensors.checkpoint.byteCount
            suggestedPath = try Self.suggestedPath(tensors.part, format, path)
            self.stored = stored
            self.digest = digest
            let ordered = pieces.sorted { $0.order < $1.order }
            self.pieces = ordered
            layout = Self.layout(
                ordered,
                tensors.checkpoint.metadata,
                note: "\(format.rawValue) of \(digest) by krea2 \(Engine.version)"
            )
        } catch {
            throw .model(error)
        }
    }

    /// Refuses files with weights that cannot be read.
    private static func check(
        _ stored: StoredWeights,
        _ pieces: [ConversionPiece]
    ) throws(CheckpointError) {
        var problems = stored.problems + pieces.flatMap(\.weight.problems)
        problems += pieces.filter { $0.role == .matrix && $0.weight.format == .other }.map {
            .mistyped(
                tensor: stored.checkpoint.nameInFile($0.weight.name),
                file: stored.checkpoint.file(of: $0.weight.name),
                found: $0.weight.record.elementType.rawValue
            )
        }
        // A scale without a known meaning, say, has the name that a new one gets.
        var names: Set<String> = []
        for entry in pieces.flatMap(\.entries) where !names.insert(entry.name).inserted {
            let path = stored.checkpoint.path
            problems.append(.repeated(tensor: entry.name, files: [path, "the converted file"]))
        }
        let unsupported = Dictionary(grouping: pieces, by: \.weight.format).compactMap {
            format,
            pieces -> WeightProblem? in
            guard case .unsupported(let name) = format, let first = pieces.first else { return nil }
            return .unsupported(
                format: name,
                count: pieces.count,
                first: stored.checkpoint.nameInFile(first.weight.name),
                file: stored.checkpoint.file(of: first.weight.name)
            )
        }
        problems += unsupported.sorted { $0.description < $1.description }
        guard problems.isEmpty else {
            throw .unfit(path: stored.checkpoint.path, problems: problems)
        }
    }

    /// All tensors of the new file: wide types first, as alignment needs, and blocks in order.
    private static func layout(
        _ pieces: [ConversionPiece],
        _ metadata: [String: String],
        note: String
    ) -> SafetensorsLayout {
        let entries = pieces.flatMap(\.entries).enumerated().sorted { a, b in
            func rank(_ entry: SafetensorsLayout.Entry) -> Int {
                // Notes come last, so that matrices start at even addresses.
                entry.elementType == .uint8 ? 1 : -entry.elementType.byteCount
            }
            return (rank(a.element), a.offset) < (rank(b.element), b.offset)
        }.map(\.element)
        var metadata = metadata
        metadata["_quantization_metadata"] = nil
        metadata["krea2.converted"] = note
        return SafetensorsLayout(entries, metadata: metadata)
    }

    private static func suggestedPath(
        _ part: ConversionPart,
        _ format: ConversionFormat,
        _ path: String
    ) throws(CheckpointError) -> String {
        if part == .textEncoder { return "text_encoders/qwen3vl_4b_\(format.rawValue).safetensors" }
        let known = VariantChoice.known(index: ModelIndex(), transformerPath: path)
        let name = ["krea2", known?.variant.rawValue, format.rawValue].compactMap(\.self)
        return "diffusion_models/\(name.joined(separator: "_")).safetensors"
    }
}

/// One tensor of the source, and what it becomes.
struct ConversionPiece {
    let weight: StoredWeight
    /// Name in the new file.
    let name: String
    /// Sizes in the new file.
    let shape: [Int]
    let role: TensorConversion.Role
    let conversion: TensorConversion
    /// Elements of the source's scale; 0 where it has none.
    private let scaleCount: Int

    /// Plans a tensor; nil for one that is left out.
    init?(_ weight: StoredWeight, _ tensors: ConversionTensors, to format: ConversionFormat) {
        guard let name = tensors.name(of: weight.name) else { return nil }
        self.weight = weight
        self.name = name
        shape = tensors.shape(of: name, weight.record.shape)
        role = tensors.role(of: name, shape)
        let isEmpty = weight.record.range.isEmpty
        let scale = weight.scale.flatMap { tensors.checkpoint.record($0) }
        scaleCount = scale?.shape.reduce(1, *) ?? 0
        conversion = isEmpty ? .copy : TensorConversion(weight, role, to: format)
    }

    /// The name with numbers in the order of their values.
    var order: String {
        name.split(separator: ".", omittingEmptySubsequences: false).map { part in
            part.allSatisfy(\.isNumber)
                ? String(repeating: "0", count: max(0, 8 - part.count)) + part : String(part)
        }.joined(separator: ".")
    }

    /// How the new file stores it.
    var format: WeightFormat {
        switch conversion {
        case .copy, .narrow: .plain
        case .keep: weight.format
        case .float8: .float8(.float8E4M3)
        case .int8(let rotation): .int8(rotation: rotation)
        }
    }

    /// The tensor with the scale.
    var scaleName: String { name + "_scale" }
    /// The tensor with the note on the form.
    var noteName: String { name.dropLast("weight".count) + "comfy_quant" }

    /// The tensors that the new file has for it.
    var entries: [SafetensorsLayout.Entry] {
        let type: ElementType =
            switch conversion {
            case .copy, .keep: weight.record.elementType
            case .narrow(let type): type
            case .float8: .float8E4M3
            case .int8: .int8
            }
        let elements = SafetensorsLayout.Entry(name, type, shape)
        guard let note = format.note else { return [elements] }
        return [
            elements, .init(scaleName, .float32, scaleShape),
            .init(noteName, .uint8, [note.utf8.count]),
        ]
    }

    /// One scale for float8, one for each row of integers, as ComfyUI writes them.
    private var scaleShape: [Int] {
        switch conversion {
        case .int8: [weight.rows, 1]
        case .keep where scaleCount > 1: [weight.rows, 1]
        case .copy, .keep, .narrow, .float8: []
        }
    }

    /// Bytes of all of them.
    var byteCount: Int { entries.reduce(0) { $0 + $1.byteCount } }
}
