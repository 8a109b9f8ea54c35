import Checkpoints
import Foundation
import Synchronization
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// A case of `initial/cases.json`: a run that diffusers began with a picture.
struct InitialCase: Decodable, Sendable, CustomTestStringConvertible {
    let name: String
    let model: String
    let variant: String
    let prompt: String
    let negativePrompt: String?
    let width: Int
    let height: Int
    let steps: Int
    let guidance: Float
    let seed: UInt64
    let images: Int
    let strength: Double

    var testDescription: String { name }

    static let all: [InitialCase] = Fixture.cases("initial/cases.json")

    /// What was asked for, with the picture and the mask of the fixture.
    func request(_ fixture: FixtureTensors) throws -> GenerationRequest {
        GenerationRequest(
            prompt: prompt,
            negativePrompt: negativePrompt,
            width: width,
            height: height,
            steps: steps,
            guidance: guidance,
            seed: seed,
            imageCount: images,
            initialImage: InitialImage(
                width: width,
                height: height,
                rgb: try fixture.bytes("image"),
                strength: strength,
                mask: fixture.names.contains("mask") ? try fixture.bytes("mask") : nil
            )
        )
    }

    func pipeline() throws -> Pipeline {
        try FixtureModel.pipeline(model, variant: Variant(rawValue: variant))
    }
}

/// What a run gave, with all intermediate tensors.
private struct InitialOutcome {
    let images: [GeneratedImage]
    let file: SafetensorsFile
    private let folder: TemporaryFolder

    init(_ request: GenerationRequest, _ pipeline: Pipeline) throws {
        let dump = Dump(imageCount: request.imageCount)
        images = try pipeline.generate(request, dump: dump)
        folder = try TemporaryFolder()
        try dump.write(to: folder.file("dump.safetensors"), overwriting: false)
        file = try SafetensorsFile(path: folder.file("dump.safetensors"))
    }

    func floats(_ name: String) throws -> [Float] {
        try #require(file.tensor(name), "\(name) is not dumped").elements
    }
}

/// Image to image and inpainting: the rules against the reference, and identities.
struct InitialImageTests {
    /// Largest relative error; observed: 1.5e-6.
    static let limit = 5.9e-6

