import Glibc
import Synchronization
import Tensors

/// What reads do with the system's page cache.
package enum CacheUse: CaseIterable, Sendable {
    /// What is in the cache comes from there, the rest past it; the cache stays as it is.
    case ifResident
    /// The same, and what is used once is used where it is in the cache, without a copy.
    case inPlace
    /// Everything past it: as fast as the disk is.
    case never
    /// Everything through it, after which it is dropped from there.
    case always
}

/// Reads stretches of a file, with or without the system's page cache; for one thread.
final class BlockReader: Sendable {
    /// What positions, lengths and addresses of reads past the cache are multiples of; sectors of
    /// disks are at most as large.
    static let blockByteCount = 4096
    /// Bytes read at a time.
    static let pieceByteCount = 4 << 20

    /// Of this reader alone.
    let descriptor: Int32

    private let file: SafetensorsFile
    private let use: CacheUse
    private let isResident: @Sendable (Range<Int>) -> Bool
    /// Turns false at the first refusal of the file system.
    private let canBypassCache = Atomic(true)
    private let isDirect = Atomic(false)

    /// Opens the file once more.
    ///
    /// - Parameters:
    ///   - file: The file.
    ///   - use: What to do with the cache.
    ///   - isResident: Whether all of some bytes are in the cache; asks the system without it.
    /// - Throws: `.changed`, or why there is no file, unless it is the one that was mapped.
    init(
        _ file: SafetensorsFile,
        cache use: CacheUse,
        isResident: (@Sendable (Range<Int>) -> Bool)? = nil
    ) throws(CheckpointError) {
        do throws(MappingError) {
            descriptor = try file.file.openAgain()
        } catch {
            throw CheckpointError(error)
        }
        self.file = file
        self.use = use
        self.isResident = isResident ?? { file.file.isResident($0) }
    }

    deinit { close(descriptor) }

    /// The whole blocks that `bytes` touches.
    static func blocks(of bytes: Range<Int>) -> Range<Int> {
        let end = (bytes.upperBound + blockByteCount - 1) / blockByteCount * blockByteCount
        return bytes.lowerBound / blockByteCount * blockByteCount..<end
    }

    /// Makes bytes ready to be used where the cache has them; false where that is not to be.
    ///
    /// - Throws: What has become of the file since it was mapped.
    func mapsInPlace(_ bytes: Range<Int>) throws(CheckpointError) -> Bool {
        guard use == .inPlace, isResident(bytes) else { return false }
        file.file.populate(bytes)
        try file.checkUnchanged()
        return true
    }

    /// Ends the use of bytes where the cache has them.
    func release(_ bytes: Range<Int>) {
        if use == .inPlace { file.file.release(bytes) }
    }

    /// Reads the blocks of `bytes`; what lies past the file's end is left as it is.
    ///
    /// - Parameters:
    ///   - bytes: Where in the file.
    ///   - destination: Memory for whole blocks that starts at a multiple of their size; the byte
    ///     at `bytes.lowerBound` comes as far behind its start as it is behind its block's.
    ///   - goesOn: Told after each piece how many bytes it had; says whether to read on.
    /// - Returns: Whether all of it was read.
    /// - Throws: `.unreadable`, or what has become of the file since it was mapped.
    func read(
        _ bytes: Range<Int>,
        into destination: UnsafeMutableRawPointer,
        goesOn: (Int) -> Bool
    ) throws(CheckpointError) -> Bool {
        let blocks = Self.blocks(of: bytes)
        var position = blocks.lowerBound
        while position < bytes.upperBound {
            let target = destination + (position - blocks.lowerBound)
            let piece = min(Self.pieceByteCount, blocks.upperBound - position)
            let route = prepareRead(position..<position + piece)
            let count = pread(descriptor, target, piece, position)
            let code = errno
            if count < 0 && code == EINTR { continue }
            if count < 0 && !(code == EINVAL && route == .direct) {
                throw .unreadable(path: file.path, reason: String(cString: strerror(code)))
            }

            var end = position + max(count, 0)
            // Only whole blocks can be followed by another read past the cache.
            if route == .direct && end < bytes.upperBound { end -= end % Self.blockByteCount }
            if end > position {
                if route == .dropped {
                    posix_fadvise(descriptor, position, count, POSIX_FADV_DONTNEED)
                }
                position = end
                guard goesOn(count) else { return false }
            } else if route == .direct {
                canBypassCache.store(false, ordering: .relaxed)
            } else {
                try file.checkUnchanged()
                throw .unreadable(path: file.path, reason: "it ends at byte \(position)")
            }
        }
        try file.checkUnchanged()
        return true
    }

    /// The way that bytes take.
    private enum Route {
        /// From the cache, where they stay.
        case cached
        /// Past the cache.
        case direct
        /// Through the cache, where they do not stay.
        case dropped
    }

    private var takesFromCache: Bool { use == .ifResident || use == .inPlace }

    /// Decides how the next bytes are read, and sets the descriptor to it.
    private func prepareRead(_ bytes: Range<Int>) -> Route {
        var route = Route.dropped
        if takesFromCache && isResident(bytes) {
            route = .cached
        } else if use != .always && canBypassCache.load(ordering: .relaxed) {
            route = .direct
        }
        let becomesDirect = route == .direct
        guard becomesDirect != isDirect.load(ordering: .relaxed) else { return route }
        // File systems that cannot do it refuse the flag, or the reads.
        guard fcntl(descriptor, F_SETFL, becomesDirect ? __O_DIRECT : 0) == 0 else {
            canBypassCache.store(false, ordering: .relaxed)
            return .dropped
        }
        isDirect.store(becomesDirect, ordering: .relaxed)
        return route
    }
}
