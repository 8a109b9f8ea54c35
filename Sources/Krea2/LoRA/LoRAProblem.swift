import Checkpoints

/// What is wrong with one tensor of a LoRA file, or with the file.
public enum LoRAProblem: Error, Equatable, Hashable, Sendable {
    /// No layer or no part of one has this name; `nearest` is the known name most like it.
    case unknown(key: String, nearest: String?)
    /// For a part of the model that LoRAs are not applied to; `part` says which.
    case inapplicable(key: String, part: String)
    /// Of a method that is not read.
    case unsupported(key: String, method: String)
    /// Made for another model; `model` says for which, and `expected` what this one is.
    case otherModel(key: String, model: String, expected: String)
    /// Not of the shape that its layer or its partner has.
    case misshapen(key: String, found: [Int], expected: String)
    /// Of an element type that is not computed with.
    case mistyped(key: String, found: String)
    /// What belongs to it is not there; `partner` is its name.
    case alone(key: String, partner: String)
    /// Two names of one thing.
    case repeated(key: String, other: String)
    /// Holds NaN or infinity, or leads to them.
    case notFinite(key: String)
    /// A text in the header cannot be used.
    case metadata(key: String, found: String, expected: String)
    /// No tensor has the name of a part of a LoRA; `key` is the first.
    case noLoRA(key: String)
    /// Nothing in the file is a change of a layer.
    case empty

    /// Whether it is recognised and can be left out without making the rest wrong.
    public var isHarmless: Bool {
        if case .inapplicable = self { true } else { false }
    }
}

/// Why a LoRA file cannot be used; `description` is one line.
public struct LoRAError: Error, Equatable {
    /// The file.
    public let path: String
    /// Everything that is wrong with it.
    public let problems: [LoRAProblem]

    /// Problems that `description` spells out.
    static let describedProblems = 20
}

// MARK: Text

extension LoRAError: CustomStringConvertible {
    /// The file and what is wrong with it.
    public var description: String {
        let more = problems.count - Self.describedProblems
        let shown = problems.prefix(Self.describedProblems).map(\.description)
        let end = more > 0 ? ["and \(more) more"] : []
        return "\(oneLine(path)): \((shown + end).joined(separator: "; "))"
    }
}

extension LoRAProblem: CustomStringConvertible {
    /// The tensor, what was found and what was expected.
    public var description: String {
        switch self {
        case .unknown(let key, let nearest):
            "\(oneLine(key)) is no part of the model"
                + (nearest.map { ", the nearest is \($0)" } ?? "")
        case .inapplicable(let key, let part):
            "\(oneLine(key)) is for \(part), to which LoRAs are not applied"
        case .unsupported(let key, let method):
            "\(oneLine(key)): \(method) is not supported"
        case .otherModel(let key, let model, let expected):
            "it was made for \(model), not for \(expected) (\(oneLine(key)))"
        case .misshapen(let key, let found, let expected):
            "\(oneLine(key)) has shape \(found), expected \(expected)"
        case .mistyped(let key, let found):
            "\(oneLine(key)) has type \(oneLine(found)), expected F32, F16 or BF16"
        case .alone(let key, let partner):
            "\(oneLine(key)) has no \(partner)"
        case .repeated(let key, let other):
            "\(oneLine(key)) and \(oneLine(other)) are the same"
        case .notFinite(let key):
            "\(oneLine(key)) holds NaN or infinity"
        case .metadata(let key, let found, let expected):
            "metadata \(oneLine(key)): \(oneLine(found)), expected \(expected)"
        case .noLoRA(let key):
            "it is no LoRA: \(oneLine(key)) and all others have names of plain weights"
        case .empty:
            "no tensor of it changes a layer"
        }
    }
}
