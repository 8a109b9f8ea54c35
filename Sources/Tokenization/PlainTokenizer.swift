import FoundationEssentials

/// A tokenizer that was trained on nothing, for models of random weights.
///
/// Each byte is a token. So is each word of the prompt template, which thus has as many tokens as
/// with the real vocabulary.
package enum PlainTokenizer {
    /// Ids it uses: 0 ..< `idCount`.
    package static var idCount: Int { Vocabulary.byteTokens.count + templateWords.count }

    /// The bytes of its `tokenizer.json`.
    ///
    /// - Throws: What the encoder throws, which it does not for these values.
    package static func json() throws -> [UInt8] {
        let bytes = Vocabulary.byteTokens
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        let file = File(
            added_tokens: templateWords.enumerated().map {
                File.AddedToken(id: bytes.count + $0, content: $1)
            },
            model: File.Model(
                vocab: Dictionary(uniqueKeysWithValues: zip(bytes, 0..<bytes.count))
            )
        )
        return Array(try encoder.encode(file))
    }

    /// The words of the template that are longer than a byte: with the blank before them.
    private static var templateWords: [String] {
        var words = ["<|im_start|>", "<|im_end|>"]
        let text = (PromptTemplate.prefix + PromptTemplate.suffix)
            .split(separator: "<|im_start|>").flatMap { $0.split(separator: "<|im_end|>") }
        for part in text {
            var word = ""
            for character in part + "\n" {
                if word.count > 1 && !character.isLetter && !words.contains(word) {
                    words.append(word)
                }
                if !character.isLetter { word = "" }
                if character.isLetter || character == " " { word.append(character) }
            }
        }
        return words
    }

    /// The members that are read.
    private struct File: Encodable {
        struct AddedToken: Encodable {
            let id: Int
            let content: String
            let special = true
        }

        struct Model: Encodable {
            let type = "BPE"
            let vocab: [String: Int]
            let merges: [String] = []
        }

        let added_tokens: [AddedToken]
        let model: Model
    }
}
