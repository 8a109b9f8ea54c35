/// Tokens that are cut out of a text before anything else is done with it, such as `<|im_start|>`.
struct AddedTokens: Sendable {
    /// Part of a text.
    enum Piece: Equatable {
        /// An added token's id.
        case token(Int32)
        /// Bytes that hold no added token; never empty.
        case text(Range<Int>)
    }

    private let trie: Trie

    /// Qwen has 26 added tokens, other models up to some thousand.
    private static let tokenLimit = 4096
    /// Qwen's longest has 20 bytes.
    private static let byteLimit = 256

    /// Checks the added tokens of a file.
    ///
    /// - Parameters:
    ///   - entries: What the file says.
    ///   - vocabulary: The other tokens; an added token may be among them under the same id.
    ///   - path: The file, for messages.
    /// - Throws: `tooLarge`, `damagedFile` for an empty token, `idOutOfRange`, `duplicateID`,
    ///   `duplicateToken`.
    init(
        _ entries: [AddedToken],
        vocabulary: Vocabulary,
        path: String
    ) throws(TokenizerError) {
        guard entries.count <= Self.tokenLimit else {
            throw .tooLarge(
                path: path,
                what: "added tokens",
                count: entries.count,
                limit: Self.tokenLimit
            )
        }
        let vocabularyIDs = Set(vocabulary.ids.values)
        var owners: [Int32: String] = [:]
        var seen: Set<String> = []
        var trie = Trie()
        for entry in entries {
            let token = entry.content
            guard !token.isEmpty else {
                throw .damagedFile(path: path, reason: "added token \(entry.id) is empty")
            }
            guard token.utf8.count <= Self.byteLimit else {
                throw .tooLarge(
                    path: path,
                    what: "bytes in added token \(entry.id)",
                    count: token.utf8.count,
                    limit: Self.byteLimit
                )
            }
            let id = try checkedID(entry.id, of: token, path: path)
            if let known = vocabulary.ids[token] {
                guard known == id else { throw .duplicateToken(path: path, token: token) }
            } else if vocabularyIDs.contains(id) {
                let owner = vocabulary.ids.first { $0.value == id }?.key ?? ""
                throw .duplicateID(path: path, id: entry.id, first: owner, second: token)
            }
            if let owner = owners.updateValue(token, forKey: id), owner != token {
                throw .duplicateID(path: path, id: entry.id, first: owner, second: token)
            }
            guard seen.insert(token).inserted else {
                throw .duplicateToken(path: path, token: token)
            }
            trie.insert(token.utf8, id: id)
        }
        self.trie = trie
    }

    /// Cuts a text at the added tokens in it: leftmost first, the longest of those that start there.
    ///
    /// - Parameter text: The raw text as UTF-8.
    /// - Returns: Pieces in order, which together cover the text.
    func split(_ text: [UInt8]) -> [Piece] {
        var pieces: [Piece] = []
        var textStart = 0
        var position = 0
        while position < text.count {
            guard let match = trie.longestMatch(in: text[position...]) else {
                position += 1
                continue
            }
            if textStart < position { pieces.append(.text(textStart..<position)) }
            pieces.append(.token(match.id))
            position += match.byteCount
            textStart = position
        }
        if textStart < text.count { pieces.append(.text(textStart..<text.count)) }
        return pieces
    }
}

/// Byte strings with ids, found by walking from node to node, a byte at a time.
private struct Trie: Sendable {
    /// Where a byte leads to from a node.
    private struct Step: Hashable {
        let node: Int
        let byte: UInt8
    }

    private var steps: [Step: Int] = [:]
    /// For each node, from the root on, the id of the string that ends there.
    private var ids: [Int32?] = [nil]

    /// Adds a string.
    mutating func insert(_ string: some Sequence<UInt8>, id: Int32) {
        var node = 0
        for byte in string {
            let step = Step(node: node, byte: byte)
            if let child = steps[step] {
                node = child
            } else {
                node = ids.count
                ids.append(nil)
                steps[step] = node
            }
        }
        ids[node] = id
    }

    /// The longest string that `text` starts with.
    func longestMatch(in text: ArraySlice<UInt8>) -> (id: Int32, byteCount: Int)? {
        var match: (id: Int32, byteCount: Int)?
        var node = 0
        for (index, byte) in text.enumerated() {
            guard let child = steps[Step(node: node, byte: byte)] else { break }
            node = child
            if let id = ids[node] { match = (id, index + 1) }
        }
        return match
    }
}
