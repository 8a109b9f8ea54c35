/// The text that Krea 2 puts around a prompt, and the limit on their tokens.
///
/// Source: `Krea2Pipeline.get_text_hidden_states` of diffusers 0.42.1. There the tokens are padded
/// to a fixed count between prompt and suffix. Padding is masked everywhere and takes no position,
/// so it is left out here.
package struct PromptTemplate: Sendable {
    /// Text before the prompt.
    package static let prefix =
        "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, "
        + "quantity, text, spatial relationships of the objects and background:<|im_end|>\n"
        + "<|im_start|>user\n"

    /// Text after the prompt.
    package static let suffix = "<|im_end|>\n<|im_start|>assistant\n"

    /// First token whose encoder output goes on: the number of tokens of the prefix alone.
    ///
    /// The cut is at this index even where a prompt that begins with line feeds shares a token with
    /// the end of the prefix; that token is then lost, as in the reference.
    package static let sliceStart = 34

    /// Tokens of the suffix.
    package static let suffixTokenCount = 5

    /// Most tokens that go on, those of the suffix included.
    package static let conditioningLimit = 512

    /// A prompt ready for the text encoder.
    package struct Encoding: Sendable, Equatable {
        /// Token ids of prefix, prompt and suffix.
        package let ids: [Int32]
        /// Tokens at the end of the prompt that were cut off.
        package let truncatedTokens: Int
    }

    let tokenizer: Tokenizer
    let suffixIDs: [Int32]

    /// Checks that the tokenizer is one the model was made for.
    ///
    /// - Throws: `unfitTemplate` when prefix or suffix have another number of tokens.
    package init(_ tokenizer: Tokenizer) throws(TokenizerError) {
        func ids(_ part: String, _ text: String, _ count: Int) throws(TokenizerError) -> [Int32] {
            let ids = tokenizer.encode(text)
            guard ids.count == count else {
                throw .unfitTemplate(
                    path: tokenizer.path,
                    part: part,
                    tokenCount: ids.count,
                    expected: count
                )
            }
            return ids
        }
        _ = try ids("prefix", Self.prefix, Self.sliceStart)
        suffixIDs = try ids("suffix", Self.suffix, Self.suffixTokenCount)
        self.tokenizer = tokenizer
    }

    /// Tokenises a prompt, which may be empty.
    ///
    /// - Parameter prompt: What the user wrote; cut at the right when it is too long.
    /// - Returns: At most `sliceStart + conditioningLimit` ids.
    package func encode(_ prompt: String) -> Encoding {
        // One string, since line feeds at the start of the prompt merge with the prefix's last one.
        let ids = tokenizer.encode(Self.prefix + prompt)
        let limit = Self.sliceStart + Self.conditioningLimit - Self.suffixTokenCount
        return Encoding(
            ids: ids.prefix(limit) + suffixIDs,
            truncatedTokens: max(ids.count - limit, 0)
        )
    }
}
