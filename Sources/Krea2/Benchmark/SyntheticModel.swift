import Checkpoints
import Compute
import FoundationEssentials
import Tensors
import Tokenization

/// A model of random weights in the official layout, written for a benchmark.
public struct SyntheticModel: Sendable {
    /// Parts of a model.
    public struct Parts: OptionSet, Sendable {
        /// Bits of the parts.
        public let rawValue: Int

        /// Takes bits.
        public init(rawValue: Int) { self.rawValue = rawValue }

        /// The transformer.
        public static let transformer = Parts(rawValue: 1)
        /// The text encoder.
        public static let textEncoder = Parts(rawValue: 2)
        /// The decoder of the autoencoder.
        public static let autoencoder = Parts(rawValue: 4)
        /// Settings and a tokenizer, which whole pictures need.
        public static let settings = Parts(rawValue: 8)

        /// The parts that a group needs; those without weights need none.
        public init(_ group: BenchmarkGroup) {
            switch group {
            case .gemm, .attention: self = []
            case .block, .dit, .load: self = .transformer
            case .te: self = [.textEncoder, .settings]
            case .vae: self = .autoencoder
            case .e2e: self = [.transformer, .textEncoder, .autoencoder, .settings]
            }
        }
    }

    /// Folder of the model.
    public let folder: String
    private let sizes: SyntheticSizes
    private let parts: Parts
    private let weights: BenchmarkWeights

    /// Names a model; nothing is written yet.
    ///
    /// - Parameters:
    ///   - folder: Where it goes.
    ///   - sizes: Its sizes.
    ///   - parts: What is written of it.
    ///   - weights: How the large matrices of transformer and text encoder are stored; the rest is
    ///     float32, and the autoencoder bfloat16.
    public init(folder: String, sizes: SyntheticSizes, parts: Parts, weights: BenchmarkWeights) {
        self.folder = folder
        self.sizes = sizes
        self.parts = parts
        self.weights = weights
    }

    /// The weight files with what they hold.
    private var files: [(path: String, tensors: [SyntheticTensor], matrices: ElementType)] {
        let all: [(Parts, String, [SyntheticTensor], ElementType)] = [
            (.transformer, "turbo.safetensors", sizes.transformer(), weights.elementType),
            (
                .textEncoder, "text_encoder/model.safetensors", sizes.textEncoder(),
                weights.elementType
            ),
            (
                .autoencoder, "vae/diffusion_pytorch_model.safetensors", sizes.autoencoder(),
                .bfloat16
            ),
        ]
        return all.filter { parts.contains($0.0) }.map { ("\(folder)/\($0.1)", $0.2, $0.3) }
    }

    /// The model, to be opened when it is written.
    public var model: BenchmarkModel { BenchmarkModel(folder, homes: [folder]) }

    /// Bytes of all weights.
    public var byteCount: Int {
        files.reduce(0) { sum, file in
            sum + entries(file.tensors, file.matrices).reduce(0) { $0 + $1.byteCount }
        }
    }

    private func entries(
        _ tensors: [SyntheticTensor],
        _ matrices: ElementType
    ) -> [SafetensorsLayout.Entry] {
        tensors.map {
            SafetensorsLayout.Entry($0.name, $0.isNarrow ? matrices : .float32, $0.shape)
        }
    }

    /// Removes everything; what was not written is passed over.
    ///
    /// - Throws: `.model(.cannotWrite)` when files stay behind.
    public func remove() throws(GenerationError) {
        guard PathText.kind(folder) != nil else { return }
        do {
            try FileManager.default.removeItem(atPath: folder)
        } catch {
            throw .model(.cannotWrite(path: folder, reason: "it cannot be removed"))
        }
    }
}

// MARK: Writing

extension SyntheticModel {
    /// Writes the model into a new folder.
    ///
    /// - Parameter isCancelled: Asked before each tensor.
    /// - Throws: `.cancelled`, or `.model(.cannotWrite)`; call `remove()` in any case.
    public func write(isCancelled: () -> Bool) throws(GenerationError) {
        let values = RandomValues()
        var isComplete = true
        do throws(CheckpointError) {
            try makeFolder(folder)
            for file in files where isComplete {
                try makeFolder(PathText.parent(file.path))
                isComplete = try write(file.tensors, file.matrices, to: file.path, values) {
                    isCancelled()
                }
            }
            if isComplete && parts.contains(.settings) { try writeSettings() }
        } catch {
            throw .model(error)
        }
        if !isComplete { throw .cancelled }
    }

    /// Writes a file; false when asked to stop.
    private func write(
        _ tensors: [SyntheticTensor],
        _ matrices: ElementType,
        to path: String,
        _ values: RandomValues,
        isCancelled: () -> Bool
    ) throws(CheckpointError) -> Bool {
        // Wide elements first, so that all are aligned.
        let entries = zip(tensors, self.entries(tensors, matrices)).sorted {
            $0.1.elementType.byteCount > $1.1.elementType.byteCount
        }
        let file = try ResumableFile(
            path: path,
            layout: SafetensorsLayout(entries.map(\.1), metadata: [:]),
            pieces: entries.count,
            identity: "random",
            overwriting: true
        )
        for (tensor, entry) in entries {
            if isCancelled() { return false }
            let circle = values.circle(
                entry.elementType,
                mean: tensor.mean,
                deviation: tensor.deviation
            )
            // Another start for each, so that they differ.
            var start = tensor.name.utf8.reduce(0) { ($0 * 31 + Int($1)) % circle.count }
            var written = 0
            let count = entry.shape.reduce(1, *)
            while written < count {
                let piece = circle.rows(start..<min(circle.count, start + count - written))
                let offset = written * entry.elementType.byteCount
                try file.write(piece, to: entry.name, at: offset)
                written += piece.count
                start = 0
            }
            try file.finishPiece()
        }
        try file.finish()
        return true
    }

    /// Writes the tokenizer and the layers that are tapped.
    private func writeSettings() throws(CheckpointError) {
        let taps = sizes.taps.map(String.init).joined(separator: ", ")
        let index = #"{"is_distilled": true, "text_encoder_select_layers": [\#(taps)]}"# + "\n"
        try TextFile(path: "\(folder)/model_index.json", text: index).write(overwriting: true)
        let tokenizer: [UInt8]
        do {
            tokenizer = try PlainTokenizer.json()
        } catch {
            throw .cannotWrite(path: folder, reason: "the tokenizer has no JSON form")
        }
        try makeFolder("\(folder)/tokenizer")
        try TextFile(
            path: "\(folder)/tokenizer/tokenizer.json",
            text: String(decoding: tokenizer, as: UTF8.self)
        ).write(overwriting: true)
    }
}
