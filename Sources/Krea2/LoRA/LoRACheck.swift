import Checkpoints
import Compute

/// What a LoRA file would do to a model.
public struct LoRACheck: Sendable {
    /// What comes of it.
    public enum Verdict: String, Sendable {
        /// Every tensor is used.
        case applies
        /// With `--lora-lenient`: what is for other parts of the model is left out.
        case appliesLeniently
        /// Every tensor is used, but all differences are zero.
        case hasNoEffect
        /// Something is wrong with it.
        case isRefused
    }

    /// Changes of one block, or of what is outside of blocks.
    public struct Block: Sendable, Equatable {
        /// Official name, such as `blocks.3`.
        public let name: String
        /// Layers that are changed.
        public let layerCount: Int
        /// Frobenius norm of all its changes at scale 1, without what DoRA makes of lengths.
        public let norm: Double
    }

    /// Path of the file.
    public let path: String
    /// `sha256:` and the hash of the whole file.
    public let digest: String
    /// nil where most of its tensors are no parts of a LoRA.
    public let outline: LoRAOutline?
    /// Layers that it changes.
    public let layerCount: Int
    /// Layers that a LoRA could change.
    public let modelLayerCount: Int
    /// Norms and tables of modulations that it changes.
    public let vectorCount: Int
    /// Alphas of the layers, in rising order; none where the file has none.
    public let alphas: [Double]
    /// Factors of changes, alpha / rank, in rising order.
    public let scales: [Float]
    /// What cannot be used, and why.
    public let problems: [LoRAProblem]
    /// In the order of the model.
    public let blocks: [Block]
    /// What comes of it.
    public let verdict: Verdict

    /// Reads a file.
    ///
    /// - Parameters:
    ///   - path: A safetensors file.
    ///   - model: File or folder of a transformer or a model; nil for the released models' sizes.
    ///   - threads: Threads to compute norms with.
    /// - Throws: `.model` when it is no safetensors file, or there is no such model.
    public init(
        path: String,
        model: String? = nil,
        threads: Int = Engine.defaultThreads
    ) throws(GenerationError) {
        let targets = LoRATargets(try model.map(Self.config) ?? .released)
        let operators = Operators(kernels: try Engine.kernels(), threads: threads)
        self.path = path
        do throws(CheckpointError) {
            let file = try SafetensorsFile(path: path)
            let reading = LoRAReading(file, targets)
            outline = LoRAOutline(
                file.tensors.sorted { $0.key < $1.key }.map { ($0.key, $0.value.shape) },
                metadata: file.metadata
            )
            (layerCount, vectorCount) = (reading.modules.count, reading.vectors.count)
            problems = reading.problems
            alphas = Set(reading.modules.compactMap(\.alpha)).sorted()
            scales = Set(reading.modules.map(\.scale)).sorted()
            blocks = Self.blocks(reading, targets, operators)
            digest = try file.fullDigest()
        } catch {
            throw .model(error)
        }
        modelLayerCount = targets.layers.count
        verdict =
            if layerCount + vectorCount == 0 || problems.contains(where: { !$0.isHarmless }) {
                .isRefused
            } else if blocks.allSatisfy({ $0.norm == 0 }) {
                .hasNoEffect
            } else {
                problems.isEmpty ? .applies : .appliesLeniently
            }
    }

    /// Whether a run can use the file.
    public var isUsable: Bool { verdict == .applies || verdict == .appliesLeniently }

    private static func config(_ model: String) throws(GenerationError) -> TransformerConfig {
        let place = try TransformerPlace(model)
        do {
            return try TransformerFiles(path: place.transformer).config
        } catch {
            throw .model(error)
        }
    }

    private static func blocks(
        _ reading: LoRAReading,
        _ targets: LoRATargets,
        _ operators: Operators
    ) -> [Block] {
        var blocks: [String: (layers: Int, square: Double)] = [:]
        for module in reading.modules {
            let name = block(of: targets.layers[module.layer].name)
            blocks[name, default: (0, 0)].layers += 1
            blocks[name]?.square += module.squaredNorm(operators)
        }
        for vector in reading.vectors {
            let name = block(of: targets.vectors[vector.vector].name)
            blocks[name, default: (0, 0)].square += vector.squaredNorm
        }
        // In the order of the model: some vectors' blocks have no layer.
        let names = (targets.layers.map(\.name) + targets.vectors.map(\.name)).map(block)
        return names.compactMap { name in
            blocks.removeValue(forKey: name).map {
                Block(name: name, layerCount: $0.layers, norm: $0.square.squareRoot())
            }
        }
    }

    /// The block that a layer or a vector belongs to; outside of blocks its name without the last
    /// part.
    private static func block(of name: String) -> String {
        let parts = name.split(separator: ".")
        guard let place = parts.firstIndex(where: { $0.hasSuffix("blocks") }) else {
            return parts.dropLast(parts.count > 1 ? 1 : 0).joined(separator: ".")
        }
        return parts[...(place + 1)].joined(separator: ".")
    }
}
