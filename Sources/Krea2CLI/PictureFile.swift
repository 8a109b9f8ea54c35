import Images
import Krea2

/// A generated picture on its way to a file.
struct PictureFile {
    private let image: GeneratedImage
    private let record: GenerationRecord?

    /// Puts together what the file will say about its making.
    ///
    /// - Parameters:
    ///   - image: The picture.
    ///   - resolved: All effective values of the run.
    ///   - request: What was asked for.
    ///   - summary: The model's files.
    ///   - hasMetadata: Whether the file is to say anything.
    init(
        _ image: GeneratedImage,
        _ resolved: ResolvedRequest,
        request: GenerationRequest,
        summary: ModelSummary,
        hasMetadata: Bool
    ) {
        self.image = image
        guard hasMetadata else {
            record = nil
            return
        }
        record = GenerationRecord(
            engineVersion: Engine.version,
            checkpoint: resolved.variant == .turbo ? .turbo : .raw,
            digests: GenerationRecord.Digests(
                transformer: summary.digest(of: "transformer"),
                textEncoder: summary.digest(of: "text encoder"),
                autoencoder: summary.digest(of: "autoencoder"),
                tokenizer: summary.digest(of: "tokenizer")
            ),
            prompt: request.prompt,
            negativePrompt: resolved.guidance > 0 ? request.negativePrompt ?? "" : nil,
            seed: image.seed,
            width: image.width,
            height: image.height,
            steps: resolved.steps,
            guidance: resolved.guidance,
            shift: resolved.shift,
            precision: Precision.f32.rawValue,
            kernels: Engine.kernelLevel,
            imageIndex: Int(clamping: image.seed &- resolved.seed)
        )
    }

    /// Writes the picture; nothing half-written remains when that fails.
    ///
    /// - Parameters:
    ///   - path: A file, or `-` for standard output.
    ///   - overwrites: Whether a file that exists is replaced.
    ///   - console: Has standard output.
    /// - Throws: Exit code 73 when it cannot be written.
    func write(to path: String, overwrites: Bool, _ console: Console) throws(Failure) {
        let bytes: [UInt8]
        do {
            let pixels = try PixelImage(width: image.width, height: image.height, rgb: image.rgb)
            bytes = try PNG.encode(pixels, metadata: record)
            guard path == "-" else {
                try writeFile(bytes, to: path, overwriting: overwrites)
                return
            }
        } catch {
            throw Failure(error)
        }
        do {
            try console.writeOutput(bytes)
        } catch {
            throw Failure(.cannotWrite, "standard output: \(error.reason)")
        }
    }
}

extension ModelSummary {
    /// The digest of one part; `unknown` where the summary has none.
    fileprivate func digest(of name: String) -> String {
        parts.first { $0.name == name }?.digest ?? "unknown"
    }
}
