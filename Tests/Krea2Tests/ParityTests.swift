import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// One case of `pipeline/cases.json`: what diffusers was asked for.
struct ParityCase: Decodable, Sendable, CustomTestStringConvertible {
    let name: String
    let model: String
    let variant: String
    let prompt: String
    let negativePrompt: String?
    let width: Int
    let height: Int
    let steps: Int
    let guidance: Float
    let mu: Double
    let seed: UInt64
    let images: Int
    let truncatedTokens: Int

    var testDescription: String { name }

    static let all: [ParityCase] = Fixture.cases("pipeline/cases.json")

    var request: GenerationRequest {
        GenerationRequest(
            prompt: prompt,
            negativePrompt: negativePrompt,
            width: width,
            height: height,
            steps: steps,
            guidance: guidance,
            seed: seed,
            imageCount: images
        )
    }

    /// Opens the case's model.
    func pipeline(threads: Int = 2, precision: Precision = .float32) throws -> Pipeline {
        try FixtureModel.pipeline(
            model,
            precision,
            threads: threads,
            variant: Variant(rawValue: variant)
        )
    }
}

/// The models under `Tests/Fixtures/pipeline/models`.
enum FixtureModel {
    static func path(_ name: String) -> String { Fixture.path("pipeline/models/\(name)") }

    /// Where the parts of a model are.
    static func files(_ name: String) throws -> ModelFiles {
        guard name == "head48" else { return try ModelFiles.locate(path(name)) }
        return ModelFiles(
            transformer: path("head48/diffusion_models/krea2_raw_bf16.safetensors"),
            textEncoder: path("head48/text_encoders/qwen3vl_4b_bf16.safetensors"),
            tokenizer: Fixture.path("tokenizer/tokenizer"),
            autoencoder: path("head48/vae/qwen_image_vae.safetensors"),
            modelIndex: nil
        )
    }

    /// Opens a model.
    static func pipeline(
        _ name: String = "head16",
        _ precision: Precision = .float32,
        threads: Int = 2,
        variant: Variant? = nil,
        memory: Int? = nil,
        cache: EncodingCache? = nil
    ) throws -> Pipeline {
        try Pipeline(
            files(name),
            options: PipelineOptions(
                threads: threads,
                variant: variant,
                precision: precision,
                memoryByteCount: memory,
                cache: cache
            )
        )
    }
}

@Suite struct ParityTests {
    /// Largest relative error (of the 2-norm) of floating-point tensors; 4e-6 was seen.
    static let limit = 2e-5

    @Test func hasCases() { #expect(ParityCase.all.count >= 15) }

    @Test(arguments: ParityCase.all)
    func agreesWithDiffusers(_ parity: ParityCase) throws {
        let pipeline = try parity.pipeline()
        let dump = Dump(imageCount: parity.images)
        let resolved = try pipeline.resolve(parity.request)
        #expect(resolved.shift == parity.mu)
        #expect(resolved.truncatedTokens == parity.truncatedTokens)
        let images = try pipeline.generate(parity.request, dump: dump)
        #expect(images.count == parity.images)

        let folder = try TemporaryFolder()
        let path = folder.path + "/dump.safetensors"
        try dump.write(to: path, overwriting: false)
        let ours = try SafetensorsFile(path: path)
        let reference = try Fixture.dump(parity.name)
        for name in reference.names {
            let tensor = try #require(ours.tensor(name), "\(name) is not dumped")
            #expect(try tensor.shape == reference.shape(name), "\(name)")
            try compare(name, tensor, reference)
        }
    }

    private func compare(_ name: String, _ tensor: Tensor, _ reference: FixtureTensors) throws {
        switch name {
        case "ids.pos", "ids.neg":
            let ids = (0..<tensor.count).map {
                tensor.address.load(fromByteOffset: 8 * $0, as: Int64.self)
            }
            #expect(try ids == reference.integers(name), "\(name)")
        case "rgb":
            let found = (0..<tensor.count).map {
                tensor.address.load(fromByteOffset: $0, as: UInt8.self)
            }
            let expected = try reference.bytes(name)
            let differences = zip(found, expected).map { abs(Int($0) - Int($1)) }
            let share = Double(differences.count { $0 > 0 }) / Double(differences.count)
            #expect(differences.max() ?? 0 <= 1 && share < 0.005, "\(name): \(share)")
        case "noise", "sigmas":
            #expect(try tensor.elements == reference.floats(name), "\(name)")
        case "vae.out":
            let difference = try largestDifference(tensor.elements, reference.floats(name))
            #expect(difference < 1e-4, "\(name): \(difference)")
        default:
            let error = try relativeError(tensor.elements, reference.floats(name))
            #expect(error < Self.limit, "\(name): \(error)")
        }
    }
}
