import Glibc
import JSON
package import Tensors

/// A large safetensors file that is written piece by piece, over several runs if need be.
///
/// Until `finish()` the bytes are in `PATH.krea2-partial`, and `PATH.krea2-partial.json` says how
/// many pieces of which file are safely on the disk. Whoever opens the same file again, with the
/// same layout and identity, goes on behind them; anything else starts anew. What is not finished
/// stays there, unless no piece was, or `discard()` is called. Used from one thread.
package final class ResumableFile {
    /// Where the bytes are until the file is finished.
    package let partialPath: String
    /// Pieces that are written.
    package private(set) var finishedPieces = 0

    private let path: String
    private let layout: SafetensorsLayout
    private let isOverwriting: Bool
    /// Of what the file will hold, and of what it is made from.
    private let fingerprint: String
    private let descriptor: Int32
    /// Whether the partial file is ours to remove.
    private var isOpen = false
    private var unsavedBytes = 0

    /// Bytes that may be written again after a loss of power.
    private static let mostUnsavedBytes = 512 << 20

    /// Opens or makes the partial file and reserves the room that the whole file takes.
    ///
    /// - Parameters:
    ///   - path: Name to appear under in the end.
    ///   - layout: What the file will hold.
    ///   - pieces: Number of pieces that will be written.
    ///   - identity: Tells the source and the settings from all others.
    ///   - isOverwriting: Whether a file of that name is replaced in the end.
    /// - Throws: `.exists` or `.cannotWrite`, the latter also where another process writes the file.
    package init(
        path: String,
        layout: SafetensorsLayout,
        pieces: Int,
        identity: String,
        overwriting isOverwriting: Bool
    ) throws(CheckpointError) {
        var status = stat()
        if lstat(path, &status) == 0 {
            guard isOverwriting else { throw .exists(path: path) }
            guard status.st_mode & S_IFMT == S_IFREG else {
                throw .cannotWrite(path: path, reason: "something else than a file is there")
            }
        }
        try layout.checkHeader(path)
        partialPath = path + ".krea2-partial"
        self.path = path
        self.layout = layout
        self.isOverwriting = isOverwriting
        var hash = SHA256()
        for bytes in [layout.header, Array(identity.utf8)] {
            bytes.withUnsafeBytes { hash.update($0) }
        }
        fingerprint = hash.digest()
        descriptor = open(partialPath, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o666)
        guard descriptor >= 0 else { throw NewFile.failure(path) }
        try lock()
        isOpen = true
        if let saved = savedPieces(), saved <= pieces {
            finishedPieces = saved
        } else {
            try start()
        }
    }

    deinit {
        if isOpen, finishedPieces == 0 { discard() }
        guard descriptor >= 0 else { return }
        // A child process that another thread is starting has the file open, too, for a moment.
        flock(descriptor, LOCK_UN)
        close(descriptor)
    }

    /// Makes sure that no other process writes the file.
    private func lock() throws(CheckpointError) {
        var ours = stat()
        var named = stat()
        // Another process may have finished the file between `open` and `flock`.
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0, fstat(descriptor, &ours) == 0,
            stat(partialPath, &named) == 0, ours.st_ino == named.st_ino
        else {
            throw .cannotWrite(path: path, reason: "another process is writing it")
        }
        guard ours.st_mode & S_IFMT == S_IFREG else {
            throw .cannotWrite(path: path, reason: "\(partialPath) is no regular file")
        }
    }

    /// Writes the header into an empty file of the whole length.
    private func start() throws(CheckpointError) {
        guard ftruncate(descriptor, 0) == 0 else { throw NewFile.failure(path) }
        try save()
        // A full disk shows before the work is done.
        var code: Int32
        repeat { code = posix_fallocate(descriptor, 0, layout.byteCount) } while code == EINTR
        guard code == 0 else {
            throw .cannotWrite(path: path, reason: String(cString: strerror(code)))
        }
        let header = layout.header
        try header.span.withUnsafeBytes { bytes throws(CheckpointError) in
            try write(bytes, at: 0)
        }
    }
}

// MARK: Pieces

extension ResumableFile {
    /// Writes elements of a tensor.
    ///
    /// - Parameters:
    ///   - elements: Bytes as they are in the file.
    ///   - name: The tensor in the layout.
    ///   - byteOffset: Where they start in the tensor.
    /// - Throws: `.cannotWrite`.
    package func write(
        _ elements: Tensor,
        to name: String,
        at byteOffset: Int = 0
    ) throws(CheckpointError) {
        guard elements.count > 0 else { return }
        let bytes = UnsafeRawBufferPointer(start: elements.address, count: elements.byteCount)
        try write(bytes, at: layout.offset(of: name) + byteOffset)
        withExtendedLifetime(elements) {}
    }

    private func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(CheckpointError) {
        precondition(offset + bytes.count <= layout.byteCount, "\(bytes.count) bytes at \(offset)")
        var written = 0
        while written < bytes.count {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[written...])
            let count = pwrite(descriptor, rest.baseAddress, rest.count, offset + written)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw NewFile.failure(path) }
            written += count
        }
        unsavedBytes += bytes.count
    }

    /// Counts a piece as written, and brings it to the disk together with others.
    ///
    /// - Throws: `.cannotWrite`.
    package func finishPiece() throws(CheckpointError) {
        finishedPieces += 1
        if unsavedBytes >= Self.mostUnsavedBytes { try save() }
    }

    /// Brings all finished pieces to the disk, for another run to go on behind them.
    ///
    /// - Throws: `.cannotWrite`.
    package func save() throws(CheckpointError) {
        guard fdatasync(descriptor) == 0 else { throw NewFile.failure(path) }
        let state = #"{"fingerprint":"\#(fingerprint)","finishedPieces":\#(finishedPieces)}"#
        let file = try NewFile(path: statePath, overwriting: true)
        let text = Array(state.utf8)
        try text.span.withUnsafeBytes { bytes throws(CheckpointError) in
            try file.write(bytes)
        }
        try file.finish()
        unsavedBytes = 0
    }

    private var statePath: String { partialPath + ".json" }

    /// The pieces an earlier run has saved of the same file; nil where there is no such run.
    ///
    /// Why its notes cannot be read does not matter: the file is then started anew.
    private func savedPieces() -> Int? {
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_size == layout.byteCount,
            let file = try? MappedFile(path: statePath), file.byteCount < 1000,
            let members = try? jsonObject(file.withBytes { [UInt8]($0) }, path: statePath),
            members["fingerprint"] == .string(fingerprint),
            case .integer(let pieces) = members["finishedPieces"], pieces > 0
        else { return nil }
        return pieces
    }
}

// MARK: Ends

extension ResumableFile {
    /// Gives the complete file its name.
    ///
    /// - Throws: `.exists` or `.cannotWrite`.
    package func finish() throws(CheckpointError) {
        guard fsync(descriptor) == 0 else { throw NewFile.failure(path) }
        try NewFile.move(partialPath, to: path, overwriting: isOverwriting)
        isOpen = false
        unlink(statePath)
    }

    /// Removes what is there of the file.
    package func discard() {
        unlink(partialPath)
        unlink(statePath)
        isOpen = false
    }
}
