import Foundation
import Testing

@testable import Tokenization

/// Agreement with transformers on every text of the fixture.
struct ParityTests {
    /// Texts that a tokenizer encodes otherwise than the reference.
    private func mismatches(_ tokenizer: Tokenizer) throws -> [String] {
        try Fixture.cases().encoding.compactMap { example in
            let ids = tokenizer.encode(example.text)
            return ids == example.ids
                ? nil : "\(example.about): \(example.text.debugDescription) \(ids) \(example.ids)"
        }
    }

    @Test func agreesFromTokenizerJSON() throws {
        #expect(try Fixture.cases().encoding.count >= 300)
        #expect(try mismatches(Fixture.tokenizer()) == [])
    }

    @Test func agreesFromThreeFiles() throws {
        try withTemporaryFolder { folder in
            for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
                try FileManager.default.copyItem(
                    at: Fixture.tokenizerFolder.appending(path: name),
                    to: folder.appending(path: name)
                )
            }
            #expect(try mismatches(Tokenizer(directory: folder.path)) == [])
        }
    }

    @Test func agreesWithMergesAsStrings() throws {
        let file = Fixture.tokenizerFolder.appending(path: "tokenizer.json")
        let object = try JSONSerialization.jsonObject(with: Data(contentsOf: file))
        var json = try #require(object as? [String: Any])
        var model = try #require(json["model"] as? [String: Any])
        let pairs = try #require(model["merges"] as? [[String]])
        model["merges"] = pairs.map { $0.joined(separator: " ") }
        json["model"] = model
        let contents = try JSONSerialization.data(withJSONObject: json)
        let tokenizer = try Tokenizer(
            tokenizerJSON: TokenizerFile(path: "strings.json", contents: Array(contents))
        )
        #expect(try mismatches(tokenizer) == [])
    }

    @Test func readsMergesWithCarriageReturns() throws {
        func file(_ name: String, _ text: String) throws -> TokenizerFile {
            try TokenizerFile(path: name, contents: Array(text.utf8))
        }
        let contents = try TokenizerContents(
            vocabulary: file("vocab.json", "{}"),
            merges: file("merges.txt", "#version: 0.2\r\nĠ a\r\n#version x\r\n"),
            config: file("tokenizer_config.json", #"{"added_tokens_decoder":{}}"#)
        )
        #expect(
            contents.merges
                == [TokenPair(left: "Ġ", right: "a"), TokenPair(left: "#version", right: "x")]
        )
    }

    @Test func loadsTheFileItself() throws {
        let file = Fixture.tokenizerFolder.appending(path: "tokenizer.json")
        let tokenizer = try Tokenizer(path: file.path)
        #expect(tokenizer.path == file.path)
        #expect(tokenizer.encode("a fox") == (try Fixture.tokenizer().encode("a fox")))
    }
}