    @Test func hasCases() { #expect(InitialCase.all.count >= 4) }

    @Test(arguments: InitialCase.all)
    func agreesWithDiffusers(_ parity: InitialCase) throws {
        let fixture = try FixtureTensors("initial/\(parity.name).safetensors")
        let outcome = try InitialOutcome(parity.request(fixture), parity.pipeline())
        for name in fixture.names where name.contains("latents") {
            let error = try relativeError(outcome.floats(name), fixture.floats(name))
            #expect(error < Self.limit, "\(name): \(error)")
        }
        let steps = outcome.file.tensors.keys.filter { $0.hasSuffix(".velocity") }
        #expect(steps.count == fixture.names.count { $0.hasPrefix("step") })
        if fixture.names.contains("mask") {
            #expect(try outcome.floats("init.mask") == fixture.floats("init.mask"))
        }
        let rgb = outcome.images.flatMap(\.rgb)
        let differences = try zip(rgb, fixture.bytes("rgb")).map { abs(Int($0) - Int($1)) }
        #expect(try rgb.count == fixture.bytes("rgb").count)
        let share = Double(differences.count { $0 > 0 }) / Double(differences.count)
        #expect(differences.max() ?? 0 <= 1 && share < 0.005, "\(share)")
    }

    // MARK: Identities

    private func request(
        strength: Double = 0.5,
        mask: [UInt8]? = nil,
        seed: UInt64 = 3
    ) -> GenerationRequest {
        GenerationRequest(
            prompt: "a fox",
            width: 64,
            height: 80,
            steps: 4,
            seed: seed,
            initialImage: InitialImage(
                width: 64,
                height: 80,
                rgb: randomPicture(80, 64),
                strength: strength,
                mask: mask
            )
        )
    }

    @Test func fullStrengthIsTextToImage() throws {
        let pipeline = try FixtureModel.pipeline()
        var request = request(strength: 1)
        let begun = try InitialOutcome(request, pipeline)
        request.initialImage = nil
        let plain = try InitialOutcome(request, pipeline)
        #expect(try begun.floats("latents") == plain.floats("latents"))
        #expect(begun.images.map(\.rgb) == plain.images.map(\.rgb))
        request = self.request(strength: 0.99)
        #expect(try InitialOutcome(request, pipeline).images.map(\.rgb) == plain.images.map(\.rgb))
        request = self.request(strength: 0.75)
        #expect(try InitialOutcome(request, pipeline).images.map(\.rgb) != plain.images.map(\.rgb))
    }

    @Test func aWhiteMaskIsNone() throws {
        let pipeline = try FixtureModel.pipeline()
        let plain = try InitialOutcome(request(), pipeline)
        for white in [UInt8(128), 255] {
            let mask = [UInt8](repeating: white, count: 64 * 80)
            let masked = try InitialOutcome(request(mask: mask), pipeline)
            #expect(try masked.floats("latents") == plain.floats("latents"))
        }
    }

    @Test(arguments: [0.5, 1])
    func aBlackMaskKeepsAll(strength: Double) throws {
        // Only the corner of each cell is read.
        let mask = (0..<64 * 80).map { UInt8($0 % 8 == 0 && $0 / 64 % 8 == 0 ? 127 : 255) }
        let outcome = try InitialOutcome(
            request(strength: strength, mask: mask),
            FixtureModel.pipeline()
        )
        #expect(try outcome.floats("latents") == outcome.floats("init.latents"))
    }

    @Test func whatIsKeptIsTheOwnLatent() throws {
        let mask = (0..<64 * 80).map { UInt8($0 % 64 < 24 ? 255 : 0) }
        let outcome = try InitialOutcome(request(strength: 1, mask: mask), FixtureModel.pipeline())
        let (found, clean) = try (outcome.floats("latents"), outcome.floats("init.latents"))
        for i in found.indices where i % 8 >= 3 { #expect(found[i] == clean[i]) }
        #expect(found.indices.contains { $0 % 8 < 3 && found[$0] != clean[$0] })
    }

    @Test func eachPictureIsThatOfItsSeed() throws {
        let pipeline = try FixtureModel.pipeline()
        let mask = (0..<64 * 80).map { UInt8($0 % 64 < 24 ? 255 : 0) }
        var several = request(mask: mask)
        several.imageCount = 2
        let both = try pipeline.generate(several).map(\.rgb)
        let single = try [3, 4].map { seed in
            try pipeline.generate(request(mask: mask, seed: seed))[0].rgb
        }
        #expect(both == single && both[0] != both[1])
    }

    /// The embedded autoencoder gives back what its model draws; observed: 43 dB.
    @Test func keepingAllIsARoundTrip() throws {
        let folder = URL(filePath: AutoencoderFixture.embeddedPath).deletingLastPathComponent()
        let file = folder.appending(path: "turbo.safetensors").path(percentEncoded: false)
        let pipeline = try Pipeline(
            ModelFiles.locate(file),
            options: PipelineOptions(precision: .float32)
        )
        var request = GenerationRequest(
            prompt: "a red boat by the sea, flat",
            width: 256,
            height: 256,
            steps: 4,
            seed: 1
        )
        let drawn = try pipeline.generate(request)[0].rgb
        request.steps = 1
        request.initialImage = InitialImage(
            width: 256,
            height: 256,
            rgb: drawn,
            strength: 1,
            mask: [UInt8](repeating: 0, count: 256 * 256)
        )
        let again = try pipeline.generate(request)[0].rgb
        let squares = zip(drawn, again).reduce(0.0) {
            let difference = Double($1.0) - Double($1.1)
            return $0 + difference * difference
        }
        let noise = 10 * log10(255 * 255 / (squares / Double(drawn.count)))
        #expect(noise > 35, "\(noise) dB")
    }

    // MARK: Course

    @Test func plansWhatItTakes() throws {
        let pipeline = try FixtureModel.pipeline()
        var request = request()
        let plan = try pipeline.plan(request)
        #expect(
            plan.stages.map(\.name)
                == ["initial image", "text encoder", "transformer", "autoencoder"]
        )
        #expect(plan.stages.map(\.repetitions) == [1, 1, 2, 1])
        #expect(plan.buffers.contains { $0.stage == "initial image" })
        request.initialImage = nil
        let plain = try pipeline.plan(request)
        #expect(plain.stages.map(\.repetitions) == [1, 4, 1])
        #expect(!plain.buffers.contains { $0.stage == "initial image" })
        #expect(plain.peakBytes <= plan.peakBytes)
    }

    @Test func tellsOfTheStepsThatAreRun() throws {
        var stages: [GenerationProgress.Stage] = []
        var shares: [Double] = []
        var steps: Set<Int> = []
        _ = try FixtureModel.pipeline().generate(
            request(),
            progress: {
                if stages.last != $0.stage { stages.append($0.stage) }
                shares.append($0.overall)
                steps.insert($0.step)
                #expect($0.steps == 2 && (0...1).contains($0.fraction))
            }
        )
        #expect(stages == [.initialImage, .textEncoder, .transformer, .autoencoder])
        #expect(zip(shares, shares.dropFirst()).allSatisfy(<=))
        #expect(abs((shares.last ?? 0) - 1) < 1e-9)
        #expect(steps == [0, 1, 2])
    }

    @Test func stopsWhileItEncodes() throws {
        let isStopped = Atomic(false)
        var last: GenerationProgress.Stage?
        #expect(throws: GenerationError.cancelled) {
            try withoutActuallyEscaping({ isStopped.load(ordering: .relaxed) }) { asked in
                nonisolated(unsafe) let asked = asked
                _ = try FixtureModel.pipeline().generate(
                    request(),
                    progress: {
                        last = $0.stage
                        isStopped.store(true, ordering: .relaxed)
                    },
                    isCancelled: { asked() }
                )
            }
        }
        #expect(last == .initialImage)
    }

