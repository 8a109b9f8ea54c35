/// A value of a JSON text.
package enum JSONValue: Equatable, Sendable {
    case null
    case bool(Bool)
    /// A number without fraction and exponent that fits an `Int`; −0, which does not, is a number.
    case integer(Int)
    /// Any other number.
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])
}

extension JSONValue {
    /// A number of either kind; nil for anything else.
    package var double: Double? {
        switch self {
        case .integer(let integer): Double(integer)
        case .number(let number): number
        default: nil
        }
    }
}

extension JSONValue: CustomStringConvertible {
    /// What messages show of the value, on one line.
    package var description: String {
        switch self {
        case .null: "null"
        case .bool(let bool): "\(bool)"
        case .integer(let integer): "\(integer)"
        case .number(let number): "\(number)"
        case .string(let string): quoted(string)
        case .array(let elements): "an array of \(elements.count)"
        case .object: "an object"
        }
    }
}

/// Reads JSON as RFC 8259 defines it; equal keys in one object are an error.
///
/// Keys that differ only in Unicode normalisation count as equal. Foundation's decoder is not used
/// because files from anywhere are read with it: it traps on some damaged ones (513 opening
/// brackets), hides equal keys and does not say where a fault is.
package struct JSONParser {
    /// What is wrong with a text.
    package struct Failure: Error, Equatable {
        /// Bytes in front of the fault.
        package let position: Int
        /// One line without a full stop.
        package let problem: String
    }

    /// Levels of nesting; tokenizer files have six.
    private static let depthLimit = 128

    private let bytes: [UInt8]
    private var position = 0
    private var depth = 0

    /// The value that a text consists of.
    ///
    /// - Parameter bytes: UTF-8 without a byte order mark.
    /// - Returns: The value, blanks round it dropped.
    /// - Throws: `Failure` at the first fault.
    package static func parse(_ bytes: [UInt8]) throws(Failure) -> JSONValue {
        var parser = JSONParser(bytes: bytes)
        let value = try parser.value()
        parser.skipBlanks()
        guard parser.position == bytes.count else {
            throw parser.failure("something follows the value")
        }
        return value
    }

    private init(bytes: [UInt8]) { self.bytes = bytes }

    private func failure(_ problem: String, at position: Int? = nil) -> Failure {
        Failure(position: position ?? self.position, problem: problem)
    }

    // MARK: Bytes

    private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

    /// Steps over a byte if it comes next.
    private mutating func skip(_ byte: Unicode.Scalar) -> Bool {
        guard let next, next == UInt8(ascii: byte) else { return false }
        position += 1
        return true
    }

    private mutating func expect(_ byte: Unicode.Scalar) throws(Failure) {
        guard skip(byte) else {
            throw failure(next == nil ? "the text ends here" : "expected \(byte)")
        }
    }

    private mutating func skipBlanks() {
        while let next, next == 0x20 || next == 0x0A || next == 0x0D || next == 0x09 {
            position += 1
        }
    }

    // MARK: Values

    private mutating func value() throws(Failure) -> JSONValue {
        skipBlanks()
        switch next.map({ Unicode.Scalar($0) }) {
        case "{": return .object(try nested { parser throws(Failure) in try parser.object() })
        case "[": return .array(try nested { parser throws(Failure) in try parser.array() })
        case "\"": return .string(try string())
        case "t": return try literal("true", .bool(true))
        case "f": return try literal("false", .bool(false))
        case "n": return try literal("null", .null)
        case "-", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9": return try number()
        case nil: throw failure("the text ends here")
        default: throw failure("expected a value")
        }
    }

    /// Counts the levels, so that a text cannot exhaust the stack.
    private mutating func nested<Value>(
        _ read: (inout JSONParser) throws(Failure) -> Value
    ) throws(Failure) -> Value {
        guard depth < Self.depthLimit else {
            throw failure("more than \(Self.depthLimit) levels of nesting")
        }
        depth += 1
        defer { depth -= 1 }
        return try read(&self)
    }

    private mutating func object() throws(Failure) -> [String: JSONValue] {
        var members: [String: JSONValue] = [:]
        try expect("{")
        skipBlanks()
        if skip("}") { return members }
        repeat {
            skipBlanks()
            let start = position
            let key = try string()
            skipBlanks()
            try expect(":")
            guard members.updateValue(try value(), forKey: key) == nil else {
                throw failure("key \(quoted(key)) is there twice", at: start)
            }
            skipBlanks()
        } while skip(",")
        try expect("}")
        return members
    }

    private mutating func array() throws(Failure) -> [JSONValue] {
        var elements: [JSONValue] = []
        try expect("[")
        skipBlanks()
        if skip("]") { return elements }
        repeat {
            elements.append(try value())
            skipBlanks()
        } while skip(",")
        try expect("]")
        return elements
    }

    private mutating func literal(
        _ name: StaticString,
        _ value: JSONValue
    ) throws(Failure) -> JSONValue {
        guard bytes[position...].starts(with: name.description.utf8) else {
            throw failure("expected \(name)")
        }
        position += name.utf8CodeUnitCount
        return value
    }

    private mutating func number() throws(Failure) -> JSONValue {
        let start = position
        _ = skip("-")
        if !skip("0") { try skipDigits() }
        var isInteger = true
        if skip(".") {
            isInteger = false
            try skipDigits()
        }
        if skip("e") || skip("E") {
            isInteger = false
            if !skip("+") { _ = skip("-") }
            try skipDigits()
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isInteger, text != "-0", let integer = Int(text) { return .integer(integer) }
        guard let number = Double(text) else { throw failure("not a number", at: start) }
        return .number(number)
    }

    private mutating func skipDigits() throws(Failure) {
        let start = position
        while let next, next >= UInt8(ascii: "0"), next <= UInt8(ascii: "9") { position += 1 }
        guard position > start else { throw failure("expected a digit") }
    }
}

// MARK: Strings

extension JSONParser {
    private mutating func string() throws(Failure) -> String {
        try expect("\"")
        let start = position
        var contents: [UInt8] = []
        var chunkStart = position
        while let next, next != UInt8(ascii: "\"") {
            guard next >= 0x20 else { throw failure("a control character in a string") }
            position += 1
            if next == UInt8(ascii: "\\") {
                contents += bytes[chunkStart..<position - 1]
                contents += try escapedScalar().utf8
                chunkStart = position
            }
        }
        contents += bytes[chunkStart..<position]
        try expect("\"")
        guard let string = String(validating: contents, as: UTF8.self) else {
            throw failure("a string that is not valid UTF-8", at: start)
        }
        return string
    }

    /// What follows a backslash.
    private mutating func escapedScalar() throws(Failure) -> Unicode.Scalar {
        let start = position
        guard let next else { throw failure("the text ends here") }
        position += 1
        switch Unicode.Scalar(next) {
        case "\"": return "\""
        case "\\": return "\\"
        case "/": return "/"
        case "b": return "\u{8}"
        case "f": return "\u{C}"
        case "n": return "\n"
        case "r": return "\r"
        case "t": return "\t"
        case "u":
            var units = [try codeUnit()]
            if UTF16.isLeadSurrogate(units[0]), skip("\\"), skip("u") {
                units.append(try codeUnit())
            }
            guard let scalar = String(validating: units, as: UTF16.self)?.unicodeScalars.first
            else {
                throw failure("half a surrogate pair", at: start)
            }
            return scalar
        default: throw failure("an unknown escape", at: start)
        }
    }

    /// Four hexadecimal digits.
    private mutating func codeUnit() throws(Failure) -> UInt16 {
        var unit: UInt16 = 0
        for _ in 0..<4 {
            guard let next, let digit = Character(Unicode.Scalar(next)).hexDigitValue else {
                throw failure("expected four hexadecimal digits")
            }
            unit = unit << 4 | UInt16(digit)
            position += 1
        }
        return unit
    }
}
