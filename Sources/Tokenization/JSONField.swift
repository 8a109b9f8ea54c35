import JSON

/// A value in a JSON file, with its place for messages.
///
/// A field that is absent reads as null.
struct JSONField {
    /// The value.
    let value: JSONValue
    /// The file it is in.
    let path: String
    /// Keys and indices that lead to it, such as `model.vocab`; empty for the whole file.
    let name: String

    /// Whether it is absent or null.
    var isNull: Bool { value == .null }

    /// A member of an object; null in null.
    ///
    /// - Throws: `damagedFile` when this is neither an object nor null.
    func member(_ key: String) throws(TokenizerError) -> JSONField {
        inner(key, isNull ? .null : try object()[key] ?? .null)
    }

    /// A value inside this one, which the caller took out.
    func inner(_ key: String, _ value: JSONValue) -> JSONField {
        JSONField(value: value, path: path, name: name.isEmpty ? key : name + "." + key)
    }

    // MARK: Kinds

    /// Members by key.
    ///
    /// - Throws: `damagedFile` when this is no object.
    func object() throws(TokenizerError) -> [String: JSONValue] {
        guard case .object(let members) = value else { throw mismatch("an object") }
        return members
    }

    /// Elements in order.
    ///
    /// - Throws: `damagedFile` when this is no array.
    func array() throws(TokenizerError) -> [JSONValue] {
        guard case .array(let elements) = value else { throw mismatch("an array") }
        return elements
    }

    /// A text.
    ///
    /// - Throws: `damagedFile` when this is no string.
    func string() throws(TokenizerError) -> String {
        guard case .string(let string) = value else { throw mismatch("a string") }
        return string
    }

    /// A number without fraction.
    ///
    /// - Throws: `damagedFile` when this is no such number.
    func integer() throws(TokenizerError) -> Int {
        guard case .integer(let integer) = value else { throw mismatch("an integer") }
        return integer
    }

    /// A truth value.
    ///
    /// - Parameter absent: What to return where the field is absent.
    /// - Returns: The value.
    /// - Throws: `damagedFile` when this is no truth value.
    func bool(ifAbsent absent: Bool) throws(TokenizerError) -> Bool {
        if isNull { return absent }
        guard case .bool(let bool) = value else { throw mismatch("true or false") }
        return bool
    }

    /// The error for a value of another kind.
    private func mismatch(_ expected: String) -> TokenizerError {
        let place = name.isEmpty ? "the file" : quoted(name)
        return .damagedFile(path: path, reason: "\(place) is \(found), expected \(expected)")
    }

    // MARK: Requirements

    /// Accepts one text only.
    ///
    /// - Parameters:
    ///   - expected: The text.
    ///   - isOptional: Whether the field may be absent.
    /// - Throws: `unsupported` for another text, `damagedFile` for what is none.
    func require(_ expected: String, isOptional: Bool = false) throws(TokenizerError) {
        if isNull, isOptional { return }
        guard !isNull, try string() == expected else { throw unsupported(quoted(expected)) }
    }

    /// Accepts false only.
    ///
    /// - Parameter absent: The value where the field is absent.
    /// - Throws: `unsupported` for true, `damagedFile` for what is no truth value.
    func requireFalse(ifAbsent absent: Bool = false) throws(TokenizerError) {
        guard try !bool(ifAbsent: absent) else { throw unsupported("false") }
    }

    /// The error for a value that makes sense, but not here.
    func unsupported(_ expected: String) -> TokenizerError {
        .unsupported(path: path, field: name, found: found, expected: expected)
    }

    /// The value as messages show it.
    private var found: String { isNull ? "missing" : value.description }
}
