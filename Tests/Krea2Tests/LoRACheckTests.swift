import Compute
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// What `LoRACheck` and `LoRAOutline` say of files.
struct LoRACheckTests {
    private var random = SeededGenerator(seed: 5)
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    /// A file that changes every layer of a model.
    private mutating func file(_ dialect: LoRADialect, _ config: TransformerConfig) -> LoRAFixture {
        var file = LoRAFixture()
        for layer in LoRATargets(config).layers {
            let module = dialect.module(layer.name)
            let value = Tensor.random([max(layer.inputs, layer.outputs)], &random)
            file.tensors[module + dialect.ends.down] = value.rows(0..<layer.inputs)
                .reshaped(1, layer.inputs)
            file.tensors[module + dialect.ends.up] = value.rows(0..<layer.outputs)
                .reshaped(layer.outputs, 1)
        }
        return file
    }

    @Test mutating func countsTheLayersOfTheReleasedModels() throws {
        var file = file(.diffusers, .released)
        file.metadata["ss_base_model_version"] = "krea2"
        let check = try LoRACheck(path: file.write(to: folder), threads: 1)
        #expect(check.layerCount == 264 && check.modelLayerCount == 264)
        #expect(check.verdict == .applies && check.problems.isEmpty)
        #expect(check.scales == [1] && check.alphas.isEmpty)
        #expect(check.blocks.count == 38)
        #expect(check.blocks.reduce(0) { $0 + $1.layerCount } == 264)
        #expect(check.blocks.contains { $0.name == "blocks.27" && $0.layerCount == 8 })
        #expect(check.blocks.contains { $0.name == "tmlp" && $0.layerCount == 2 })
        #expect(check.outline?.moduleCount == 264 && check.outline?.ranks == [1])
        #expect(check.outline?.hints.map(\.value) == ["krea2"])
    }

    @Test(
        arguments: zip(
            LoRADialect.allCases,
            [
                "diffusers", "DiffSynth", "ComfyUI", "ComfyUI", "ComfyUI", "ComfyUI", "ComfyUI",
                "PEFT",
                "PEFT", "PEFT", "DiffSynth", "diffusers", "kohya", "kohya", "LyCORIS", "OneTrainer",
            ]
        )
    )
    mutating func namesTheDialect(_ dialect: LoRADialect, name: String) throws {
        let file = file(dialect, LoRAFixture.config)
        let outline = LoRAOutline(file.tensors.map { ($0, $1.shape) }, metadata: [:])
        #expect(outline?.dialects == [name])
        #expect(outline?.methods == ["LoRA": 40])
        #expect(outline?.otherModel == nil)
    }

    @Test func takesTheSizesOfAModel() throws {
        let model = Fixture.path("pipeline/models/head16")
        let targets = LoRATargets(try TransformerFiles(path: model + "/transformer").config)
        var file = LoRAFixture()
        let layer = try #require(targets.layers.first { $0.name == "blocks.0.attn.wk" })
        file.tensors[layer.name + ".lora_A.weight"] = Tensor(zeros: [1, layer.inputs])
        file.tensors[layer.name + ".lora_B.weight"] = Tensor(zeros: [layer.outputs, 1])
        let path = try file.write(to: folder)
        let check = try LoRACheck(path: path, model: model, threads: 1)
        #expect(check.modelLayerCount == targets.layers.count && check.layerCount == 1)
        #expect(check.verdict == .hasNoEffect && !check.isUsable)
        // The released models are larger.
        let other = try LoRACheck(path: path, threads: 1)
        #expect(other.verdict == .isRefused && other.layerCount == 0)
        guard case .otherModel? = other.problems.first else {
            Issue.record("\(other.problems)")
            return
        }
    }

    @Test mutating func tellsWhatIsLeftOut() throws {
        var file = file(.native, LoRAFixture.config)
        file.add("text_encoder.layers.0.mlp.up.lora_A.weight", 1, 4, random: &random)
        let outline = LoRAOutline(file.tensors.map { ($0, $1.shape) }, metadata: [:])
        #expect(outline?.dialects == ["ComfyUI"])
        #expect(outline?.moduleCount == 41)
    }

    @Test func normsCountApartFromLayers() throws {
        let model = Fixture.path("pipeline/models/head16")
        let targets = LoRATargets(try TransformerFiles(path: model + "/transformer").config)
        var file = LoRAFixture()
        for vector in targets.vectors where vector.name.hasPrefix("blocks.1.") {
            let count = vector.shape.reduce(1, *)
            file.tensors[vector.name + ".diff"] = Tensor(
                [Float](repeating: 0.5, count: count),
                shape: vector.shape
            )
        }
        let check = try LoRACheck(path: file.write(to: folder), model: model, threads: 1)
        #expect(check.layerCount == 0 && check.vectorCount == 5 && check.verdict == .applies)
        let count = file.tensors.values.reduce(0) { $0 + $1.count }
        let norm = 0.5 * Double(count).squareRoot()
        #expect(check.blocks.map(\.name) == ["blocks.1"] && check.blocks[0].layerCount == 0)
        #expect(abs(check.blocks[0].norm - norm) < 1e-9 * norm)
    }

    @Test func checkpointsAreNoLoRAs() {
        let names = ["blocks.0.attn.wq.weight", "blocks.0.attn.wk.weight", "first.bias"]
        #expect(LoRAOutline(names.map { ($0, [4, 4]) }, metadata: [:]) == nil)
        #expect(LoRAOutline([], metadata: [:]) == nil)
    }

    // MARK: Norms

    /// Observed: 1.2e-7.
    private static let normLimit = 4e-7

    @Test mutating func normsAreThoseOfTheWholeDifference() throws {
        let operators = Operators(threads: 2)
        func tensor(_ shape: Int...) -> Tensor { .random(shape, &random) }
        let differences: [WeightDifference] = [
            .lowRank(down: tensor(3, 70), up: tensor(90, 3)),
            .lowRank(down: tensor(20, 7), up: tensor(1, 20)),
            .hadamard(a: tensor(90, 2), b: tensor(2, 70), c: tensor(90, 3), d: tensor(3, 70)),
            .kronecker(.full(tensor(3, 5)), .full(tensor(30, 14)), rows: 0..<90),
            .kronecker(
                .product(tensor(3, 2), tensor(2, 5)),
                .product(tensor(30, 4), tensor(4, 14)),
                rows: 17..<77
            ),
            .difference(tensor(90, 70)),
        ]
        for difference in differences {
            let module = LoRAModule(
                layer: 0,
                change: difference,
                scale: -0.5,
                rank: nil,
                alpha: nil,
                magnitude: nil,
                bias: nil,
                biasScale: 1
            )
            let values = try #require(module.difference).values
            let expected = values.reduce(0) { $0 + $1 * $1 }
            let found = module.squaredNorm(operators)
            #expect(abs(found - expected) < Self.normLimit * expected, "\(found) \(expected)")
        }
    }
}
