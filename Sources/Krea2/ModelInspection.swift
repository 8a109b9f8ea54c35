import Checkpoints
import Tensors

/// What a set of weight files is, told from its headers and its notes on quantisation.
public struct ModelInspection: Sendable, Equatable {
    /// The models it can tell apart.
    public enum Kind: String, Sendable, CaseIterable {
        /// The transformer under the names of the official single files.
        case officialTransformer
        /// The transformer under diffusers' names.
        case diffusersTransformer
        /// A Qwen3-VL language model, with or without its vision tower.
        case textEncoder
        /// A Qwen3 language model without a vision part: not the encoder of Krea 2.
        case plainLanguageModel
        /// The Qwen-Image autoencoder under diffusers' names.
        case diffusersAutoencoder
        /// The Qwen-Image or Wan autoencoder under Wan's names.
        case wanAutoencoder
        /// Intermediate tensors of a run.
        case dump
        /// Changes of a model's layers.
        case lora
        /// What the text encoder makes of a picture.
        case reference
        /// The same of several pictures together.
        case moodboard
        /// The same of a prompt, from the cache.
        case encodedPrompt
        case unknown
    }

    /// The tensors of one element type.
    public struct TypeCount: Sendable, Equatable {
        /// Name in a safetensors header, such as `BF16`.
        public let name: String
        /// Tensors of this type.
        public let tensorCount: Int
        /// Bytes of their elements.
        public let byteCount: Int
    }

    /// The weights that are quantised in one form.
    public struct QuantizedCount: Sendable, Equatable {
        /// Such as `int8_tensorwise, convrot 256`, or what hinders reading them.
        public let name: String
        /// Weights in this form.
        public let tensorCount: Int
        /// Bytes of their elements, without scales.
        public let byteCount: Int
    }

    /// A size that follows from the tensors' shapes.
    public struct Size: Sendable, Equatable {
        /// Such as `blocks`, `heads`, `width`.
        public let name: String
        /// Never negative.
        public let value: Int
    }

    /// Path that was opened.
    public let path: String
    /// What the tensors' names show.
    public let kind: Kind
    /// What stands before the names of the kind, such as `model.diffusion_model.`.
    public let prefix: String
    /// Files the tensors are in.
    public let files: [String]
    /// Tensors of all files.
    public let tensorCount: Int
    /// Elements of all tensors.
    public let parameterCount: Int
    /// Bytes of all tensors.
    public let byteCount: Int
    /// By falling share of the bytes.
    public let elementTypes: [TypeCount]
    /// The same of quantised weights by their forms; empty where there are none.
    public let quantized: [QuantizedCount]
    /// Sizes of the model, in a fixed order for each kind.
    public let sizes: [Size]
    /// The free-form text of the headers.
    public let metadata: [String: String]
    /// What names tell of a LoRA; nil for anything else.
    public let lora: LoRAOutline?

    /// Reads the headers of a file, an index or a folder of weights, and the notes on quantisation.
    ///
    /// - Parameter path: A `.safetensors` file, an index of shards, or a folder with either.
    /// - Throws: `.model` when nothing is there, or what is there is damaged.
    public init(path: String) throws(GenerationError) {
        let checkpoint: Checkpoint
        do {
            checkpoint = try Checkpoint(path: path)
        } catch {
            throw .model(error)
        }
        let records = checkpoint.names.compactMap { checkpoint.record($0) }
        let types = Dictionary(grouping: records, by: \.elementType).map { type, records in
            TypeCount(
                name: type.rawValue,
                tensorCount: records.count,
                byteCount: records.reduce(0) { $0 + $1.range.count }
            )
        }
        let (kind, prefix) = Self.recognise(checkpoint)
        lora =
            kind == .unknown
            ? LoRAOutline(
                checkpoint.names.map { ($0, checkpoint.record($0)?.shape ?? []) },
                metadata: checkpoint.metadata
            ) : nil
        self.path = path
        self.kind = lora == nil ? kind : .lora
        self.prefix = prefix
        files = checkpoint.files.map(\.path)
        tensorCount = records.count
        parameterCount = records.reduce(0) { $0 + $1.range.count / $1.elementType.byteCount }
        byteCount = checkpoint.byteCount
        elementTypes = types.sorted { ($0.byteCount, $1.name) > ($1.byteCount, $0.name) }
        metadata = checkpoint.metadata
        quantized = Self.quantized(checkpoint)
        sizes = Self.sizes(kind, checkpoint.strippingPrefix(prefix))
    }
}

