import Checkpoints
import Compute
import Synchronization
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// The autoencoder against what diffusers computes, and against itself.
struct AutoencoderTests {
    /// Largest difference from the reference, of values from -1 to 1; observed: 1.9e-5.
    static let tolerance: Float = 7e-5
    /// The same for de-normalised latents, of values up to 10; observed: 9.6e-7.
    static let inputTolerance: Float = 3.8e-6
    /// Share of the bytes that are a level off; observed: 1.5e-4.
    static let differingShare = 6e-4

    static let cases = [
        "head16-turbo", "head16-guided", "head16-three-images", "head16-large", "head16-empty",
        "head16-long", "head16-line-feeds", "head16-scripts", "head16-special", "head48-turbo",
        "head48-guided", "head48-two-images", "head128-turbo", "head128-guided", "head128-scripts",
    ]

    // MARK: Parity

    @Test(arguments: cases)
    func agreesWithDiffusers(name: String) throws {
        let model = String(try #require(name.split(separator: "-").first))
        let operators = Operators(threads: 2)
        let autoencoder = try Autoencoder(
            AutoencoderFixture.files(model),
            operators: operators
        )
        let dump = try Fixture.dump(name)
        let latents = try Pictures(dump.tensor("latents"), axes: 3)
        let inputs = try Pictures(dump.tensor("vae.in"), axes: 3)
        let outputs = try Pictures(dump.tensor("vae.out"), axes: 3)
        let shape = try dump.shape("rgb")
        let rgb = try dump.bytes("rgb")
        let byteCount = shape.suffix(3).reduce(1, *)
        for index in 0..<latents.count {
            let decoded = try Decoded(latents[index], autoencoder, operators)
            let inputError = largestDifference(decoded.input, inputs[index].elements)
            #expect(inputError < Self.inputTolerance)
            let error = largestDifference(decoded.planes.elements, outputs[index].elements)
            #expect(error < Self.tolerance)
            let expected = rgb[index * byteCount..<(index + 1) * byteCount]
            let steps = zip(decoded.bytes, expected).map { abs(Int($0) - Int($1)) }
            let differing = steps.count { $0 > 0 }
            #expect(steps.count == byteCount && steps.allSatisfy { $0 <= 1 })
            #expect(Double(differing) < Self.differingShare * Double(byteCount))
        }
    }

    // MARK: Identities

    @Test(arguments: ["head16", "head48", "head128"])
    func bandsDoNotChangeTheResult(model: String) throws {
        let operators = Operators(threads: 2)
        let autoencoder = try Autoencoder(
            AutoencoderFixture.files(model),
            operators: operators
        )
        for (height, width) in [(1, 1), (5, 3), (2, 6)] {
            let latent = randomLatent(height, width)
            let whole = try Decoded(latent, autoencoder, operators, bandRows: 8 * height)
            for bandRows in [1, 2, 3, 7, 16] {
                let bands = try Decoded(latent, autoencoder, operators, bandRows: bandRows)
                #expect(bands.planes.elements == whole.planes.elements, "\(bandRows) rows")
                #expect(bands.bytes == whole.bytes)
            }
        }
    }

    @Test func threadsDoNotChangeTheResult() throws {
        let latent = randomLatent(6, 9)
        let results = try [1, 2, 3].map { threads in
            let operators = Operators(threads: threads)
            let autoencoder = try Autoencoder(
                AutoencoderFixture.files("head48"),
                operators: operators
            )
            return try Decoded(latent, autoencoder, operators).planes.elements
        }
        #expect(results[0] == results[1] && results[0] == results[2])
    }

    /// The schedule makes every row of every stage exactly once, with its neighbours at hand.
    @Test(arguments: [AutoencoderPart.decoder, .encoder], [1, 2, 3, 5, 8, 64, 1000])
    func bandsCoverEveryRowOnce(part: AutoencoderPart, bandRows: Int) throws {
        let config = try AutoencoderFixture.files("head16").config
        let stages = config.rowStages(part, latentHeight: 7, latentWidth: 2)
        var ends = stages.map { _ in 0 }
        for band in BandSchedule(stages, bandRows: bandRows).bands {
            for index in stages.indices {
                guard let rows = band[index] else { continue }
                #expect(rows.output.lowerBound == ends[index])
                ends[index] = rows.output.upperBound
                #expect(rows.outer.known.count <= 2 && rows.outer.kept.count <= 2)
                guard index > 0 else { continue }
                #expect(rows.outer.input.upperBound == ends[index - 1])
            }
        }
        #expect(ends == stages.map(\.outputHeight))
    }

    // MARK: Memory and costs

    /// The plan for the released sizes: small beside the 400 MB of one full-size activation.
    @Test(
        arguments: [AutoencoderPart.decoder, .encoder],
        [(64, 64), (128, 128), (256, 256), (256, 64)]
    )
    func needsLittleMemory(part: AutoencoderPart, size: (Int, Int)) throws {
        let config = AutoencoderFixture.releasedConfig
        let (height, width) = size
        var arena = Arena.measuring()
        _ = AutoencoderScratch(
            config,
            for: part,
            latentHeight: height,
            latentWidth: width,
            arena: &arena
        )
        let pictureByteCount = 8 * height * 8 * width * 96 * 4
        #expect(arena.byteCount < 128 << 20 + pictureByteCount / 4)
        #expect(arena.buffers.allSatisfy { $0.byteCount > 0 })
    }

    /// 4.7 and 23.8 TFLOP to decode pictures of 1024 and 2048 pixels a side, 2.9 to encode one.
    @Test func countsOperations() {
        let config = AutoencoderFixture.releasedConfig
        let small = config.floatingPointOperations(latentHeight: 128, latentWidth: 128)
        let large = config.floatingPointOperations(latentHeight: 256, latentWidth: 256)
        #expect(abs(small / 4.7e12 - 1) < 0.02)
        #expect(abs(large / 23.8e12 - 1) < 0.02)
        let encoding = config.floatingPointOperations(
            .encoder,
            latentHeight: 128,
            latentWidth: 128
        )
        #expect(abs(encoding / 2.9e12 - 1) < 0.02)
    }

    // MARK: Course

    @Test func reportsProgress() throws {
        let operators = Operators(threads: 1)
        let autoencoder = try Autoencoder(
            AutoencoderFixture.files("head16"),
            operators: operators
        )
        var shares: [Double] = []
        _ = try Decoded(
            randomLatent(4, 4),
            autoencoder,
            operators,
            bandRows: 5,
            progress: { shares.append($0) }
        )
        #expect(zip(shares, shares.dropFirst()).allSatisfy(<))
        #expect(shares.count > 7 && shares.first ?? 0 > 0)
        #expect(abs((shares.last ?? 0) - 1) < 1e-9)
    }

    @Test(arguments: [1, 3, 6, 9])
    func stopsWhenAskedTo(after parts: Int) throws {
        let flag = Flag()
        let operators = Operators(threads: 1, isCancelled: { flag.isSet })
        let autoencoder = try Autoencoder(
            AutoencoderFixture.files("head16"),
            operators: operators
        )
        var reports = 0
        #expect(throws: GenerationError.cancelled) {
            try Decoded(
                randomLatent(4, 4),
                autoencoder,
                operators,
                bandRows: 5,
                progress: { _ in
                    reports += 1
                    if reports == parts { flag.set() }
                }
            )
        }
        #expect(reports == parts)
    }

