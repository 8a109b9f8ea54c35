import Glibc
import Synchronization

/// A file that appears under its name only when it is complete.
///
/// It is written under a temporary name in the same folder, which is removed unless `finish()` is
/// reached, whatever fails before.
final class NewFile {
    private let path: String
    private let temporaryPath: String
    private let folder: String
    private let isOverwriting: Bool
    private let descriptor: Int32
    private var isFinished = false

    private static let counter = Atomic(0)

    /// Creates the temporary file.
    ///
    /// - Parameters:
    ///   - path: Name to appear under in the end.
    ///   - isOverwriting: Whether a file of that name is replaced.
    /// - Throws: `.exists` or `.cannotWrite`.
    init(path: String, overwriting isOverwriting: Bool) throws(CheckpointError) {
        var status = stat()
        if !isOverwriting, lstat(path, &status) == 0 { throw .exists(path: path) }
        let slash = path.lastIndex(of: "/")
        folder = slash.map { String(path[...$0]) } ?? "./"
        let number = Self.counter.add(1, ordering: .relaxed).newValue
        temporaryPath = "\(folder).krea2-\(getpid())-\(number).partial"
        self.path = path
        self.isOverwriting = isOverwriting
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC
        descriptor = open(temporaryPath, flags, 0o666)
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
        try takeName()
        isFinished = true
        // The name too should outlast a loss of power; the file is complete in any case.
        let folderDescriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if folderDescriptor >= 0 {
            fsync(folderDescriptor)
            close(folderDescriptor)
        }
    }

    private func takeName() throws(CheckpointError) {
        if !isOverwriting {
            // Unlike `rename`, fails when another process has made a file of that name meanwhile.
            if link(temporaryPath, path) == 0 {
                unlink(temporaryPath)
                return
            }
            guard errno != EEXIST else { throw .exists(path: path) }
            // Some file systems have no links; there the check in `init` has to do.
        }
        guard rename(temporaryPath, path) == 0 else { throw Self.failure(path) }
    }

    /// The error that `errno` stands for.
    private static func failure(_ path: String) -> CheckpointError {
        .cannotWrite(path: path, reason: String(cString: strerror(errno)))
    }
}
