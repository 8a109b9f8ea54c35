/// Tokens and their ids, without the added tokens.
///
/// A token is written as one stand-in character for each byte. Swift compares strings by canonical
/// equivalence, which among stand-ins is equality: none is a combining mark, no two are equivalent.
struct Vocabulary: Sendable {
    /// Ids by token.
    let ids: [String: Int32]
    /// Ids of the tokens that are one byte, by byte.
    let byteIDs: [Int32]

    /// Qwen's vocabulary has 151,643 tokens.
    private static let tokenLimit = 1 << 20

    /// Checks the tokens of a file.
    ///
    /// - Parameters:
    ///   - entries: Ids by token, as the file has them.
    ///   - path: The file, for messages.
    /// - Throws: `tooLarge`, `idOutOfRange`, `duplicateID`, `missingByte`.
    init(_ entries: [String: Int], path: String) throws(TokenizerError) {
        guard entries.count <= Self.tokenLimit else {
            throw .tooLarge(
                path: path,
                what: "tokens",
                count: entries.count,
                limit: Self.tokenLimit
            )
        }
        var ids: [String: Int32] = [:]
        ids.reserveCapacity(entries.count)
        var previous: (token: String, id: Int)?
        for (token, id) in entries.sorted(by: { ($0.value, $0.key) < ($1.value, $1.key) }) {
            ids[token] = try checkedID(id, of: token, path: path)
            if let previous, previous.id == id {
                throw .duplicateID(path: path, id: id, first: previous.token, second: token)
            }
            previous = (token, id)
        }
        var byteIDs: [Int32] = []
        for (byte, token) in zip(UInt8.min...UInt8.max, Self.byteTokens) {
            guard let id = ids[token] else {
                throw .missingByte(path: path, byte: byte, token: token)
            }
            byteIDs.append(id)
        }
        self.ids = ids
        self.byteIDs = byteIDs
    }

    /// How each byte is written in tokens.
    ///
    /// Printable Latin-1 characters stand for themselves; the other bytes, in ascending order, are
    /// the characters from U+0100 on. Source: `bytes_to_unicode` of GPT-2.
    static let byteTokens: [String] = {
        var substitute: UInt16 = 0x100
        return (UInt8.min...UInt8.max).map { byte in
            switch byte {
            case 33...126, 161...172, 174...255:
                return String(decoding: [UInt16(byte)], as: UTF16.self)
            default:
                defer { substitute += 1 }
                return String(decoding: [substitute], as: UTF16.self)
            }
        }
    }()
}

/// An id of a file as the model's embedding takes it.
///
/// - Throws: `idOutOfRange` outside 0 … 2³¹ − 1.
func checkedID(_ id: Int, of token: String, path: String) throws(TokenizerError) -> Int32 {
    guard id >= 0, let id = Int32(exactly: id) else {
        throw .idOutOfRange(path: path, token: token, id: id)
    }
    return id
}