// MARK: Quantised weights

extension ModelInspection {
    private static func quantized(_ checkpoint: Checkpoint) -> [QuantizedCount] {
        let stored = StoredWeights(checkpoint)
        let weights = Dictionary(grouping: stored.all) { name(of: $0, stored) }
        return weights.compactMap { name, weights in
            name.map {
                QuantizedCount(
                    name: $0,
                    tensorCount: weights.count,
                    byteCount: weights.reduce(0) { $0 + $1.record.range.count }
                )
            }
        }.sorted { ($0.byteCount, $1.name) > ($1.byteCount, $0.name) }
    }

    /// The name of a weight's form; nil for one that is not quantised.
    private static func name(of weight: StoredWeight, _ stored: StoredWeights) -> String? {
        guard weight.problems.isEmpty else { return "damaged" }
        let scale = weight.scale == nil ? ", no scale" : ""
        return switch weight.format {
        case .plain, .other: nil
        case .float8(let type): (type == .float8E4M3 ? "float8_e4m3fn" : "float8_e5m2") + scale
        case .int8(nil): "int8_tensorwise"
        case .int8(let rotation?): "int8_tensorwise, convrot \(rotation)"
        case .unsupported(let name): "\(name), not supported"
        }
    }
}

// MARK: Recognition

extension ModelInspection {
    /// Names that only one kind has; the first kind with all of its names present is taken.
    private static let marks: [(kind: Kind, names: [String])] = [
        (
            .officialTransformer,
            ["txtfusion.projector.weight", "blocks.0.attn.qknorm.qnorm.scale"]
        ),
        (
            .diffusersTransformer,
            ["text_fusion.projector.weight", "transformer_blocks.0.attn.to_gate.weight"]
        ),
        (.diffusersAutoencoder, ["decoder.conv_in.weight", "post_quant_conv.weight"]),
        (.wanAutoencoder, ["decoder.conv1.weight", "decoder.middle.0.residual.0.gamma"]),
        (.dump, ["sigmas", "noise"]),
    ]

    /// The kind and the prefix of its names.
    private static func recognise(_ checkpoint: Checkpoint) -> (Kind, String) {
        let format = checkpoint.metadata["format"].flatMap(RowContainer.Format.init(rawValue:))
        if let format, checkpoint.record("taps") != nil {
            switch format {
            case .reference: return (.reference, "")
            case .moodboard: return (.moodboard, "")
            case .prompt: return (.encodedPrompt, "")
            }
        }
        for (kind, marks) in marks {
            guard let first = marks.first else { continue }
            for prefix in checkpoint.prefixes(of: first)
            where marks.allSatisfy({ checkpoint.record(prefix + $0) != nil }) {
                return (kind, prefix)
            }
        }
        for prefix in checkpoint.prefixes(of: "embed_tokens.weight")
        where checkpoint.record(prefix + "layers.0.self_attn.q_norm.weight") != nil {
            let hasVision = checkpoint.names.contains { $0.contains("visual.") }
            // The vision tower may be in other files, or have been left out with its names.
            let isNested = prefix.hasSuffix("language_model.")
            return (hasVision || isNested ? .textEncoder : .plainLanguageModel, prefix)
        }
        return (.unknown, "")
    }
}

// MARK: Sizes

extension ModelInspection {
    /// Where one kind keeps the shapes that tell its sizes: a size's name, a tensor, an axis.
    private typealias Source = (size: String, tensor: String, axis: Int)

