internal import FoundationEssentials

/// Every value needed to make a picture again.
///
/// It goes into the text `krea2` of a PNG file, as JSON with sorted keys that are the names of the
/// properties here. It holds no paths and no names of files.
public struct GenerationRecord: Sendable, Equatable, Codable {
    /// Keyword of the PNG text that holds the record.
    public static let keyword = "krea2"

    /// The format written, and the latest one that is read.
    public static let currentFormatVersion = 1

    /// What the transformer was trained for.
    public enum CheckpointKind: String, Sendable, CaseIterable, Codable {
        /// Distilled: few steps, no guidance.
        case turbo
        /// Not distilled: many steps, with guidance.
        case raw
    }

    /// Digests of the files that hold the model, such as `sha256:` and hexadecimal digits.
    public struct Digests: Sendable, Equatable, Codable {
        /// Of the diffusion transformer.
        public let transformer: String
        /// Of the text encoder.
        public let textEncoder: String
        /// Of the autoencoder.
        public let autoencoder: String
        /// Of the tokenizer.
        public let tokenizer: String

        /// Takes one digest for each part.
        ///
        /// - Parameters:
        ///   - transformer: Of the diffusion transformer.
        ///   - textEncoder: Of the text encoder.
        ///   - autoencoder: Of the autoencoder.
        ///   - tokenizer: Of the tokenizer.
        public init(
            transformer: String,
            textEncoder: String,
            autoencoder: String,
            tokenizer: String
        ) {
            self.transformer = transformer
            self.textEncoder = textEncoder
            self.autoencoder = autoencoder
            self.tokenizer = tokenizer
        }
    }

    /// The format of the record.
    public let formatVersion: Int
    /// Version of the engine, such as `0.1.0`.
    public let engineVersion: String
    /// What the transformer was trained for.
    public let checkpoint: CheckpointKind
    /// Which model files were used.
    public let digests: Digests
    /// What the picture shows.
    public let prompt: String
    /// What guidance leads away from; nil where guidance was off.
    public let negativePrompt: String?
    /// Seed of this very picture, 0 … 2⁶³ − 1.
    public let seed: UInt64
    /// Pixels in a row.
    public let width: Int
    /// Rows.
    public let height: Int
    /// Evaluations of the schedule.
    public let steps: Int
    /// G in `cond + G (cond − uncond)`; off at 0.
    public let guidance: Float
    /// The same in the other convention, G + 1; off at 1.
    public let cfgScale: Float
    /// Bend of the schedule (mu).
    public let shift: Double
    /// How the initial noise was drawn, such as `torch-cpu-float32`.
    public let noise: String
    /// Arithmetic of the transformer's linear layers, such as `f32`.
    public let precision: String
    /// Instruction set of the kernels, such as `avx512`.
    public let kernels: String
    /// Place of the picture among those of its request, from 0.
    public let imageIndex: Int

    /// Takes all values; `formatVersion` and `cfgScale` follow.
    ///
    /// - Parameters:
    ///   - engineVersion: Version of the engine.
    ///   - checkpoint: What the transformer was trained for.
    ///   - digests: Which model files were used.
    ///   - prompt: What the picture shows.
    ///   - negativePrompt: What guidance leads away from; nil where it is off.
    ///   - seed: Seed of this very picture, 0 … 2⁶³ − 1.
    ///   - width: Pixels in a row.
    ///   - height: Rows.
    ///   - steps: Evaluations of the schedule.
    ///   - guidance: G, off at 0.
    ///   - shift: Bend of the schedule (mu).
    ///   - noise: How the initial noise was drawn.
    ///   - precision: Arithmetic of the transformer's linear layers.
    ///   - kernels: Instruction set of the kernels.
    ///   - imageIndex: Place of the picture among those of its request, from 0.
    public init(
        engineVersion: String,
        checkpoint: CheckpointKind,
        digests: Digests,
        prompt: String,
        negativePrompt: String?,
        seed: UInt64,
        width: Int,
        height: Int,
        steps: Int,
        guidance: Float,
        shift: Double,
        noise: String = "torch-cpu-float32",
        precision: String,
        kernels: String,
        imageIndex: Int
    ) {
        formatVersion = Self.currentFormatVersion
        self.engineVersion = engineVersion
        self.checkpoint = checkpoint
        self.digests = digests
        self.prompt = prompt
        self.negativePrompt = negativePrompt
        self.seed = seed
        self.width = width
        self.height = height
        self.steps = steps
        self.guidance = guidance
        cfgScale = guidance + 1
        self.shift = shift
        self.noise = noise
        self.precision = precision
        self.kernels = kernels
        self.imageIndex = imageIndex
    }
}

