import Checkpoints
import Tensors
import Tokenization

/// What a pipeline found in its files.
public struct ModelSummary: Sendable {
    /// One set of weight files.
    public struct Part: Sendable {
        /// "transformer", "text encoder", "autoencoder" or "tokenizer".
        public let name: String
        /// File or folder.
        public let path: String
        /// Bytes of all tensors; 0 for the tokenizer.
        public let byteCount: Int
        /// Number of tensors; 0 for the tokenizer.
        public let tensorCount: Int
        /// Names of the element types, such as `BF16`, sorted.
        public let elementTypes: [String]
        /// Short name of the content; that of files above 64 MiB is taken from samples.
        public let digest: String
    }

    /// Which checkpoint it is.
    public let variant: Variant
    /// What told the variant, for the user.
    public let variantSource: String
    /// Side of the square picture of about as many pixels as the checkpoint is meant for.
    public let resolutionClass: Int
    /// Steps, where the request leaves them open.
    public let recommendedSteps: Int
    /// Guidance, where the request leaves it open.
    public let recommendedGuidance: Float
    /// All parts.
    public let parts: [Part]
}

extension ModelSummary {
    init(
        _ index: ModelIndex,
        _ choice: (variant: Variant, source: String),
        parts: [Part]
    ) {
        variant = choice.variant
        variantSource = choice.source
        resolutionClass = index.resolutionClass
        recommendedSteps = choice.variant.recommendedSteps
        recommendedGuidance = choice.variant.recommendedGuidance
        self.parts = parts
    }
}

extension ModelSummary.Part {
    init(_ name: String, _ checkpoint: Checkpoint) throws(CheckpointError) {
        self.name = name
        path = checkpoint.path
        byteCount = checkpoint.byteCount
        let records = checkpoint.names.compactMap { checkpoint.record($0) }
        tensorCount = records.count
        elementTypes = Set(records.map(\.elementType.rawValue)).sorted()
        digest = try checkpoint.digest()
    }

    init(_ tokenizer: Tokenizer) throws(CheckpointError) {
        name = "tokenizer"
        path = tokenizer.path
        byteCount = 0
        tensorCount = 0
        elementTypes = []
        let files =
            PathText.kind(path) == .file
            ? [path] : ["vocab.json", "merges.txt"].map { tokenizer.path + "/" + $0 }
        digest = try contentDigest(ofFiles: files)
    }
}

extension Variant {
    /// Steps the authors recommend.
    var recommendedSteps: Int { self == .turbo ? 8 : 52 }

    /// Guidance the authors recommend; 0 is none.
    var recommendedGuidance: Float { self == .turbo ? 0 : 3.5 }
}

/// What a run will take, predicted from headers and sizes alone.
public struct GenerationPlan: Sendable {
    /// One buffer of the arena.
    public struct Buffer: Sendable {
        /// Stage that uses it.
        public let stage: String
        /// What it holds.
        public let name: String
        /// Sizes, slowest axis first.
        public let shape: [Int]
        /// Bytes it takes; buffers that are never in use together share memory.
        public let byteCount: Int
    }

    /// What a stage computes and reads.
    public struct Stage: Sendable {
        /// "pictures", "initial image", "references", "text encoder", "transformer" or
        /// "autoencoder".
        public let name: String
        /// How often it runs: once, in each step of each picture, for each picture.
        public let repetitions: Int
        /// What it computes each time.
        public let work: ComputeWork
        /// Bytes of weights that it goes through each time.
        public let weightBytes: Int
        /// Bytes that it reads from disk the first time.
        public let firstReadBytes: Int
        /// Bytes that it reads from disk each further time.
        public let repeatedReadBytes: Int

        /// Bytes that it reads in all.
        public var diskBytes: Int { firstReadBytes + (repetitions - 1) * repeatedReadBytes }
    }

    /// The stages in order.
    public let stages: [Stage]
    /// All buffers, stage after stage.
    public let buffers: [Buffer]
    /// Bytes of the arena and of the kernels' packing buffers.
    public let arenaBytes: Int
    /// Bytes of mapped weights by stage.
    public let weightBytes: [(stage: String, byteCount: Int)]
    /// Bytes of weights in memory at a time, largest over the stages.
    public let residentWeightBytes: Int
    /// Bytes of the LoRAs that are applied, and of buffers for them.
    public let loraBytes: Int
    /// Bytes that the program, small tensors and the taps of references take, about.
    public let programBytes: Int
    /// Bytes resident at most.
    public var peakBytes: Int { arenaBytes + residentWeightBytes + loraBytes + programBytes }
    /// Bytes read from disk: every weight that is used once, and in each step those of the
    /// transformer that do not stay in memory.
    public var diskBytes: Int { stages.reduce(0) { $0 + $1.diskBytes } }
    /// Multiplications and additions of all stages.
    public var floatingPointOperations: Double {
        stages.reduce(0) { $0 + Double($1.repetitions) * $1.work.total }
    }
}

/// How far a run is.
public struct GenerationProgress: Sendable {
    /// The stages in order.
    public enum Stage: String, Sendable {
        /// Pictures to conditioning, before a run: steps are pictures, and no other stage counts.
        case references
        /// Initial image to latent, where there is one.
        case initialImage
        /// Reference pictures to latents, where they stand in the sequence.
        case referenceLatents
        /// Prompt to conditioning.
        case textEncoder
        /// Noise to latent.
        case transformer
        /// Latent to pixels.
        case autoencoder
    }

    /// Stage that is running.
    public let stage: Stage
    /// Finished part of the stage, for this picture, 0 to 1.
    public let fraction: Double
    /// Finished steps of this picture.
    public let step: Int
    /// Steps of a picture that are run.
    public let steps: Int
    /// Picture, from 0.
    public let image: Int
    /// Number of pictures.
    public let imageCount: Int
    /// Finished part of the whole run by predicted work, 0 to 1.
    public let overall: Double
}

/// A finished picture.
public struct GeneratedImage: Sendable {
    /// Pixels in a row.
    public let width: Int
    /// Rows.
    public let height: Int
    /// `[height, width, 3]`, sRGB.
    public let rgb: [UInt8]
    /// Seed of this picture.
    public let seed: UInt64
}
