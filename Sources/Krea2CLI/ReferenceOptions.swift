import Krea2
import References

/// A style reference as the user asks for it.
struct ReferenceChoice: Equatable, Sendable {
    /// A picture or a `.k2ref` file.
    var path: String
    var strength: Float = 0.6
    /// Whether the user chose the strength.
    var isStrengthGiven = false
    /// What is done to a picture; nil for nothing, and for what was done to that of a file.
    var treatment: Treatment?
    /// Largest area of a picture, squared; nil for the usual one, and for that of a file.
    var side: Int?
    var window: ClosedRange<Double> = 0...1
    /// Blocks in which it acts; nil for all.
    var blocks: ClosedRange<Int>?
    /// Empty for 1.
    var tapGains: [Float] = []
    /// Part of the strength that goes to a description, where there is one.
    var captionShare: Float = 0

    /// Strengths that can be asked for.
    static let strengthRange: ClosedRange<Float> = -2...2
    /// References that can be asked for.
    static let most = 10
    /// Side where nobody chooses another.
    static let usualSide = 384
    /// Sides of pictures for the text encoder, and, from there on, for the autoencoder alone.
    private static let sides = ReferenceSize.sides.lowerBound...LatentSize.sides.upperBound
    /// Noise level that parts early steps from late ones: half of Turbo's eight are above it.
    private static let windowEdge = 0.8

    /// Reads `PATH[:STRENGTH][,KEY=VALUE]…`; a comma parts settings where a word and `=` follow it.
    init(parsing text: String) throws(ValueError) {
        var parts = text.split(separator: ",", omittingEmptySubsequences: false)
        var settings: [(key: String, value: String)] = []
        while parts.count > 1, let part = parts.last, let sign = part.firstIndex(of: "="),
            sign > part.startIndex, part[..<sign].allSatisfy({ ("a"..."z").contains($0) })
        {
            let value = String(part[part.index(after: sign)...])
            settings.insert((String(part[..<sign]), value), at: 0)
            parts.removeLast()
        }
        let file = parts.joined(separator: ",")
        let (path, number) = try String.pathAndNumber(file, in: Self.strengthRange)
        self.path = path
        strength = number ?? strength
        isStrengthGiven = number != nil
        // A preset gives way to the other settings, wherever it stands.
        settings = settings.filter { $0.key == "preset" } + settings.filter { $0.key != "preset" }
        var seen: Set<String> = []
        for (key, value) in settings {
            guard seen.insert(key).inserted else {
                throw ValueError(reason: "\(key) is given twice in '\(text)'")
            }
            do throws(ValueError) {
                try set(key, value)
            } catch {
                throw ValueError(reason: "\(key): \(error.reason)")
            }
        }
    }

    private mutating func set(_ key: String, _ value: String) throws(ValueError) {
        switch key {
        case "prep": treatment = try .choice(value)
        case "side": side = try .whole(value, in: Self.sides)
        case "window": window = try Self.window(value)
        case "blocks": blocks = try Self.blocks(value)
        case "taps":
            tapGains = []
            for gain in value.split(separator: "/", omittingEmptySubsequences: false) {
                tapGains.append(try .decimal(String(gain), in: -100...100))
            }
        case "caption": captionShare = try .decimal(value, in: 0...1)
        case "preset": set(try Preset.choice(value))
        default:
            throw ValueError(
                reason:
                    "no such setting; there are preset, prep, side, window, taps, blocks, caption"
            )
        }
    }
}

// MARK: Settings

extension ReferenceChoice {
    /// Settings with a name.
    enum Preset: String, CaseIterable {
        /// Nothing but the picture.
        case full
        /// Texture and colours without layout, and a description.
        case style
        /// The picture, once the layout is decided.
        case look
        /// Colours.
        case palette
    }

    private mutating func set(_ preset: Preset) {
        switch preset {
        case .full: break
        case .style: (treatment, captionShare) = (.tiles, 0.5)
        case .look: window = 0...Self.windowEdge
        case .palette: treatment = .palette
        }
    }

