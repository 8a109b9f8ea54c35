import Checkpoints

/// The parts of a model that can be converted.
public enum ConversionPart: String, Sendable, CaseIterable {
    case transformer
    case textEncoder = "text-encoder"
}

/// The tensors of one part, under the names that they get in a converted file.
struct ConversionTensors {
    let part: ConversionPart
    /// Tensors under the names of the source, less what stands before all of them.
    let checkpoint: Checkpoint

    /// Official name for the source's, of a transformer.
    private let names: TransformerNames
    /// What stands before the language model's tensors, of an encoder.
    private let languagePrefix: String

    /// Opens weights that are one of the parts.
    ///
    /// - Parameter path: A file, an index or a folder.
    /// - Throws: When it cannot be opened, or is neither.
    init(path: String) throws(CheckpointError) {
        let whole = try Checkpoint(path: path)
        switch Self.part(of: whole) {
        case .transformer?:
            part = .transformer
            (names, checkpoint) = try TransformerNames.recognise(whole)
            languagePrefix = ""
        case .textEncoder?:
            // Refuses language models that are not the encoder.
            let prefix = try TextEncoderFiles(path: path).checkpoint.nameInFile("")
            let root = Self.root(prefix)
            part = .textEncoder
            names = .official
            checkpoint = root.isEmpty ? whole : whole.strippingPrefix(root)
            languagePrefix = String(prefix.dropFirst(root.count))
        case nil:
            throw .damaged(
                path: path,
                tensor: nil,
                found: "tensors of another model",
                expected: "a Krea 2 transformer or its text encoder"
            )
        }
    }

    /// Which part a checkpoint looks like; nil for neither.
    static func part(of checkpoint: Checkpoint) -> ConversionPart? {
        let isTransformer = Result { () throws(CheckpointError) in
            try TransformerNames.recognise(checkpoint)
        }
        if case .success = isTransformer { return .transformer }
        return checkpoint.prefixes(of: "embed_tokens.weight").isEmpty ? nil : .textEncoder
    }

    /// What stands before the names that some release of the encoder has.
    private static func root(_ prefix: String) -> String {
        let ends = ["model.language_model.", "language_model.", "model."]
        guard let end = ends.first(where: prefix.hasSuffix) else { return prefix }
        return String(prefix.dropLast(end.count))
    }

    /// The name in a converted file; nil for what belongs to no model.
    ///
    /// Both parts get the names that ComfyUI's files have: the official ones, and those of the
    /// released text encoder.
    func name(of stored: String) -> String? {
        switch part {
        case .transformer:
            return TransformerNames.isStray(stored) ? nil : names.official(stored)
        case .textEncoder:
            let isNested = languagePrefix == "language_model."
            let isPart = stored.hasPrefix("language_model.") || stored.hasPrefix("visual.")
            return isNested && isPart ? "model." + stored : stored
        }
    }

    /// The shape that the official files have.
    ///
    /// - Parameters:
    ///   - name: Name in the converted file.
    ///   - shape: Shape in the source.
    /// - Returns: A shape of as many elements.
    func shape(of name: String, _ shape: [Int]) -> [Int] {
        guard part == .transformer else { return shape }
        let count = shape.reduce(1, *)
        if name.hasPrefix("blocks."), name.hasSuffix(".mod.lin") { return [count] }
        if name == "last.modulation.lin", count.isMultiple(of: 2) { return [2, count / 2] }
        return name == "txtfusion.projector.weight" ? [1, count] : shape
    }

    /// What part a tensor plays.
    ///
    /// - Parameters:
    ///   - name: Name in the converted file.
    ///   - shape: Its shape.
    /// - Returns: Its role.
    func role(of name: String, _ shape: [Int]) -> TensorConversion.Role {
        switch part {
        case .transformer:
            let starts = ["blocks.", "txtfusion.layerwise_blocks.", "txtfusion.refiner_blocks."]
            let isMatrix =
                starts.contains(where: name.hasPrefix)
                && Self.transformerEnds.contains(where: name.hasSuffix)
            return isMatrix && shape.count == 2 ? .matrix : .small
        case .textEncoder:
            let isMatrix =
                name.contains("layers.") && !name.contains("visual.")
                && Self.encoderEnds.contains(where: name.hasSuffix)
            if isMatrix, shape.count == 2 { return .matrix }
            return shape.count > 1 ? .table : .small
        }
    }

    private static let transformerEnds =
        ["wq", "wk", "wv", "gate", "wo"].map { ".attn.\($0).weight" }
        + ["gate", "up", "down"].map { ".mlp.\($0).weight" }
    private static let encoderEnds =
        ["q", "k", "v", "o"].map { ".self_attn.\($0)_proj.weight" }
        + ["gate", "up", "down"].map { ".mlp.\($0)_proj.weight" }
}
