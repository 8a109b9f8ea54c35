/// The template with pictures at the start of the user's turn, before the prompt.
///
/// Sources: the chat template of Qwen3-VL; for the labels `Krea2` of ai-toolkit.
package struct PictureTemplate: Sendable {
    /// Tokens with pictures among them, ready for the text encoder.
    package struct Encoding: Sendable, Equatable {
        /// Token ids of prefix, pictures, prompt and suffix.
        package let ids: [Int32]
        /// The tokens that stand for each picture; a token before and after says so.
        package let pictures: [Range<Int>]
        /// Tokens at the end of the prompt that were cut off.
        package let truncatedTokens: Int
    }

    /// Text before picture `index`, from 1, where pictures are labelled.
    package static func label(_ index: Int) -> String { "Picture \(index): " }

    private let template: PromptTemplate
    private let start: Int32
    private let picture: Int32
    private let end: Int32

    /// Looks for the tokens around pictures.
    ///
    /// - Parameter template: Has the tokenizer.
    /// - Throws: `unfitTemplate` when one of them is not a single token.
    package init(_ template: PromptTemplate) throws(TokenizerError) {
        func id(_ token: String) throws(TokenizerError) -> Int32 {
            let ids = template.tokenizer.encode(token)
            guard ids.count == 1 else {
                throw .unfitTemplate(
                    path: template.tokenizer.path,
                    part: token,
                    tokenCount: ids.count,
                    expected: 1
                )
            }
            return ids[0]
        }
        start = try id("<|vision_start|>")
        picture = try id("<|image_pad|>")
        end = try id("<|vision_end|>")
        self.template = template
    }

    /// Tokenises a prompt behind some pictures.
    ///
    /// The limit on the prompt's tokens is that of prompts without pictures, which do not count.
    ///
    /// - Parameters:
    ///   - prompt: What the user wrote; may be empty, and is cut at the right when it is too long.
    ///   - pictureTokens: Tokens of each picture; none leaves what `PromptTemplate` gives.
    ///   - isLabelled: Whether "Picture 1: " and so on stand before the pictures.
    /// - Returns: The ids, with `PromptTemplate.sliceStart` tokens before what goes on.
    package func encode(
        _ prompt: String,
        pictureTokens: [Int],
        isLabelled: Bool
    ) -> Encoding {
        guard !pictureTokens.isEmpty else {
            let text = template.encode(prompt)
            return Encoding(ids: text.ids, pictures: [], truncatedTokens: text.truncatedTokens)
        }
        // Added tokens part the text, so what is between two of them can be tokenised alone.
        var ids: [Int32] = []
        var pictures: [Range<Int>] = []
        for (index, count) in pictureTokens.enumerated() {
            let before = index == 0 ? PromptTemplate.prefix : ""
            ids += template.tokenizer.encode(before + (isLabelled ? Self.label(index + 1) : ""))
            ids.append(start)
            pictures.append(ids.count..<ids.count + count)
            ids += [Int32](repeating: picture, count: count)
            ids.append(end)
        }
        let limit = PromptTemplate.conditioningLimit - PromptTemplate.suffixTokenCount
        let text = template.tokenizer.encode(prompt)
        return Encoding(
            ids: ids + Array(text.prefix(limit)) + template.suffixIDs,
            pictures: pictures,
            truncatedTokens: max(text.count - limit, 0)
        )
    }
}