    /// Reads noise levels: a word, or two numbers with a dash between them.
    private static func window(_ text: String) throws(ValueError) -> ClosedRange<Double> {
        switch text {
        case "all": return 0...1
        case "early": return windowEdge.nextUp...1
        case "late": return 0...windowEdge
        default:
            let ends = text.split(separator: "-", omittingEmptySubsequences: false)
            guard ends.count == 2 else {
                throw ValueError(
                    reason: "'\(text)' is not all, early, late, or noise levels such as 0.2-0.8"
                )
            }
            let low = try Double.decimal(String(ends[0]), in: 0...1)
            let high = try Double.decimal(String(ends[1]), in: 0...1)
            guard low <= high else { throw ValueError(reason: "'\(text)' goes downwards") }
            return low...high
        }
    }

    /// Reads one number, or two with a dash between them.
    private static func blocks(_ text: String) throws(ValueError) -> ClosedRange<Int> {
        let ends = text.split(separator: "-", omittingEmptySubsequences: false)
        guard let first = ends.first, let last = ends.last, ends.count <= 2 else {
            throw ValueError(reason: "'\(text)' is not a range of blocks such as 7-27")
        }
        let low = try Int.whole(String(first), in: 0...999)
        let high = try Int.whole(String(last), in: 0...999)
        guard low <= high else { throw ValueError(reason: "'\(text)' goes downwards") }
        return low...high
    }
}

/// A moodboard as the user asks for it.
struct MoodboardChoice: Equatable, Sendable {
    /// A folder of pictures or a `.k2board` file.
    var path: String
    var strength: Float = 0.35

    /// Reads `PATH[:STRENGTH]`.
    init(parsing text: String) throws(ValueError) {
        let range = ReferenceChoice.strengthRange
        let (path, number) = try String.pathAndNumber(text, in: range)
        self.path = path
        strength = number ?? strength
    }
}

extension GenerateSettings {
    /// Style references and moodboards.
    static let referenceOptions: [Option<GenerateSettings>] = [
        Option(
            "style-reference",
            value: "FILE[:STRENGTH][,KEY=VALUE]",
            completion: .files,
            isRepeatable: true,
            help:
                "lead towards the style of this picture (PNG, JPEG, WebP or .k2ref), or away from "
                + "it; strength -2 to 2, default 0.6; keys: preset=full|style|look|palette, "
                + "prep=none|soft|palette|tiles, side=192 to 768 (with a wiring 1024), "
                + "window=all|early|late|0.2-0.8, blocks=7-27, taps=1/1/…, caption=0 to 1; "
                + "up to 10 times"
        ) { (settings, text) throws(ValueError) in
            settings.references.append(try ReferenceChoice(parsing: text))
            guard settings.references.count <= ReferenceChoice.most else {
                throw ValueError(reason: "more than \(ReferenceChoice.most) references")
            }
        },
        Option(
            "moodboard",
            value: "DIR|FILE[:STRENGTH]",
            completion: .files,
            isRepeatable: true,
            help: "lead towards the common look of a folder's pictures, or of a .k2board file; "
                + "strength -2 to 2, default 0.35; up to 10 times"
        ) { (settings, text) throws(ValueError) in
            settings.moodboards.append(try MoodboardChoice(parsing: text))
            guard settings.moodboards.count <= ReferenceChoice.most else {
                throw ValueError(reason: "more than \(ReferenceChoice.most) moodboards")
            }
        },
        Option(
            "reference-mode",
            value: "attention|exact",
            completion: .words(ConditioningGroup.Mode.allCases.map(\.rawValue)),
            help: "how references act: in each attention, or with one more evaluation of the "
                + "transformer for each; default attention"
        ) { (settings, word) throws(ValueError) in settings.referenceMode = try .choice(word) },
        Option(
            "reference-wiring",
            value: "none|index_t0|frame_t",
            completion: .words(WiringChoice.allCases.map(\.rawValue)),
            help: "how style references stand in the transformer's sequence, for LoRAs that were "
                + "trained so; default: what NAME.lora.json beside a LoRA says, or none"
        ) { (settings, word) throws(ValueError) in settings.wiring = try .choice(word) },
        Option(
            "reference-boost",
            value: "B",
            help: "how often each token of a reference counts for the picture, 0.01 to 100; with "
                + "the wiring frame_t; default 1, or what NAME.lora.json says"
        ) { (settings, text) throws(ValueError) in
            settings.referenceBoost = try .decimal(text, in: WiredReferences.boostRange)
        },
        .flag(
            "allow-compatible-encoder",
            help: "use .k2ref and .k2board files by other files of the same text encoder, such as "
                + "quantised ones",
            \.allowsOtherEncoder
        ),
        .noCache(\.isCacheOff),
    ]
}
