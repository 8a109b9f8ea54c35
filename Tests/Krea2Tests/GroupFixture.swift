import Tensors
import TestSupport

@testable import Krea2

/// Random references for the small model `head16`.
enum GroupFixture {
    /// Taps and width of the text encoder.
    static let shape = [3, 48]

    /// Rows of one picture between those of the template.
    ///
    /// The seed makes the content.
    static func rows(_ seed: UInt64, count: Int = 9) throws -> ConditioningRows {
        let kinds: [ConditioningRows.Kind] =
            [.visionStart] + [ConditioningRows.Kind](repeating: .image, count: count)
            + [.visionEnd, .suffix, .suffix]
        var random = SeededGenerator(seed: seed)
        let taps = Tensor.random([kinds.count] + shape, &random)
        return try ConditioningRows(key: "picture \(seed)", taps: taps, kinds: kinds)
    }

    /// A reference to such rows.
    static func group(
        _ seed: UInt64,
        _ strength: Float,
        window: ClosedRange<Double> = 0...1,
        blocks: ClosedRange<Int>? = nil
    ) throws -> ConditioningGroup {
        ConditioningGroup(try rows(seed), strength: strength, window: window, blocks: blocks)
    }

    /// Rows of given taps, all of which are injected.
    static func rows(
        key: String,
        _ taps: [[Float]],
        multiplicities: [Float]? = nil
    ) throws -> ConditioningRows {
        try ConditioningRows(
            key: key,
            taps: Tensor(taps.flatMap(\.self), shape: [taps.count] + shape),
            kinds: taps.map { _ in .image },
            multiplicities: multiplicities
        )
    }
}
