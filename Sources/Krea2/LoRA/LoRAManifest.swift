import Checkpoints

/// What a LoRA was trained for, as a file beside it says: `NAME.lora.json` for `NAME.safetensors`.
///
/// - `format`: `krea2-lora`; `version`: 1
/// - `sha256`: of the LoRA file
/// - `wiring`: `none`, `index_t0` or `frame_t`
/// - `ref_boost`: with `frame_t`, how often each token of a reference counts; 1 unless given
/// - `isolate`: whether it was trained with references that see nothing but references, which
///   is not there
public struct LoRAManifest: Sendable, Equatable {
    /// How references stand in the transformer's sequence; nil where the LoRA does not know any.
    public let wiring: ReferenceWiring?
    /// How often each token of a reference counts.
    public let boost: Float
    /// Path of the manifest.
    public let path: String
    private let digest: String

    private static let suffix = ".lora.json"

    /// Reads the manifest beside a LoRA; nil where there is none.
    ///
    /// - Parameter path: Path of the LoRA.
    /// - Throws: `.model` for a damaged manifest, or a LoRA that the engine cannot serve.
    public init?(beside path: String) throws(GenerationError) {
        let ending = ".safetensors"
        let stem = path.hasSuffix(ending) ? String(path.dropLast(ending.count)) : path
        do throws(CheckpointError) {
            guard let settings = try ConfigurationFile(path: stem + Self.suffix) else { return nil }
            try self.init(settings)
        } catch {
            throw .model(error)
        }
    }

    private init(_ settings: ConfigurationFile) throws(CheckpointError) {
        guard try settings.string("format") == "krea2-lora" else {
            throw settings.mismatch("format", "\"krea2-lora\"")
        }
        guard try settings.integer("version") == 1 else { throw settings.mismatch("version", "1") }
        guard let digest = try settings.string("sha256"), digest.count == 64 else {
            throw settings.mismatch("sha256", "the 64 digits of the LoRA file's SHA-256")
        }
        let word = try settings.string("wiring")
        guard word == "none" || word.flatMap(ReferenceWiring.init) != nil else {
            throw settings.mismatch("wiring", "\"none\", \"index_t0\" or \"frame_t\"")
        }
        guard try settings.bool("isolate") != true else {
            throw settings.mismatch("isolate", "false: isolated references are not supported")
        }
        let range = WiredReferences.boostRange
        let boost = try settings.number(
            "ref_boost",
            in: Double(range.lowerBound)...Double(range.upperBound)
        )
        wiring = word.flatMap(ReferenceWiring.init)
        guard boost == nil || wiring == .frameT else {
            throw settings.mismatch("ref_boost", "none, as it needs \"frame_t\"")
        }
        self.boost = boost.map { min(max(Float($0), range.lowerBound), range.upperBound) } ?? 1
        (self.digest, path) = (digest, settings.path)
    }

    /// Fails where the manifest is about another file.
    ///
    /// - Parameter file: The LoRA.
    /// - Throws: `.model`.
    public func check(_ file: LoRAFile) throws(GenerationError) {
        guard file.digest == "sha256:" + digest.lowercased() else {
            throw .model(
                .damaged(
                    path: file.path,
                    tensor: nil,
                    found: file.digest,
                    expected: "sha256:\(digest), as \(path) says"
                )
            )
        }
    }
}