// MARK: JSON

extension GenerationRecord {
    /// Reads a record; keys it does not know are passed over.
    ///
    /// - Parameter json: The text `krea2` of a PNG file.
    /// - Throws: `ImageError.invalidRecord` naming what is missing or wrong, or a format that is
    ///   newer than `currentFormatVersion`.
    public init(json: String) throws(ImageError) {
        /// What every format has, read first: a newer one may have changed all else.
        struct Format: Decodable {
            let formatVersion: Int
        }
        do {
            let data = Data(json.utf8)
            let format = try JSONDecoder().decode(Format.self, from: data).formatVersion
            guard (1...Self.currentFormatVersion).contains(format) else {
                let known = "1 to \(Self.currentFormatVersion)"
                throw ImageError.invalidRecord(reason: "format \(format), expected \(known)")
            }
            self = try JSONDecoder().decode(Self.self, from: data)
        } catch let error as ImageError {
            throw error
        } catch let error as DecodingError {
            throw .invalidRecord(reason: Self.reason(error))
        } catch {
            throw .invalidRecord(reason: "\(error)")
        }
        if let problem { throw .invalidRecord(reason: problem) }
    }

    /// The record as one line of JSON with sorted keys; equal records give equal text.
    ///
    /// - Throws: `ImageError.unwritableRecord` where a number is infinite or not a number.
    public func json() throws(ImageError) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return String(decoding: try encoder.encode(self), as: UTF8.self)
        } catch EncodingError.invalidValue(let value, _) {
            throw .unwritableRecord(reason: "it contains the number \(value)")
        } catch {
            throw .unwritableRecord(reason: "\(error)")
        }
    }

    /// What is impossible about a record that was read, nil for a sound one.
    private var problem: String? {
        if seed > UInt64(Int64.max) { return "seed \(seed), expected at most \(Int64.max)" }
        if !PixelImage.isPossible(width: width, height: height) {
            return "\(width) x \(height) pixels"
        }
        if steps < 1 { return "\(steps) steps" }
        if imageIndex < 0 { return "image index \(imageIndex)" }
        if !(guidance.isFinite && shift.isFinite) { return "a number is not finite" }
        if cfgScale != guidance + 1 {
            return "cfgScale \(cfgScale), expected guidance + 1 = \(guidance + 1)"
        }
        return nil
    }

    /// The reason of a decoding error in a few words.
    private static func reason(_ error: DecodingError) -> String {
        func name(_ path: [any CodingKey]) -> String {
            path.map(\.stringValue).joined(separator: ".")
        }
        switch error {
        case .keyNotFound(let key, let context):
            return "\(name(context.codingPath + [key])) is missing"
        case .valueNotFound(_, let context):
            return "\(name(context.codingPath)) is null"
        case .typeMismatch(_, let context) where context.codingPath.isEmpty:
            return "it is not a JSON object"
        case .dataCorrupted(let context) where context.codingPath.isEmpty:
            // The decoder does not tell these two apart.
            return "it is not valid JSON or holds a number out of range"
        case .typeMismatch(_, let context), .dataCorrupted(let context):
            return "\(name(context.codingPath)) has an unusable value"
        @unknown default:
            return "it cannot be decoded"
        }
    }
}
