import Checkpoints
import JSON

/// What the header of a LoRA file says about scales.
struct LoRASettings: Sendable {
    /// For layers that have no alpha of their own; nil for a scale of 1.
    private var alpha: Double?
    /// For some layers; whole names or their last parts, with `^` whole names only.
    private var alphas: [String: Double] = [:]
    /// Whether scales are alpha / √rank.
    private var usesSquareRoot = false
    /// kohya's alpha of all layers.
    private var networkAlpha: Double?

    /// Reads PEFT's settings as diffusers stores them, and kohya's.
    ///
    /// Source: diffusers 0.42.1 `LORA_ADAPTER_METADATA_KEY`; kohya's sd-scripts `ss_network_alpha`.
    ///
    /// - Parameter metadata: Texts of the header.
    /// - Throws: What cannot be used.
    init(_ metadata: [String: String]) throws(LoRAProblem) {
        if let text = metadata["ss_network_alpha"], text != "None" {
            guard let value = Double(text), value.isFinite else {
                throw .metadata(key: "ss_network_alpha", found: text, expected: "a number")
            }
            networkAlpha = value
        }
        guard let text = metadata[Self.adapterKey] else { return }
        let members: [String: JSONValue]
        do {
            members = try jsonObject(Array(text.utf8), path: Self.adapterKey)
        } catch {
            throw .metadata(key: Self.adapterKey, found: "no JSON object", expected: "one")
        }
        for key in members.keys.sorted() where key.hasPrefix(Self.component) {
            let value = members[key] ?? .null
            switch (key.dropFirst(Self.component.count), value) {
            case (_, .null): break
            case ("lora_alpha", _): alpha = try Self.number(value, key)
            case ("use_rslora", .bool(let bool)): usesSquareRoot = bool
            case ("alpha_pattern", .object(let patterns)): try readPatterns(patterns, key)
            case ("use_rslora", _), ("alpha_pattern", _):
                throw .metadata(key: key, found: "\(value)", expected: "PEFT's setting")
            default: break
            }
        }
    }

    private static let adapterKey = "lora_adapter_metadata"
    private static let component = "transformer."

    /// PEFT takes the names as regular expressions, of which names of layers are read here, also
    /// with dots escaped and with the anchors that PEFT and diffusers write.
    private mutating func readPatterns(
        _ patterns: [String: JSONValue],
        _ key: String
    ) throws(LoRAProblem) {
        for (pattern, value) in patterns.sorted(by: { $0.key < $1.key }) {
            let unescaped = pattern.replacing("\\.", with: ".")
            let name = unescaped.dropLast(unescaped.hasSuffix("$") ? 1 : 0)
            let letters = name.dropFirst(name.hasPrefix("^") ? 1 : 0)
            guard letters.allSatisfy({ $0.isLetter || $0.isNumber || $0 == "_" || $0 == "." })
            else { throw .metadata(key: key, found: pattern, expected: "names of layers") }
            alphas[String(name)] = try Self.number(value, key)
        }
    }

    private static func number(_ value: JSONValue, _ key: String) throws(LoRAProblem) -> Double {
        guard let number = value.double else {
            throw .metadata(key: key, found: "\(value)", expected: "a number")
        }
        return number
    }

    /// What divided by the rank is the factor of a product of factors.
    ///
    /// kohya's setting counts for kohya's names only: converters that fold alpha into the factors
    /// and write other names leave it as it was.
    ///
    /// - Parameters:
    ///   - own: The layer's own alpha, which goes before all others.
    ///   - module: Name of the layer in the file, without what stands before all names.
    ///   - isFlattened: Whether it is kohya's name.
    /// - Returns: nil where nothing says any, for a factor of 1.
    func alpha(own: Double?, module: Substring, isFlattened: Bool) -> Double? {
        let patterns = alphas.filter { name, _ in
            module == name || "^" + module == name || module.hasSuffix("." + name)
        }
        let pattern = patterns.max { $0.key.count < $1.key.count }?.value
        return own ?? pattern ?? alpha ?? (isFlattened ? networkAlpha : nil)
    }

    /// The factor of a product of factors: alpha / rank, or alpha / √rank.
    func scale(alpha: Double, rank: Int) -> Float {
        Float(alpha / (usesSquareRoot ? Double(rank).squareRoot() : Double(rank)))
    }
}
