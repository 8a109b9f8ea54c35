public import Checkpoints
public import Tokenization

/// Why pictures could not be made.
public enum GenerationError: Error, Equatable, CustomStringConvertible {
    /// A weight or configuration file is missing, damaged or unfit.
    case model(CheckpointError)
    /// A tokenizer file is missing, damaged or unfit.
    case tokenizer(TokenizerError)
    /// A LoRA file is damaged, of another model, or not applicable as it is.
    case lora(LoRAError)
    /// A stored reference or moodboard is of another kind, or was made by another text encoder.
    case reference(ReferenceError)
    /// No LoRA for a slider is found in `lookedAt`.
    case missingSlider(name: String, lookedAt: [String])
    /// The request asks for what cannot be done; one line.
    case request(String)
    /// A result has NaN or infinity in it.
    ///
    /// - `stage`: Such as "transformer".
    /// - `place`: Such as "step 3, block 12".
    case notFinite(stage: String, place: String)
    /// The caller asked to stop.
    case cancelled

    /// What kind of fault it is, for exit codes and HTTP statuses.
    public enum Category: Sendable {
        /// An input file is missing or unreadable.
        case missingFile
        /// A file is damaged, changed, or not what is needed.
        case unfitFile
        /// A file cannot be written.
        case unwritable
        /// The request is wrong.
        case request
        /// NaN or infinity.
        case notFinite
        /// Stopped on demand.
        case cancelled
    }

    /// The kind of fault.
    public var category: Category {
        switch self {
        case .model(.exists), .model(.cannotWrite): .unwritable
        case .model(let error): error.isMissingFile ? .missingFile : .unfitFile
        case .tokenizer(let error): error.isMissingFile ? .missingFile : .unfitFile
        case .lora, .reference, .missingSlider: .unfitFile
        case .request: .request
        case .notFinite: .notFinite
        case .cancelled: .cancelled
        }
    }

    /// One line that says what was found and what was expected.
    public var description: String {
        switch self {
        case .model(let error): error.description
        case .tokenizer(let error): error.description
        case .lora(let error): error.description
        case .reference(let error): error.description
        case .missingSlider(let name, let lookedAt):
            "no LoRA for the slider \(oneLine(name)) found in "
                + lookedAt.map(oneLine).joined(separator: ", ")
                + "; give one with --slider-file FILE"
        case .request(let text): text
        case .notFinite(let stage, let place): "\(stage), \(place): NaN or infinity in the result"
        case .cancelled: "stopped"
        }
    }
}

/// Why a run that hands over its pictures one by one ended early.
public enum RunError<ReceiverError: Error>: Error {
    /// The pictures could not be made.
    case generation(GenerationError)
    /// Who received the pictures failed.
    case receiver(ReceiverError)
}

extension RunError: Equatable where ReceiverError: Equatable {}
