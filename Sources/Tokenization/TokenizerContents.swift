import JSON

/// What the files of a tokenizer say, read but not yet checked against each other.
struct TokenizerContents {
    /// Ids by token.
    var vocabulary: [String: Int]
    /// Pairs to merge, most urgent first.
    var merges: [TokenPair]
    /// Tokens that are cut out of the raw text.
    var addedTokens: [AddedToken]
}

/// Two tokens that become one.
struct TokenPair: Equatable {
    /// The token in front.
    let left: String
    /// The token behind it.
    let right: String
}

extension TokenPair {
    /// Reads `left right`; nil when there are not two tokens with one blank between them.
    init?(line: some StringProtocol) {
        let tokens = line.split(separator: " ", omittingEmptySubsequences: false)
        guard tokens.count == 2, !tokens[0].isEmpty, !tokens[1].isEmpty else { return nil }
        self.init(left: String(tokens[0]), right: String(tokens[1]))
    }

    /// Reads either form the `tokenizers` library has written: `[left, right]` or `"left right"`.
    fileprivate init?(_ value: JSONValue) {
        switch value {
        case .string(let line):
            self.init(line: line)
        case .array(let tokens):
            guard tokens.count == 2, case .string(let left) = tokens[0],
                case .string(let right) = tokens[1]
            else { return nil }
            self.init(left: left, right: right)
        default:
            return nil
        }
    }
}

/// A token that is cut out of the raw text before anything else is done with it.
struct AddedToken: Equatable {
    /// The id as the file has it.
    let id: Int
    /// The token.
    let content: String
}

extension AddedToken {
    /// Reads the description of a token; defaults are those of the `tokenizers` library.
    ///
    /// - Throws: `unsupported` when it is to be found otherwise than literally in the raw text.
    fileprivate init(id: Int, _ fields: JSONField) throws(TokenizerError) {
        let isSpecial = try fields.member("special").bool(ifAbsent: false)
        try fields.member("lstrip").requireFalse()
        try fields.member("rstrip").requireFalse()
        try fields.member("single_word").requireFalse()
        try fields.member("normalized").requireFalse(ifAbsent: !isSpecial)
        self.init(id: id, content: try fields.member("content").string())
    }
}

// MARK: One file

extension TokenizerContents {
    /// Reads a `tokenizer.json` of the `tokenizers` library.
    ///
    /// A normaliser or pre-tokeniser that is left out is taken to be Qwen's, as transformers does.
    /// `unk_token`, `fuse_unk` and `byte_fallback` decide nothing, since every byte has a token.
    ///
    /// - Throws: `damagedFile`, or `unsupported` for another way of tokenising than Qwen's.
    init(tokenizerJSON file: TokenizerFile) throws(TokenizerError) {
        let root = try file.json()
        try Self.checkStages(of: root)

        let model = try root.member("model")
        try model.member("type").require("BPE", isOptional: true)
        try model.member("continuing_subword_prefix").require("", isOptional: true)
        try model.member("end_of_word_suffix").require("", isOptional: true)
        try model.member("ignore_merges").requireFalse()
        let dropout = try model.member("dropout")
        guard [.null, .integer(0), .number(0)].contains(dropout.value) else {
            throw dropout.unsupported("0")
        }

        vocabulary = try Self.vocabulary(model.member("vocab"))
        merges = []
        let list = try model.member("merges")
        for (index, value) in try list.array().enumerated() {
            guard let pair = TokenPair(value) else {
                throw file.damaged("\(list.name).\(index) is not a pair of tokens")
            }
            merges.append(pair)
        }
        addedTokens = []
        let tokens = try root.member("added_tokens")
        for (index, value) in (tokens.isNull ? [] : try tokens.array()).enumerated() {
            let fields = tokens.inner("\(index)", value)
            let id = try fields.member("id").integer()
            addedTokens.append(try AddedToken(id: id, fields))
        }
    }

    /// Refuses other steps before and after the merging than Qwen's.
    private static func checkStages(of root: JSONField) throws(TokenizerError) {
        let normalizer = try root.member("normalizer")
        try normalizer.member("type").require("NFC", isOptional: normalizer.isNull)
        let postProcessor = try root.member("post_processor")
        try postProcessor.member("type").require("ByteLevel", isOptional: postProcessor.isNull)

        let preTokenizer = try root.member("pre_tokenizer")
        guard !preTokenizer.isNull else { return }
        try preTokenizer.member("type").require("Sequence")
        let stages = try preTokenizer.member("pretokenizers")
        let values = try stages.array()
        guard values.count == 2 else { throw stages.unsupported("Split and ByteLevel") }
        let split = stages.inner("0", values[0])
        try split.member("type").require("Split")
        try split.member("pattern").member("Regex").require(Tokenizer.splitPattern)
        try split.member("behavior").require("Isolated")
        try split.member("invert").requireFalse()
        let byteLevel = stages.inner("1", values[1])
        try byteLevel.member("type").require("ByteLevel")
        try byteLevel.member("add_prefix_space").requireFalse(ifAbsent: true)
        try byteLevel.member("use_regex").requireFalse(ifAbsent: true)
    }

    /// Ids by token.
    private static func vocabulary(_ field: JSONField) throws(TokenizerError) -> [String: Int] {
        var vocabulary: [String: Int] = [:]
        for (token, value) in try field.object() {
            guard case .integer(let id) = value else {
                vocabulary[token] = try field.inner(token, value).integer()
                continue
            }
            vocabulary[token] = id
        }
        return vocabulary
    }
}

// MARK: Three files

extension TokenizerContents {
    /// Reads `vocab.json`, `merges.txt` and the added tokens of `tokenizer_config.json`.
    ///
    /// - Throws: `damagedFile`, or `unsupported` for another class of tokenizer than Qwen's.
    init(
        vocabulary vocabularyFile: TokenizerFile,
        merges mergesFile: TokenizerFile,
        config configFile: TokenizerFile
    ) throws(TokenizerError) {
        vocabulary = try Self.vocabulary(vocabularyFile.json())
        merges = try Self.merges(mergesFile)

        let config = try configFile.json()
        let className = try config.member("tokenizer_class")
        if className.value != .string("Qwen2TokenizerFast") {
            try className.require("Qwen2Tokenizer", isOptional: true)
        }
        try config.member("add_prefix_space").requireFalse()
        addedTokens = []
        let tokens = try config.member("added_tokens_decoder")
        for (key, value) in try tokens.object() {
            guard let id = Int(key) else {
                throw configFile.damaged("\(tokens.name) has key \(quoted(key)), expected an id")
            }
            addedTokens.append(try AddedToken(id: id, tokens.inner(key, value)))
        }
        addedTokens.sort { $0.id < $1.id }
    }

    /// Reads a `merges.txt`: one `left right` a line, after a line that starts with `#version`.
    private static func merges(_ file: TokenizerFile) throws(TokenizerError) -> [TokenPair] {
        let newline = UInt8(ascii: "\n")
        var lines = file.contents.split(separator: newline, omittingEmptySubsequences: false)
        if lines.last?.isEmpty == true { lines.removeLast() }
        let hasVersion = lines.first?.starts(with: "#version".utf8) == true
        var pairs: [TokenPair] = []
        for (index, line) in lines.enumerated().dropFirst(hasVersion ? 1 : 0) {
            let end = line.last == UInt8(ascii: "\r") ? line.dropLast() : line
            guard let text = String(validating: end, as: UTF8.self),
                let pair = TokenPair(line: text)
            else {
                throw file.damaged("line \(index + 1) is not a pair of tokens")
            }
            pairs.append(pair)
        }
        return pairs
    }
}
