import Checkpoints
import Compute
package import Tensors

/// What the text encoder makes of a reference, encoded alone: its rows, ready to be put beside any
/// prompt.
public struct ConditioningRows: Sendable {
    /// What a row stands for.
    public enum Kind: UInt8, Sendable, CaseIterable {
        /// Start of a picture.
        case visionStart = 1
        /// A part of a picture.
        case image
        /// End of a picture.
        case visionEnd
        /// The template's suffix.
        case suffix
        /// A token of a text.
        case text
    }

    /// Says what was encoded and how; rows of equal keys are taken for the same.
    public let key: String
    /// Of each row.
    public let kinds: [Kind]
    /// How many rows each one stands for, above 0: 1 unless rows were merged.
    public let multiplicities: [Float]
    /// `[rows, taps, width of the text encoder]`, float32 or bfloat16.
    let taps: Tensor
    /// Rows that go through text fusion together; one after the other these are all rows.
    private(set) var parts: [Range<Int>]

    /// Combines the parts.
    ///
    /// - Parameters:
    ///   - key: Says what was encoded and how.
    ///   - taps: `[rows, taps, width of the text encoder]`, float32 or bfloat16; not written to any
    ///     more.
    ///   - kinds: Of each row.
    ///   - multiplicities: How many rows each one stands for; nil for 1.
    /// - Throws: `.request` when they do not fit together.
    package init(
        key: String,
        taps: Tensor,
        kinds: [Kind],
        multiplicities: [Float]? = nil
    ) throws(GenerationError) {
        (self.key, self.kinds, self.taps) = (key, kinds, taps)
        parts = [0..<taps.rows]
        self.multiplicities = multiplicities ?? kinds.map { _ in 1 }
        func fail(_ found: String) -> GenerationError {
            .request("reference \(oneLine(key)): \(found)")
        }
        guard taps.shape.count == 3, [.float32, .bfloat16].contains(taps.elementType) else {
            throw fail("\(taps.elementType) taps \(taps.shape), expected [rows, taps, width]")
        }
        guard kinds.count == taps.rows, self.multiplicities.count == taps.rows else {
            throw fail(
                "\(taps.rows) rows, \(kinds.count) kinds and \(self.multiplicities.count) "
                    + "multiplicities"
            )
        }
        guard self.multiplicities.allSatisfy({ $0 > 0 && $0.isFinite }) else {
            throw fail("multiplicities are numbers above 0")
        }
        guard taps.isFinite else { throw fail("NaN or infinity in the taps") }
    }

    /// Puts several encodings into one, whose rows are seen together but made apart.
    ///
    /// Neither their order nor the same one twice changes anything.
    ///
    /// - Parameter encodings: By the same text encoder, such as of texts that mean the same.
    /// - Throws: `.request` when there are none, or they do not fit together.
    init(joining encodings: [ConditioningRows]) throws(GenerationError) {
        let named = Dictionary(encodings.map { ($0.key, $0) }, uniquingKeysWith: { one, _ in one })
        let all = named.values.sorted { $0.key < $1.key }
        guard let first = all.first else { throw .request("no rows to put together") }
        guard all.count > 1 else {
            self = first
            return
        }
        let shape = Array(first.taps.shape.dropFirst())
        for rows in all where Array(rows.taps.shape.dropFirst()) != shape {
            throw .request("taps \(rows.taps.shape) beside \(first.taps.shape)")
        }
        let kinds = all.flatMap(\.kinds)
        try self.init(
            key: "rows-sha256:" + hexDigest(of: all.map { Array($0.key.utf8) + [0] }),
            taps: Tensor(all.flatMap { converted($0.taps).elements }, shape: [kinds.count] + shape),
            kinds: kinds,
            multiplicities: all.flatMap(\.multiplicities)
        )
        parts = all.reduce(into: []) { parts, rows in
            let start = parts.last?.upperBound ?? 0
            parts.append(start..<start + rows.kinds.count)
        }
    }

    /// Bytes of the taps.
    var byteCount: Int { taps.byteCount }
}

extension ConditioningRows: Equatable {
    /// Whether both have the same key and as many rows of the same kinds.
    public static func == (a: ConditioningRows, b: ConditioningRows) -> Bool {
        (a.key, a.kinds, a.multiplicities) == (b.key, b.kinds, b.multiplicities)
            && a.taps.shape == b.taps.shape && a.parts == b.parts
    }
}
