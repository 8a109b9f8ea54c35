import Foundation
import Tensors
import TestSupport
import Testing

@testable import Checkpoints

/// Headers with seeded damage: every one is refused with a typed error or means what it says.
///
/// 2,000 inputs of each kind, 100,000 when `KREA2_LONG_TESTS` is set.
struct HeaderMutationTests {
    private static let isLong = ProcessInfo.processInfo.environment["KREA2_LONG_TESTS"] != nil
    private static let inputs = isLong ? 100_000 : 2_000

    private static let header =
        #"{"__metadata__":{"format":"pt","note":"\u00e9\n"},"#
        + [
            entry("blocks.0.attn.wq.weight", "BF16", [6, 4], 0, 48),
            entry("first.bias", "F32", [], 48, 52), entry("none", "I64", [0, 3], 52, 52),
            entry("blocks.0.mod.lin", "F32", [3, 2], 52, 76), entry("u", "U8", [2], 76, 78),
        ].joined(separator: ",") + "}  "
    private static let dataByteCount = 78

    /// Reads `bytes` as a file; false when it is refused with a typed error.
    private func isAccepted(_ bytes: [UInt8], _ input: Int) -> Bool {
        do {
            let header = try bytes.withUnsafeBytes { try SafetensorsHeader($0, path: "m") }
            expectConsistent(header, bytes.count, input)
            return true
        } catch let error as CheckpointError {
            guard case .damaged("m", _, let found, let expected) = error else {
                Issue.record("input \(input): \(error)")
                return false
            }
            #expect(!found.isEmpty && !expected.isEmpty)
            let text = error.description
            #expect(text.utf8.allSatisfy { $0 != UInt8(ascii: "\n") && $0 != 0 }, "input \(input)")
            return false
        } catch {
            Issue.record("input \(input): \(error)")
            return false
        }
    }

    /// What the header promises to everyone who reads tensors.
    private func expectConsistent(_ header: SafetensorsHeader, _ byteCount: Int, _ input: Int) {
        var end = header.dataStart
        for record in header.tensors.values.sorted(by: {
            ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound)
        }) {
            #expect(record.range.lowerBound == end, "input \(input)")
            let size = record.shape.reduce(record.elementType.byteCount, *)
            #expect(record.range.count == size, "input \(input)")
            end = record.range.upperBound
        }
        #expect(end == byteCount, "input \(input)")
    }

    @Test func theUndamagedHeaderIsAccepted() {
        #expect(isAccepted(safetensors(Self.header, data: Self.dataByteCount), 0))
    }

    @Test func survivesDamagedBytes() {
        var random = SeededGenerator(seed: 1)
        var accepted = 0
        let whole = safetensors(Self.header, data: Self.dataByteCount)
        for input in 0..<Self.inputs {
            var bytes = whole
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let index = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<5, using: &random) {
                case 0: bytes[index] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes[index] ^= 1 << UInt8.random(in: 0...7, using: &random)
                case 2: bytes.remove(at: index)
                case 3: bytes.insert(UInt8.random(in: 0...255, using: &random), at: index)
                default: bytes.removeSubrange(index...)
                }
                if bytes.isEmpty { break }
            }
            if isAccepted(bytes, input) { accepted += 1 }
        }
        #expect(accepted < Self.inputs)
    }

    /// Keeps the length right, so that the damage reaches the deeper checks.
    @Test func survivesDamagedStructure() {
        var random = SeededGenerator(seed: 2)
        var accepted = 0
        for input in 0..<Self.inputs {
            var text = Self.header
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                Self.damage(&text, &random)
            }
            let data = Self.dataByteCount + (Bool.random(using: &random) ? 0 : 4)
            if isAccepted(safetensors(text, data: data), input) { accepted += 1 }
        }
        // Some damage is none: another name, another digit in the metadata, a blank.
        #expect(accepted > 0 && accepted < Self.inputs / 2)
    }

    private static let tokens = [
        "0", "-1", "1", "4", "9223372036854775807", "9223372036854775808", "18446744073709551615",
        "4611686018427387904", "1e400", "1.5", "null", "true", "\"F32\"", "\"F8_E4M3\"", "\"F7\"",
        "\"__metadata__\"", "\"dtype\"", "\"shape\"", "\"u\"", "[]", "{}", "[[[[", "{\"a\":", "\"",
        "\\ud800", "\\u0000", ",", ":", "]", "}", " ", "\u{0}", "é", "\u{1F98A}",
    ]

    /// Replaces, repeats, removes or inserts one run of characters of one kind.
    private static func damage(_ text: inout String, _ random: inout SeededGenerator) {
        func isWord(_ character: Character) -> Bool { character.isLetter || character.isNumber }
        var characters = Array(text)
        guard !characters.isEmpty else { return }
        let start = Int.random(in: 0..<characters.count, using: &random)
        var end = start + 1
        if isWord(characters[start]) {
            while end < characters.count, isWord(characters[end]) { end += 1 }
        }
        let other = Int.random(in: 0..<characters.count, using: &random)
        let token = Array(tokens[Int.random(in: 0..<tokens.count, using: &random)])
        switch Int.random(in: 0..<6, using: &random) {
        case 0, 1: characters.replaceSubrange(start..<end, with: token)
        case 2: characters.insert(contentsOf: token, at: start)
        case 3: characters.removeSubrange(start..<end)
        case 4:
            let piece = characters[min(start, other)..<max(start, other)]
            characters.insert(contentsOf: piece, at: other)
        default: characters.removeSubrange(min(start, other)..<max(start, other))
        }
        text = String(characters)
    }

    @Test func survivesDamagedIndexes() throws {
        var random = SeededGenerator(seed: 3)
        let index = #"{"metadata":{"total_size":78},"weight_map":{"a":"x.safetensors","b":"y"}}"#
        for input in 0..<Self.inputs {
            var text = index
            for _ in 0..<Int.random(in: 1...3, using: &random) { Self.damage(&text, &random) }
            do {
                let map = try ShardIndex.weightMap(Array(text.utf8), path: "x")
                #expect(!map.isEmpty && !map.values.contains { $0.contains("/") }, "\(input)")
            } catch {
                guard case .damaged("x", nil, let found, let expected) = error else {
                    Issue.record("input \(input): \(error)")
                    continue
                }
                #expect(!found.isEmpty && !expected.isEmpty, "input \(input)")
            }
        }
    }
}
