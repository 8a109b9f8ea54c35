import Foundation
import TestSupport
import Testing

@testable import Tokenization

/// Damaged files load or are refused; they never trap.
struct FuzzTests {
    /// Inputs of a test: few by default, many when `KREA2_LONG_TESTS` is set.
    private static let inputCount =
        ProcessInfo.processInfo.environment["KREA2_LONG_TESTS"] == nil ? 600 : 30_000

    /// A text that uses merges, added tokens, marks and blanks.
    private let text = "abc ab<think>é\n\n <|im_start|>e\u{301}\u{316} 12 's"

    /// Pieces that parsers trip over.
    private static let pieces = [
        "null", "true", "-1", "1e999", "4294967296", "9223372036854775808", "0.5", "\"", "\\",
        "\\ud800", "\\u0000", "{", "}", "[", "]", ",", ":", "{}", "[]", "\"\"", "\u{FEFF}", "é",
        " ", "\n", "\r\n", "#version", "[[[[[[[[[[[[[[[[[[[[",
    ]

    /// Loads and, where that succeeds, encodes; only a `TokenizerError` may come out.
    ///
    /// - Returns: Whether it loaded.
    private func tryLoading(_ load: () throws(TokenizerError) -> Tokenizer) -> Bool {
        do throws(TokenizerError) {
            let ids = try load().encode(text)
            #expect(ids.allSatisfy { $0 >= 0 } && ids.count <= text.utf8.count)
            return true
        } catch {
            #expect(!error.description.isEmpty)
            return false
        }
    }

    /// A copy with one to four random changes to its bytes.
    private func mutated(_ bytes: [UInt8], _ generator: inout SeededGenerator) -> [UInt8] {
        var bytes = bytes
        for _ in 0..<Int.random(in: 1...4, using: &generator) {
            let start = Int.random(in: 0...bytes.count, using: &generator)
            let length = min(Int.random(in: 0...20, using: &generator), bytes.count - start)
            let range = start..<start + length
            switch Int.random(in: 0..<6, using: &generator) {
            case 0 where start < bytes.count:
                bytes[start] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
            case 1: bytes.removeSubrange(range)
            case 2: bytes.insert(contentsOf: bytes[range], at: start)
            case 3 where Bool.random(using: &generator): bytes.removeSubrange(start...)
            case 4: bytes.insert(UInt8.random(in: 0...255, using: &generator), at: start)
            default:
                let piece = Self.pieces.randomElement(using: &generator) ?? ""
                bytes.replaceSubrange(range, with: piece.utf8)
            }
        }
        return bytes
    }

    /// A copy of a JSON value with one value somewhere in it changed.
    private func mutated(_ value: Any, _ generator: inout SeededGenerator) -> Any {
        let goesDeeper = Int.random(in: 0..<8, using: &generator) > 0
        if goesDeeper, var object = value as? [String: Any],
            let key = object.keys.sorted().randomElement(using: &generator),
            let member = object[key]
        {
            switch Int.random(in: 0..<10, using: &generator) {
            case 0: object[key] = nil
            case 1: object[key + "x"] = member
            default: object[key] = mutated(member, &generator)
            }
            return object
        }
        if goesDeeper, var list = value as? [Any],
            let index = list.indices.randomElement(using: &generator)
        {
            switch Int.random(in: 0..<10, using: &generator) {
            case 0: list.remove(at: index)
            case 1: list.append(list[index])
            default: list[index] = mutated(list[index], &generator)
            }
            return list
        }
        let values: [Any] = [
            NSNull(), true, -1, 0, 7, 0.25, Int.max, "", "a", "Ġ a", "NFC", [Any](), ["a", "b"],
            [["a", "b"]], [String: Any](), ["type": "NFC"], "\u{0}", "e\u{301}",
        ]
        return values.randomElement(using: &generator) ?? 0
    }

    @Test func tokenizerJSONWithChangedBytes() throws {
        var generator = SeededGenerator(seed: 1)
        let bytes = try TinyTokenizer().bytes()
        var loaded = 0
        for _ in 0..<Self.inputCount {
            let contents = mutated(bytes, &generator)
            loaded +=
                tryLoading { () throws(TokenizerError) in
                    try Tokenizer(tokenizerJSON: TokenizerFile(path: "fuzz", contents: contents))
                } ? 1 : 0
        }
        #expect(loaded > 0 && loaded < Self.inputCount)
    }

    @Test func tokenizerJSONWithChangedFields() throws {
        var generator = SeededGenerator(seed: 2)
        let whole = TinyTokenizer().json
        var loaded = 0
        for _ in 0..<Self.inputCount {
            guard let object = mutated(whole, &generator) as? [String: Any] else { continue }
            let contents = Array(try JSONSerialization.data(withJSONObject: object))
            loaded +=
                tryLoading { () throws(TokenizerError) in
                    try Tokenizer(tokenizerJSON: TokenizerFile(path: "fuzz", contents: contents))
                } ? 1 : 0
        }
        #expect(loaded > 0 && loaded < Self.inputCount)
    }

    @Test(arguments: ["vocab.json", "merges.txt", "tokenizer_config.json"])
    func threeFilesWithChangedBytes(name: String) throws {
        let tiny = TinyTokenizer().json
        let model = try #require(tiny["model"] as? [String: Any])
        let added = TinyTokenizer.addedTokens.map { token, id in
            #""\#(id)":{"content":"\#(token)","special":true}"#
        }
        let merges = TinyTokenizer.merges.map { $0.joined(separator: " ") + "\n" }
        var files = [
            "vocab.json": Array(
                try JSONSerialization.data(
                    withJSONObject: #require(model["vocab"]),
                    options: [.sortedKeys]
                )
            ),
            "merges.txt": Array(("#version: 0.2\n" + merges.joined()).utf8),
            "tokenizer_config.json": Array(
                "{\"added_tokens_decoder\":{\(added.sorted().joined(separator: ","))}}".utf8
            ),
        ]
        func load() throws(TokenizerError) -> Tokenizer {
            func file(_ name: String) throws(TokenizerError) -> TokenizerFile {
                try TokenizerFile(path: name, contents: files[name] ?? [])
            }
            return try Tokenizer(
                path: "fuzz",
                vocabulary: file("vocab.json"),
                merges: file("merges.txt"),
                config: file("tokenizer_config.json")
            )
        }
        #expect(try load().encode("abc<think>").count == 2)

        var generator = SeededGenerator(seed: 3)
        let original = try #require(files[name])
        var loaded = 0
        for _ in 0..<Self.inputCount / 2 {
            files[name] = mutated(original, &generator)
            loaded += tryLoading(load) ? 1 : 0
        }
        #expect(loaded < Self.inputCount / 2)
    }

    @Test func textsOfAllKinds() throws {
        var generator = SeededGenerator(seed: 4)
        let tokenizer = try TinyTokenizer().load()
        for _ in 0..<Self.inputCount {
            var scalars = String.UnicodeScalarView()
            for _ in 0..<Int.random(in: 0..<20, using: &generator) {
                let limit: UInt32 = Bool.random(using: &generator) ? 0x110000 : 0x400
                let value = UInt32.random(in: 0..<limit, using: &generator)
                scalars.append(Unicode.Scalar(value) ?? " ")
            }
            #expect(tokenizer.encode(String(scalars)).allSatisfy { $0 >= 0 })
        }
    }
}
