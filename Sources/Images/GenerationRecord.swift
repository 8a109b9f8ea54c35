internal import FoundationEssentials

/// Every value needed to make a picture again.
///
/// It goes into the text `krea2` of a PNG file, as JSON with sorted keys that are the names of the
/// properties here. It holds no paths, and of files' names those of LoRAs only, without endings.
public struct GenerationRecord: Sendable, Equatable, Encodable {
    /// Keyword of the PNG text that holds the record.
    public static let keyword = "krea2"

    /// The format written, and the latest one that is read.
    public static let currentFormatVersion = 1

    /// What the transformer was trained for.
    public enum CheckpointKind: String, Sendable, CaseIterable, Encodable {
        /// Distilled: few steps, no guidance.
        case turbo
        /// Not distilled: many steps, with guidance.
        case raw
    }

    /// Digests of the files that hold the model, such as `sha256:` and hexadecimal digits.
    public struct Digests: Sendable, Equatable, Encodable {
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

    /// A LoRA that was applied.
    public struct LoRA: Sendable, Equatable, Encodable {
        /// Name of the file without its ending.
        public let name: String
        /// Digest of the file.
        public let digest: String
        /// Factor of its change.
        public let scale: Float

        /// Takes the values.
        ///
        /// - Parameters:
        ///   - name: Name of the file without its ending.
        ///   - digest: Digest of the file.
        ///   - scale: Factor of its change.
        public init(name: String, digest: String, scale: Float) {
            (self.name, self.digest, self.scale) = (name, digest, scale)
        }
    }

    /// A slider that was not at 0.
    public struct Slider: Sendable, Equatable, Encodable {
        /// What it is called.
        public let name: String
        /// −100 … 100.
        public let value: Int
        /// How values become scales, such as `signed`.
        public let kind: String
        /// Digest of the LoRA file, or of texts in its place.
        public let digest: String
        /// Factor of the LoRA's change, or strength of the texts.
        public let scale: Float
        /// Lowest and highest noise level of the steps that it was applied in.
        public let window: [Double]
        /// Whether the value was drawn.
        public let isRandom: Bool
        /// True where texts took the place of a LoRA; nil otherwise.
        public let isApproximate: Bool?

        /// Takes the values.
        ///
        /// - Parameters:
        ///   - name: What it is called.
        ///   - value: −100 … 100.
        ///   - kind: How values become scales.
        ///   - digest: Digest of the LoRA file, or of texts in its place.
        ///   - scale: Factor of the LoRA's change, or strength of the texts.
        ///   - window: Lowest and highest noise level of the steps that it was applied in.
        ///   - isRandom: Whether the value was drawn.
        ///   - isApproximate: Whether texts took the place of a LoRA.
        public init(
            name: String,
            value: Int,
            kind: String,
            digest: String,
            scale: Float,
            window: [Double],
            isRandom: Bool,
            isApproximate: Bool = false
        ) {
            (self.name, self.value, self.kind, self.digest) = (name, value, kind, digest)
            (self.scale, self.window, self.isRandom) = (scale, window, isRandom)
            self.isApproximate = isApproximate ? true : nil
        }
    }

    /// What the picture began with.
    public struct InitialImage: Sendable, Equatable, Encodable {
        /// Digest of the picture's file.
        public let digest: String
        /// Share of the schedule that was run.
        public let strength: Double
        /// Digest of the mask's file; nil without.
        public let maskDigest: String?

