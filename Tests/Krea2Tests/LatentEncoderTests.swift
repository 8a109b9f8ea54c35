import Compute
import Synchronization
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// The autoencoder's encoder against what diffusers computes, and against itself.
struct LatentEncoderTests {
    /// Largest relative error of a latent; observed: 9.5e-7.
    static let limit = 3.8e-6

    private func encoder(_ model: String, _ operators: Operators) throws -> LatentEncoder {
        let path =
            try model == "mini"
            ? AutoencoderFixture.embeddedPath : AutoencoderFixture.path(model)
        return try LatentEncoder(AutoencoderFiles(path: path), operators: operators)
    }

    @Test(arguments: ["head16", "head48", "head128", "mini"])
    func agreesWithDiffusers(model: String) throws {
        let operators = Operators(threads: 2)
        let encoder = try encoder(model, operators)
        let fixture = try FixtureTensors("initial/\(model)-encoder.safetensors")
        for index in 0..<(model == "mini" ? 1 : 4) {
            let shape = try fixture.shape("\(index).rgb")
            let latent = try Encoded(
                fixture.bytes("\(index).rgb"),
                height: shape[0],
                width: shape[1],
                encoder,
                operators
            ).latent
            #expect(try latent.shape == fixture.shape("\(index).latent"))
            let error = try relativeError(latent.elements, fixture.floats("\(index).latent"))
            #expect(error < Self.limit, "picture \(index): \(error)")
        }
    }

    /// Eight bits of the weights and of what is between the layers; observed: 5.5e-3.
    @Test func bfloat16IsClose() throws {
        let picture = randomPicture(48, 64)
        let latents = try [ArithmeticPolicy.float32, .bfloat16].map { policy in
            let operators = Operators(threads: 1, policy: policy)
            let encoder = try encoder("head16", operators)
            return try Encoded(picture, height: 48, width: 64, encoder, operators).latent.elements
        }
        #expect(relativeError(latents[1], latents[0]) < 2.2e-2)
    }

    // MARK: Identities

    @Test(arguments: ["head16", "head48", "head128", "mini"])
    func bandsDoNotChangeTheResult(model: String) throws {
        let operators = Operators(threads: 2)
        let encoder = try encoder(model, operators)
        for (height, width) in [(8, 8), (40, 24), (16, 48), (72, 8)] {
            let picture = randomPicture(height, width)
            let latents = try [height / 8, 1, 2, 3].map { bandRows in
                try Encoded(
                    picture,
                    height: height,
                    width: width,
                    encoder,
                    operators,
                    bandRows: bandRows
                ).latent.elements
            }
            #expect(latents.allSatisfy { $0 == latents[0] }, "\(height)x\(width)")
        }
    }

    @Test func threadsDoNotChangeTheResult() throws {
        let picture = randomPicture(48, 72)
        let latents = try [1, 2, 3].map { threads in
            let operators = Operators(threads: threads)
            let encoder = try encoder("head48", operators)
            return try Encoded(picture, height: 48, width: 72, encoder, operators).latent.elements
        }
        #expect(latents[0] == latents[1] && latents[0] == latents[2])
    }

    // MARK: Course

    @Test func reportsProgress() throws {
        let operators = Operators(threads: 1)
        var shares: [Double] = []
        _ = try Encoded(
            randomPicture(64, 32),
            height: 64,
            width: 32,
            encoder("head16", operators),
            operators,
            bandRows: 2,
            progress: { shares.append($0) }
        )
        #expect(zip(shares, shares.dropFirst()).allSatisfy(<))
        #expect(shares.count > 8 && shares.first ?? 0 > 0)
        #expect(abs((shares.last ?? 0) - 1) < 1e-9)
    }

    @Test(arguments: [1, 4, 6, 8])
    func stopsWhenAskedTo(after parts: Int) throws {
        let isStopped = Atomic(false)
        var reports = 0
        #expect(throws: GenerationError.cancelled) {
            try withoutActuallyEscaping({ isStopped.load(ordering: .relaxed) }) { asked in
                nonisolated(unsafe) let asked = asked
                let operators = Operators(threads: 1, isCancelled: { asked() })
                _ = try Encoded(
                    randomPicture(32, 32),
                    height: 32,
                    width: 32,
                    encoder("head16", operators),
                    operators,
                    bandRows: 1,
                    progress: { _ in
                        reports += 1
                        if reports == parts { isStopped.store(true, ordering: .relaxed) }
                    }
                )
            }
        }
        #expect(reports == parts)
    }

    @Test(arguments: [
        ("encoder.conv_in.bias", "rows 0–1"), ("encoder.down_blocks.9.conv2.bias", "last level"),
        ("encoder.mid_block.resnets.0.conv1.bias", "middle block"), ("quant_conv.bias", "means"),
    ])
    func namesWhereNumbersAreNotFinite(tensor: String, place: String) throws {
        let operators = Operators(threads: 1)
        let folder = try TemporaryFolder()
        let path = folder.file("vae.safetensors")
        try AutoencoderFixture.write(
            AutoencoderFixture.checkpoint("head16"),
            to: path,
            replacing: [tensor: .infinity]
        )
        let broken = try LatentEncoder(AutoencoderFiles(path: path), operators: operators)
        let error = GenerationError.notFinite(stage: "autoencoder", place: "encoder, " + place)
        #expect(throws: error) {
            try Encoded(
                randomPicture(32, 16),
                height: 32,
                width: 16,
                broken,
                operators,
                bandRows: 2
            )
        }
    }
}
