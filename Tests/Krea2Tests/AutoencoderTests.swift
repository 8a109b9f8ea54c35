import Checkpoints
import Compute
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// The autoencoder against what diffusers computes, and against itself.
struct AutoencoderTests {
    /// Largest difference from the reference, of values from -1 to 1; observed: see below.
    static let tolerance: Float = 1e-4

    static let models = [
        "head16": "head16/vae", "head48": "head48/vae/qwen_image_vae.safetensors",
        "head128": "head128/vae",
    ]

    static let cases = [
        "head16-turbo", "head16-guided", "head16-three-images", "head16-large", "head16-empty",
        "head16-long", "head16-line-feeds", "head16-scripts", "head16-special", "head48-turbo",
        "head48-guided", "head48-two-images", "head128-turbo", "head128-guided", "head128-scripts",
    ]

    private static func checkpoint(_ model: String) throws -> Checkpoint {
        let place = try #require(models[model])
        return try Checkpoint(path: Fixture.path("pipeline/models/\(place)"))
    }

    private static func config(_ model: String) throws -> AutoencoderConfig? {
        guard model != "head48" else { return nil }
        let name = "pipeline/models/\(model)/vae/config.json"
        return try AutoencoderConfig(json: Fixture.bytes(name), path: name)
    }

    // MARK: Parity

    @Test(arguments: cases)
    func agreesWithDiffusers(name: String) throws {
        let model = String(try #require(name.split(separator: "-").first))
        let operators = Operators(threads: 2)
        let autoencoder = try Autoencoder(
            Self.checkpoint(model),
            config: Self.config(model),
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
            #expect(inputError < 1e-5)
            let error = largestDifference(decoded.planes.elements, outputs[index].elements)
            #expect(error < Self.tolerance)
            let expected = rgb[index * byteCount..<(index + 1) * byteCount]
            let steps = zip(decoded.bytes, expected).map { abs(Int($0) - Int($1)) }
            let differing = steps.count { $0 > 0 }
            print("MEASURED", name, index, inputError, error, differing, steps.count)
            #expect(steps.count == byteCount && steps.allSatisfy { $0 <= 1 })
            #expect(Double(differing) < 0.005 * Double(byteCount))
        }
    }

    // MARK: Identities

    @Test(arguments: ["head16", "head48", "head128"])
    func bandsDoNotChangeTheResult(model: String) throws {
        let operators = Operators(threads: 2)
        let autoencoder = try Autoencoder(Self.checkpoint(model), operators: operators)
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
            let autoencoder = try Autoencoder(Self.checkpoint("head48"), operators: operators)
            return try Decoded(latent, autoencoder, operators).planes.elements
        }
        #expect(results[0] == results[1] && results[0] == results[2])
    }
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

/// Numbers about as large as latents are, the same in every run.
private func randomLatent(_ height: Int, _ width: Int) -> Tensor {
    var state: UInt64 = 7
    let count = AutoencoderConfig.releasedMean.count * height * width
    let elements = (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Float(state >> 40) / Float(1 << 22) - 2
    }
    return Tensor(elements, shape: [AutoencoderConfig.releasedMean.count, height, width])
}

/// What a decoder makes of a latent.
private struct Decoded {
    /// De-normalised latent.
    var input: [Float] = []
    /// `[3, height, width]`.
    let planes: Tensor
    /// `[height, width, 3]`.
    var bytes: [UInt8]

    init(
        _ latent: Tensor,
        _ autoencoder: Autoencoder,
        _ operators: Operators,
        bandRows: Int? = nil
    ) throws {
        let (height, width) = (latent.shape[1], latent.shape[2])
        func scratch(_ arena: inout Arena) -> AutoencoderScratch {
            AutoencoderScratch(
                autoencoder.config,
                latentHeight: height,
                latentWidth: width,
                bandRows: bandRows,
                arena: &arena
            )
        }
        var measuring = Arena.measuring()
        _ = scratch(&measuring)
        var arena = Arena(Storage(byteCount: measuring.byteCount))
        let buffers = scratch(&arena)

        let planes = Tensor(zeros: [3, 8 * height, 8 * width])
        var bytes = [UInt8](repeating: 0, count: planes.count)
        try autoencoder.decode(latent, buffers, operators: operators) { rows in
            rows.copy(toPlanes: planes)
            rows.copy(toBytes: &bytes)
        }
        self.planes = planes
        self.bytes = bytes
        input = buffers.latent.elements
    }
}
