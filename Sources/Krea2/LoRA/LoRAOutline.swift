import Checkpoints
import Tensors

/// What the names and shapes in a LoRA file tell, whatever model it was made for.
public struct LoRAOutline: Sendable, Equatable {
    /// Who writes such names, such as "diffusers" or "kohya"; sorted, usually one.
    public let dialects: [String]
    /// Ways of writing a change, such as "LoRA" or "LoKr, DoRA", and modules that have it.
    public let methods: [String: Int]
    /// Inner sizes of products, in rising order.
    public let ranks: [Int]
    /// Layers, or groups of them, that have a change.
    public let moduleCount: Int
    /// The model it was made for, where its names tell that it is not Krea 2.
    public let otherModel: String?
    /// What the header says of the training, as it is there; sorted by key.
    public let hints: [Hint]

    /// A text of the header.
    public struct Hint: Sendable, Equatable {
        /// Such as `ss_base_model_version`.
        public let key: String
        /// As the file has it.
        public let value: String
    }

    /// Takes names apart; nil where most tensors are no parts of a LoRA.
    ///
    /// - Parameters:
    ///   - tensors: Names and shapes.
    ///   - metadata: Texts of the header.
    init?(_ tensors: [(name: String, shape: [Int])], metadata: [String: String]) {
        var modules: [Substring: Set<LoRAKey.Part>] = [:]
        var (dialects, ranks): (Set<String>, Set<Int>) = ([], [])
        var parts = 0
        for (name, shape) in tensors {
            guard let key = LoRAKey(name), !key.isWholeWeight else { continue }
            parts += 1
            modules[key.path, default: []].insert(key.part)
            if key.naming != .textEncoder { dialects.insert(key.dialect) }
            switch key.part {
            case .down, .hadamard1B, .kronecker1B, .kronecker2B:
                if let rank = shape.first { ranks.insert(rank) }
            default: break
            }
        }
        guard parts > 0, 2 * parts >= tensors.count else { return nil }
        self.dialects = dialects.sorted()
        methods = modules.values.reduce(into: [:]) { $0[Self.method($1), default: 0] += 1 }
        self.ranks = ranks.sorted()
        moduleCount = modules.count
        let names = LoRATargets(.released)
        otherModel =
            LoRAFamily.of(
                tensors.filter { tensor in
                    LoRAKey(tensor.name).map { names.target($0) == nil } ?? true
                }
            )?.name
        hints = Self.hints(metadata)
    }

    /// The way in which parts write a change.
    private static func method(_ parts: Set<LoRAKey.Part>) -> String {
        var names: [String] = []
        func add(_ name: String, _ members: LoRAKey.Part...) {
            if members.contains(where: parts.contains) { names.append(name) }
        }
        add("LoRA", .down, .up)
        add("LoHa", .hadamard1A, .hadamard1B, .hadamard2A, .hadamard2B)
        add("LoKr", .kronecker1, .kronecker1A, .kronecker2, .kronecker2A)
        add("whole difference", .difference)
        add("DoRA", .magnitude)
        add("bias", .biasDifference, .upBias)
        for case .unsupported(let name) in parts { names.append(name) }
        return names.isEmpty ? "alpha alone" : names.joined(separator: ", ")
    }

    /// Beginnings of the keys under which trainers note what they did.
    private static let hintKeys = [
        "ss_base_model_version", "ss_sd_model_name", "ss_output_name", "ss_network_module",
        "ss_network_dim", "ss_network_alpha", "ss_network_args", "ss_steps", "ss_num_epochs",
        "ss_training_comment", "modelspec.", "slider.", "base_model", "trigger", "training_info",
        "software", "name", "version",
    ]

    private static func hints(_ metadata: [String: String]) -> [Hint] {
        metadata.filter { key, value in
            // Thumbnails are pictures.
            !value.isEmpty && key != "modelspec.thumbnail"
                && hintKeys.contains { key.hasPrefix($0) }
        }.map(Hint.init).sorted { $0.key < $1.key }
    }
}

extension LoRAKey {
    /// Whether it is the name of a weight in a checkpoint.
    var isWholeWeight: Bool { end == ".weight" || end == ".bias" }

    /// Who writes such names.
    fileprivate var dialect: String {
        switch prefix {
        case "lora_unet_": "kohya"
        case "lora_transformer_": "OneTrainer"
        case "lycoris_": "LyCORIS"
        case _ where module.hasSuffix(".to_qkv"): "SimpleTuner"
        case _ where end.contains(".default"): "DiffSynth"
        case _ where prefix.hasPrefix("base_model."): "PEFT"
        case "transformer.": "diffusers"
        default: "ComfyUI"
        }
    }
}
