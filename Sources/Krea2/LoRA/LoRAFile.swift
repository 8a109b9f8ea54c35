import Checkpoints
import Tensors

/// A LoRA file whose every tensor has found its layer in a model; nothing is applied by opening it.
public struct LoRAFile: Sendable {
    /// Path it was opened with.
    public let path: String
    /// `sha256:` and the hash of the whole file.
    public let digest: String
    /// What was left out because the caller allowed it.
    public let ignored: [LoRAProblem]
    /// Layers of the model that it was opened for.
    let layers: [LoRATargets.Layer]
    /// Changes of layers, in the order of the layers.
    let modules: [LoRAModule]
    /// Changes of norms and tables, in their order.
    let vectors: [LoRAVector]
    private let file: SafetensorsFile

    /// Opens a file and finds the layer of each tensor; all or nothing.
    ///
    /// - Parameters:
    ///   - path: A safetensors file.
    ///   - targets: The layers of the transformer.
    ///   - isLenient: Whether what is recognised but cannot be applied is left out, and no error.
    /// - Throws: `.model` when it is no safetensors file, `.lora` with everything that does not fit.
    init(path: String, targets: LoRATargets, isLenient: Bool = false) throws(GenerationError) {
        let reading: LoRAReading
        do throws(CheckpointError) {
            file = try SafetensorsFile(path: path)
            reading = LoRAReading(file, targets)
            digest = try file.fullDigest()
        } catch {
            throw .model(error)
        }
        self.path = path
        layers = targets.layers
        (modules, vectors) = (reading.modules, reading.vectors)
        ignored = isLenient ? reading.problems.filter(\.isHarmless) : []
        var problems = isLenient ? reading.problems.filter { !$0.isHarmless } : reading.problems
        if problems.isEmpty && modules.isEmpty && vectors.isEmpty { problems = [.empty] + ignored }
        guard problems.isEmpty else { throw .lora(LoRAError(path: path, problems: problems)) }
    }

    /// Layers that it changes.
    public var layerCount: Int { modules.count }

    /// Layers that a LoRA could change: 264 in the released models.
    public var modelLayerCount: Int { layers.count }

    /// Norms and tables of modulations that it changes.
    public var vectorCount: Int { vectors.count }

    /// The ranks of its factors, in rising order; none where it has no factors.
    public var ranks: [Int] { Set(modules.compactMap(\.rank)).sorted() }

    /// Throws unless the file is still the one that was opened.
    func checkUnchanged() throws(CheckpointError) { try file.checkUnchanged() }
}

extension LoRAFile: Equatable {
    /// Whether both are the same file with the same content.
    public static func == (a: LoRAFile, b: LoRAFile) -> Bool {
        (a.path, a.digest, a.layers) == (b.path, b.digest, b.layers)
    }
}
