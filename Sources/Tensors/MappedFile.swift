import Glibc

/// Why a file could not be mapped, or is no longer what was mapped.
package enum MappingError: Error, Equatable {
    /// Nothing has this path.
    case missing(path: String)
    /// The system refused; `reason` is its message.
    case unreadable(path: String, reason: String)
    /// The path leads to something else than a regular file; `kind` says to what: "a folder".
    case notRegular(path: String, kind: String)
    /// The file has no bytes.
    case empty(path: String)
    /// The file differs from the one that was mapped; `reason` says how.
    case changed(path: String, reason: String)
}

/// A regular file's bytes, mapped read-only and private.
///
/// The mapping outlives a rename or removal of the file. Truncating the file while it is mapped
/// does not kill the process: the lost bytes read as zero, and `checkUnchanged()` throws from then
/// on. Whoever has computed with mapped bytes calls it before using the result.
///
/// Sendable because nothing changes after `init` but the bytes, which belong to the file.
@safe package final class MappedFile: @unchecked Sendable {
    /// Path the file was opened with.
    package let path: String

    private let bytes: UnsafeRawBufferPointer
    private let identity: FileIdentity
    private let faultSlot: Int
    private let tellsResidency: Bool

    /// Opens and maps a whole file; symbolic links are followed.
    ///
    /// Never blocks: pipes and devices are refused before they are opened.
    ///
    /// - Parameter path: Path of a regular file with at least one byte.
    /// - Throws: Any case but `.changed`.
    package init(path: String) throws(MappingError) {
        let descriptor: Int32
        (descriptor, identity) = try Self.opened(path)
        defer { close(descriptor) }
        guard identity.byteCount > 0 else { throw .empty(path: path) }

        guard
            let address = mmap(nil, identity.byteCount, PROT_READ, MAP_PRIVATE, descriptor, 0),
            address != MAP_FAILED
        else {
            throw MappingError(path: path, code: errno)
        }
        bytes = UnsafeRawBufferPointer(start: address, count: identity.byteCount)
        guard let slot = MappingFaults.register(bytes) else {
            munmap(address, bytes.count)
            throw .unreadable(path: path, reason: "too many mapped files")
        }
        faultSlot = slot
        // To others the system says that everything is there.
        tellsResidency = identity.owner == geteuid() || access(path, W_OK) == 0
        self.path = path
    }

    /// Opens a regular file for reading, and says which it is.
    private static func opened(_ path: String) throws(MappingError) -> (Int32, FileIdentity) {
        _ = try FileIdentity(path: path)
        let descriptor = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
        guard descriptor >= 0 else { throw MappingError(path: path, code: errno) }
        do throws(MappingError) {
            // Asked again: the path may lead elsewhere since the check above.
            return (descriptor, try FileIdentity(path: path, descriptor: descriptor))
        } catch {
            close(descriptor)
            throw error
        }
    }

    deinit {
        MappingFaults.unregister(faultSlot)
        munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count)
    }

    /// Number of bytes of the file.
    package var byteCount: Int { bytes.count }

    /// Calls `body` with all bytes, of which the first is page-aligned; they are valid until it returns.
    package func withBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        defer { withExtendedLifetime(self) {} }
        return try body(bytes)
    }

    /// The mapped bytes as read-only storage that keeps this mapping alive.
    package func storage() -> Storage {
        Storage(borrowing: UnsafeMutableRawBufferPointer(mutating: bytes), from: self)
    }

    /// Opens the mapped file once more, to read it without touching the mapping.
    ///
    /// - Returns: A descriptor at the file's start, which the caller closes.
    /// - Throws: `.changed`, or why there is no file, unless it is the one that was mapped.
    package func openAgain() throws(MappingError) -> Int32 {
        let (descriptor, now) = try Self.opened(path)
        guard let reason = identity.difference(to: now) else { return descriptor }
        close(descriptor)
        throw .changed(path: path, reason: reason)
    }

    /// Throws `.changed`, or why there is no file, unless the file is the one that was mapped.
    ///
    /// Compares device, inode, size and time of last change, and asks whether reading the mapping
    /// has ever failed. A change within the file system's clock tick that keeps the size is missed.
    package func checkUnchanged() throws(MappingError) {
        guard !MappingFaults.isDamaged(faultSlot) else {
            throw .changed(path: path, reason: "part of it could not be read any more")
        }
        let now = try FileIdentity(path: path)
        if let reason = identity.difference(to: now) {
            throw .changed(path: path, reason: reason)
        }
    }
}

// MARK: The system's cache

extension MappedFile {
    private static let pageByteCount = sysconf(Int32(_SC_PAGESIZE))

