import Checkpoints
import JSON

/// Texts beside the prompt that do, roughly, what a slider's LoRA would.
///
/// At a value v the texts of the positive pole have the strength η v / 100 and those of the negative
/// one the opposite: one attracts and the other repels. So −v is v with the poles swapped, and 0 is
/// as if there were no slider. The texts of a pole are encoded and fused each alone and then stand
/// beside the prompt as one group, which counts for as much as one short text.
public struct SliderPoles: Sendable, Equatable {
    /// Texts of the same meaning, towards which values above 0 lead.
    public let positive: [String]
    /// Texts of the opposite meaning.
    public let negative: [String]
    /// η of values above 0, and of those below.
    private let (positiveStrength, negativeStrength): (Double, Double)

    /// η unless said: with it the strengths of both poles sum to 1 at 100, up to where they act
    /// linearly.
    private static let usualStrength = 0.5
    /// Texts that a pole can have.
    private static let textCounts = 1...8

    private init(positive: [String], negative: [String]) {
        (self.positive, self.negative) = (positive, negative)
        (positiveStrength, negativeStrength) = (Self.usualStrength, Self.usualStrength)
    }

    /// Reads the members of a manifest.
    ///
    /// - Parameters:
    ///   - settings: The manifest.
    ///   - name: The slider's name, whose own texts are taken where the manifest has none.
    /// - Throws: When texts are missing or values are out of range.
    init(_ settings: ConfigurationFile, of name: String) throws(CheckpointError) {
        if let poles = try settings.object("poles") {
            func texts(_ key: String) throws(CheckpointError) -> [String] {
                let values = try poles.array(key) ?? []
                let texts = values.compactMap { value in
                    if case .string(let text) = value, !text.isEmpty { text } else { nil }
                }
                guard texts.count == values.count, Self.textCounts.contains(texts.count) else {
                    throw poles.mismatch(key, "1 to \(Self.textCounts.upperBound) texts")
                }
                return texts
            }
            (positive, negative) = (try texts("positive"), try texts("negative"))
        } else if let own = Self.builtIn[name] {
            (positive, negative) = (own.positive, own.negative)
        } else {
            throw settings.mismatch("poles", "an object with texts, positive and negative")
        }
        func strength(_ key: String) throws(CheckpointError) -> Double {
            try settings.number(key, in: 0...16) ?? Self.usualStrength
        }
        positiveStrength = try strength("eta_positive")
        negativeStrength = try strength("eta_negative")
    }

    /// The hosted service's sliders.
    static let builtIn = [
        "intensity": SliderPoles(
            positive: [
                "vivid, intense colours, bold contrast",
                "a forceful, strongly stylised, saturated rendering",
            ],
            negative: [
                "muted, pale colours, low contrast",
                "a plain, restrained, understated rendering",
            ]
        ),
        "complexity": SliderPoles(
            positive: [
                "busy, crowded, with many small details all around",
                "an intricate, dense composition in many layers",
            ],
            negative: [
                "simple, empty, nothing around",
                "a minimal, clean composition with few elements",
            ]
        ),
        "movement": SliderPoles(
            positive: [
                "running, moving fast, a dynamic pose",
                "action in full motion, seen by a tilted camera",
            ],
            negative: [
                "standing still, resting, calm",
                "a quiet, static pose, seen by a level camera",
            ]
        ),
    ]
}

extension SliderPoles {
    /// All texts, to be encoded.
    public var texts: [String] { positive + negative }

    /// Names the texts; neither their order in a pole nor the same one twice changes it.
    public var digest: String {
        let poles = [positive, negative].map { texts in
            hexDigest(of: Set(texts).sorted().map { Array($0.utf8) + [0] })
        }
        return "texts-sha256:" + hexDigest(of: [Array(poles.joined(separator: " ").utf8)])
    }

    /// The strength of the positive pole; the negative one has the opposite.
    ///
    /// - Parameter value: In `SliderManifest.range`.
    /// - Returns: η u, with η of the value's sign.
    public func strength(at value: Int) -> Float {
        Float((value > 0 ? positiveStrength : negativeStrength) * Double(value) / 100)
    }
}

extension SliderManifest {
    /// The groups that a value stands for: the positive pole's, and then the negative one's.
    ///
    /// - Parameters:
    ///   - value: In `range`.
    ///   - rows: What the text encoder makes of each text of the poles.
    /// - Returns: Groups of a family of their own, which do not limit references; none for 0, and
    ///   for sliders that are LoRAs.
    /// - Throws: `.request` when a text is not among the rows.
    public func groups(
        _ value: Int,
        _ rows: [String: ConditioningRows]
    ) throws(GenerationError) -> [ConditioningGroup] {
        guard value != 0, let poles else { return [] }
        let strength = poles.strength(at: value)
        var groups: [ConditioningGroup] = []
        for (texts, strength) in [(poles.positive, strength), (poles.negative, -strength)] {
            var encodings: [ConditioningRows] = []
            for text in texts {
                guard let rows = rows[text] else {
                    throw .request("slider \(oneLine(name)): \(oneLine(text)) is not encoded")
                }
                encodings.append(rows)
            }
            groups.append(
                ConditioningGroup(
                    try ConditioningRows(joining: encodings),
                    strength: strength,
                    family: .sliders,
                    window: window,
                    mass: ConditioningGroup.textMass
                )
            )
        }
        return groups
    }
}
