import Foundation
import Testing

@testable import Tokenization

/// Every way in which files can be wrong, and what is said about it.
struct TokenizerErrorTests {
    private let path = "tiny.json"

    /// The error of loading a tokenizer; nil when it loads.
    private func failure(_ load: () throws(TokenizerError) -> Tokenizer) -> TokenizerError? {
        do throws(TokenizerError) {
            _ = try load()
            return nil
        } catch {
            #expect(!error.description.contains { $0.isNewline }, "\(error)")
            #expect(error.description.unicodeScalars.count < 1000)
            return error
        }
    }

    /// The error of the tiny tokenizer after a change.
    private func failure(setting field: String, to value: Any?) throws -> TokenizerError? {
        try failure(contents: TinyTokenizer().setting(field, to: value).bytes())
    }

    /// The error of a `tokenizer.json`.
    private func failure(contents: [UInt8]) -> TokenizerError? {
        failure { () throws(TokenizerError) in
            try Tokenizer(tokenizerJSON: TokenizerFile(path: path, contents: contents))
        }
    }

    /// The error of the three files, one of them replaced; nil removes it.
    private func failure(replacing name: String, by contents: [UInt8]?) throws -> TokenizerError? {
        try withTemporaryFolder { folder in
            for file in ["vocab.json", "merges.txt", "tokenizer_config.json"] where file != name {
                try FileManager.default.copyItem(
                    at: Fixture.tokenizerFolder.appending(path: file),
                    to: folder.appending(path: file)
                )
            }
            if let contents {
                try Data(contents).write(to: folder.appending(path: name))
            }
            let error = failure { () throws(TokenizerError) in
                try Tokenizer(directory: folder.path)
            }
            let file = folder.path + "/" + name
            #expect(error?.description.hasPrefix(file) ?? true, "\(error?.description ?? "")")
            return error
        }
    }

    /// The reason in a `damagedFile`.
    private func reason(_ error: TokenizerError?) -> String? {
        guard case .damagedFile(_, let reason) = error else { return nil }
        return reason
    }

    @Test func tinyTokenizerLoads() throws {
        let tokenizer = try TinyTokenizer().load()
        let abc = tokenizer.encode("abc")
        #expect(abc.count == 1)
        #expect(tokenizer.encode("abc<think>") == abc + [301])
        for optional in ["normalizer", "pre_tokenizer", "post_processor", "added_tokens"] {
            #expect(try failure(setting: optional, to: NSNull()) == nil)
            #expect(try failure(setting: optional, to: nil) == nil)
        }
        #expect(try failure(setting: "model.dropout", to: 0) == nil)
    }

    // MARK: Files

