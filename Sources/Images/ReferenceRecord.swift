// What a record says of pictures whose look was used.

extension GenerationRecord {
    /// A picture whose style was beside the prompt.
    public struct Reference: Sendable, Equatable, Encodable {
        /// Names the picture's content: a digest of size and pixels.
        public let content: String
        /// How strongly it led towards the picture, or away from it.
        public let strength: Float
        /// What was done to the picture, such as `none` or `tiles`.
        public let prep: String
        /// Its square is the largest area in which the text encoder saw the picture.
        public let side: Int
        /// Lowest and highest noise level of the steps that it acted in.
        public let window: [Double]
        /// First and last block of the transformer that it acted in; nil for all.
        public let blocks: [Int]?
        /// Factors of the text encoder's taps; nil for 1.
        public let taps: [Double]?
        /// Part of the strength that went to a description of the style; nil for none.
        public let caption: Float?
        /// Digest of the text encoder's files, where these were others than the model's.
        public let encoder: String?

        /// Takes the values.
        ///
        /// - Parameters:
        ///   - content: Names the picture's content.
        ///   - strength: How strongly it led towards the picture, or away from it.
        ///   - prep: What was done to the picture.
        ///   - side: Its square is the largest area in which the text encoder saw the picture.
        ///   - window: Lowest and highest noise level of the steps that it acted in.
        ///   - blocks: First and last block of the transformer; nil for all.
        ///   - taps: Factors of the text encoder's taps; nil for 1.
        ///   - caption: Part of the strength that went to a description; nil for none.
        ///   - encoder: Digest of the text encoder's files, where these were others.
        public init(
            content: String,
            strength: Float,
            prep: String,
            side: Int,
            window: [Double],
            blocks: [Int]? = nil,
            taps: [Double]? = nil,
            caption: Float? = nil,
            encoder: String? = nil
        ) {
            (self.content, self.strength, self.prep, self.side) = (content, strength, prep, side)
            (self.window, self.blocks, self.taps) = (window, blocks, taps)
            (self.caption, self.encoder) = (caption, encoder)
        }
    }

    /// Several pictures whose look was beside the prompt.
    public struct Moodboard: Sendable, Equatable, Encodable {
        /// Names the pictures' contents.
        public let content: String
        /// How many pictures.
        public let pictures: Int
        /// How strongly it led towards their look, or away from it.
        public let strength: Float
        /// Digest of the text encoder's files, where these were others than the model's.
        public let encoder: String?

        /// Takes the values.
        ///
        /// - Parameters:
        ///   - content: Names the pictures' contents.
        ///   - pictures: How many pictures.
        ///   - strength: How strongly it led towards their look, or away from it.
        ///   - encoder: Digest of the text encoder's files, where these were others.
        public init(content: String, pictures: Int, strength: Float, encoder: String? = nil) {
            (self.content, self.pictures) = (content, pictures)
            (self.strength, self.encoder) = (strength, encoder)
        }
    }
}

// MARK: JSON

extension GenerationRecord.Reference {
    static func read(_ fields: RecordFields) throws(ImageError) -> [Self] {
        var references: [Self] = []
        for fields in try fields.objects("references") {
            var blocks: [Int]?
            if let numbers = try fields.optionalNumbers("blocks") {
                blocks = numbers.compactMap(Int.init(exactly:))
                guard blocks?.count == numbers.count else { throw fields.unusable("blocks") }
            }
            references.append(
                Self(
                    content: try fields.string("content"),
                    strength: Float(try fields.number("strength")),
                    prep: try fields.string("prep"),
                    side: try fields.integer("side"),
                    window: try fields.numbers("window"),
                    blocks: blocks,
                    taps: try fields.optionalNumbers("taps"),
                    caption: try fields.optionalNumber("caption").map { Float($0) },
                    encoder: try fields.optionalString("encoder")
                )
            )
        }
        return references
    }

    /// Whether no number is infinite or not a number.
    var isFinite: Bool {
        (strength + (caption ?? 0)).isFinite && (window + (taps ?? [])).allSatisfy(\.isFinite)
    }
}

extension GenerationRecord.Moodboard {
    static func read(_ fields: RecordFields) throws(ImageError) -> [Self] {
        var moodboards: [Self] = []
        for fields in try fields.objects("moodboards") {
            moodboards.append(
                Self(
                    content: try fields.string("content"),
                    pictures: try fields.integer("pictures"),
                    strength: Float(try fields.number("strength")),
                    encoder: try fields.optionalString("encoder")
                )
            )
        }
        return moodboards
    }
}
