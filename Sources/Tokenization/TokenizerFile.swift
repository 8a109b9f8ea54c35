import JSON
import FoundationEssentials

/// One file of a tokenizer, read whole.
struct TokenizerFile {
    /// Where it was read from, for messages.
    let path: String
    /// Its bytes.
    let contents: [UInt8]

    /// Real files have up to 12 MB, those of other models three times that.
    private static let byteLimit = 64 << 20

    /// Takes bytes that are already in memory.
    ///
    /// - Throws: `tooLarge`.
    init(path: String, contents: [UInt8]) throws(TokenizerError) {
        guard contents.count <= Self.byteLimit else {
            throw .tooLarge(
                path: path,
                what: "bytes",
                count: contents.count,
                limit: Self.byteLimit
            )
        }
        self.path = path
        self.contents = contents
    }

    /// Reads a file.
    ///
    /// - Throws: `missingFile`, `unreadableFile`, `tooLarge`.
    init(path: String) throws(TokenizerError) {
        let attributes = try attributes(ofItemAt: path)
        switch attributes[.type] as? FileAttributeType {
        case .typeRegular: break
        case .typeSymbolicLink: throw .missingFile(path: path)
        case .typeDirectory: throw .unreadableFile(path: path, reason: "it is a directory")
        default: throw .unreadableFile(path: path, reason: "it is not a regular file")
        }
        let byteCount = (attributes[.size] as? any BinaryInteger).map { Int(clamping: $0) } ?? 0
        guard byteCount <= Self.byteLimit else {
            throw .tooLarge(path: path, what: "bytes", count: byteCount, limit: Self.byteLimit)
        }
        let contents: [UInt8]
        do {
            contents = Array(try Data(contentsOf: URL(filePath: path)))
        } catch {
            throw TokenizerError(reading: path, error)
        }
        try self.init(path: path, contents: contents)
    }
}

/// Whether there is a directory at `path`, symbolic links followed.
///
/// - Throws: `missingFile`, `unreadableFile`.
func isDirectory(_ path: String) throws(TokenizerError) -> Bool {
    try attributes(ofItemAt: path)[.type] as? FileAttributeType == .typeDirectory
}

/// Attributes of what a path leads to; `attributesOfItem` does not follow links by itself.
private func attributes(
    ofItemAt path: String
) throws(TokenizerError) -> [FileAttributeKey: Any] {
    guard !path.isEmpty else { throw .missingFile(path: path) }
    let target = URL(filePath: path).resolvingSymlinksInPath().path
    do {
        return try FileManager.default.attributesOfItem(atPath: target)
    } catch {
        throw TokenizerError(reading: path, error)
    }
}

extension TokenizerError {
    /// What Foundation says about a file, in our terms.
    fileprivate init(reading path: String, _ error: any Error) {
        let error = error as? CocoaError
        if error?.code == .fileReadNoSuchFile {
            self = .missingFile(path: path)
        } else if let system = error?.underlying as? POSIXError {
            self = .unreadableFile(path: path, reason: "\(system.code)")
        } else {
            self = .unreadableFile(path: path, reason: "error \(error?.code.rawValue ?? 0)")
        }
    }
}

// MARK: JSON

extension TokenizerFile {
    /// The file as JSON.
    ///
    /// - Throws: `damagedFile` with the place and the fault.
    func json() throws(TokenizerError) -> JSONField {
        if contents.starts(with: "version https://git-lfs".utf8) {
            throw damaged("is a Git LFS pointer, not the file itself; run git lfs pull")
        }
        do throws(JSONParser.Failure) {
            return JSONField(value: try JSONParser.parse(contents), path: path, name: "")
        } catch {
            throw damaged("not valid JSON at byte \(error.position): \(error.problem)")
        }
    }

    /// The error that says what is wrong with this file.
    func damaged(_ reason: String) -> TokenizerError {
        .damagedFile(path: path, reason: reason)
    }
}
