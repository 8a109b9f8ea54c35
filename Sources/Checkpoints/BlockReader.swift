import Glibc
import Synchronization
import Tensors

/// Reads stretches of a file past the system's page cache, where the file system can do that.
///
/// Elsewhere it reads through the cache and drops from it what it has read. For one thread.
final class BlockReader: Sendable {
    /// What positions, lengths and addresses of reads past the cache are multiples of; sectors of
    /// disks are at most as large.
    static let blockByteCount = 4096
    /// Bytes read at a time.
    static let pieceByteCount = 4 << 20

    /// Of this reader alone.
    let descriptor: Int32

    private let file: SafetensorsFile
    private let bypassesCache: Atomic<Bool>

    /// Opens the file once more.
    ///
    /// - Parameters:
    ///   - file: The file.
    ///   - bypassesCache: Whether to try reads past the cache.
    /// - Throws: `.changed`, or why there is no file, unless it is the one that was mapped.
    init(_ file: SafetensorsFile, bypassingCache bypassesCache: Bool) throws(CheckpointError) {
        do throws(MappingError) {
            descriptor = try file.file.openAgain()
        } catch {
            throw CheckpointError(error)
        }
        self.file = file
        // File systems that cannot do it refuse the flag, or the reads.
        let isAccepted = bypassesCache && fcntl(descriptor, F_SETFL, __O_DIRECT) == 0
        self.bypassesCache = Atomic(isAccepted)
    }

    deinit { close(descriptor) }

    /// The whole blocks that `bytes` touches.
    static func blocks(of bytes: Range<Int>) -> Range<Int> {
        let end = (bytes.upperBound + blockByteCount - 1) / blockByteCount * blockByteCount
        return bytes.lowerBound / blockByteCount * blockByteCount..<end
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
            let count = pread(descriptor, target, piece, position)
            let code = errno
            let isDirect = bypassesCache.load(ordering: .relaxed)
            if count < 0 && code == EINTR { continue }
            if count < 0 && !(code == EINVAL && isDirect) {
                throw .unreadable(path: file.path, reason: String(cString: strerror(code)))
            }

            var end = position + max(count, 0)
            // Only whole blocks can be followed by another read past the cache.
            if isDirect && end < bytes.upperBound { end -= end % Self.blockByteCount }
            if end > position {
                if !isDirect { posix_fadvise(descriptor, position, count, POSIX_FADV_DONTNEED) }
                position = end
                guard goesOn(count) else { return false }
            } else if isDirect {
                useCache()
            } else {
                try file.checkUnchanged()
                throw .unreadable(path: file.path, reason: "it ends at byte \(position)")
            }
        }
        try file.checkUnchanged()
        return true
    }

    /// Reads through the cache from now on.
    private func useCache() {
        _ = fcntl(descriptor, F_SETFL, 0)
        bypassesCache.store(false, ordering: .relaxed)
    }
}
