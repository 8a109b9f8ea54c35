/// Splits a text into the words that are tokenised one by one.
///
/// The rules are those of Qwen's split pattern, `Tokenizer.splitPattern`; each alternative is one
/// method, tried in the pattern's order. The cost is linear.
struct WordSplitter {
    /// What the pattern tells apart.
    private enum Kind {
        /// `\p{L}`.
        case letter
        /// `\p{N}`: also ½ and Ⅷ.
        case number
        /// `[\r\n]`.
        case lineBreak
        /// `\s` without line breaks: White_Space, which U+001C to U+001F do not have.
        case blank
        /// All else, combining marks among it.
        case other

        /// The tables of the `tokenizers` library's pattern are those of Unicode 16; all that came
        /// later is other.
        init(_ scalar: Unicode.Scalar) {
            guard scalar.isAssigned(by: 16) else {
                self = .other
                return
            }
            switch scalar.properties.generalCategory {
            case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter,
                .otherLetter:
                self = .letter
            case .decimalNumber, .letterNumber, .otherNumber:
                self = .number
            default:
                if scalar == "\r" || scalar == "\n" {
                    self = .lineBreak
                } else {
                    self = scalar.properties.isWhitespace ? .blank : .other
                }
            }
        }
    }

    private let scalars: [Unicode.Scalar]
    private let kinds: [Kind]

    /// - Parameter scalars: Text between added tokens, in normal form C.
    init(_ scalars: [Unicode.Scalar]) {
        self.scalars = scalars
        kinds = scalars.map { Kind($0) }
    }

    /// Positions of the words, in order; together they cover the text.
    func words() -> [Range<Int>] {
        var words: [Range<Int>] = []
        var start = 0
        while start < scalars.count {
            let end =
                endOfContraction(at: start) ?? endOfLetters(at: start) ?? endOfNumber(at: start)
                ?? endOfSymbols(at: start) ?? endOfBlanks(at: start)
            words.append(start..<end)
            start = end
        }
        return words
    }

    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`.
    private func endOfContraction(at start: Int) -> Int? {
        guard scalars[start] == "'", start + 1 < scalars.count else { return nil }
        let first = Self.folded(scalars[start + 1])
        switch first {
        case "s", "t", "m", "d": return start + 2
        case "r", "v", "l":
            guard start + 2 < scalars.count else { return nil }
            let second: Unicode.Scalar = first == "l" ? "l" : "e"
            return Self.folded(scalars[start + 2]) == second ? start + 3 : nil
        default: return nil
        }
    }

    /// A scalar without its case, as far as contractions need it; the long s folds to s.
    private static func folded(_ scalar: Unicode.Scalar) -> Unicode.Scalar {
        switch scalar {
        case "A"..."Z": Unicode.Scalar(UInt8(scalar.value) | 0x20)
        case "\u{17F}": "s"
        default: scalar
        }
    }

    /// `[^\r\n\p{L}\p{N}]?\p{L}+`.
    private func endOfLetters(at start: Int) -> Int? {
        switch kinds[start] {
        case .letter: return end(of: .letter, from: start)
        case .number, .lineBreak: return nil
        case .blank, .other:
            let end = end(of: .letter, from: start + 1)
            return end > start + 1 ? end : nil
        }
    }

    /// `\p{N}`.
    private func endOfNumber(at start: Int) -> Int? {
        kinds[start] == .number ? start + 1 : nil
    }

    /// ` ?[^\s\p{L}\p{N}]+[\r\n]*`.
    private func endOfSymbols(at start: Int) -> Int? {
        let first = scalars[start] == " " ? start + 1 : start
        let end = end(of: .other, from: first)
        return end > first ? self.end(of: .lineBreak, from: end) : nil
    }

    /// `\s*[\r\n]+|\s+(?!\S)|\s+`.
    private func endOfBlanks(at start: Int) -> Int {
        var end = start
        var endOfLastBreak: Int?
        while end < kinds.count, kinds[end] == .blank || kinds[end] == .lineBreak {
            end += 1
            if kinds[end - 1] == .lineBreak { endOfLastBreak = end }
        }
        if let endOfLastBreak { return endOfLastBreak }
        // The last blank of a run goes with the word behind it.
        return end == kinds.count || end == start + 1 ? end : end - 1
    }

    /// Where the run of one kind that starts at `start` ends; `start` itself when there is none.
    private func end(of kind: Kind, from start: Int) -> Int {
        var end = start
        while end < kinds.count, kinds[end] == kind { end += 1 }
        return end
    }
}
