import Checkpoints
import JSON

/// How one or two LoRAs become a slider from −100 to 100.
///
/// A JSON file `NAME.slider.json`, or the same members as texts in the header of a safetensors file,
/// where their names begin with `slider.`:
///
/// - `format`: `krea2-slider`; `version`: 1; `name`
/// - `kind`: `signed`, one LoRA with negative and positive scales, or `pair`, one for each side
/// - `file`, or `file_positive` and `file_negative`: from the manifest's folder; in a header the
///   file itself
/// - `sha256`, `sha256_positive`, `sha256_negative`: of these files, optional
/// - `scale_at_100`: scale of the LoRA at 100, 1 unless given
/// - `window`: noise levels of the steps it is applied in, `[0, 1]` unless given
public struct SliderManifest: Sendable, Equatable {
    /// How values become scales.
    public enum Kind: String, Sendable, CaseIterable {
        /// One LoRA, whose scale has the value's sign.
        case signed
        /// One LoRA for each sign.
        case pair
    }

    /// A LoRA file of a slider.
    struct File: Sendable, Equatable {
        let path: String
        /// Hexadecimal digits of its SHA-256; nil for any.
        let digest: String?
    }

    /// Values that sliders have.
    public static let range = -100...100
    /// What follows the name of a slider in the name of its manifest.
    static let suffix = ".slider.json"

    /// What users call it.
    public let name: String
    /// How values become scales.
    public let kind: Kind
    let positive: File
    let negative: File
    let scaleAt100: Double
    let window: ClosedRange<Double>

    /// Reads a manifest, or the header of a safetensors file that has one.
    ///
    /// - Parameter path: A file whose name ends in `.safetensors`, or a JSON file.
    /// - Throws: `.model` when it is missing, or is no manifest.
    public init(path: String) throws(GenerationError) {
        do throws(CheckpointError) {
            let isLoRA = path.hasSuffix(".safetensors")
            let settings =
                isLoRA
                ? Self.header(try SafetensorsFile(path: path))
                : try ConfigurationFile(path: path)
            guard let settings else { throw .missing(path: path) }
            try self.init(settings, lora: isLoRA ? path : nil)
        } catch {
            throw .model(error)
        }
    }

    /// The manifest in the header of a LoRA file.
    private static func header(_ file: SafetensorsFile) -> ConfigurationFile {
        let prefix = "slider."
        var root: [String: JSONValue] = [:]
        for (key, text) in file.metadata where key.hasPrefix(prefix) {
            // Every value is a text there; numbers and lists are written as JSON.
            let value: JSONValue
            do {
                value = try JSONParser.parse(Array(text.utf8))
            } catch {
                value = .string(text)
            }
            root[String(key.dropFirst(prefix.count))] = value
        }
        return ConfigurationFile(path: file.path, root: root)
    }

    private init(_ settings: ConfigurationFile, lora: String?) throws(CheckpointError) {
        guard try settings.string("format") == "krea2-slider" else {
            throw settings.mismatch("format", "\"krea2-slider\"")
        }
        guard try settings.integer("version") == 1 else { throw settings.mismatch("version", "1") }
        guard let name = try settings.string("name"), Self.isName(name) else {
            throw settings.mismatch("name", "a name")
        }
        guard let kind = try settings.string("kind").flatMap(Kind.init) else {
            throw settings.mismatch("kind", "\"signed\" or \"pair\"")
        }
        func file(_ key: String, _ digestKey: String) throws(CheckpointError) -> File {
            if let lora { return File(path: lora, digest: nil) }
            guard let name = try settings.string(key), !name.isEmpty else {
                throw settings.mismatch(key, "the name of a LoRA file")
            }
            let isAbsolute = name.hasPrefix("/")
            let folder = PathText.parent(settings.path)
            return File(
                path: isAbsolute ? name : PathText.inside(folder, name),
                digest: try settings.string(digestKey)
            )
        }
        switch kind {
        case .signed:
            positive = try file("file", "sha256")
            negative = positive
        case .pair:
            guard lora == nil else { throw settings.mismatch("kind", "\"signed\"") }
            positive = try file("file_positive", "sha256_positive")
            negative = try file("file_negative", "sha256_negative")
        }
        (self.name, self.kind) = (name, kind)
        scaleAt100 = try settings.number("scale_at_100", in: -16...16) ?? 1
        let bounds = try settings.floats("window", count: 2)?.map(Double.init) ?? [0, 1]
        guard bounds[0] >= 0, bounds[0] <= bounds[1], bounds[1] <= 1 else {
            throw settings.mismatch("window", "two ascending numbers from 0 to 1")
        }
        window = bounds[0]...bounds[1]
    }

    /// Whether a text can be the name of a slider, and thereby of a file.
    static func isName(_ text: String) -> Bool {
        !text.isEmpty && !text.contains { $0 == "/" || $0 == "=" || $0 == "\0" }
    }
}

extension SliderManifest {
    /// The LoRA that a value stands for, opened.
    ///
    /// - Parameters:
    ///   - value: In `range`.
    ///   - open: Opens a LoRA file.
    /// - Returns: nil for 0, for which nothing is opened.
    /// - Throws: What `open` throws, or `.model` when the file is another than the manifest says.
    public func use(
        _ value: Int,
        open: (_ path: String) throws(GenerationError) -> LoRAFile
    ) throws(GenerationError) -> LoRAUse? {
        guard value != 0 else { return nil }
        let wanted = value > 0 ? positive : negative
        let file = try open(wanted.path)
        if let digest = wanted.digest, file.digest != "sha256:" + digest.lowercased() {
            throw .model(
                .damaged(
                    path: wanted.path,
                    tensor: nil,
                    found: file.digest,
                    expected: "sha256:\(digest), as the manifest of the slider \(name) says"
                )
            )
        }
        let steps = Double(kind == .signed ? value : abs(value))
        return LoRAUse(file, scale: Float(steps / 100 * scaleAt100), window: window)
    }
}
