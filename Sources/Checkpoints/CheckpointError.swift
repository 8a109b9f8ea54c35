package import Tensors

/// Why weight files cannot be used or written; `description` is one line.
public enum CheckpointError: Error, Equatable {
    /// Nothing has this path.
    case missing(path: String)
    /// The shard at `path`, which `index` names, is not there.
    case missingShard(path: String, index: String)
    /// A folder holds no safetensors file.
    case noWeights(folder: String)
    /// A folder holds several safetensors files and nothing says which to take.
    case ambiguous(folder: String, files: [String])
    /// A part of a model is in none of the usual places; `option` is how a user names it, such as
    /// `--vae PATH`.
    case missingCompanion(part: String, option: String, lookedAt: [String])
    /// The system refused to read the file; `reason` is its message or what the path leads to.
    case unreadable(path: String, reason: String)
    /// A file breaks the rules of its format; `tensor` is the entry concerned, if it is one.
    case damaged(path: String, tensor: String?, found: String, expected: String)
    /// The tensors are not those expected; `path` is the file, index or folder.
    case unfit(path: String, problems: [WeightProblem])
    /// The file was changed, cut short or replaced while in use.
    case changed(path: String, reason: String)
    /// The file exists and was not to be overwritten.
    case exists(path: String)
    /// Writing failed, and nothing of the new file is left; `reason` is the system's message.
    case cannotWrite(path: String, reason: String)

    /// Whether a file to read is missing or unreadable, rather than damaged or unfit.
    public var isMissingFile: Bool {
        switch self {
        case .missing, .missingShard, .missingCompanion, .noWeights, .unreadable: true
        case .ambiguous, .damaged, .unfit, .changed, .exists, .cannotWrite: false
        }
    }
}

/// One tensor that is not as expected; `file` is the path of the file it is in or should be in.
public enum WeightProblem: Hashable, Sendable {
    /// Not there.
    case missing(tensor: String, file: String)
    /// There, but nothing uses it.
    case surplus(tensor: String, file: String)
    /// There more than once.
    case repeated(tensor: String, files: [String])
    /// None of the shapes in `expected`.
    case misshapen(tensor: String, file: String, found: [Int], expected: [[Int]])
    /// Of an element type that cannot be computed with; `found` is its name in the header.
    case mistyped(tensor: String, file: String, found: String)
    /// Its contents, or what the file says about it, cannot be used.
    case invalid(tensor: String, file: String, found: String, expected: String)
    /// The text `_quantization_metadata` in a header cannot be used.
    case invalidNotes(file: String, found: String, expected: String)
    /// Quantised in a form that is not read; `first` is one of `count` such tensors.
    case unsupported(format: String, count: Int, first: String, file: String)
}

// MARK: Text

extension CheckpointError: CustomStringConvertible {
    /// Problems that `description` spells out; the case holds all.
    static let describedProblems = 12

    /// The file, what was found and what was expected, in one line.
    public var description: String {
        switch self {
        case .missing(let path):
            "\(oneLine(path)): no such file"
        case .missingShard(let path, let index):
            "\(oneLine(path)): no such file, but \(oneLine(index)) names it as a shard"
        case .missingCompanion(let part, let option, let lookedAt):
            "no \(part) found in \(lookedAt.map(oneLine).joined(separator: ", ")); "
                + "give one with \(option)"
        case .noWeights(let folder):
            "\(oneLine(folder)): no safetensors file in this folder"
        case .ambiguous(let folder, let files):
            "\(oneLine(folder)): several safetensors files and no index, expected one: "
                + listed(files.map(oneLine), separator: ", ")
        case .unreadable(let path, let reason):
            "\(oneLine(path)): cannot be read: \(reason)"
        case .damaged(let path, let tensor, let found, let expected):
            "\(oneLine(path)): \(tensor.map { "tensor \(oneLine($0)) has " } ?? "")"
                + "\(oneLine(found)), expected \(oneLine(expected))"
        case .unfit(let path, let problems):
            "\(oneLine(path)): " + listed(problems.map(\.description), separator: "; ")
        case .changed(let path, let reason):
            "\(oneLine(path)): changed while in use: \(reason)"
        case .exists(let path):
            "\(oneLine(path)): already exists"
        case .cannotWrite(let path, let reason):
            "\(oneLine(path)): cannot be written: \(reason)"
        }
    }

    /// The first items and the number of the others.
    private func listed(_ items: [String], separator: String) -> String {
        let more = items.count - Self.describedProblems
        let first = items.prefix(Self.describedProblems).joined(separator: separator)
        return more > 0 ? "\(first)\(separator)and \(more) more" : first
    }
}

extension WeightProblem: CustomStringConvertible {
    /// The tensor, its file, what was found and what was expected.
    public var description: String {
        switch self {
        case .missing(let tensor, let file):
            "tensor \(oneLine(tensor)) is missing from \(oneLine(file))"
        case .surplus(let tensor, let file):
            "tensor \(oneLine(tensor)) in \(oneLine(file)) is not expected"
        case .repeated(let tensor, let files):
            "tensor \(oneLine(tensor)) is in \(files.map(oneLine).joined(separator: " and in "))"
        case .misshapen(let tensor, let file, let found, let expected):
            "tensor \(oneLine(tensor)) in \(oneLine(file)) has shape \(found), expected "
                + expected.map(\.description).joined(separator: " or ")
        case .mistyped(let tensor, let file, let found):
            "tensor \(oneLine(tensor)) in \(oneLine(file)): "
                + "type \(oneLine(found)) is known but not computed with, expected F32, F16 or BF16"
                + (found == "I8" ? ", or a weight_scale beside it" : "")
        case .invalid(let tensor, let file, let found, let expected):
            "tensor \(oneLine(tensor)) in \(oneLine(file)) has \(oneLine(found)), expected "
                + oneLine(expected)
        case .invalidNotes(let file, let found, let expected):
            "_quantization_metadata in \(oneLine(file)): \(oneLine(found)), expected "
                + oneLine(expected)
        case .unsupported(let format, let count, let first, let file):
            "format \(oneLine(format)) of "
                + (count > 1 ? "\(count) tensors from " : "") + "tensor \(oneLine(first)) in "
                + "\(oneLine(file)) is not supported, expected \(WeightFormat.supportedNames)"
        }
    }
}

/// Text from a file or the user, made fit for one line: control characters escaped, long ends cut.
package func oneLine(_ text: String) -> String {
    let limit = 300
    var line = ""
    for scalar in text.unicodeScalars.prefix(limit) {
        switch scalar.properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator, .format, .surrogate:
            line += scalar.escaped(asASCII: true)
        default:
            line.unicodeScalars.append(scalar)
        }
    }
    return text.unicodeScalars.count > limit ? line + "…" : line
}

// MARK: Causes

extension CheckpointError {
    /// The same fact about a file of weights.
    package init(_ error: MappingError) {
        self =
            switch error {
            case .missing(let path): .missing(path: path)
            case .unreadable(let path, let reason): .unreadable(path: path, reason: reason)
            case .notRegular(let path, let kind):
                .unreadable(path: path, reason: "it is \(kind), expected a file")
            case .empty(let path):
                .damaged(path: path, tensor: nil, found: "no bytes", expected: "a header")
            case .changed(let path, let reason): .changed(path: path, reason: reason)
            }
    }
}