    // MARK: Refusals

    private static let refusals: [(String, @Sendable (inout InitialImage) -> Void)] = [
        ("an initial image of 80x64 pixels", { ($0.width, $0.height) = (80, 64) }),
        ("an initial image of 15359 bytes, expected 15360", { $0.rgb.removeLast() }),
        ("a mask of 5121 bytes, expected 5120", { $0.mask = .init(repeating: 0, count: 5121) }),
        ("a mask of 0 bytes, expected 5120", { $0.mask = [] }),
        ("strength -0.1, expected 0 to 1", { $0.strength = -0.1 }),
        ("strength 1.5, expected 0 to 1", { $0.strength = 1.5 }),
        ("strength nan, expected 0 to 1", { $0.strength = .nan }),
        ("strength 0.0 leaves none of 4 steps", { $0.strength = 0 }),
        ("strength 1e-18 leaves none of 4 steps", { $0.strength = 1e-18 }),
    ]

    @Test(arguments: refusals.indices)
    func refuses(_ index: Int) throws {
        let (message, change) = Self.refusals[index]
        var request = request()
        var image = try #require(request.initialImage)
        change(&image)
        request.initialImage = image
        let pipeline = try FixtureModel.pipeline()
        for run in [
            { _ = try pipeline.plan(request) }, { _ = try pipeline.generate(request) },
        ] as [() throws -> Void] {
            let error = #expect(throws: GenerationError.self) { try run() }
            #expect(error?.category == .request)
            #expect(error?.description.hasPrefix(message) == true, "\(error as Any)")
        }
    }

    /// Steps that are left out, as Python rounds them in float64.
    @Test(arguments: [
        (8, 0.6, 3), (8, 1.0, 0), (8, 0.124, 7), (8, 0.125, 7), (10, 0.3, 7), (50, 0.58, 21),
        (52, 0.25, 39), (1, 0.01, 0), (1000, 0.999, 1),
    ])
    func skipsSteps(steps: Int, strength: Double, skipped: Int) throws {
        let image = InitialImage(width: 64, height: 64, rgb: [], strength: strength)
        #expect(try image.firstStep(of: steps) == skipped)
    }

    /// Text to image does without the encoder; a picture to begin with needs it.
    @Test func filesWithoutEncoderMakePictures() throws {
        let folder = try TemporaryFolder()
        var files = try FixtureModel.files("head48")
        let path = folder.file("vae.safetensors")
        try AutoencoderFixture.write(AutoencoderFixture.checkpoint("head48"), to: path) { name in
            name.hasPrefix("encoder.") || name.hasPrefix("conv1.") ? nil : name
        }
        files.autoencoder = path
        let pipeline = try Pipeline(
            files,
            options: PipelineOptions(variant: .turbo, precision: .float32)
        )
        var request = request()
        for run in [
            { _ = try pipeline.plan(request) }, { _ = try pipeline.generate(request) },
        ] as [() throws -> Void] {
            let error = #expect(throws: GenerationError.self) { try run() }
            #expect(error?.category == .unfitFile)
            #expect(error?.description.contains("a decoder alone") == true)
        }
        request.initialImage = nil
        #expect(try pipeline.generate(request).count == 1)
    }
}
