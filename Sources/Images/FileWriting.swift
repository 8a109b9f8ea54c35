internal import CCodecs
internal import Glibc

/// Writes a whole file, or nothing.
///
/// The bytes go to a temporary file in the same folder, which is flushed to the disk and then
/// renamed, so nobody ever sees half a file and no failure leaves one behind. A file that appears
/// under the name meanwhile is never replaced unasked. A process that may run under a file size
/// limit should ignore `SIGXFSZ`, or that signal ends it before the error is returned.
///
/// - Parameters:
///   - bytes: The contents.
///   - path: Where they go; a new file gets the permissions the process gives to new files.
///   - overwriting: Whether a regular file of that name is replaced. Folders, devices and links
///     never are.
/// - Throws: `ImageError.alreadyExists`, `.missingFolder`, `.notAFile`, `.notPermitted`,
///   `.diskFull` or `.writeFailed`.
public func writeFile(
    _ bytes: [UInt8],
    to path: String,
    overwriting: Bool
) throws(ImageError) {
    let target = try WriteTarget(path)
    try target.refuseUnsuitable(overwriting: overwriting)
    let (descriptor, temporary) = try target.createTemporary()
    do throws(ImageError) {
        try target.fill(descriptor, with: bytes)
        try target.publish(temporary, overwriting: overwriting)
    } catch {
        unsafe unlink(temporary)
        throw error
    }
}

/// Finds out, before any work is done, whether `writeFile` would be refused.
///
/// - Parameters:
///   - path: As for `writeFile`.
///   - overwriting: As for `writeFile`.
/// - Throws: As `writeFile`; a full disk and what changes meanwhile are not foreseen.
public func checkWritable(_ path: String, overwriting: Bool) throws(ImageError) {
    let target = try WriteTarget(path)
    try target.refuseUnsuitable(overwriting: overwriting)
    let (descriptor, temporary) = try target.createTemporary()
    close(descriptor)
    unsafe unlink(temporary)
}

/// The steps of writing a file.
struct WriteTarget {
    /// Where the file goes.
    let path: String

    /// Its folder, ending in a slash; empty for the current one.
    private let folder: String

    /// Takes the path apart.
    ///
    /// - Throws: `ImageError.notAFile` where it cannot name a file.
    init(_ path: String) throws(ImageError) {
        let name = path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        guard let last = name.last, !last.isEmpty, !path.utf8.contains(0) else {
            throw .notAFile(path: path)
        }
        self.path = path
        folder = String(decoding: path.utf8.dropLast(last.count), as: UTF8.self)
    }

    /// Refuses what is known to fail before any work is done.
    ///
    /// - Throws: `ImageError.alreadyExists`; `ImageError.notAFile` where there is something that
    ///   must not be replaced, as renaming over `/dev/null` would destroy it; or
    ///   `ImageError.writeFailed` for a name too long.
    func refuseUnsuitable(overwriting: Bool) throws(ImageError) {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else {
            // The temporary file has a short name, so that would come out only after writing it.
            if errno == ENAMETOOLONG { throw error(ENAMETOOLONG) }
            return
        }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .notAFile(path: path) }
        guard overwriting else { throw .alreadyExists(path: path) }
    }

    /// Creates an empty file beside the target under a name nobody else has.
    func createTemporary() throws(ImageError) -> (descriptor: CInt, path: String) {
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW
        var attempts = 0
        while true {
            let name = "\(folder).krea2-\(String(UInt64.random(in: 0 ... .max), radix: 16)).tmp"
            let descriptor = unsafe open(name, flags, 0o666)
            if descriptor >= 0 { return (descriptor, name) }
            let code = errno
            attempts += 1
            // Another writer drew the same name, or a signal came in between.
            guard [EEXIST, EINTR].contains(code), attempts < 16 else { throw error(code) }
        }
    }

    /// Writes, flushes and closes; the descriptor is closed in every case.
    func fill(_ descriptor: CInt, with bytes: [UInt8]) throws(ImageError) {
        do throws(ImageError) {
            try writeAll(bytes, to: descriptor)
            // EINVAL: the file system has nothing to flush.
            guard fsync(descriptor) == 0 || errno == EINVAL else { throw self.error(errno) }
        } catch {
            close(descriptor)
            throw error
        }
        // Network file systems report a full disk as late as here. After EINTR it is closed.
        guard close(descriptor) == 0 || errno == EINTR else { throw error(errno) }
    }

    /// Writes all bytes, however many calls it takes.
    func writeAll(_ bytes: [UInt8], to descriptor: CInt) throws(ImageError) {
        var written = 0
        while written < bytes.count {
            let count = unsafe bytes.withUnsafeBytes { buffer in
                unsafe write(
                    descriptor,
                    UnsafeRawBufferPointer(rebasing: buffer[written...]).baseAddress,
                    buffer.count - written
                )
            }
            if count > 0 {
                written += count
            } else if count == 0 {
                throw error(EIO)
            } else if errno != EINTR {
                throw error(errno)
            }
        }
    }

    /// Gives the temporary file its final name.
    func publish(_ temporary: String, overwriting: Bool) throws(ImageError) {
        if overwriting {
            guard unsafe rename(temporary, path) == 0 else { throw error(errno) }
            return
        }
        let code = unsafe codecs_rename_unless_exists(temporary, path)
        if code == 0 { return }
        // Some network file systems cannot rename without replacing, but they can link.
        guard [EINVAL, ENOSYS].contains(code) else { throw error(code) }
        try publishByLinking(temporary)
    }

    /// Gives the temporary file its final name as a second one, then takes the first away.
    func publishByLinking(_ temporary: String) throws(ImageError) {
        guard unsafe link(temporary, path) == 0 else { throw error(errno) }
        guard unsafe unlink(temporary) == 0 else { throw error(errno) }
    }

    /// The error for a code of the system.
    private func error(_ code: CInt) -> ImageError {
        switch code {
        case EEXIST:
            .alreadyExists(path: path)
        case ENOENT, ENOTDIR:
            .missingFolder(path: path, folder: folder.isEmpty ? "." : String(folder.dropLast()))
        case EISDIR:
            .notAFile(path: path)
        case EACCES, EPERM, EROFS:
            .notPermitted(path: path, reason: systemMessage(code))
        case ENOSPC, EDQUOT, EFBIG:
            .diskFull(path: path, reason: systemMessage(code))
        default:
            .writeFailed(path: path, reason: systemMessage(code))
        }
    }
}

/// The system's words for an error code.
func systemMessage(_ code: CInt) -> String {
    guard let text = unsafe strerror(code) else { return "error \(code)" }
    return unsafe String(cString: text)
}
