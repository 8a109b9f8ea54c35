internal import CCodecs

extension PNG {
    /// A text stored in a PNG file.
    public struct Text: Sendable, Equatable {
        /// How a text is stored.
        public enum Storage: Sendable, Equatable {
            /// A `tEXt` chunk, or a `zTXt` chunk when read: Latin-1.
            case latin1
            /// An `iTXt` chunk: UTF-8.
            case international
        }

        /// What the text is about: 1 to 79 characters of Latin-1.
        public let keyword: String

        /// The text itself, without U+0000.
        public let value: String

        /// How it is stored.
        public let storage: Storage

        /// Takes a text that is stored as `tEXt` where Latin-1 has all its characters, else as
        /// `iTXt`.
        ///
        /// - Parameters:
        ///   - keyword: What the text is about.
        ///   - value: The text itself.
        init(keyword: String, value: String) {
            let storage: Storage = Self.isLatin1(value) ? .latin1 : .international
            self.init(keyword: keyword, value: value, storage: storage)
        }

        /// Takes a text and how it is stored.
        init(keyword: String, value: String, storage: Storage) {
            self.keyword = keyword
            self.value = value
            self.storage = storage
        }

        /// Whether `tEXt` may hold this text.
        ///
        /// The PNG specification restricts `tEXt` to printable Latin-1 and line feeds; everything
        /// else, tabs and carriage returns too, is left to `iTXt`.
        private static func isLatin1(_ text: String) -> Bool {
            text.unicodeScalars.allSatisfy { scalar in
                switch scalar.value {
                case 0x0A, 0x20...0x7E, 0xA0...0xFF: true
                default: false
                }
            }
        }
    }

    /// How the pixels of a PNG file are stored.
    public enum ColorType: Int, Sendable, CustomStringConvertible {
        /// One channel.
        case gray = 0
        /// Three channels.
        case rgb = 2
        /// Indices of colours.
        case palette = 3
        /// Grey and opacity.
        case grayWithAlpha = 4
        /// Three channels and opacity.
        case rgbWithAlpha = 6

        /// Words for a message.
        public var description: String {
            switch self {
            case .gray: "grey"
            case .rgb: "RGB"
            case .palette: "palette"
            case .grayWithAlpha: "grey with alpha"
            case .rgbWithAlpha: "RGB with alpha"
            }
        }
    }

    /// What a PNG file says about itself.
    public struct Description: Sendable, Equatable {
        /// Pixels in a row, 1 … 1,000,000.
        public let width: Int

        /// Rows, 1 … 1,000,000.
        public let height: Int

        /// Bits a channel: 1, 2, 4, 8 or 16.
        public let bitDepth: Int

        /// How the pixels are stored.
        public let colorType: ColorType

        /// All texts, in file order; keywords may repeat.
        public let texts: [Text]

        /// The first text with this keyword, nil where there is none.
        ///
        /// - Parameter keyword: What the text is about.
        /// - Returns: The text itself.
        public func text(_ keyword: String) -> String? {
            texts.first { $0.keyword == keyword }?.value
        }

        /// How the picture was made, nil where the file does not say it as this engine does.
        ///
        /// - Throws: `ImageError.invalidRecord`.
        public func record() throws(ImageError) -> GenerationRecord? {
            guard let json = text(GenerationRecord.keyword) else { return nil }
            return try GenerationRecord(json: json)
        }
    }

    /// Reads the header and all texts of a PNG file: `tEXt`, `zTXt`, `iTXt`, before and after the
    /// picture data.
    ///
    /// Picture data is neither inflated nor checked. Damaged texts, texts over 8 MB, more than 250
    /// texts and texts that need over 64 MiB of memory together are errors.
    ///
    /// - Parameter bytes: The whole file.
    /// - Returns: Its header and texts.
    /// - Throws: `ImageError.damaged`.
    public static func readText(_ bytes: [UInt8]) throws(ImageError) -> Description {
        try describe(bytes, path: nil, withTexts: true)
    }

    /// Reads the header and all texts of the PNG file at `path`, at most 256 MiB long.
    ///
    /// - Parameter path: The file.
    /// - Returns: Its header and texts.
    /// - Throws: `ImageError.damaged`, `ImageError.missingFile` or `ImageError.unreadableFile`.
    public static func readText(path: String) throws(ImageError) -> Description {
        try describe(readFile(path, largestByteCount: 1 << 28), path: path, withTexts: true)
    }

