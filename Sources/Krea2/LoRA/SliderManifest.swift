import Checkpoints
import JSON

/// How one or two LoRAs, or texts in their place, become a slider from −100 to 100.
///
/// A JSON file `NAME.slider.json`, or the same members as texts in the header of a safetensors file,
/// where their names begin with `slider.`:
///
/// - `format`: `krea2-slider`; `version`: 1; `name`
/// - `kind`: `signed`, one LoRA with negative and positive scales, `pair`, one for each side, or
///   `poles`, texts
/// - `file`, or `file_positive` and `file_negative`: from the manifest's folder; in a header the
///   file itself
/// - `sha256`, `sha256_positive`, `sha256_negative`: of these files, optional
/// - `scale_at_100`: scale of the LoRA at 100, 1 unless given
/// - `poles`: an object with lists of texts, `positive` and `negative`; optional for the names of
///   the hosted service's sliders
/// - `eta_positive`, `eta_negative`: strengths of the poles at 100 and at −100, 0.5 unless given
/// - `window`: noise levels of the steps it is applied in, `[0, 1]` unless given
public struct SliderManifest: Sendable, Equatable {
    /// How values become scales.
    public enum Kind: String, Sendable, CaseIterable {
        /// One LoRA, whose scale has the value's sign.
        case signed
        /// One LoRA for each sign.
        case pair
        /// Texts beside the prompt, which do roughly what a LoRA would.
        case poles
    }

    /// What a slider is made of.
    private enum Means: Equatable {
        case loras(positive: File, negative: File)
        case poles(SliderPoles)
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
    private let means: Means
    let scaleAt100: Double
    /// Noise levels, 0 to 1, of the steps that it is applied in.
    public let window: ClosedRange<Double>

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
            throw settings.mismatch("kind", "\"signed\", \"pair\" or \"poles\"")
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
        guard lora == nil || kind == .signed else { throw settings.mismatch("kind", "\"signed\"") }
        switch kind {
        case .signed:
            let both = try file("file", "sha256")
            means = .loras(positive: both, negative: both)
        case .pair:
            means = .loras(
                positive: try file("file_positive", "sha256_positive"),
                negative: try file("file_negative", "sha256_negative")
            )
        case .poles: means = .poles(try SliderPoles(settings, of: name))
        }
        (self.name, self.kind) = (name, kind)
        scaleAt100 = try settings.number("scale_at_100", in: -16...16) ?? 1
        let bounds = try settings.floats("window", count: 2)?.map(Double.init) ?? [0, 1]
        guard bounds[0] >= 0, bounds[0] <= bounds[1], bounds[1] <= 1 else {
            throw settings.mismatch("window", "two ascending numbers from 0 to 1")
        }
        window = bounds[0]...bounds[1]
    }

    /// Takes the place of a slider of which there is no LoRA.
    ///
    /// - Parameter name: What it is called; nil for others than the hosted service's.
    init?(builtIn name: String) {
        guard let poles = SliderPoles.builtIn[name] else { return nil }
        (self.name, kind, means) = (name, .poles, .poles(poles))
        (scaleAt100, window) = (1, 0...1)
    }

    /// The texts that it is made of; nil for LoRAs.
    public var poles: SliderPoles? {
        if case .poles(let poles) = means { poles } else { nil }
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
    /// - Returns: nil for 0, for which nothing is opened, and for texts.
    /// - Throws: What `open` throws, or `.model` when the file is another than the manifest says.
    public func use(
        _ value: Int,
        open: (_ path: String) throws(GenerationError) -> LoRAFile
    ) throws(GenerationError) -> LoRAUse? {
        guard value != 0, case .loras(let positive, let negative) = means else { return nil }
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
