import Images
import Krea2

/// What the process returns to the shell.
///
/// The numbers above 63 follow BSD `sysexits.h`; 130 and 143 are 128 plus the signal's number.
enum ExitCode: Int32 {
    case done = 0
    case failed = 1
    /// A stage produced NaN or infinity.
    case notFinite = 2
    case wrongUsage = 64
    /// A model or a picture is damaged, or is not what the command needs.
    case badData = 65
    /// An input file is missing or unreadable.
    case noInput = 66
    case cannotWrite = 73
    /// Stopped by a signal; the same command goes on where it was.
    case resumable = 75
    case interrupted = 130
    case terminated = 143
}

/// Why a command stopped: one line for people and one number for scripts.
struct Failure: Error, Equatable {
    var code: ExitCode
    /// What was found, what was expected and what to do, without the leading `krea2:`.
    var message: String

    init(_ code: ExitCode, _ message: String) {
        self.code = code
        self.message = message
    }

    /// Wrong usage of a subcommand; the message gets a pointer to its help.
    static func usage(_ message: String, of command: String) -> Failure {
        Failure(.wrongUsage, "\(message); see krea2 \(command) --help")
    }

    /// The line for standard error; line breaks and other control characters in names are escaped.
    var line: String { "krea2: \(message.escapingControls)" }
}

// The one place where typed errors become exit codes.
extension Failure {
    /// An error of the engine.
    ///
    /// - Parameters:
    ///   - error: What the engine says.
    ///   - command: Whose help tells more about a wrong request.
    init(_ error: GenerationError, of command: String = "generate") {
        switch error.category {
        case .missingFile: self.init(.noInput, error.description)
        case .unfitFile: self.init(.badData, error.description)
        case .unwritable: self.init(.cannotWrite, error.description)
        case .request: self = .usage(error.description, of: command)
        case .notFinite: self.init(.notFinite, error.description)
        case .cancelled: self = Interruption.failure
        }
    }

    /// Runs engine code; its errors become failures with exit codes.
    ///
    /// - Parameters:
    ///   - command: Whose help tells more about a wrong request.
    ///   - body: The code.
    /// - Returns: What the code does.
    /// - Throws: The failure that stands for its error.
    static func mapping<Result>(
        of command: String = "generate",
        _ body: () throws(GenerationError) -> Result
    ) throws(Failure) -> Result {
        do {
            return try body()
        } catch {
            throw Failure(error, of: command)
        }
    }

    /// An error about a picture.
    init(_ error: ImageError) {
        if error.isMissingFile {
            self.init(.noInput, error.description)
        } else if error.isWriteFailure {
            self.init(.cannotWrite, error.description)
        } else {
            self.init(.badData, error.description)
        }
    }
}

extension String {
    /// The text with every control character replaced by its escape, so that it stays on one line.
    var escapingControls: String {
        var result = ""
        for scalar in unicodeScalars {
            switch scalar.value {
            case 0x0A: result += "\\n"
            case 0x0D: result += "\\r"
            case 0x09: result += "\\t"
            case 0..<0x20, 0x7F..<0xA0: result += "\\u{\(String(scalar.value, radix: 16))}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
