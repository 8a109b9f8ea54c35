import Checkpoints
import Tensors

/// Rows beside the prompt that text and image rows see, with a signed strength.
///
/// At strength 1 a group does what its rows would do if they simply stood beside the prompt; the
/// strength scales that effect, in each attention of the transformer, and 0 is as if there were no
/// group. Effects of several groups add up to strengths of 1 together, and are limited beyond. A
/// negative strength leads away, by one whole effect at most. With guidance, groups are beside the
/// prompt only, not beside the negative one.
public struct ConditioningGroup: Sendable, Equatable {
    /// Groups whose effects are limited together; those of different families do not limit each
    /// other.
    public enum Family: Int, Sendable, CaseIterable {
        /// Style references and moodboards.
        case references
        /// Sliders made of texts.
        case sliders
    }

    /// How groups act.
    public enum Mode: String, Sendable, CaseIterable {
        /// Within the transformer's attention, all in one evaluation.
        case attention
        /// One more evaluation for each group: v = v₀ + Σ sᵢ (vᵢ − v₀), where vᵢ is the velocity
        /// with the group at strength 1. Exactly linear, and as many times slower.
        case exact
    }

    /// What was encoded.
    public var rows: ConditioningRows
    /// From −100 to 100; the effect is linear up to 1 and limited beyond.
    ///
    /// Equal rows count with the sum of their strengths.
    public var strength: Float
    /// What limits it together with others.
    public var family: Family
    /// Noise levels, 0 to 1, of the steps in which it acts; a step belongs to the sigma at which it
    /// begins.
    public var window: ClosedRange<Double>
    /// Blocks of the transformer in which text and image rows see it; nil for all.
    public var blocks: ClosedRange<Int>?
    /// Factors of the taps before text fusion; empty for 1.
    public var tapGains: [Float]
    /// Rows that go to the transformer; the others only take part in text fusion.
    public var injected: Set<ConditioningRows.Kind>
    /// How many rows the injected ones together count for where text and image rows see them, above
    /// 0, whatever their number is.
    public var mass: Float

    /// Rows of a picture of 384 × 384 pixels, as which every picture counts.
    public static let pictureMass: Float = 144
    /// What a short text counts for.
    public static let textMass: Float = 16
    /// Strengths that can be asked for.
    public static let strengthRange: ClosedRange<Float> = -100...100

    /// Puts rows beside the prompt.
    ///
    /// - Parameters:
    ///   - rows: What was encoded.
    ///   - strength: How strongly; 0 for not at all.
    ///   - family: What limits it together with others.
    ///   - window: Noise levels, 0 to 1, of the steps in which it acts.
    ///   - blocks: Blocks of the transformer in which it is seen; nil for all.
    ///   - tapGains: Factors of the taps before text fusion; empty for 1.
    ///   - injected: Kinds of the rows that go to the transformer.
    ///   - mass: How many rows these count for.
    public init(
        _ rows: ConditioningRows,
        strength: Float,
        family: Family = .references,
        window: ClosedRange<Double> = 0...1,
        blocks: ClosedRange<Int>? = nil,
        tapGains: [Float] = [],
        injected: Set<ConditioningRows.Kind> = [.image, .text],
        mass: Float = ConditioningGroup.pictureMass
    ) {
        (self.rows, self.strength, self.family) = (rows, strength, family)
        (self.window, self.blocks, self.tapGains) = (window, blocks, tapGains)
        (self.injected, self.mass) = (injected, mass)
    }
}

extension ConditioningGroup {
    /// Fails with one line when a value is out of range or does not fit the model.
    func validate(_ config: TransformerConfig) throws(GenerationError) {
        func fail(_ reason: String) -> GenerationError {
            .request("reference \(oneLine(rows.key)): \(reason)")
        }
        guard Self.strengthRange.contains(strength) else {
            throw fail("strength \(strength), expected −100 to 100")
        }
        let shape = [config.taps, config.text.width]
        guard Array(rows.taps.shape.dropFirst()) == shape else {
            throw fail(
                "taps \(rows.taps.shape), expected [rows, \(shape[0]), \(shape[1])], as the model has"
            )
        }
        guard tapGains.isEmpty || tapGains.count == config.taps,
            tapGains.allSatisfy(\.isFinite)
        else { throw fail("gains \(tapGains), expected \(config.taps) numbers") }
        guard mass > 0, mass.isFinite else { throw fail("mass \(mass), expected above 0") }
        if let blocks, blocks.lowerBound < 0 || blocks.upperBound >= config.blocks {
            throw fail("blocks \(blocks), expected 0 to \(config.blocks - 1)")
        }
        guard rows.kinds.contains(where: injected.contains) else {
            throw fail("none of its \(rows.kinds.count) rows is wanted")
        }
    }
}