        /// Takes the values.
        ///
        /// - Parameters:
        ///   - digest: Digest of the picture's file.
        ///   - strength: Share of the schedule that was run, 0 … 1.
        ///   - maskDigest: Digest of the mask's file; nil without.
        public init(digest: String, strength: Double, maskDigest: String? = nil) {
            (self.digest, self.strength, self.maskDigest) = (digest, strength, maskDigest)
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
    /// LoRAs that were applied, but for those of sliders; nil for none.
    public let loras: [LoRA]?
    /// Sliders that were not at 0; nil for none.
    public let sliders: [Slider]?
    /// Pictures whose style was beside the prompt; nil for none.
    public let references: [Reference]?
    /// Moodboards beside the prompt; nil for none.
    public let moodboards: [Moodboard]?
    /// How references, moodboards and texts in place of LoRAs acted, such as `attention`; nil where
    /// there were none.
    public let referenceMode: String?
    /// How references stood in the transformer's sequence, such as `index_t0`; nil where none did.
    public let referenceWiring: String?
    /// How often each of their tokens counted for the picture; nil for once.
    public let referenceBoost: Float?
    /// What the picture began with; nil for pure noise.
    public let initialImage: InitialImage?

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
    ///   - loras: LoRAs that were applied, but for those of sliders.
    ///   - sliders: Sliders that were not at 0.
    ///   - references: Pictures whose style was beside the prompt.
    ///   - moodboards: Moodboards beside the prompt.
    ///   - referenceMode: How references, moodboards and texts in place of LoRAs acted; nil where
    ///     there were none.
    ///   - referenceWiring: How references stood in the transformer's sequence; nil for none.
    ///   - referenceBoost: How often each of their tokens counted; nil for once.
    ///   - initialImage: What the picture began with; nil for pure noise.
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
        imageIndex: Int,
        loras: [LoRA] = [],
        sliders: [Slider] = [],
        references: [Reference] = [],
        moodboards: [Moodboard] = [],
        referenceMode: String? = nil,
        referenceWiring: String? = nil,
        referenceBoost: Float? = nil,
        initialImage: InitialImage? = nil
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
        self.loras = loras.isEmpty ? nil : loras
        self.sliders = sliders.isEmpty ? nil : sliders
        self.references = references.isEmpty ? nil : references
        self.moodboards = moodboards.isEmpty ? nil : moodboards
        self.referenceMode = referenceMode
        self.referenceWiring = referenceWiring
        self.referenceBoost = referenceBoost
        self.initialImage = initialImage
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
        let fields = try RecordFields(json: json)
        // Read first: a newer format may have changed all else.
        let format = try fields.integer("formatVersion")
        guard (1...Self.currentFormatVersion).contains(format) else {
            let known = "1 to \(Self.currentFormatVersion)"
            throw .invalidRecord(reason: "format \(format), expected \(known)")
        }
        guard let checkpoint = CheckpointKind(rawValue: try fields.string("checkpoint")) else {
            throw fields.unusable("checkpoint")
        }
        guard let seed = UInt64(exactly: try fields.integer("seed")) else {
            throw fields.unusable("seed")
        }
        let digests = try fields.object("digests")
        self.init(
            engineVersion: try fields.string("engineVersion"),
            checkpoint: checkpoint,
            digests: Digests(
                transformer: try digests.string("transformer"),
                textEncoder: try digests.string("textEncoder"),
                autoencoder: try digests.string("autoencoder"),
                tokenizer: try digests.string("tokenizer")
            ),
            prompt: try fields.string("prompt"),
            negativePrompt: try fields.optionalString("negativePrompt"),
            seed: seed,
            width: try fields.integer("width"),
            height: try fields.integer("height"),
            steps: try fields.integer("steps"),
            guidance: Float(try fields.number("guidance")),
            shift: try fields.number("shift"),
            noise: try fields.string("noise"),
            precision: try fields.string("precision"),
            kernels: try fields.string("kernels"),
            imageIndex: try fields.integer("imageIndex"),
            loras: try LoRA.read(fields),
            sliders: try Slider.read(fields),
            references: try Reference.read(fields),
            moodboards: try Moodboard.read(fields),
            referenceMode: try fields.optionalString("referenceMode"),
            referenceWiring: try fields.optionalString("referenceWiring"),
            referenceBoost: try fields.optionalNumber("referenceBoost").map { Float($0) },
            initialImage: try InitialImage.read(fields)
        )
        let statedScale = Float(try fields.number("cfgScale"))
        if let problem = problem(statedScale: statedScale) {
            throw .invalidRecord(reason: problem)
        }
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
    private func problem(statedScale: Float) -> String? {
        if !PixelImage.isPossible(width: width, height: height) {
            return "\(width) x \(height) pixels"
        }
        if steps < 1 { return "\(steps) steps" }
        if imageIndex < 0 { return "image index \(imageIndex)" }
        let scales =
            (loras ?? []).map(\.scale) + (sliders ?? []).map(\.scale)
            + (moodboards ?? []).map(\.strength)
        if !(guidance.isFinite && shift.isFinite && (referenceBoost ?? 1).isFinite
            && scales.allSatisfy(\.isFinite)
            && (references ?? []).allSatisfy(\.isFinite))
        {
            return "a number is not finite"
        }
        if let strength = initialImage?.strength, !(0...1).contains(strength) {
            return "strength \(strength)"
        }
        if statedScale != cfgScale {
            return "cfgScale \(statedScale), expected guidance + 1 = \(cfgScale)"
        }
        return nil
    }
}