    /// Asks the system to read the pages that `range` touches; returns before they are there.
    ///
    /// - Parameter range: Bytes of the file; what lies outside the file is left out.
    package func prefetch(_ range: Range<Int>) { adviseTouched(range, MADV_WILLNEED) }

    /// Makes the pages that `range` touches readable at once, where the system can, and reads those
    /// that are not in its cache.
    ///
    /// - Parameter range: Bytes of the file; what lies outside the file is left out.
    package func populate(_ range: Range<Int>) { adviseTouched(range, MADV_POPULATE_READ) }

    /// Tells the system that the pages wholly inside `range` need not stay resident.
    ///
    /// They are read from the file again at the next touch.
    ///
    /// - Parameter range: Bytes of the file; what lies outside the file is left out.
    package func release(_ range: Range<Int>) {
        let inside = range.clamped(to: 0..<bytes.count)
        let past = inside.lowerBound % Self.pageByteCount
        let start = inside.lowerBound + (past == 0 ? 0 : Self.pageByteCount - past)
        let end = inside.upperBound - inside.upperBound % Self.pageByteCount
        guard start < end else { return }
        advise(start..<end, MADV_DONTNEED)
    }

    /// Whether the system has all pages that `range` touches in its cache.
    ///
    /// - Parameter range: Bytes of the file; what lies outside the file is left out.
    /// - Returns: False, too, where the system does not tell: only those learn it who own the file or
    ///   may write it.
    package func isResident(_ range: Range<Int>) -> Bool {
        let inside = range.clamped(to: 0..<bytes.count)
        guard tellsResidency, !inside.isEmpty, let base = bytes.baseAddress else { return false }
        let first = inside.lowerBound / Self.pageByteCount
        let pages = (inside.upperBound - 1) / Self.pageByteCount + 1 - first
        return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: pages) { states in
            let start = UnsafeMutableRawPointer(mutating: base + first * Self.pageByteCount)
            guard mincore(start, pages * Self.pageByteCount, states.baseAddress) == 0 else {
                return false
            }
            return states.allSatisfy { $0 & 1 == 1 }
        }
    }

    /// Passes a hint on for all pages that `range` touches.
    private func adviseTouched(_ range: Range<Int>, _ advice: Int32) {
        let inside = range.clamped(to: 0..<bytes.count)
        let start = inside.lowerBound - inside.lowerBound % Self.pageByteCount
        advise(start..<inside.upperBound, advice)
    }

    /// Passes a hint on; a hint the system does not take changes no result.
    private func advise(_ range: Range<Int>, _ advice: Int32) {
        guard !range.isEmpty, let base = bytes.baseAddress else { return }
        madvise(UnsafeMutableRawPointer(mutating: base + range.lowerBound), range.count, advice)
    }
}

// MARK: Identity

/// What tells one state of a file from another.
private struct FileIdentity {
    let device: UInt
    let inode: UInt
    let owner: uid_t
    let byteCount: Int
    let seconds: Int
    let nanoseconds: Int

    /// Asks for the regular file at `path`, or behind `descriptor` if there is one.
    init(path: String, descriptor: Int32? = nil) throws(MappingError) {
        var status = stat()
        let result =
            if let descriptor { fstat(descriptor, &status) } else { stat(path, &status) }
        guard result == 0 else { throw MappingError(path: path, code: errno) }
        if let kind = Self.kind(status.st_mode) { throw .notRegular(path: path, kind: kind) }
        device = status.st_dev
        inode = status.st_ino
        owner = status.st_uid
        byteCount = status.st_size
        seconds = status.st_mtim.tv_sec
        nanoseconds = status.st_mtim.tv_nsec
    }

    /// What the mode stands for, nil for a regular file.
    private static func kind(_ mode: mode_t) -> String? {
        switch mode & S_IFMT {
        case S_IFREG: nil
        case S_IFDIR: "a folder"
        case S_IFIFO: "a pipe"
        case S_IFSOCK: "a socket"
        default: "a device"
        }
    }

    /// How `now` differs, nil when it does not.
    func difference(to now: FileIdentity) -> String? {
        if device != now.device || inode != now.inode { return "another file took its place" }
        if byteCount != now.byteCount {
            return "its size went from \(byteCount) to \(now.byteCount) bytes"
        }
        if seconds != now.seconds || nanoseconds != now.nanoseconds { return "it was written to" }
        return nil
    }
}

extension MappingError {
    /// The error that `errno` value `code` stands for.
    fileprivate init(path: String, code: Int32) {
        self =
            switch code {
            case ENOENT, ENOTDIR: .missing(path: path)
            default: .unreadable(path: path, reason: String(cString: strerror(code)))
            }
    }
}
