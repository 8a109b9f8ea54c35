import Checkpoints

/// Why a stored reference or moodboard cannot be used with a model, though nothing in it is damaged.
public enum ReferenceError: Error, Equatable {
    /// Something else than was expected; `found` is what the file says of itself, if it says it.
    case otherFormat(path: String, found: String?, expected: String)
    /// Of a version of the format that is not read.
    case otherVersion(path: String, found: String?, expected: String)
    /// Made by a text encoder of another kind, whose rows mean nothing here.
    case otherFamily(path: String, found: String, expected: String)
    /// Made with another text around the picture, or of other taps.
    case otherTemplate(path: String)
    /// Made by other files of the same text encoder, such as quantised ones.
    case otherEncoder(path: String, found: String, expected: String)
}

extension ReferenceError: CustomStringConvertible {
    /// The file, what was found, what was expected and what to do, in one line.
    public var description: String {
        switch self {
        case .otherFormat(let path, let found, let expected):
            "\(oneLine(path)): " + (found.map { "format \(oneLine($0))" } ?? "no format is named")
                + ", expected \(expected)"
        case .otherVersion(let path, let found, let expected):
            "\(oneLine(path)): version \(oneLine(found ?? "none")), expected \(expected)"
        case .otherFamily(let path, let found, let expected):
            "\(oneLine(path)): made by \(oneLine(found)), expected \(oneLine(expected)), the text "
                + "encoder of this model; encode the pictures anew"
        case .otherTemplate(let path):
            "\(oneLine(path)): made with another template or other taps; encode the pictures anew"
        case .otherEncoder(let path, let found, let expected):
            "\(oneLine(path)): made by other files of the text encoder, \(oneLine(found)), expected "
                + "\(oneLine(expected)); encode the pictures anew, or allow it with "
                + "--allow-compatible-encoder"
        }
    }
}