    /// Reads header and, if asked, texts; `path` is for the errors.
    static func describe(
        _ bytes: [UInt8],
        path: String?,
        withTexts: Bool
    ) throws(ImageError) -> Description {
        guard bytes.starts(with: signature) else {
            throw .damaged(path: path, reason: "it does not start like one")
        }
        var facts = unsafe codecs_png_description()
        var message = Message()
        let status = unsafe bytes.withUnsafeBufferPointer { file in
            unsafe message.withBuffer { text, capacity in
                guard let start = file.baseAddress else { return Int32(1) }
                return unsafe codecs_png_describe(
                    start,
                    file.count,
                    withTexts,
                    &facts,
                    text,
                    capacity
                )
            }
        }
        guard status == 0 else {
            throw .damaged(path: path, reason: message.text)
        }
        defer { unsafe codecs_free(facts.texts) }
        guard let colorType = unsafe ColorType(rawValue: Int(facts.color_type)) else {
            throw unsafe .damaged(path: path, reason: "colour type \(facts.color_type)")
        }
        var texts: [Text] = []
        let entries = unsafe UnsafeBufferPointer(start: facts.texts, count: facts.text_count)
        for index in 0..<entries.count {
            texts.append(try unsafe text(entries[index], path: path))
        }
        return unsafe Description(
            width: Int(facts.width),
            height: Int(facts.height),
            bitDepth: Int(facts.bit_depth),
            colorType: colorType,
            texts: texts
        )
    }

    /// Copies one text out of C memory.
    @unsafe private static func text(
        _ entry: codecs_text,
        path: String?
    ) throws(ImageError) -> Text {
        let keyword = unsafe latin1(bytes(entry.keyword, entry.keyword_byte_count))
        guard (1...79).contains(keyword.unicodeScalars.count) else {
            let reason = "a text's keyword has \(keyword.unicodeScalars.count) characters"
            throw .damaged(path: path, reason: reason + ", expected 1 to 79")
        }
        let stored = unsafe bytes(entry.text, entry.text_byte_count)
        guard unsafe entry.is_international else {
            return Text(keyword: keyword, value: latin1(stored), storage: .latin1)
        }
        guard let value = String(validating: stored, as: UTF8.self) else {
            throw .damaged(path: path, reason: "the iTXt text \"\(keyword)\" is not UTF-8")
        }
        return Text(keyword: keyword, value: value, storage: .international)
    }

    /// Copies bytes out of C memory.
    @unsafe private static func bytes(_ start: UnsafePointer<UInt8>, _ count: Int) -> [UInt8] {
        unsafe Array(UnsafeBufferPointer(start: start, count: count))
    }

    /// Decodes Latin-1, whose bytes are the scalars U+0000 … U+00FF.
    private static func latin1(_ bytes: [UInt8]) -> String {
        var scalars = String.UnicodeScalarView()
        scalars.append(contentsOf: bytes.lazy.map { Unicode.Scalar($0) })
        return String(scalars)
    }
}

/// Texts laid out for C: checked, encoded, each string followed by a NUL.
struct TextBlock {
    /// Where a text's two strings start in `bytes`.
    private struct Place {
        let keyword: Int
        let keywordByteCount: Int
        let text: Int
        let textByteCount: Int
        let isInternational: Bool
    }

    private var bytes: [UInt8] = []
    private var places: [Place] = []

    /// Encodes the texts.
    ///
    /// - Throws: `ImageError.invalidText` for a U+0000 inside, a keyword that is not 1 to 79
    ///   printable ASCII characters, or a text over `PNG.largestTextByteCount`.
    init(_ texts: [PNG.Text]) throws(ImageError) {
        for text in texts {
            let keyword = Array(text.keyword.utf8)
            guard (1...79).contains(keyword.count),
                keyword.allSatisfy({ (0x20...0x7E).contains($0) })
            else {
                throw .invalidText(keyword: text.keyword, reason: "the keyword is not allowed")
            }
            let value =
                switch text.storage {
                case .latin1: text.value.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) }
                case .international: Array(text.value.utf8)
                }
            guard !value.contains(0) else {
                throw .invalidText(keyword: text.keyword, reason: "it contains U+0000")
            }
            let limit = PNG.largestTextByteCount
            guard value.count <= limit else {
                let reason = "it has \(value.count) bytes, expected at most \(limit)"
                throw .invalidText(keyword: text.keyword, reason: reason)
            }
            let keywordStart = append(keyword)
            let textStart = append(value)
            places.append(
                Place(
                    keyword: keywordStart,
                    keywordByteCount: keyword.count,
                    text: textStart,
                    textByteCount: value.count,
                    isInternational: text.storage == .international
                )
            )
        }
    }

    /// Appends a string and its NUL, and returns where it starts.
    private mutating func append(_ string: [UInt8]) -> Int {
        let start = bytes.count
        bytes.append(contentsOf: string)
        bytes.append(0)
        return start
    }

    /// Hands the texts as C has them to `body`, valid until it returns.
    func withEntries<Result>(
        _ body: (UnsafeBufferPointer<codecs_text>) -> Result
    ) -> Result {
        unsafe bytes.withUnsafeBufferPointer { bytes in
            var entries: [codecs_text] = unsafe []
            if let start = bytes.baseAddress {
                unsafe entries = places.map { place in
                    unsafe codecs_text(
                        keyword: start + place.keyword,
                        keyword_byte_count: place.keywordByteCount,
                        text: start + place.text,
                        text_byte_count: place.textByteCount,
                        is_international: place.isInternational
                    )
                }
            }
            return unsafe entries.withUnsafeBufferPointer(body)
        }
    }
}
