import Checkpoints
import Tensors

/// What a LoRA file would do to a model, and what hinders it.
struct LoRAReading {
    /// The tensors of one module of the file, by what they are.
    struct Module {
        /// Its name without what stands before all names.
        let name: Substring
        let target: LoRATargets.Target
        /// Whether underscores stand for dots in the name.
        let isFlattened: Bool
        fileprivate(set) var tensors: [LoRAKey.Part: LoRATensor] = [:]

        /// The first of the tensors' names.
        var anyName: String { tensors.values.map(\.name).min() ?? String(name) }
    }

    /// Changes of layers, in the order of the layers.
    private(set) var modules: [LoRAModule] = []
    /// Changes of norms and tables, in their order.
    private(set) var vectors: [LoRAVector] = []
    /// Everything that is wrong.
    private(set) var problems: [LoRAProblem] = []

    private let targets: LoRATargets
    private var parts: [LoRATargets.Target: Module] = [:]
    private var unknown: [(tensor: LoRATensor, key: LoRAKey?)] = []

    /// Finds the layer of each tensor and checks shapes and values.
    ///
    /// - Parameters:
    ///   - file: A safetensors file.
    ///   - targets: The layers of the transformer.
    init(_ file: SafetensorsFile, _ targets: LoRATargets) {
        self.targets = targets
        let names = file.tensors.keys.sorted()
        for name in names {
            if let values = file.tensor(name) { add(LoRATensor(name: name, values: values)) }
        }
        if let problem = otherModel ?? Self.plainWeights(names) {
            problems = [problem]
            return
        }
        addUnknown()
        do throws(LoRAProblem) {
            build(try LoRASettings(file.metadata))
        } catch {
            problems.append(error)
        }
    }

    private mutating func add(_ tensor: LoRATensor) {
        let key = LoRAKey(tensor.name)
        if let key, key.naming == .textEncoder {
            problems.append(.inapplicable(key: tensor.name, part: "the text encoder"))
            return
        }
        guard let key, let target = targets.target(key) else {
            unknown.append((tensor, key))
            return
        }
        let new = Module(name: key.module, target: target, isFlattened: key.naming == .flattened)
        if let other = parts[target, default: new].tensors.updateValue(tensor, forKey: key.part) {
            problems.append(.repeated(key: other.name, other: tensor.name))
        }
    }

    private mutating func addUnknown() {
        for (index, (tensor, key)) in unknown.enumerated() {
            // More are not shown.
            let nearest = index < LoRAError.describedProblems ? key.flatMap(targets.nearest) : nil
            problems.append(.unknown(key: tensor.name, nearest: nearest))
        }
    }

    /// The changes of all layers; what is wrong with them is added to the problems.
    private mutating func build(_ settings: LoRASettings) {
        var names: [Int: String] = [:]
        for module in parts.values.sorted(by: { $0.name < $1.name }) {
            do throws(LoRAProblem) {
                let found = try LoRAModuleBuilder(module, targets, settings).build()
                for layer in found.layers.map(\.layer) {
                    if let other = names.updateValue(module.anyName, forKey: layer) {
                        throw .repeated(key: other, other: module.anyName)
                    }
                }
                modules += found.layers
                if let vector = found.vector { vectors.append(vector) }
            } catch {
                problems.append(error)
            }
        }
        modules.sort { $0.layer < $1.layer }
        vectors.sort { $0.vector < $1.vector }
    }

    // MARK: Other files

    /// What tells that there is no part of a LoRA in the file.
    private static func plainWeights(_ names: [String]) -> LoRAProblem? {
        let areParts = names.contains { LoRAKey($0)?.isWholeWeight == false }
        return areParts ? nil : names.first.map { .noLoRA(key: $0) }
    }

    /// What tells that the file was made for another model.
    private var otherModel: LoRAProblem? {
        if let family = LoRAFamily.of(unknown.map { ($0.tensor.name, $0.tensor.values.shape) }) {
            return .otherModel(key: family.key, model: family.name, expected: "Krea 2")
        }
        // First factors of layers that read the residual stream show its width.
        var widths: Set<Int> = []
        var name: String?
        for module in parts.values.sorted(by: { $0.name < $1.name }) {
            guard let inputs = targets.inputs(module.target), inputs == targets.width,
                let tensor = module.tensors[.down] ?? module.tensors[.hadamard1B],
                tensor.values.shape.count >= 2
            else { continue }
            widths.insert(tensor.values.shape[1])
            name = name ?? tensor.name
        }
        guard let name, let width = widths.first, widths.count == 1, width != targets.width else {
            return nil
        }
        return .otherModel(
            key: name,
            model: LoRAFamily.transformer(width: width),
            expected: LoRAFamily.transformer(width: targets.width)
        )
    }
}

/// A tensor and its name in the file.
struct LoRATensor {
    let name: String
    let values: Tensor
}
