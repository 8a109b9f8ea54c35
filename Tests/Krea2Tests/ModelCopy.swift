import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// A fixture model of which some parts are replaced by files in a temporary folder.
struct ModelCopy {
    let folder: TemporaryFolder
    /// Where the parts are; those of the fixture until a test replaces them.
    var files: ModelFiles

    init(_ model: String) throws {
        folder = try TemporaryFolder()
        files = try FixtureModel.files(model)
    }

    /// Copies the parts into the folder, one folder each, with their settings.
    mutating func copyParts() throws {
        for part in [\ModelFiles.transformer, \.textEncoder, \.tokenizer, \.autoencoder] {
            let source = URL(filePath: files[keyPath: part])
            let target = folder.file(source.lastPathComponent)
            try FileManager.default.copyItem(atPath: source.path, toPath: target)
            files[keyPath: part] = target
        }
        for file in [\ModelFiles.modelIndex, \.scheduler] {
            guard let path = files[keyPath: file] else { continue }
            let target = folder.file(URL(filePath: path).lastPathComponent)
            try FileManager.default.copyItem(atPath: path, toPath: target)
            files[keyPath: file] = target
        }
    }

    /// Makes a folder in the folder and returns its path.
    func makeFolder(_ name: String) throws -> String {
        try FileManager.default.createDirectory(
            atPath: folder.file(name),
            withIntermediateDirectories: true
        )
        return folder.file(name)
    }
}

/// The tensors of a part under names, shapes and types that tests change.
struct Weights {
    var tensors: [String: Tensor]

    /// All tensors of a file, an index or a folder.
    init(_ path: String) throws {
        let checkpoint = try Checkpoint(path: path)
        tensors = [:]
        for name in checkpoint.names { tensors[name] = checkpoint.tensor(name) }
    }

    init(_ tensors: [String: Tensor]) { self.tensors = tensors }

    /// The same under other names; nil leaves a tensor out.
    func renamed(_ rename: (String) -> String?) -> Weights {
        var renamed: [String: Tensor] = [:]
        for (name, tensor) in tensors {
            if let name = rename(name) { renamed[name] = tensor }
        }
        return Weights(renamed)
    }

    /// The same with `prefix` before all names.
    func prefixed(_ prefix: String) -> Weights { renamed { prefix + $0 } }

    /// The same with the elements of some tensors under another shape.
    func reshaped(_ shape: (String, Tensor) -> [Int]?) -> Weights {
        var reshaped = self
        for (name, tensor) in tensors {
            if let shape = shape(name, tensor) { reshaped.tensors[name] = tensor.reshaped(shape) }
        }
        return reshaped
    }

    /// The same as another type in the file, rounded where it has to be.
    func stored(as type: (Int) -> ElementType) -> Weights {
        var stored = self
        for (index, name) in tensors.keys.sorted().enumerated() {
            stored.tensors[name] = tensors[name].map { $0.stored(as: type(index)) }
        }
        return stored
    }

    /// The same with other tensors.
    func adding(_ others: [String: Tensor]) -> Weights {
        Weights(tensors.merging(others) { _, new in new })
    }

    /// Writes one file and returns its path.
    @discardableResult
    func write(to path: String) throws -> String {
        var writer = SafetensorsWriter()
        for (name, tensor) in tensors { writer.add(name, tensor) }
        try writer.write(to: path, overwriting: true)
        return path
    }

    /// Writes shards and their index into a folder, and returns the path of the index.
    func write(shards: Int, to folder: String, name: String = "model") throws -> String {
        var map: [String: String] = [:]
        for shard in 0..<shards {
            let names = tensors.keys.sorted().enumerated().filter { $0.offset % shards == shard }
            let part = Set(names.map(\.element))
            let file = "\(name)-0000\(shard + 1)-of-0000\(shards).safetensors"
            try renamed { part.contains($0) ? $0 : nil }.write(to: "\(folder)/\(file)")
            for name in part { map[name] = file }
        }
        let index: [String: Any] = ["metadata": ["total_size": 1], "weight_map": map]
        let path = "\(folder)/\(name).safetensors.index.json"
        try JSONSerialization.data(withJSONObject: index).write(to: URL(filePath: path))
        return path
    }
}

extension Tensor {
    /// Float32 values of a tensor of any type that is computed with.
    var values: [Float] {
        (0..<count).map { index in
            switch elementType {
            case .float16:
                Float(address.load(fromByteOffset: 2 * index, as: Float16.self))
            case .bfloat16:
                Float(
                    bitPattern: UInt32(address.load(fromByteOffset: 2 * index, as: UInt16.self))
                        << 16
                )
            default: address.load(fromByteOffset: 4 * index, as: Float.self)
            }
        }
    }

    /// A copy as another type, rounded to nearest even.
    func stored(as type: ElementType) -> Tensor {
        let storage = Storage(byteCount: count * type.byteCount)
        for (index, value) in values.enumerated() {
            switch type {
            case .float16:
                storage.bytes.storeBytes(
                    of: Float16(value),
                    toByteOffset: 2 * index,
                    as: Float16.self
                )
            case .bfloat16:
                let bits = value.bitPattern
                let rounded = UInt16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
                storage.bytes.storeBytes(of: rounded, toByteOffset: 2 * index, as: UInt16.self)
            default:
                storage.bytes.storeBytes(of: value, toByteOffset: 4 * index, as: Float.self)
            }
        }
        return Tensor(storage, byteOffset: 0, shape: shape, elementType: type)
    }
}

/// Everything that a run computes, by name.
struct Outcome {
    let tensors: [String: Tensor]

    /// Keeps what a run computes.
    init(_ pipeline: Pipeline, _ request: GenerationRequest) throws {
        let dump = Dump(imageCount: request.imageCount)
        _ = try pipeline.generate(request, dump: dump)
        let folder = try TemporaryFolder()
        try dump.write(to: folder.file("dump.safetensors"), overwriting: false)
        tensors = try Weights(folder.file("dump.safetensors")).tensors
    }

    /// Runs one step of one small picture with the model at `files`.
    init(_ files: ModelFiles) throws {
        let pipeline = try Pipeline(
            files,
            options: PipelineOptions(threads: 1, variant: .turbo, precision: .float32)
        )
        let request = GenerationRequest(
            prompt: "a fox walking in the snow",
            width: 64,
            height: 64,
            steps: 1,
            seed: 1
        )
        try self.init(pipeline, request)
    }

    /// The elements of a float32 tensor.
    func floats(_ name: String) throws -> [Float] { try #require(tensors[name]).elements }

    /// Names of the tensors that are not bit for bit the same, sorted.
    func differences(from other: Outcome) -> [String] {
        Set(tensors.keys).union(other.tensors.keys).sorted().filter { name in
            guard let one = tensors[name], let two = other.tensors[name], one.shape == two.shape
            else { return true }
            return memcmp(one.address, two.address, one.byteCount) != 0
        }
    }

    /// Relative error of the first velocity.
    func velocityError(from other: Outcome) throws -> Double {
        let name = "step0.velocity"
        let (one, two) = (try #require(tensors[name]), try #require(other.tensors[name]))
        return relativeError(one.elements, two.elements)
    }
}
