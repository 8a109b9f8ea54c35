internal import Glibc

/// Reads a whole regular file.
///
/// - Parameters:
///   - path: The file.
///   - largestByteCount: A longer file is not read.
/// - Returns: Its bytes.
/// - Throws: `ImageError.missingFile` or `ImageError.unreadableFile`.
func readFile(_ path: String, largestByteCount: Int) throws(ImageError) -> [UInt8] {
    guard !path.utf8.contains(0) else { throw .missingFile(path: path) }
    // Without O_NONBLOCK, opening a pipe nobody writes to would wait for ever.
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
        let code = errno
        if code == ENOENT || code == ENOTDIR { throw .missingFile(path: path) }
        throw .unreadableFile(path: path, reason: systemMessage(code))
    }
    defer { close(descriptor) }
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0 else {
        throw .unreadableFile(path: path, reason: systemMessage(errno))
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
        throw .unreadableFile(path: path, reason: "it is not a regular file")
    }
    guard status.st_size <= largestByteCount else {
        let reason = "it has \(status.st_size) bytes, expected at most \(largestByteCount)"
        throw .unreadableFile(path: path, reason: reason)
    }
    var bytes = [UInt8](repeating: 0, count: status.st_size)
    var filled = 0
    while filled < bytes.count {
        let count = unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe pread(
                descriptor,
                UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]).baseAddress,
                buffer.count - filled,
                filled
            )
        }
        // The file may have become shorter since it was measured.
        if count == 0 { break }
        if count < 0 && errno != EINTR {
            throw .unreadableFile(path: path, reason: systemMessage(errno))
        }
        filled += max(count, 0)
    }
    bytes.removeLast(bytes.count - filled)
    return bytes
}
