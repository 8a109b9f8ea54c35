import Tensors

/// What is crossed with each other.
public struct BenchmarkScope: Sendable {
    /// Arithmetics; empty for all that a group has.
    public var precisions: [Precision] = []
    /// Numbers of threads.
    public var threads: [Int] = [Engine.defaultThreads]
    /// Sizes of pictures in pixels, multiples of 16.
    public var sizes: [BenchmarkPicture] = [BenchmarkPicture(width: 1024, height: 1024)]
    /// Numbers of text tokens: for the transformer those beside the picture's, for the text encoder
    /// all that it encodes, more than 34.
    public var tokens: [Int] = [64]
    /// Rows of activations in products.
    public var rows: [Int] = [45, 1032, 4160]
    /// Matrices of products; those of a released transformer's block unless said otherwise.
    public var matrices: [BenchmarkMatrix] = BenchmarkMatrix.released
    /// How the matrices are stored.
    public var weights: [BenchmarkWeights] = [.bfloat16]
    /// Most bytes of memory that evaluations of the transformer and whole pictures may use; nil for
    /// what the machine can spare.
    public var memoryByteCount: Int?
    /// Ranks of random LoRAs on all layers of the transformer; 0 for none.
    ///
    /// Several LoRAs cost as much as one whose rank is the sum of theirs.
    public var loraRanks: [Int] = [0]
    /// Style references beside the text of block and dit; without rows for none.
    public var references = [BenchmarkReferences(count: 0, rows: 0)]
    /// Steps of whole pictures; nil for what the model's authors recommend.
    public var steps: Int?

    /// The usual values.
    public init() {}
}

/// Size of a picture in pixels.
public struct BenchmarkPicture: Sendable, Equatable {
    /// Pixels of a row.
    public let width: Int
    /// Rows.
    public let height: Int

    /// Names a size.
    public init(width: Int, height: Int) {
        self.width = width
        self.height = height
    }

    /// Tokens that the transformer sees of it.
    var tokens: Int { (width / 16) * (height / 16) }

    /// Such as "1024x768".
    var text: String { "\(width)x\(height)" }
}

/// Style references beside a prompt.
public struct BenchmarkReferences: Sendable, Equatable {
    /// How many.
    public let count: Int
    /// Rows of each.
    public let rows: Int
    /// Whether they lead away from themselves.
    public let isNegative: Bool

    /// Names a number of references.
    public init(count: Int, rows: Int, isNegative: Bool = false) {
        (self.count, self.rows, self.isNegative) = (count, rows, isNegative)
    }

    /// Rows of all.
    var tokens: Int { count * rows }
}

/// A matrix of a linear layer.
public struct BenchmarkMatrix: Sendable, Equatable {
    /// What it is for.
    public let name: String
    /// Length of an input row.
    public let inputs: Int
    /// Length of an output row.
    public let outputs: Int

    /// Names a matrix.
    public init(_ name: String, inputs: Int, outputs: Int) {
        self.name = name
        self.inputs = inputs
        self.outputs = outputs
    }

    /// Those of a released transformer's block.
    public static let released = [
        BenchmarkMatrix("query, gate, output", inputs: 6144, outputs: 6144),
        BenchmarkMatrix("key, value", inputs: 6144, outputs: 1536),
        BenchmarkMatrix("up, feed-forward gate", inputs: 6144, outputs: 16384),
        BenchmarkMatrix("down", inputs: 16384, outputs: 6144),
    ]

    /// Longest row that can be multiplied.
    public static var longestRow: Int { longestLinearRow }
}

/// How random weights are stored.
public enum BenchmarkWeights: String, Sendable, CaseIterable {
    /// Float32.
    case float32 = "f32"
    /// Half precision.
    case float16 = "f16"
    /// bfloat16, as the released files have most of theirs.
    case bfloat16 = "bf16"
    /// Float8 with four bits of exponent, without a scale.
    case float8 = "fp8"

    var elementType: ElementType {
        switch self {
        case .float32: .float32
        case .float16: .float16
        case .bfloat16: .bfloat16
        case .float8: .float8E4M3
        }
    }
}
