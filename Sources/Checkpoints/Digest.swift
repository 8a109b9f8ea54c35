import Glibc
import Tensors

extension Checkpoint {
    /// Tells this state of the files from others: their names, sizes and times of last change.
    ///
    /// Unlike a digest it says nothing about equal files elsewhere.
    ///
    /// - Throws: When one of the files is no longer the one that was opened.
    package func stamp() throws(CheckpointError) -> String {
        var lines = ""
        for file in files {
            var status = stat()
            guard stat(file.path, &status) == 0 else { throw .missing(path: file.path) }
            let time = status.st_mtim
            lines += "\(file.name) \(status.st_size) \(time.tv_sec).\(time.tv_nsec)\n"
        }
        try checkUnchanged()
        return lines
    }

    /// A short name for the content of all files, to tell in a picture which weights made it.
    ///
    /// One file gives its own digest. Several give `shards-sha256:` and the hash of the lines
    /// `digest name` in the order of `files`. See `SafetensorsFile.digest()` for how sure it is.
    package func digest() throws(CheckpointError) -> String {
        if files.count == 1 { return try files[0].digest() }
        var lines = ""
        for file in files { lines += "\(try file.digest()) \(file.name)\n" }
        var hash = SHA256()
        Array(lines.utf8).withUnsafeBytes { hash.update($0) }
        return "shards-sha256:" + hash.digest()
    }
}

extension SafetensorsFile {
    /// Largest file that is hashed as a whole.
    static let wholeByteCount = 64 << 20
    /// Places in the data part of larger files that are hashed.
    static let sampleCount = 64
    /// Bytes hashed at each place.
    static let sampleByteCount = 64 << 10

    /// A short name for the content of the file.
    ///
    /// Files up to 64 MiB give `sha256:` and the SHA-256 of all bytes. Reading every byte of a
    /// larger one for every picture would take longer than some pictures, so it gives
    /// `sampled-sha256:` and the SHA-256 of, in this order: everything before the data part; the
    /// size of the file as 8 little-endian bytes; 64 samples of 64 KiB of the data part, sample
    /// `i` at byte `i · ⌊(bytes of data − 65536) / 63⌋`. That tells trained models apart, and a
    /// download cut short from a whole one; it does not prove that two files are equal.
    ///
    /// Throws if the file changed meanwhile.
    package func digest() throws(CheckpointError) -> String {
        try digest(wholeUpTo: Self.wholeByteCount)
    }

    /// The digest with all bytes of the file in it: `sha256:`, however large the file is.
    ///
    /// Throws if the file changed meanwhile.
    package func fullDigest() throws(CheckpointError) -> String { try digest(wholeUpTo: .max) }

    /// The digest with another limit for hashing all bytes.
    func digest(wholeUpTo limit: Int) throws(CheckpointError) -> String {
        let isWhole = file.byteCount <= limit
        let hash = file.withBytes { bytes in
            var hash = SHA256()
            if isWhole { hash.update(bytes) } else { sample(bytes, into: &hash) }
            return hash.digest()
        }
        try checkUnchanged()
        return (isWhole ? "sha256:" : "sampled-sha256:") + hash
    }

    /// `sha256:` and the SHA-256 of the data part.
    ///
    /// Throws if the file changed meanwhile.
    package func dataDigest() throws(CheckpointError) -> String {
        let hash = file.withBytes { bytes in
            var hash = SHA256()
            hash.update(UnsafeRawBufferPointer(rebasing: bytes.dropFirst(headerByteCount)))
            return hash.digest()
        }
        try checkUnchanged()
        return "sha256:" + hash
    }

    private func sample(_ bytes: UnsafeRawBufferPointer, into hash: inout SHA256) {
        hash.update(UnsafeRawBufferPointer(rebasing: bytes.prefix(headerByteCount)))
        withUnsafeBytes(of: UInt64(bytes.count).littleEndian) { hash.update($0) }
        let data = bytes.dropFirst(headerByteCount)
        let length = min(Self.sampleByteCount, data.count)
        let stride = (data.count - length) / (Self.sampleCount - 1)
        let samples = (0..<Self.sampleCount).map { index in
            let start = data.startIndex + index * stride
            return start..<start + length
        }
        // A disk finds many places at once sooner than one after the other.
        for sample in samples { file.prefetch(sample) }
        for sample in samples { hash.update(UnsafeRawBufferPointer(rebasing: bytes[sample])) }
    }
}

/// A short name for the content of files that hold no tensors.
///
/// - Parameter paths: Files, such as those of a tokenizer.
/// - Returns: `sha256:` and the SHA-256 of all bytes of all files, one after the other.
/// - Throws: `.missing` or `.unreadable`.
package func contentDigest(ofFiles paths: [String]) throws(CheckpointError) -> String {
    var hash = SHA256()
    for path in paths {
        let file: MappedFile
        do { file = try MappedFile(path: path) } catch { throw CheckpointError(error) }
        file.withBytes { hash.update($0) }
    }
    return "sha256:" + hash.digest()
}

/// The SHA-256 of bytes in memory.
///
/// - Parameter pieces: The bytes, one piece after the other.
/// - Returns: 64 hexadecimal digits.
package func hexDigest(of pieces: [[UInt8]]) -> String {
    var hash = SHA256()
    for piece in pieces { piece.withUnsafeBytes { hash.update($0) } }
    return hash.digest()
}
