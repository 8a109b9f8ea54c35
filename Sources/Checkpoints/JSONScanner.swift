/// What is wrong with a JSON text, or with the values in it.
struct JSONError: Error, Equatable {
    /// Keys and element numbers from the outermost value to the one concerned.
    var keys: [String] = []
    /// What the text has.
    let found: String
    /// What it should have.
    let expected: String

    /// The same error, one level further out.
    func inside(_ key: String) -> JSONError {
        JSONError(keys: [key] + keys, found: found, expected: expected)
    }
}

/// Reads one JSON text from front to back, checking all of it (RFC 8259).
///
/// Differs from general decoders in that no object may have a key twice and that values are asked
/// for by type, so nothing is built that is not wanted. Keys that only differ in Unicode
/// normalisation count as equal. Nesting is bounded, so hostile texts cannot exhaust the stack.
struct JSONScanner {
    /// Deepest nesting of arrays and objects.
    static let deepestLevel = 64

    private let bytes: [UInt8]
    private var position = 0
    private var level = 0

    /// Starts at the front of `bytes`, which should be UTF-8.
    init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// Reads an object.
    ///
    /// - Parameter member: Called after each key; reads exactly the value. Its errors get the key.
    /// - Throws: What is wrong with the object, or what `member` throws.
    mutating func object(
        _ member: (String, inout JSONScanner) throws(JSONError) -> Void
    ) throws(JSONError) {
        try open("{", "an object")
        var keys: Set<String> = []
        while try next(isFirst: keys.isEmpty, closing: "}") {
            let key = try string()
            guard keys.insert(key).inserted else {
                throw JSONError(keys: [key], found: "its key twice", expected: "it once")
            }
            skipBlanks()
            try expect(":", "a colon")
            do throws(JSONError) { try member(key, &self) } catch { throw error.inside(key) }
        }
        level -= 1
    }

    /// Reads an array.
    ///
    /// - Parameter element: Called with the number of each element; reads exactly that value.
    /// - Throws: What is wrong with the array, or what `element` throws.
    mutating func array(
        _ element: (Int, inout JSONScanner) throws(JSONError) -> Void
    ) throws(JSONError) {
        try open("[", "an array")
        var count = 0
        while try next(isFirst: count == 0, closing: "]") {
            try element(count, &self)
            count += 1
        }
        level -= 1
    }

    /// Reads a whole number, 0 or more, written without sign, fraction and exponent.
    mutating func unsignedInteger() throws(JSONError) -> Int {
        skipBlanks()
        let start = position
        try skipNumber("a whole number, 0 or more")
        var value = 0
        for byte in bytes[start..<position] {
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else {
                throw JSONError(found: text(from: start), expected: "a whole number, 0 or more")
            }
            let (tenfold, isTooLarge) = value.multipliedReportingOverflow(by: 10)
            let (sum, isTooLargeNow) = tenfold.addingReportingOverflow(Int(byte & 15))
            guard !isTooLarge, !isTooLargeNow else {
                throw JSONError(found: text(from: start), expected: "at most \(Int.max)")
            }
            value = sum
        }
        return value
    }

    /// Reads any value and drops it.
    mutating func skipValue() throws(JSONError) {
        skipBlanks()
        switch peek() {
        case "{": try object { _, scanner throws(JSONError) in try scanner.skipValue() }
        case "[": try array { _, scanner throws(JSONError) in try scanner.skipValue() }
        case "\"": _ = try string()
        case "t": try expect("true", "a value")
        case "f": try expect("false", "a value")
        case "n": try expect("null", "a value")
        default: try skipNumber("a value")
        }
    }

    /// Checks that nothing but blanks follows.
    mutating func end() throws(JSONError) {
        skipBlanks()
        guard position == bytes.count else { throw unexpected("the end") }
    }
}

// MARK: Strings

extension JSONScanner {
    /// Reads a string.
    mutating func string() throws(JSONError) -> String {
        skipBlanks()
        try expect("\"", "a string")
        let start = position
        while position < bytes.count, !Self.endsPlainText(bytes[position]) { position += 1 }
        if peek() == "\"" {
            defer { position += 1 }
            return try decoded(bytes[start..<position])
        }

        var content = Array(bytes[start..<position])
        while peek() != "\"" {
            if peek() == "\\" {
                position += 1
                content.append(contentsOf: try escaped().utf8)
            } else {
                guard position < bytes.count, bytes[position] >= 0x20 else {
                    throw unexpected("a string's text")
                }
                content.append(bytes[position])
                position += 1
            }
        }
        position += 1
        return try decoded(content[...])
    }

    private static func endsPlainText(_ byte: UInt8) -> Bool {
        byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\")
    }

