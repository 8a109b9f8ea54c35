import Glibc
import Synchronization
import Tensors

/// A file that appears under its name only when it is complete.
///
/// It is written under a temporary name in the same folder, which is removed unless `finish()` is
/// reached, whatever fails before.
final class NewFile {
    private let path: String
    private let temporaryPath: String
    private let isOverwriting: Bool
    private let descriptor: Int32
    private var isFinished = false

    private static let counter = Atomic(0)

    /// Creates the temporary file.
    ///
    /// - Parameters:
    ///   - path: Name to appear under in the end.
    ///   - isOverwriting: Whether a file of that name is replaced.
    ///   - isPrivate: Whether only the user may read it.
    /// - Throws: `.exists` or `.cannotWrite`.
    init(
        path: String,
        overwriting isOverwriting: Bool,
        isPrivate: Bool = false
    ) throws(CheckpointError) {
        var status = stat()
        if !isOverwriting, lstat(path, &status) == 0 { throw .exists(path: path) }
        let number = Self.counter.add(1, ordering: .relaxed).newValue
        temporaryPath = "\(Self.folder(of: path)).krea2-\(getpid())-\(number).partial"
        self.path = path
        self.isOverwriting = isOverwriting
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC
        descriptor = open(temporaryPath, flags, isPrivate ? 0o600 : 0o666)
        guard descriptor >= 0 else {
            // Nothing to remove: the file is not ours.
            isFinished = true
            throw Self.failure(path)
        }
    }

    deinit {
        if !isFinished { unlink(temporaryPath) }
        if descriptor >= 0 { close(descriptor) }
    }

    /// Appends bytes.
    func write(_ bytes: UnsafeRawBufferPointer) throws(CheckpointError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let chunk = UnsafeRawBufferPointer(rebasing: rest)
            let count = Glibc.write(descriptor, chunk.baseAddress, chunk.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw Self.failure(path) }
            rest = rest.dropFirst(count)
        }
    }

    /// Brings all bytes to the disk and gives the file its name.
    func finish() throws(CheckpointError) {
        guard fsync(descriptor) == 0 else { throw Self.failure(path) }
        try Self.move(temporaryPath, to: path, overwriting: isOverwriting)
        isFinished = true
    }

    /// Gives a complete file of the same folder its name.
    ///
    /// - Parameters:
    ///   - temporaryPath: The file; gone afterwards.
    ///   - path: Name to appear under.
    ///   - isOverwriting: Whether a file of that name is replaced.
    /// - Throws: `.exists` or `.cannotWrite`.
    static func move(
        _ temporaryPath: String,
        to path: String,
        overwriting isOverwriting: Bool
    ) throws(CheckpointError) {
        // Unlike `rename`, `link` fails when another process has made a file of that name meanwhile.
        // Some file systems have no links; there an earlier check has to do.
        if !isOverwriting, link(temporaryPath, path) == 0 {
            unlink(temporaryPath)
        } else {
            guard isOverwriting || errno != EEXIST else { throw .exists(path: path) }
            guard rename(temporaryPath, path) == 0 else { throw failure(path) }
        }
        // The name too should outlast a loss of power; the file is complete in any case.
        let folderDescriptor = open(folder(of: path), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if folderDescriptor >= 0 {
            fsync(folderDescriptor)
            close(folderDescriptor)
        }
    }

    /// The folder of a file, with a slash at the end.
    private static func folder(of path: String) -> String {
        path.lastIndex(of: "/").map { String(path[...$0]) } ?? "./"
    }

    /// The error that `errno` stands for.
    static func failure(_ path: String) -> CheckpointError {
        .cannotWrite(path: path, reason: String(cString: strerror(errno)))
    }
}

/// A small text that is written beside other files.
package struct TextFile: Sendable {
    /// Where it goes.
    package let path: String
    /// All of it.
    package let text: String

    /// Names a text; nothing is written yet.
    package init(path: String, text: String) {
        self.path = path
        self.text = text
    }

    /// Throws `.exists` when something else is there that is not to be replaced.
    package func check(overwriting isOverwriting: Bool) throws(CheckpointError) {
        guard isOverwriting || isAbsent || isWritten else { throw .exists(path: path) }
    }

    /// Writes the text, all of it or nothing, unless it is there already.
    ///
    /// - Parameter isOverwriting: Whether another file at the path is replaced.
    /// - Throws: `.exists` or `.cannotWrite`.
    package func write(overwriting isOverwriting: Bool) throws(CheckpointError) {
        guard !isWritten else { return }
        let file = try NewFile(path: path, overwriting: isOverwriting)
        let bytes = Array(text.utf8)
        try bytes.span.withUnsafeBytes { bytes throws(CheckpointError) in try file.write(bytes) }
        try file.finish()
    }

    private var isAbsent: Bool {
        var status = stat()
        return lstat(path, &status) != 0
    }

    /// Whether the file has this text; one that cannot be read has another.
    private var isWritten: Bool {
        guard let file = try? MappedFile(path: path) else { return false }
        return file.withBytes { $0.elementsEqual(text.utf8) }
    }
}
