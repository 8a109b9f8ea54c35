import Foundation
import Testing

@testable import Tokenization

/// The small tokenizer and what the reference makes of texts; see the folder's README.
enum Fixture {
    /// Where the fixtures are.
    static let folder = URL(filePath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "Fixtures/tokenizer")

    /// A directory with all four files.
    static let tokenizerFolder = folder.appending(path: "tokenizer")

    /// The tokenizer, from its `tokenizer.json`.
    static func tokenizer() throws -> Tokenizer { try Tokenizer(path: tokenizerFolder.path) }

    /// What the reference makes of texts and prompts.
    static func cases() throws -> Cases {
        try JSONDecoder().decode(
            Cases.self,
            from: Data(contentsOf: folder.appending(path: "cases.json"))
        )
    }

    /// What the reference makes of texts and prompts.
    struct Cases: Decodable {
        /// Texts tokenised alone.
        let encoding: [TextCase]
        /// Prompts in the template.
        let template: [PromptCase]
    }

    /// A text tokenised alone.
    struct TextCase: Decodable {
        let about: String
        let text: String
        let ids: [Int32]
    }

    /// A prompt in the template.
    struct PromptCase: Decodable {
        let prompt: String
        let ids: [Int32]
        let truncated: Int
        let conditioningRows: Int
    }
}

/// A directory that is removed with its contents at the end of `body`.
func withTemporaryFolder<Result>(_ body: (URL) throws -> Result) throws -> Result {
    // Blanks and signs that mean something in URLs are common in users' folder names.
    let folder = FileManager.default.temporaryDirectory
        .appending(path: "tokenizer 100% #1?ü \(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    return try body(folder)
}

// MARK: A tokenizer of a few kilobytes

/// A `tokenizer.json` with the 256 bytes, a few merges and two added tokens, built for one test.
struct TinyTokenizer {
    /// The whole file, to be changed by tests.
    var json: [String: Any]

    /// Merges of the tiny tokenizer.
    static let merges = [["Ġ", "a"], ["a", "b"], ["ab", "c"], ["Ċ", "Ċ"], ["Ã", "©"]]
    /// Ids of its added tokens.
    static let addedTokens = ["<|im_start|>": 300, "<think>": 301]

    init() {
        var vocabulary: [String: Int] = [:]
        for token in Vocabulary.byteTokens + Self.merges.map({ $0.joined() }) {
            vocabulary[token] = vocabulary.count
        }
        json = [
            "version": "1.0",
            "added_tokens": Self.addedTokens.sorted { $0.value < $1.value }.map {
                [
                    "id": $0.value, "content": $0.key, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true,
                ] as [String: Any]
            },
            "normalizer": ["type": "NFC"],
            "pre_tokenizer": [
                "type": "Sequence",
                "pretokenizers": [
                    [
                        "type": "Split", "pattern": ["Regex": Tokenizer.splitPattern],
                        "behavior": "Isolated", "invert": false,
                    ] as [String: Any],
                    ["type": "ByteLevel", "add_prefix_space": false, "use_regex": false],
                ],
            ] as [String: Any],
            "post_processor": ["type": "ByteLevel"],
            "model": [
                "type": "BPE", "vocab": vocabulary, "merges": Self.merges, "dropout": NSNull(),
            ] as [String: Any],
        ]
    }

    /// Sets or, with nil, removes what stands at a path of keys and indices such as `model.vocab`.
    func setting(_ path: String, to value: Any?) -> TinyTokenizer {
        func set(_ keys: ArraySlice<Substring>, in container: Any) -> Any? {
            guard let key = keys.first else { return value }
            if var object = container as? [String: Any] {
                object[String(key)] = set(keys.dropFirst(), in: object[String(key)] ?? [:])
                return object
            }
            guard var list = container as? [Any], let index = Int(key) else { return container }
            if let element = set(keys.dropFirst(), in: list[index]) {
                list[index] = element
            } else {
                list.remove(at: index)
            }
            return list
        }
        var copy = self
        copy.json = set(path.split(separator: ".")[...], in: json) as? [String: Any] ?? [:]
        return copy
    }

    /// The file's bytes, the same each time.
    func bytes() throws -> [UInt8] {
        Array(try JSONSerialization.data(withJSONObject: json, options: [.sortedKeys]))
    }

    /// Loads it from memory.
    func load() throws -> Tokenizer {
        try Tokenizer(tokenizerJSON: TokenizerFile(path: "tiny.json", contents: bytes()))
    }
}