    private func decoded(_ content: ArraySlice<UInt8>) throws(JSONError) -> String {
        guard let text = String(validating: content, as: UTF8.self) else {
            throw JSONError(
                found: "bytes that are not UTF-8 in the string that ends at byte \(position)",
                expected: "UTF-8"
            )
        }
        return text
    }

    private static let escapes: [Unicode.Scalar: String] = [
        "\"": "\"", "\\": "\\", "/": "/", "b": "\u{8}", "f": "\u{c}", "n": "\n", "r": "\r",
        "t": "\t",
    ]

    /// Reads what follows a backslash.
    private mutating func escaped() throws(JSONError) -> String {
        let kind = peek()
        if let kind, let text = Self.escapes[kind] {
            position += 1
            return text
        }
        guard kind == "u" else { throw unexpected("an escape") }
        position += 1
        let first = try codeUnit()
        if let scalar = Unicode.Scalar(first) { return String(Character(scalar)) }
        // Not a scalar: the first half of a pair, or one that stands alone.
        try expect("\\u", "the second half of a surrogate pair")
        let second = try codeUnit()
        guard UTF16.isLeadSurrogate(first), UTF16.isTrailSurrogate(second) else {
            throw JSONError(
                found: "half a surrogate pair before byte \(position)",
                expected: "both halves"
            )
        }
        return String(decoding: [first, second], as: UTF16.self)
    }

    /// Reads four hexadecimal digits.
    private mutating func codeUnit() throws(JSONError) -> UInt16 {
        var value: UInt16 = 0
        for _ in 0..<4 {
            guard let digit = peek().flatMap({ Character($0).hexDigitValue }),
                bytes[position] < 0x80
            else {
                throw unexpected("a hexadecimal digit")
            }
            value = value << 4 | UInt16(digit)
            position += 1
        }
        return value
    }
}

// MARK: Parts

extension JSONScanner {
    /// The next byte as a scalar below 256, nil at the end.
    private func peek() -> Unicode.Scalar? {
        position < bytes.count ? Unicode.Scalar(bytes[position]) : nil
    }

    private mutating func skipBlanks() {
        while let byte = peek(), byte == " " || byte == "\n" || byte == "\r" || byte == "\t" {
            position += 1
        }
    }

    /// Passes over exactly `token`, which is ASCII.
    private mutating func expect(_ token: String, _ expected: String) throws(JSONError) {
        for byte in token.utf8 {
            guard position < bytes.count, bytes[position] == byte else {
                throw unexpected(expected)
            }
            position += 1
        }
    }

    /// Enters an array or object.
    private mutating func open(_ bracket: String, _ expected: String) throws(JSONError) {
        skipBlanks()
        try expect(bracket, expected)
        guard level < Self.deepestLevel else {
            throw JSONError(
                found: "values nested deeper before byte \(position)",
                expected: "at most \(Self.deepestLevel) levels"
            )
        }
        level += 1
    }

    /// Passes over what stands before a member; false at the closing bracket.
    private mutating func next(
        isFirst: Bool,
        closing: Unicode.Scalar
    ) throws(JSONError) -> Bool {
        skipBlanks()
        if peek() == closing {
            position += 1
            return false
        }
        if !isFirst {
            try expect(",", "a comma or \(closing)")
        }
        return true
    }

    /// Passes over a number in JSON's form.
    private mutating func skipNumber(_ expected: String) throws(JSONError) {
        if peek() == "-" { position += 1 }
        let start = position
        guard skipDigits() else { throw unexpected(expected) }
        guard bytes[start] != UInt8(ascii: "0") || position == start + 1 else {
            throw JSONError(found: text(from: start), expected: "no leading zero")
        }
        if peek() == "." {
            position += 1
            guard skipDigits() else { throw unexpected("a digit") }
        }
        if peek() == "e" || peek() == "E" {
            position += 1
            if peek() == "+" || peek() == "-" { position += 1 }
            guard skipDigits() else { throw unexpected("a digit") }
        }
    }

    /// Passes over digits; false when there is none.
    private mutating func skipDigits() -> Bool {
        let start = position
        while let byte = peek(), byte >= "0", byte <= "9" { position += 1 }
        return position > start
    }

    /// What was read since `start`, at most 40 bytes of it.
    private func text(from start: Int) -> String {
        String(decoding: bytes[start..<min(position, start + 40)], as: UTF8.self)
    }

    private func unexpected(_ expected: String) -> JSONError {
        let found =
            switch peek() {
            case nil: "the end of the text"
            case let byte? where byte.value >= 0x20 && byte.value < 0x7F: "\"\(byte)\""
            case let byte?: "byte 0x" + String(byte.value, radix: 16, uppercase: true)
            }
        return JSONError(found: "\(found) at byte \(position)", expected: expected)
    }
}