    private static func sizes(_ kind: Kind, _ checkpoint: Checkpoint) -> [Size] {
        switch kind {
        case .officialTransformer:
            transformerSizes(checkpoint, block: "blocks.", head: "attn.qknorm.qnorm.scale")
                + [
                    ("width", "first.weight", 0), ("values per token", "first.weight", 1),
                    ("feed-forward width", "blocks.0.mlp.up.weight", 0),
                    ("text width", "txtmlp.0.scale", 0), ("taps", "txtfusion.projector.weight", -1),
                ].compactMap { size(checkpoint, $0) }
        case .diffusersTransformer:
            transformerSizes(checkpoint, block: "transformer_blocks.", head: "attn.norm_q.weight")
                + [
                    ("width", "img_in.weight", 0), ("values per token", "img_in.weight", 1),
                    ("feed-forward width", "transformer_blocks.0.ff.up.weight", 0),
                    ("text width", "txt_in.norm.weight", 0),
                    ("taps", "text_fusion.projector.weight", -1),
                ].compactMap { size(checkpoint, $0) }
        case .textEncoder, .plainLanguageModel:
            encoderSizes(checkpoint)
        case .diffusersAutoencoder:
            [
                ("latent channels", "post_quant_conv.weight", 1),
                ("width", "decoder.conv_in.weight", 0),
            ]
            .compactMap { size(checkpoint, $0) }
        case .wanAutoencoder:
            [("latent channels", "conv2.weight", 1), ("width", "decoder.conv1.weight", 0)]
                .compactMap { size(checkpoint, $0) }
        case .dump:
            [("images", "noise", 0), ("latent height", "noise", -2), ("latent width", "noise", -1)]
                .compactMap { size(checkpoint, $0) }
        case .reference, .moodboard, .encodedPrompt:
            [("rows", "taps", 0), ("taps", "taps", 1), ("text width", "taps", 2)]
                .compactMap { size(checkpoint, $0) }
        case .lora, .unknown:
            []
        }
    }

    /// Blocks, heads and head size, which both layouts tell in the same way.
    private static func transformerSizes(
        _ checkpoint: Checkpoint,
        block: String,
        head: String
    ) -> [Size] {
        let isOfficial = block == "blocks."
        let query = "\(block)0.attn.\(isOfficial ? "wq" : "to_q").weight"
        let key = "\(block)0.attn.\(isOfficial ? "wk" : "to_k").weight"
        return [Size(name: "blocks", value: checkpoint.numbers(after: block).count)]
            + heads(checkpoint, query: query, key: key, norm: "\(block)0.\(head)")
    }

    private static func encoderSizes(_ checkpoint: Checkpoint) -> [Size] {
        let attention = "layers.0.self_attn."
        return [Size(name: "layers", value: checkpoint.numbers(after: "layers.").count)]
            + heads(
                checkpoint,
                query: attention + "q_proj.weight",
                key: attention + "k_proj.weight",
                norm: attention + "q_norm.weight"
            )
            + [
                ("width", "embed_tokens.weight", 1), ("vocabulary", "embed_tokens.weight", 0),
                ("feed-forward width", "layers.0.mlp.up_proj.weight", 0),
            ].compactMap { size(checkpoint, $0) }
    }

    private static func heads(
        _ checkpoint: Checkpoint,
        query: String,
        key: String,
        norm: String
    ) -> [Size] {
        guard
            let headSize = size(checkpoint, ("head size", norm, 0)), headSize.value > 0,
            let queryRows = size(checkpoint, ("", query, 0)),
            let keyRows = size(checkpoint, ("", key, 0))
        else { return [] }
        return [
            Size(name: "heads", value: queryRows.value / headSize.value),
            Size(name: "key-value heads", value: keyRows.value / headSize.value),
            headSize,
        ]
    }

    /// The length of one axis of a tensor; negative axes count from the last.
    private static func size(_ checkpoint: Checkpoint, _ source: Source) -> Size? {
        guard let shape = checkpoint.record(source.tensor)?.shape else { return nil }
        let axis = source.axis < 0 ? shape.count + source.axis : source.axis
        guard shape.indices.contains(axis) else { return nil }
        return Size(name: source.size, value: shape[axis])
    }
}