    @Test func missingFilesAreToldFromDamagedOnes() throws {
        try withTemporaryFolder { folder in
            let absent = folder.path + "/absent"
            for path in [absent, "", folder.path + "/tokenizer.json"] {
                let error = failure { () throws(TokenizerError) in try Tokenizer(path: path) }
                #expect(error == .missingFile(path: path))
                #expect(error?.isMissingFile == true)
            }
            #expect(
                failure { () throws(TokenizerError) in try Tokenizer(directory: absent) }
                    == .missingFile(path: absent)
            )
            let empty = failure { () throws(TokenizerError) in try Tokenizer(path: folder.path) }
            #expect(empty == .emptyDirectory(path: folder.path))
            #expect(empty?.isMissingFile == true)

            let link = folder.path + "/tokenizer.json"
            try FileManager.default.createSymbolicLink(
                atPath: link,
                withDestinationPath: "absent"
            )
            let dangling = failure { () throws(TokenizerError) in try Tokenizer(path: link) }
            #expect(dangling == .missingFile(path: link))
        }
        #expect(failure(contents: [])?.isMissingFile == false)
    }

    @Test func followsLinks() throws {
        try withTemporaryFolder { folder in
            let link = folder.appending(path: "link").path
            try FileManager.default.createSymbolicLink(
                atPath: link,
                withDestinationPath: Fixture.tokenizerFolder.path
            )
            #expect(failure { () throws(TokenizerError) in try Tokenizer(path: link) } == nil)
        }
    }

    @Test func missingPartsAreNamed() throws {
        #expect(try failure(replacing: "merges.txt", by: nil)?.isMissingFile == true)
        #expect(try failure(replacing: "tokenizer_config.json", by: nil)?.isMissingFile == true)
    }

    @Test func refusesWhatIsNoFile() throws {
        try withTemporaryFolder { folder in
            let json = folder.appending(path: "tokenizer.json")
            try FileManager.default.createDirectory(at: json, withIntermediateDirectories: true)
            let error = failure { () throws(TokenizerError) in try Tokenizer(path: folder.path) }
            #expect(error == .unreadableFile(path: json.path, reason: "it is a directory"))
            #expect(error?.isMissingFile == true)
        }
        #expect(
            failure { () throws(TokenizerError) in try Tokenizer(path: "/dev/zero") }
                == .unreadableFile(path: "/dev/zero", reason: "it is not a regular file")
        )
        let file = Fixture.tokenizerFolder.appending(path: "vocab.json").path
        #expect(
            failure { () throws(TokenizerError) in try Tokenizer(directory: file) }
                == .unreadableFile(path: file, reason: "it is not a directory")
        )
    }

    @Test func refusesHugeFiles() throws {
        try withTemporaryFolder { folder in
            let file = folder.appending(path: "tokenizer.json")
            try Data().write(to: file)
            let handle = try FileHandle(forWritingTo: file)
            try handle.truncate(atOffset: 64 << 20 + 1)
            try handle.close()
            let error = failure { () throws(TokenizerError) in try Tokenizer(path: file.path) }
            #expect(
                error
                    == .tooLarge(
                        path: file.path,
                        what: "bytes",
                        count: 64 << 20 + 1,
                        limit: 64 << 20
                    )
            )
        }
    }

    // MARK: Damage

    @Test func refusesBrokenJSON() throws {
        let whole = try TinyTokenizer().bytes()
        #expect(reason(failure(contents: [])) == "not valid JSON at byte 0: the text ends here")
        #expect(
            reason(failure(contents: whole.dropLast()))
                == "not valid JSON at byte \(whole.count - 1): the text ends here"
        )
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
        #expect(
            reason(failure(contents: Array(pointer.utf8)))
                == "is a Git LFS pointer, not the file itself; run git lfs pull"
        )
    }

    @Test(
        arguments: [
            ("model", nil), ("model", 7), ("model.vocab", nil), ("model.vocab", ["x"]),
            ("model.vocab.x", "y"), ("model.vocab.x", 1.5), ("model.merges", nil),
            ("model.merges", "a b"), ("model.merges.1", ["a"]),
            ("model.merges.1", ["a", "b", "c"]),
            ("model.merges.1", [1, 2]), ("model.merges", ["a b", "ab"]), ("model.merges", ["a  b"]),
            ("model.merges", [" b"]), ("model.merges", ["b "]), ("model.type", 1),
            ("model.ignore_merges", "no"), ("normalizer", "NFC"), ("pre_tokenizer", 3),
            ("pre_tokenizer.pretokenizers", nil), ("added_tokens", 1), ("added_tokens.0", "x"),
            ("added_tokens.0.id", nil), ("added_tokens.0.id", "5"), ("added_tokens.0.content", nil),
            ("added_tokens.0.content", ""), ("added_tokens.0.lstrip", 2),
        ] as [(String, (any Sendable)?)]
    )
    func refusesFieldsOfAnotherKind(field: String, value: (any Sendable)?) throws {
        let error = try failure(setting: field, to: value)
        #expect(reason(error) != nil, "\(field): \(String(describing: error))")
    }

    @Test func namesTheFieldAndTheLine() throws {
        #expect(
            reason(try failure(setting: "model.vocab", to: nil))
                == "\"model.vocab\" is missing, expected an object"
        )
        #expect(
            reason(try failure(setting: "model.vocab.x", to: "y"))
                == "\"model.vocab.x\" is \"y\", expected an integer"
        )
        #expect(
            reason(try failure(setting: "model.merges", to: ["a b", "ab"]))
                == "model.merges.1 is not a pair of tokens"
        )
        #expect(
            reason(try failure(setting: "added_tokens.1.content", to: ""))
                == "added token 301 is empty"
        )
        let lines = "#version: 0.2\nĠ a\n\nĠ b\n"
        #expect(
            reason(try failure(replacing: "merges.txt", by: Array(lines.utf8)))
                == "line 3 is not a pair of tokens"
        )
        #expect(
            reason(try failure(replacing: "merges.txt", by: [0x61, 0x20, 0xE9]))
                == "line 1 is not a pair of tokens"
        )
        let config = #"{"added_tokens_decoder":{"first":{"content":"<a>","special":true}}}"#
        #expect(
            reason(try failure(replacing: "tokenizer_config.json", by: Array(config.utf8)))
                == "added_tokens_decoder has key \"first\", expected an id"
        )
        #expect(
            reason(try failure(replacing: "tokenizer_config.json", by: Array("{}".utf8)))
                == "\"added_tokens_decoder\" is missing, expected an object"
        )
        #expect(
            reason(try failure(replacing: "vocab.json", by: Array("[]".utf8)))
                == "the file is an array of 0, expected an object"
        )
    }

    // MARK: Other tokenizers

    @Test(
        arguments: [
            ("model.type", "Unigram"), ("model.dropout", 0.1), ("model.dropout", "none"),
            ("model.ignore_merges", true),
            ("model.continuing_subword_prefix", "##"), ("model.end_of_word_suffix", "</w>"),
            ("normalizer.type", "NFKC"), ("post_processor.type", "TemplateProcessing"),
            ("pre_tokenizer.type", "ByteLevel"), ("pre_tokenizer.pretokenizers", [String]()),
            ("pre_tokenizer.pretokenizers.1.type", "Digits"),
            ("pre_tokenizer.pretokenizers.0.pattern", ["String": " "]),
            ("pre_tokenizer.pretokenizers.0.pattern.Regex", #"\p{L}+"#),
            ("pre_tokenizer.pretokenizers.0.behavior", "Removed"),
            ("pre_tokenizer.pretokenizers.0.invert", true),
            ("pre_tokenizer.pretokenizers.1.add_prefix_space", true),
            ("pre_tokenizer.pretokenizers.1.add_prefix_space", nil),
            ("pre_tokenizer.pretokenizers.1.use_regex", nil),
            ("added_tokens.0.lstrip", true), ("added_tokens.0.rstrip", true),
            ("added_tokens.0.single_word", true), ("added_tokens.0.normalized", true),
        ] as [(String, (any Sendable)?)]
    )
    func refusesOtherWaysOfTokenising(field: String, value: (any Sendable)?) throws {
        let error = try failure(setting: field, to: value)
        guard case .unsupported(path, _, _, _) = error else {
            Issue.record("\(field): \(String(describing: error))")
            return
        }
    }

    @Test func saysWhatIsSupported() throws {
        #expect(
            try failure(setting: "normalizer.type", to: "NFKC")?.description
                == "tiny.json: normalizer.type is \"NFKC\", expected \"NFC\""
        )
        let config = #"{"tokenizer_class":"GPT2Tokenizer","added_tokens_decoder":{}}"#
        guard
            case .unsupported(_, "tokenizer_class", "\"GPT2Tokenizer\"", _) =
                try failure(replacing: "tokenizer_config.json", by: Array(config.utf8))
        else {
            Issue.record("GPT2Tokenizer is accepted")
            return
        }
        // The default of `normalized` is the opposite of `special`.
        let plain = #"{"added_tokens_decoder":{"2000":{"content":"<a>"}}}"#
        guard
            case .unsupported(_, "added_tokens_decoder.2000.normalized", _, _) =
                try failure(replacing: "tokenizer_config.json", by: Array(plain.utf8))
        else {
            Issue.record("a normalized token is accepted")
            return
        }
    }

    // MARK: Contradictions

    @Test func refusesIDsOutOfRange() throws {
        for id in [-1, 1 << 31, Int.max] {
            #expect(
                try failure(setting: "model.vocab.a", to: id)
                    == .idOutOfRange(path: path, token: "a", id: id)
            )
            #expect(
                try failure(setting: "added_tokens.0.id", to: id)
                    == .idOutOfRange(path: path, token: "<|im_start|>", id: id)
            )
        }
        #expect(try failure(setting: "model.vocab.zz", to: Int(Int32.max)) == nil)
    }

    @Test func refusesDuplicates() throws {
        let a = try #require(try TinyTokenizer().load().encode("a").first)
        #expect(
            try failure(setting: "model.vocab.zz", to: Int(a))
                == .duplicateID(path: path, id: Int(a), first: "a", second: "zz")
        )
        #expect(
            try failure(setting: "added_tokens.0.id", to: Int(a))
                == .duplicateID(path: path, id: Int(a), first: "a", second: "<|im_start|>")
        )
        #expect(
            try failure(setting: "added_tokens.1.id", to: 300)
                == .duplicateID(path: path, id: 300, first: "<|im_start|>", second: "<think>")
        )
        #expect(
            try failure(setting: "added_tokens.1.content", to: "<|im_start|>")
                == .duplicateToken(path: path, token: "<|im_start|>")
        )
        #expect(
            try failure(setting: "model.vocab.<think>", to: 299)
                == .duplicateToken(path: path, token: "<think>")
        )
        #expect(try failure(setting: "model.vocab.<think>", to: 301) == nil)
        #expect(
            try failure(setting: "model.merges", to: TinyTokenizer.merges + [["a", "b"]])
                == .duplicateMerge(path: path, left: "a", right: "b", merge: 6)
        )
    }

    @Test func refusesUnknownTokensAndMissingBytes() throws {
        for (merge, token) in [(["q?", "a"], "q?"), (["a", "q?"], "q?"), (["a", "z"], "az")] {
            #expect(
                try failure(setting: "model.merges.2", to: merge)
                    == .unknownMergeToken(path: path, token: token, merge: 3)
            )
        }
        #expect(
            try failure(setting: "model.vocab.Ġ", to: nil)
                == .missingByte(path: path, byte: 32, token: "Ġ")
        )
    }

    @Test func refusesTooMany() throws {
        let vocabulary = try Vocabulary(
            Dictionary(uniqueKeysWithValues: Vocabulary.byteTokens.enumerated().map { ($1, $0) }),
            path: path
        )
        let limit = 1 << 20
        #expect(
            throws: TokenizerError.tooLarge(
                path: path,
                what: "merges",
                count: limit + 1,
                limit: limit
            )
        ) {
            let pairs = Array(repeating: TokenPair(left: "a", right: "b"), count: limit + 1)
            _ = try BytePairMerges(pairs, vocabulary: vocabulary, path: path)
        }
        let entries = (0...4096).map { index in
            ["id": 300 + index, "content": "<\(index)>", "special": true] as [String: Any]
        }
        #expect(
            try failure(setting: "added_tokens", to: entries)
                == .tooLarge(path: path, what: "added tokens", count: 4097, limit: 4096)
        )
        let long = String(repeating: "x", count: 257)
        guard
            case .tooLarge(path, _, 257, 256) =
                try failure(setting: "added_tokens.0.content", to: long)
        else {
            Issue.record("a long added token is accepted")
            return
        }
    }

    @Test func refusesHugeVocabularies() throws {
        let limit = 1 << 20
        let entries = Dictionary(uniqueKeysWithValues: (0...limit).map { (String($0), $0) })
        let error = TokenizerError.tooLarge(
            path: path,
            what: "tokens",
            count: limit + 1,
            limit: limit
        )
        #expect(throws: error) { try Vocabulary(entries, path: path) }
    }
}
