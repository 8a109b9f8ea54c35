import Checkpoints
import Compute
import Tensors
import Testing

@testable import Krea2

/// The autoencoders among the fixtures, and changed copies of them.
enum AutoencoderFixture {
    static let paths = [
        "head16": "head16/vae", "head48": "head48/vae/qwen_image_vae.safetensors",
        "head128": "head128/vae",
    ]

    static func path(_ model: String) throws -> String {
        Fixture.path("pipeline/models/\(try #require(paths[model]))")
    }

    static func files(_ model: String) throws -> AutoencoderFiles {
        try AutoencoderFiles(path: path(model))
    }

    /// Of the embedded checkpoint.
    static let embeddedPath = Fixture.path("../../weights/mini/vae")

    static func checkpoint(_ model: String) throws -> Checkpoint {
        try Checkpoint(path: path(model))
    }

    /// Sizes of the released Qwen-Image autoencoder.
    static let releasedConfig = AutoencoderConfig(
        latentChannels: 16,
        channels: [96, 192, 384, 384],
        residualBlocks: 2,
        latentMean: AutoencoderConfig.releasedMean,
        latentDeviation: AutoencoderConfig.releasedDeviation
    )

    /// Writes a copy of a checkpoint.
    ///
    /// - Parameters:
    ///   - checkpoint: What to copy.
    ///   - path: Where the copy goes.
    ///   - replacing: Tensors to fill with a number, by their old names.
    ///   - reshaping: Shapes of tensors to fill with zeros, by their old names.
    ///   - retyping: Tensors to fill with zeros of another type, by their old names.
    ///   - rename: A tensor's new name; nil leaves it out.
    /// - Throws: Where the file cannot be written.
    static func write(
        _ checkpoint: Checkpoint,
        to path: String,
        replacing: [String: Float] = [:],
        reshaping: [String: [Int]] = [:],
        retyping: [String: ElementType] = [:],
        rename: (String) -> String? = { $0 }
    ) throws {
        var writer = SafetensorsWriter()
        for name in checkpoint.names {
            guard let newName = rename(name) else { continue }
            let tensor = try #require(checkpoint.tensor(name))
            if let value = replacing[name] {
                let elements = Array(repeating: value, count: tensor.count)
                writer.add(newName, Tensor(elements, shape: tensor.shape))
            } else if let shape = reshaping[name] {
                writer.add(newName, Tensor(zeros: shape))
            } else if let type = retyping[name] {
                let storage = Storage(byteCount: tensor.count * type.byteCount)
                let zeros = Tensor(storage, byteOffset: 0, shape: tensor.shape, elementType: type)
                writer.add(newName, zeros)
            } else {
                writer.add(newName, tensor)
            }
        }
        try writer.write(to: path, overwriting: true)
    }
}

/// Numbers about as large as latents are, the same in every run.
func randomLatent(_ height: Int, _ width: Int) -> Tensor {
    var state: UInt64 = 7
    let count = AutoencoderConfig.releasedMean.count * height * width
    let elements = (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Float(state >> 40) / Float(1 << 22) - 2
    }
    return Tensor(elements, shape: [AutoencoderConfig.releasedMean.count, height, width])
}

/// What an encoder makes of a picture.
struct Encoded {
    /// `[latentChannels, h, w]`.
    let latent: Tensor

    /// Encodes `[8h, 8w, 3]`.
    init(
        _ rgb: [UInt8],
        height: Int,
        width: Int,
        _ encoder: LatentEncoder,
        _ operators: Operators,
        bandRows: Int? = nil,
        progress: (Double) -> Void = { _ in }
    ) throws {
        func scratch(_ arena: inout Arena) -> AutoencoderScratch {
            AutoencoderScratch(
                encoder.config,
                for: .encoder,
                latentHeight: height / AutoencoderConfig.scale,
                latentWidth: width / AutoencoderConfig.scale,
                bandRows: bandRows,
                arena: &arena
            )
        }
        var measuring = Arena.measuring()
        _ = scratch(&measuring)
        var arena = Arena(Storage(byteCount: measuring.byteCount))
        let buffers = scratch(&arena)
        try encoder.encode(rgb, buffers, operators: operators, progress: progress)
        latent = buffers.latent
    }
}

/// Noise, the same in every run: `[height, width, 3]`.
func randomPicture(_ height: Int, _ width: Int) -> [UInt8] {
    var state: UInt64 = 11
    return (0..<3 * height * width).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(state >> 56)
    }
}

/// What a decoder makes of a latent.
struct Decoded {
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
        bandRows: Int? = nil,
        progress: (Double) -> Void = { _ in }
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
        try autoencoder.decode(
            latent,
            buffers,
            operators: operators,
            progress: progress
        ) { rows in
            rows.copy(toPlanes: planes)
            rows.copy(toBytes: &bytes)
        }
        self.planes = planes
        self.bytes = bytes
        input = buffers.latent.elements
    }
}
