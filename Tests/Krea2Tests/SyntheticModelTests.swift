import Checkpoints
import Compute
import Foundation
import TestSupport
import Tensors
import Testing

@testable import Krea2

/// Random weights for benchmarks.
struct SyntheticModelTests {
    @Test(arguments: [ElementType.float32, .float16, .bfloat16, .float8E4M3])
    func randomValuesAreOfUsualSize(type: ElementType) {
        let values = RandomValues()
        let tensor = values.tensor([300, 100], type, deviation: 0.5)
        #expect(tensor.elementType == type && tensor.shape == [300, 100])
        let floats = dequantized(WeightMatrix(tensor)).elements
        let mean = floats.reduce(0, +) / Float(floats.count)
        let square = floats.reduce(0) { $0 + $1 * $1 } / Float(floats.count)
        #expect(abs(mean) < 0.02)
        #expect(abs(square.squareRoot() - 0.5) < 0.02)
        #expect(Set(floats.prefix(1000)).count > 40)
        let shifted = values.circle(type, mean: 2, deviation: 0.01)
        #expect(
            dequantized(WeightMatrix(shifted.reshaped(1, shifted.count))).elements.allSatisfy {
                abs($0 - 2) < 0.3
            }
        )
    }

    /// Sums of `scripts/make-checkpoint`, whose tensors are held against the reference.
    @Test func releasedShapesHaveTheReleasedSize() {
        func count(_ tensors: [SyntheticTensor]) -> (Int, Int) {
            (tensors.count, tensors.reduce(0) { $0 + $1.shape.reduce(1, *) })
        }
        #expect(count(SyntheticSizes.full.transformer()) == (430, 12_820_073_036))
        #expect(count(SyntheticSizes.full.textEncoder()) == (712, 4_437_813_248))
        #expect(count(SyntheticSizes.full.autoencoder()) == (104, 71_524_595))
        let whole = SyntheticModel(
            folder: "/nowhere",
            sizes: .full,
            parts: .transformer,
            weights: .bfloat16
        )
        #expect(whole.byteCount == 2 * 12_498_501_632 + 4 * (12_820_073_036 - 12_498_501_632))
    }

    @Test(arguments: [
        (36, [2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35]),
        (35, [2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35]),
        (24, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24]),
        (13, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]),
        (3, [1, 2, 3]), (1, [1]),
    ])
    func tapsAreSpreadOverTheLayers(layers: Int, taps: [Int]) {
        var sizes = SyntheticSizes.full
        sizes.layers = layers
        #expect(sizes.taps == taps)
    }

    @Test(arguments: BenchmarkWeights.allCases)
    func makesPictures(weights: BenchmarkWeights) throws {
        let folder = try TemporaryFolder()
        let model = SyntheticModel(
            folder: folder.file("model"),
            sizes: .tiny,
            parts: SyntheticModel.Parts(.e2e),
            weights: weights
        )
        try model.write(isCancelled: { false })
        let files = try ModelFiles.locate(model.folder)
        let pipeline = try Pipeline(files, options: PipelineOptions(threads: 1))
        #expect(pipeline.summary.variant == .turbo)
        #expect(pipeline.summary.parts.reduce(0) { $0 + $1.byteCount } == model.byteCount)
        let images = try pipeline.generate(
            GenerationRequest(prompt: "a fox", width: 64, height: 64, steps: 1)
        )
        #expect(Set(images[0].rgb).count > 16)
        try model.remove()
        #expect(try folder.names().isEmpty)
        try model.remove()
    }

    @Test func writesWhatGroupsNeed() throws {
        let folder = try TemporaryFolder()
        let expected: [(BenchmarkGroup, [String])] = [
            (.gemm, []), (.dit, ["turbo.safetensors"]), (.vae, ["vae"]),
            (.te, ["model_index.json", "text_encoder", "tokenizer"]),
        ]
        for (group, names) in expected {
            let model = SyntheticModel(
                folder: folder.file(group.rawValue),
                sizes: .tiny,
                parts: SyntheticModel.Parts(group),
                weights: .bfloat16
            )
            try model.write(isCancelled: { false })
            let found = try FileManager.default.contentsOfDirectory(atPath: model.folder).sorted()
            #expect(found == names, "\(group)")
        }
    }

    @Test func stopsWhileItWrites() throws {
        let folder = try TemporaryFolder()
        let model = SyntheticModel(
            folder: folder.file("model"),
            sizes: .tiny,
            parts: .transformer,
            weights: .bfloat16
        )
        var count = 0
        #expect(throws: GenerationError.cancelled) {
            try model.write(isCancelled: {
                count += 1
                return count > 5
            })
        }
        #expect(count == 6)
        try model.remove()
        #expect(try folder.names().isEmpty)
    }

    @Test func aFolderThatCannotBeMadeIsAnError() throws {
        let folder = try TemporaryFolder()
        try folder.write("x", to: "file")
        let model = SyntheticModel(
            folder: folder.file("file/model"),
            sizes: .tiny,
            parts: .transformer,
            weights: .bfloat16
        )
        let error = #expect(throws: GenerationError.self) {
            try model.write(isCancelled: { false })
        }
        #expect(error?.category == .unwritable)
    }
}
