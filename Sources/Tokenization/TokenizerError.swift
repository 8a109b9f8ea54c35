import JSON

/// Why a tokenizer cannot be loaded or does not fit.
public enum TokenizerError: Error, Equatable {
    /// There is nothing at the path.
    case missingFile(path: String)
    /// The directory exists but holds none of the files a tokenizer can be read from.
    case emptyDirectory(path: String)
    /// The file exists but cannot be read.
    case unreadableFile(path: String, reason: String)
    /// The file is not what its name says: broken JSON, broken lines, a field of another type.
    case damagedFile(path: String, reason: String)
    /// The file asks for a way of tokenising other than Qwen's.
    case unsupported(path: String, field: String, found: String, expected: String)
    /// The file has more of something than any tokenizer needs.
    case tooLarge(path: String, what: String, count: Int, limit: Int)
    /// A token's id does not fit 0 … 2³¹ − 1.
    case idOutOfRange(path: String, token: String, id: Int)
    /// Two tokens have the same id.
    case duplicateID(path: String, id: Int, first: String, second: String)
    /// A token is added twice, or added under another id than it has in the vocabulary.
    case duplicateToken(path: String, token: String)
    /// A merge reads or makes a token that the vocabulary lacks; merges count from 1.
    case unknownMergeToken(path: String, token: String, merge: Int)
    /// A pair is merged twice; merges count from 1.
    case duplicateMerge(path: String, left: String, right: String, merge: Int)
    /// The vocabulary has no token for a byte, so some texts could not be encoded.
    case missingByte(path: String, byte: UInt8, token: String)
    /// A part of Krea 2's prompt template has another number of tokens than the model was made for.
    case unfitTemplate(path: String, part: String, tokenCount: Int, expected: Int)

    /// Whether the file is absent or unreadable, rather than damaged or unfit.
    public var isMissingFile: Bool {
        switch self {
        case .missingFile, .emptyDirectory, .unreadableFile: true
        default: false
        }
    }
}

extension TokenizerError: CustomStringConvertible {
    /// One line that names the file, what was found and what was expected.
    public var description: String {
        switch self {
        case .missingFile(let path):
            "\(path): no such file or directory"
        case .emptyDirectory(let path):
            "\(path): holds neither tokenizer.json nor vocab.json with merges.txt"
        case .unreadableFile(let path, let reason):
            "\(path): cannot be read, \(reason)"
        case .damagedFile(let path, let reason):
            "\(path): \(reason)"
        case .unsupported(let path, let field, let found, let expected):
            "\(path): \(field) is \(found), expected \(expected)"
        case .tooLarge(let path, let what, let count, let limit):
            "\(path): \(count) \(what), at most \(limit) are accepted"
        case .idOutOfRange(let path, let token, let id):
            "\(path): token \(quoted(token)) has id \(id), expected 0 to \(Int32.max)"
        case .duplicateID(let path, let id, let first, let second):
            "\(path): tokens \(quoted(first)) and \(quoted(second)) both have id \(id)"
        case .duplicateToken(let path, let token):
            "\(path): added token \(quoted(token)) is there twice"
        case .unknownMergeToken(let path, let token, let merge):
            "\(path): merge \(merge) needs token \(quoted(token)), which the vocabulary lacks"
        case .duplicateMerge(let path, let left, let right, let merge):
            "\(path): merge \(merge) repeats the pair \(quoted(left)) \(quoted(right))"
        case .missingByte(let path, let byte, let token):
            "\(path): the vocabulary lacks \(quoted(token)), the token of byte \(byte)"
        case .unfitTemplate(let path, let part, let tokenCount, let expected):
            "\(path): the prompt's \(part) has \(tokenCount) tokens, expected \(expected): "
                + "not the tokenizer of Krea 2's text encoder"
        }
    }
}
