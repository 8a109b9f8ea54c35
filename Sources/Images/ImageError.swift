/// What can go wrong with pictures, their files and what is written into them.
///
/// `description` is one line, whatever a path or a file holds.
public enum ImageError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A picture's sides or its number of bytes are not possible.
    case invalidPixels(width: Int, height: Int, byteCount: Int)

    /// A text cannot be stored in a PNG file.
    case invalidText(keyword: String, reason: String)

    /// The PNG library could not encode a picture.
    case encodingFailed(reason: String)

    /// A picture's file, or what claims to be one, is damaged; without a path it was in memory.
    case damaged(path: String?, format: PictureFormat = .png, reason: String)

    /// A valid file is of a kind that is not read; without a path it was in memory.
    case unsupported(
        path: String? = nil,
        format: PictureFormat = .png,
        found: String,
        expected: String
    )

    /// A file is in none of the formats that are read; `found` names the format where it is known.
    case unknownFormat(path: String?, found: String?)

    /// A picture is too small for its purpose.
    case tooSmall(width: Int, height: Int, shortestSide: Int)

    /// The `krea2` text of a picture does not describe how it was made.
    case invalidRecord(reason: String)

    /// A record's numbers cannot be written.
    case unwritableRecord(reason: String)

    /// The file to read does not exist.
    case missingFile(path: String)

    /// The file to read exists but cannot be read.
    case unreadableFile(path: String, reason: String)

    /// The file to write would be in a folder that does not exist.
    case missingFolder(path: String, folder: String)

    /// The file to write exists, and replacing it was not asked for.
    case alreadyExists(path: String)

    /// What is to be replaced is a folder, a device or a link, or the path names no file.
    case notAFile(path: String)

    /// Writing is not permitted there.
    case notPermitted(path: String, reason: String)

    /// The disk, a quota or a size limit is exhausted.
    case diskFull(path: String, reason: String)

    /// Writing failed for another reason.
    case writeFailed(path: String, reason: String)

    /// One line that names the file or the value, what was found and what was expected.
    public var description: String { oneLine(message) }

    /// The description, with paths and texts as they are.
    private var message: String {
        switch self {
        case .invalidPixels(let width, let height, let byteCount):
            "a picture of \(width) x \(height) pixels in \(byteCount) bytes, expected sides of 1"
                + " to \(PixelImage.largestSide), at most \(PixelImage.largestPixelCount) pixels"
                + " and 3 bytes a pixel"
        case .invalidText(let keyword, let reason):
            "the text \"\(keyword)\" cannot be stored in a PNG file: \(reason)"
        case .encodingFailed(let reason):
            "the PNG file cannot be encoded: \(reason)"
        case .damaged(let path, let format, let reason):
            "\(path ?? "\(format) data"): not a valid \(format) file: \(reason)"
        case .unsupported(let path, let format, let found, let expected):
            "\(path.map { "\($0): " } ?? "")the \(format) file is \(found), expected \(expected)"
        case .unknownFormat(let path, let found):
            "\(path ?? "picture data"): \(found.map { "a \($0) file" } ?? "no picture"), expected"
                + " PNG, JPEG or WebP; convert it first"
        case .tooSmall(let width, let height, let shortestSide):
            "a picture of \(width) x \(height) pixels, expected sides of at least"
                + " \(shortestSide) pixels"
        case .invalidRecord(let reason):
            "the krea2 record of the picture is unusable: \(reason)"
        case .unwritableRecord(let reason):
            "the krea2 record cannot be written: \(reason)"
        case .missingFile(let path):
            "\(path): no such file"
        case .unreadableFile(let path, let reason):
            "\(path): cannot be read: \(reason)"
        case .missingFolder(let path, let folder):
            "\(path): there is no folder \(folder); create it first"
        case .alreadyExists(let path):
            "\(path): exists already and is not replaced unasked"
        case .notAFile(let path):
            "\(path): is not a regular file, so nothing is written there"
        case .notPermitted(let path, let reason):
            "\(path): writing is not permitted: \(reason)"
        case .diskFull(let path, let reason):
            "\(path): no room to write: \(reason)"
        case .writeFailed(let path, let reason):
            "\(path): cannot be written: \(reason)"
        }
    }

    /// Whether an input file is missing or cannot be read, rather than damaged.
    public var isMissingFile: Bool {
        switch self {
        case .missingFile, .unreadableFile: true
        default: false
        }
    }

    /// Whether a file could not be written.
    public var isWriteFailure: Bool {
        switch self {
        case .missingFolder, .alreadyExists, .notAFile, .notPermitted, .diskFull, .writeFailed: true
        default: false
        }
    }
}

/// Text with control characters and line breaks made visible, so that it stays one line.
private func oneLine(_ text: String) -> String {
    var line = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
        switch scalar.properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator:
            line.append(contentsOf: "\\u{\(String(scalar.value, radix: 16))}".unicodeScalars)
        default:
            line.append(scalar)
        }
    }
    return String(line)
}
