import Images
import Krea2

/// A picture's place, and what its file will say about its making.
struct PictureFile {
    /// A file, or `-` for standard output.
    let path: String
    /// Nil to say nothing.
    let record: GenerationRecord?

    /// Fails when what a file is to say does not fit into one, before a picture is made for it.
    ///
    /// - Throws: Exit code 64.
    static func check(_ record: GenerationRecord?) throws(Failure) {
        do {
            let pixel = try PixelImage(width: 1, height: 1, rgb: [0, 0, 0])
            _ = try PNG.encode(pixel, metadata: record)
        } catch {
            throw Generate.wrongUsage("\(error.description); --no-metadata leaves it out")
        }
    }

    /// Writes the picture; nothing half-written remains when that fails.
    ///
    /// - Parameters:
    ///   - image: The picture.
    ///   - overwrites: Whether a file that exists is replaced.
    ///   - console: Has standard output.
    /// - Throws: Exit code 73 when it cannot be written.
    func write(
        _ image: GeneratedImage,
        overwrites: Bool,
        _ console: Console
    ) throws(Failure) {
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

extension GenerationRecord {
    /// Puts together how one picture of a run is made.
    ///
    /// - Parameters:
    ///   - resolved: All effective values of the run.
    ///   - request: What was asked for.
    ///   - summary: The model's files.
    ///   - selection: LoRAs and sliders of this picture.
    ///   - references: References and moodboards.
    ///   - initialImage: What the run begins with; nil for pure noise.
    ///   - imageIndex: Which picture, from 0.
    init(
        _ resolved: ResolvedRequest,
        _ request: GenerationRequest,
        _ summary: ModelSummary,
        _ selection: LoRASelection,
        _ references: ReferenceSelection,
        _ initialImage: InitialImage?,
        imageIndex: Int
    ) {
        self.init(
            engineVersion: Engine.version,
            checkpoint: resolved.variant == .turbo ? .turbo : .raw,
            digests: Digests(
                transformer: summary.digest(of: "transformer"),
                textEncoder: summary.digest(of: "text encoder"),
                autoencoder: summary.digest(of: "autoencoder"),
                tokenizer: summary.digest(of: "tokenizer")
            ),
            prompt: request.prompt,
            negativePrompt: resolved.guidance > 0 ? request.negativePrompt ?? "" : nil,
            seed: resolved.seed + UInt64(imageIndex),
            width: resolved.width,
            height: resolved.height,
            steps: resolved.steps,
            guidance: resolved.guidance,
            shift: resolved.shift,
            precision: resolved.precision.rawValue,
            kernels: Engine.kernelLevel,
            imageIndex: imageIndex,
            loras: selection.loras,
            sliders: selection.sliders,
            references: references.references,
            moodboards: references.moodboards,
            referenceMode: references.groups.isEmpty && selection.texts.isEmpty
                ? nil : request.groupMode.rawValue,
            referenceWiring: request.wired?.wiring.rawValue,
            referenceBoost: request.wired.flatMap { $0.boost == 1 ? nil : $0.boost },
            initialImage: initialImage
        )
    }
}

extension ModelSummary {
    /// The digest of one part; `unknown` where the summary has none.
    fileprivate func digest(of name: String) -> String {
        parts.first { $0.name == name }?.digest ?? "unknown"
    }
}
