/// The byte-pair tokenizer of Qwen's text models, which Krea 2's text encoder uses.
///
/// A text is cut at the added tokens, brought to normal form C, split into words; each word's bytes
/// are merged to tokens. Source: `tokenizer.json` of Qwen3-VL as the `tokenizers` library reads it.
package struct Tokenizer: Sendable {
    /// Where it was read from: a directory or a file.
    package let path: String

    /// Ids of the tokens that are one byte, by byte.
    private let byteIDs: [Int32]
    private let merges: BytePairMerges
    private let addedTokens: AddedTokens

    /// How words are told apart, as the files have it; `WordSplitter` follows it by hand.
    static let splitPattern =
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"#
        + #"|\s*[\r\n]+|\s+(?!\S)|\s+"#

    /// Token ids of a text, which may be empty; nothing is put around them.
    ///
    /// Added tokens in the text, such as `<|im_end|>`, are recognised.
    package func encode(_ text: String) -> [Int32] {
        let bytes = Array(text.utf8)
        var ids: [Int32] = []
        for piece in addedTokens.split(bytes) {
            switch piece {
            case .token(let id):
                ids.append(id)
            case .text(let range):
                let scalars = composed(String(decoding: bytes[range], as: UTF8.self))
                for word in WordSplitter(scalars).words() {
                    ids += encode(word: scalars[word])
                }
            }
        }
        return ids
    }

    private func encode(word: ArraySlice<Unicode.Scalar>) -> [Int32] {
        var ids = word.flatMap { $0.utf8.map { byteIDs[Int($0)] } }
        merges.apply(to: &ids)
        return ids
    }
}

// MARK: Loading

extension Tokenizer {
    /// Reads a tokenizer from a directory or from a `tokenizer.json` of any name.
    ///
    /// - Throws: `TokenizerError`, with the file and the field that is wrong.
    package init(path: String) throws(TokenizerError) {
        if try isDirectory(path) {
            try self.init(directory: path)
        } else {
            try self.init(tokenizerJSON: TokenizerFile(path: path))
        }
    }

    /// Reads a tokenizer from a directory.
    ///
    /// - Parameter directory: Holds `tokenizer.json`; or else `vocab.json`, `merges.txt` and
    ///   `tokenizer_config.json`.
    /// - Throws: `TokenizerError`, with the file and the field that is wrong.
    package init(directory: String) throws(TokenizerError) {
        guard try isDirectory(directory) else {
            throw .unreadableFile(path: directory, reason: "it is not a directory")
        }
        func file(_ name: String) throws(TokenizerError) -> TokenizerFile {
            try TokenizerFile(path: directory + "/" + name)
        }
        do throws(TokenizerError) {
            try self.init(tokenizerJSON: file("tokenizer.json"))
            return
        } catch .missingFile {}
        let vocabulary: TokenizerFile
        do throws(TokenizerError) {
            vocabulary = try file("vocab.json")
        } catch .missingFile {
            throw .emptyDirectory(path: directory)
        }
        try self.init(
            path: directory,
            vocabulary: vocabulary,
            merges: file("merges.txt"),
            config: file("tokenizer_config.json")
        )
    }

    /// Reads a `tokenizer.json`.
    ///
    /// - Throws: `TokenizerError`, with the field that is wrong.
    init(tokenizerJSON file: TokenizerFile) throws(TokenizerError) {
        let contents = try TokenizerContents(tokenizerJSON: file)
        path = file.path
        let vocabulary = try Vocabulary(contents.vocabulary, path: path)
        byteIDs = vocabulary.byteIDs
        merges = try BytePairMerges(contents.merges, vocabulary: vocabulary, path: path)
        addedTokens = try AddedTokens(contents.addedTokens, vocabulary: vocabulary, path: path)
    }

    /// Reads the three files that say the same as a `tokenizer.json`.
    ///
    /// - Parameters:
    ///   - path: Where the tokenizer is, for messages.
    ///   - vocabularyFile: `vocab.json`.
    ///   - mergesFile: `merges.txt`.
    ///   - configFile: `tokenizer_config.json`, for the added tokens.
    /// - Throws: `TokenizerError`, with the file and the field that is wrong.
    init(
        path: String,
        vocabulary vocabularyFile: TokenizerFile,
        merges mergesFile: TokenizerFile,
        config configFile: TokenizerFile
    ) throws(TokenizerError) {
        let contents = try TokenizerContents(
            vocabulary: vocabularyFile,
            merges: mergesFile,
            config: configFile
        )
        self.path = path
        let vocabulary = try Vocabulary(contents.vocabulary, path: vocabularyFile.path)
        byteIDs = vocabulary.byteIDs
        merges = try BytePairMerges(
            contents.merges,
            vocabulary: vocabulary,
            path: mergesFile.path
        )
        addedTokens = try AddedTokens(
            contents.addedTokens,
            vocabulary: vocabulary,
            path: configFile.path
        )
    }
}
