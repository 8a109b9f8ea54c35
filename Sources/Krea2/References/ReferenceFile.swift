package import Tensors

/// A picture as the transformer is to see it, encoded once: what a `.k2ref` file holds.
public struct ReferenceFile: Sendable, Equatable {
    /// Which picture was encoded, and how it was prepared.
    public struct Source: Sendable, Hashable {
        /// Names the picture's content: a digest of size and pixels.
        public let content: String
        /// What was done to the picture, such as `none` or `tiles`.
        public let treatment: String
        /// Its square is the largest area in which the text encoder saw it.
        public let side: Int

        /// Names a source.
        ///
        /// - Parameters:
        ///   - content: Names the picture's content.
        ///   - treatment: What was done to the picture.
        ///   - side: Its square is the largest area in which the text encoder saw it.
        public init(content: String, treatment: String, side: Int) {
            (self.content, self.treatment, self.side) = (content, treatment, side)
        }

        /// Sides that a file may name.
        private static let sides = 1...4096

        /// Reads what a file says.
        init(_ container: RowContainer) throws(GenerationError) {
            content = try container.word("content")
            treatment = try container.word("prep")
            side = try container.number("side", in: Self.sides)
        }

        /// What a file says.
        var words: [String: String] {
            ["content": content, "prep": treatment, "side": "\(side)"]
        }

        /// Names rows made of this by an encoder: equal keys, equal rows.
        func key(_ encoder: EncoderIdentity) -> String {
            "\(content) \(treatment) \(side) \(encoder.key)"
        }
    }

    /// Which picture it is.
    public let source: Source
    /// What encoded it.
    public let encoder: EncoderIdentity
    /// Tokens of the picture one above the other.
    public let gridRows: Int
    /// Tokens of the picture side by side.
    public let gridColumns: Int
    /// What goes beside a prompt.
    public let rows: ConditioningRows
    /// A description of the picture's style; nil for none.
    public var caption: String?
    /// Who or what made the file; nil where it does not say.
    public var creator: String?

    /// Takes what the text encoder has made, rounded as a file would hold it.
    ///
    /// - Parameters:
    ///   - taps: `[rows, taps, width]`, float32 or bfloat16.
    ///   - kinds: Of each row.
    ///   - gridRows: Tokens of the picture one above the other.
    ///   - gridColumns: Tokens of the picture side by side.
    ///   - source: Which picture it is.
    ///   - encoder: What encoded it.
    /// - Throws: `.request` when the parts do not fit together, `.notFinite` when a value is too
    ///   large for bfloat16.
    package init(
        taps: Tensor,
        kinds: [ConditioningRows.Kind],
        gridRows: Int,
        gridColumns: Int,
        source: Source,
        encoder: EncoderIdentity
    ) throws(GenerationError) {
        (self.source, self.encoder) = (source, encoder)
        (self.gridRows, self.gridColumns) = (gridRows, gridColumns)
        rows = try ConditioningRows(key: source.key(encoder), taps: taps, kinds: kinds).rounded()
    }
}

// MARK: Files

extension ReferenceFile {
    /// Reads a file; all of it is checked.
    ///
    /// - Parameters:
    ///   - path: A `.k2ref` file.
    ///   - encoder: The model's text encoder, which the rows are for.
    ///   - isLenient: Whether rows by other files of the same encoder will do.
    /// - Throws: `.model` for a file that is missing or damaged, `.reference` for one of another
    ///   format, version or encoder.
    public init(
        path: String,
        for encoder: EncoderIdentity,
        isLenient: Bool = false
    ) throws(GenerationError) {
        let container = try RowContainer(path: path, .reference)
        self.encoder = try container.encoder()
        try encoder.check(self.encoder, path: path, isLenient: isLenient)
        source = try Source(container)
        caption = try container.text("caption")
        creator = try container.text("creator")
        let contents = try container.contents()
        (gridRows, gridColumns) = contents.grid
        rows = try contents.rows(key: source.key(self.encoder))
    }

    /// Writes a file under a temporary name and moves it to `path` when it is complete.
    ///
    /// - Parameters:
    ///   - path: Where it goes; the folder exists.
    ///   - isOverwriting: Whether a file at `path` is replaced.
    /// - Throws: `.model` with `.exists` or `.cannotWrite`, `.request` for names or texts that would
    ///   not be read.
    public func write(to path: String, overwriting isOverwriting: Bool) throws(GenerationError) {
        try write(to: path, overwriting: isOverwriting, isPrivate: false)
    }

    /// Writes a file that, if it is private, only the user may read.
    func write(
        to path: String,
        overwriting isOverwriting: Bool,
        isPrivate: Bool
    ) throws(GenerationError) {
        try RowContainer.write(
            rows,
            grid: (gridRows, gridColumns),
            by: encoder,
            words: source.words,
            texts: ["caption": caption, "creator": creator],
            as: .reference,
            to: path,
            overwriting: isOverwriting,
            isPrivate: isPrivate
        )
    }
}