    /// Cancelled operators leave anything behind, so that must not count as a fault.
    @Test func cancellingComesBeforeNumbersThatAreNotFinite() throws {
        let autoencoder = try Autoencoder(
            AutoencoderFixture.files("head16"),
            operators: Operators(threads: 1)
        )
        let latent = randomLatent(4, 4)
        latent.write(latent.elements.map { _ in .nan })
        let cancelled = Operators(threads: 1, isCancelled: { true })
        #expect(throws: GenerationError.cancelled) { try Decoded(latent, autoencoder, cancelled) }
    }

    @Test func namesWhereNumbersAreNotFinite() throws {
        let operators = Operators(threads: 1)
        let checkpoint = try AutoencoderFixture.checkpoint("head16")
        let autoencoder = try Autoencoder(
            AutoencoderFixture.files("head16"),
            operators: operators
        )
        let latent = randomLatent(4, 4)
        var elements = latent.elements
        elements[5] = .nan
        latent.write(elements)
        let middle = GenerationError.notFinite(stage: "autoencoder", place: "middle block")
        #expect(throws: middle) { try Decoded(latent, autoencoder, operators) }

        let folder = try TemporaryFolder()
        let path = folder.file("vae.safetensors")
        func failure(_ name: String) throws -> GenerationError? {
            try AutoencoderFixture.write(checkpoint, to: path, replacing: [name: .infinity])
            let broken = try Autoencoder(AutoencoderFiles(path: path), operators: operators)
            return #expect(throws: GenerationError.self) {
                try Decoded(randomLatent(4, 4), broken, operators, bandRows: 10)
            }
        }
        #expect(
            try failure("decoder.up_blocks.0.resnets.1.conv2.bias")
                == .notFinite(stage: "autoencoder", place: "up block 0")
        )
        #expect(
            try failure("decoder.up_blocks.2.resnets.1.conv2.bias")
                == .notFinite(stage: "autoencoder", place: "rows 0–9")
        )
    }
}

/// A wish to stop that threads share.
private final class Flag: Sendable {
    private let state = Atomic(false)

    var isSet: Bool { state.load(ordering: .relaxed) }

    func set() { state.store(true, ordering: .relaxed) }
}

/// The pictures of a tensor that has an axis for them only if there are several.
private struct Pictures {
    let tensor: Tensor

    init(_ tensor: Tensor, axes: Int) {
        self.tensor = tensor.shape.count > axes ? tensor : tensor.reshaped([1] + tensor.shape)
    }

    var count: Int { tensor.rows }

    subscript(_ index: Int) -> Tensor { tensor.row(index) }
}
