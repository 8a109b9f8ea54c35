import Checkpoints
import Compute
import Tensors
import TestSupport

@testable import Krea2

/// A LoRA file for a small transformer, before it is written.
struct LoRAFixture {
    static let config = TransformerConfig(
        width: 16,
        heads: 2,
        keyValueHeads: 1,
        headSize: 8,
        blocks: 2,
        feedForwardWidth: 24,
        tokenWidth: 8,
        timeWidth: 6,
        text: BlockSizes(
            width: 12,
            heads: 1,
            keyValueHeads: 1,
            headSize: 12,
            feedForwardWidth: 20
        ),
        taps: 3,
        layerwiseBlocks: 1,
        refinerBlocks: 1,
        rotaryAxes: [4, 2, 2],
        theta: 1000,
        epsilon: 1e-5
    )
    static let targets = LoRATargets(config)

    var tensors: [String: Tensor] = [:]
    var metadata: [String: String] = [:]

    /// Adds a tensor of random float32 values.
    mutating func add(_ name: String, _ shape: Int..., random: inout SeededGenerator) {
        tensors[name] = Tensor.random(shape, &random)
    }

    /// Adds one number.
    mutating func add(_ name: String, _ number: Float) {
        tensors[name] = Tensor([number], shape: [])
    }

    /// Writes the file into a folder.
    func write(to folder: TemporaryFolder, as name: String = "a.safetensors") throws -> String {
        var writer = SafetensorsWriter(metadata: metadata)
        for (name, tensor) in tensors { writer.add(name, tensor) }
        let path = folder.file(name)
        try writer.write(to: path, overwriting: true)
        return path
    }

    /// Writes the file and opens it.
    func open(isLenient: Bool = false) throws -> LoRAFile {
        let folder = try TemporaryFolder()
        let path = try write(to: folder)
        return try LoRAFile(path: path, targets: Self.targets, isLenient: isLenient)
    }

    /// What is wrong with the file; empty when it opens.
    func problems(isLenient: Bool = false) throws -> [LoRAProblem] {
        do throws(GenerationError) {
            let folder: TemporaryFolder
            let path: String
            do {
                folder = try TemporaryFolder()
                path = try write(to: folder)
            } catch {
                throw .request("\(error)")
            }
            _ = try LoRAFile(path: path, targets: Self.targets, isLenient: isLenient)
            return []
        } catch {
            guard case .lora(let error) = error else { throw error }
            return error.problems
        }
    }
}

/// The ways of naming tensors that trainers have.
enum LoRADialect: String, CaseIterable {
    case diffusers, diffusersBare, native, nativeDown, nativeShort, modelPrefix, bare
    case peft, peftBoth, peftTransformer, diffSynth, oldDiffusers
    case kohya, kohyaUnderscore, lycoris, oneTrainer

    /// Whether alpha stands beside the factors.
    var hasAlpha: Bool { [.kohya, .kohyaUnderscore, .lycoris, .oneTrainer].contains(self) }

    /// The name of the module of a layer.
    func module(_ layer: String) -> String {
        let renamed = TransformerNames.diffusers.stored(layer + ".weight").dropLast(7)
        let flat = layer.replacing(".", with: "_")
        let flatRenamed = renamed.replacing(".", with: "_")
        return switch self {
        case .diffusers, .oldDiffusers: "transformer.\(renamed)"
        case .diffusersBare: String(renamed)
        case .native, .nativeDown, .nativeShort: "diffusion_model.\(layer)"
        case .modelPrefix: "model.diffusion_model.\(layer)"
        case .bare, .diffSynth: layer
        case .peft: "base_model.model.\(layer)"
        case .peftBoth: "base_model.model.diffusion_model.\(layer)"
        case .peftTransformer: "base_model.model.transformer.\(renamed)"
        case .kohya: "lora_unet_\(flat)"
        case .kohyaUnderscore: "lora_unet_\(flat)_"
        case .lycoris: "lycoris_\(flatRenamed)"
        case .oneTrainer: "lora_transformer_\(flatRenamed)"
        }
    }

    /// What follows the module's name in those of its factors.
    var ends: (down: String, up: String) {
        switch self {
        case .diffSynth, .diffusersBare: (".lora_A.default.weight", ".lora_B.default.weight")
        case .nativeShort: (".lora_A", ".lora_B")
        case .oldDiffusers: (".lora.down.weight", ".lora.up.weight")
        case .nativeDown, .kohya, .kohyaUnderscore, .lycoris, .oneTrainer:
            (".lora_down.weight", ".lora_up.weight")
        default: (".lora_A.weight", ".lora_B.weight")
        }
    }
}

extension Tensor {
    /// Float32 values between −1 and 1.
    static func random(_ shape: [Int], _ random: inout SeededGenerator) -> Tensor {
        Tensor(
            (0..<shape.reduce(1, *)).map { _ in Float.random(in: -1...1, using: &random) },
            shape: shape
        )
    }
}

// MARK: Values

/// A matrix of doubles, in plain loops.
struct PlainMatrix {
    let rows: Int
    let columns: Int
    private(set) var values: [Double]

    init(_ tensor: Tensor) {
        let floats = converted(tensor).elements
        (rows, columns, values) = (tensor.shape[0], tensor.rowCount, floats.map(Double.init))
    }

    init(_ rows: Int, _ columns: Int, _ value: (_ row: Int, _ column: Int) -> Double) {
        (self.rows, self.columns) = (rows, columns)
        values = (0..<rows).flatMap { row in (0..<columns).map { value(row, $0) } }
    }

    subscript(row: Int, column: Int) -> Double { values[row * columns + column] }

    func times(_ other: PlainMatrix) -> PlainMatrix {
        PlainMatrix(rows, other.columns) { row, column in
            (0..<columns).reduce(0) { $0 + self[row, $1] * other[$1, column] }
        }
    }

    /// The Kronecker product.
    func kronecker(_ other: PlainMatrix) -> PlainMatrix {
        PlainMatrix(rows * other.rows, columns * other.columns) { row, column in
            self[row / other.rows, column / other.columns]
                * other[row % other.rows, column % other.columns]
        }
    }

    func rows(_ range: Range<Int>) -> PlainMatrix {
        PlainMatrix(range.count, columns) { self[range.lowerBound + $0, $1] }
    }

    func scaled(_ factor: Double) -> PlainMatrix {
        PlainMatrix(rows, columns) { factor * self[$0, $1] }
    }

    var floats: [Float] { values.map { Float($0) } }
}

extension LoRAModule {
    /// The whole change of the weight, before lengths are given: `[outputs, inputs]`.
    var difference: PlainMatrix? {
        let change: PlainMatrix
        switch self.change {
        case .lowRank(let down, let up): change = PlainMatrix(up).times(PlainMatrix(down))
        case .hadamard(let a, let b, let c, let d):
            let (first, second) = (
                PlainMatrix(a).times(PlainMatrix(b)), PlainMatrix(c).times(PlainMatrix(d))
            )
            change = PlainMatrix(first.rows, first.columns) { first[$0, $1] * second[$0, $1] }
        case .kronecker(let first, let second, let rows):
            change = first.plain.kronecker(second.plain).rows(rows)
        case .difference(let matrix): change = PlainMatrix(matrix)
        case nil: return nil
        }
        return change.scaled(Double(scale))
    }
}

extension WeightDifference.Factor {
    fileprivate var plain: PlainMatrix {
        switch self {
        case .full(let matrix): PlainMatrix(matrix)
        case .product(let a, let b): PlainMatrix(a).times(PlainMatrix(b))
        }
    }
}
