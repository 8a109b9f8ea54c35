import Glibc
import Synchronization
import TestSupport
import Tensors
import Testing

@testable import Checkpoints

struct BlockReaderTests {
    private let folder: TemporaryFolder
    private let file: SafetensorsFile
    private let contents: [UInt8]

    init() throws {
        folder = try TemporaryFolder()
        var random = SeededGenerator(seed: 1)
        let count = BlockReader.pieceByteCount + 30_001
        let header = "{\(entry("a", "U8", [count], 0, count))}"
        contents = safetensors(header) + random.bytes(count)
        file = try SafetensorsFile(path: try folder.write(contents, to: "m.safetensors"))
    }

    /// Reads and compares; memory starts so many bytes behind a block's start.
    private func check(_ reader: BlockReader, _ range: Range<Int>, misalignment: Int = 0) throws {
        let blocks = BlockReader.blocks(of: range)
        let memory = Storage(byteCount: blocks.count + misalignment)
        let base = try #require(memory.bytes.baseAddress) + misalignment
        var count = 0
        let isComplete = try reader.read(range, into: base) {
            count += $0
            return true
        }
        #expect(isComplete && (range.count...blocks.count).contains(count))
        let isRight = isEqual(base + (range.lowerBound - blocks.lowerBound), contents[range])
        #expect(isRight, "\(range)")
    }

    private var ranges: [Range<Int>] {
        let end = contents.count
        return [0..<1, 4095..<4097, 4096..<8192, end - 1..<end, 5000..<end, 0..<end]
    }

    @Test(arguments: CacheUse.allCases)
    func readsAnyRange(cache: CacheUse) throws {
        let reader = try BlockReader(file, cache: cache)
        for range in ranges { try check(reader, range) }
    }

    @Test func readsThroughTheCacheWhereItCannotBypassIt() throws {
        // Reads past the cache refuse odd addresses, as file systems may refuse them altogether.
        for range in ranges {
            let reader = try BlockReader(file, cache: .never)
            try check(reader, range, misalignment: 1)
            try check(reader, range)
        }
    }

    /// Whether the last read went past the cache.
    private func isDirect(_ reader: BlockReader) -> Bool {
        fcntl(reader.descriptor, F_GETFL) & __O_DIRECT != 0
    }

    /// Whether this file system reads past the cache.
    private func canBypassCache() throws -> Bool {
        let reader = try BlockReader(file, cache: .never)
        try check(reader, 0..<4096)
        return isDirect(reader)
    }

    @Test func takesFromTheCacheWhatIsThere() throws {
        let size = BlockReader.pieceByteCount
        // Without an answer from the system, what stays in the cache would be up to it.
        let reader = try BlockReader(file, cache: .ifResident) { $0.lowerBound >= size }
        try check(reader, 0..<size)
        #expect(isDirect(reader) == (try canBypassCache()))
        try check(reader, 0..<contents.count)
        #expect(!isDirect(reader))
        try check(reader, 0..<size)
        #expect(isDirect(reader) == (try canBypassCache()))
    }

    @Test func usesInPlaceWhatIsThere() throws {
        let size = BlockReader.pieceByteCount
        let reader = try BlockReader(file, cache: .inPlace) { $0.lowerBound >= size }
        #expect(try reader.mapsInPlace(size..<contents.count))
        #expect(try !reader.mapsInPlace(0..<size))
        try check(reader, 0..<contents.count)
        let copying = try BlockReader(file, cache: .ifResident) { _ in true }
        #expect(try !copying.mapsInPlace(0..<size))
        // It is the file that was opened, or none.
        var times = [timespec](repeating: timespec(tv_sec: 1, tv_nsec: 1), count: 2)
        try #require(utimensat(AT_FDCWD, file.path, &times, 0) == 0)
        #expect(throws: CheckpointError.self) { try reader.mapsInPlace(size..<contents.count) }
    }

    @Test func leavesTheCacheAloneWhereItCannotBypassIt() throws {
        let isAsked = Atomic(0)
        let reader = try BlockReader(file, cache: .ifResident) {
            isAsked.add(1, ordering: .relaxed)
            return $0.lowerBound > 0
        }
        try check(reader, 0..<4096, misalignment: 1)
        try check(reader, 0..<contents.count)
        #expect(!isDirect(reader) && isAsked.load(ordering: .relaxed) == 4)
    }

    @Test func asksTheSystemWhatIsInTheCache() throws {
        // Pages in use stay; others do not have to go at the first request.
        let end = contents.count - 100_000..<contents.count
        let isGone = Self.happens {
            let descriptor = open(file.path, O_RDWR)
            defer { close(descriptor) }
            guard descriptor >= 0 && fsync(descriptor) == 0 else { return false }
            file.file.release(end)
            posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
            return !file.file.isResident(end)
        }
        if !isGone { try Test.cancel("files stay in memory here") }
        let reader = try BlockReader(file, cache: .ifResident)
        #expect(
            try Self.happens {
                try check(reader, end)
                return isDirect(reader) == (try canBypassCache())
            }
        )
        #expect(
            try Self.happens {
                let sum = file.file.withBytes { $0[end].reduce(0) { $0 &+ Int($1) } }
                try check(reader, end)
                return sum > 0 && !isDirect(reader)
            }
        )
        // What goes through the cache is dropped afterwards.
        file.file.release(end)
        #expect(
            try Self.happens {
                try check(try BlockReader(file, cache: .always), 0..<contents.count)
                return !file.file.isResident(end)
            }
        )
    }

    /// Whether something comes about that the system is asked for and does soon, but not at once.
    private static func happens(_ attempt: () throws -> Bool) rethrows -> Bool {
        for _ in 0..<50 {
            if try attempt() { return true }
            usleep(20_000)
        }
        return false
    }

    @Test func stopsWhenTold() throws {
        let reader = try BlockReader(file, cache: .never)
        let memory = Storage(byteCount: contents.count + 4096)
        let base = try #require(memory.bytes.baseAddress)
        var pieces = 0
        let isComplete = try reader.read(0..<contents.count, into: base) { _ in
            pieces += 1
            return false
        }
        #expect(!isComplete && pieces == 1)
    }

    @Test(arguments: CacheUse.allCases)
    func failedReadsAreErrors(cache: CacheUse) throws {
        let reader = try BlockReader(file, cache: cache)
        let writeOnly = open(file.path, O_WRONLY)
        try #require(writeOnly >= 0 && dup2(writeOnly, reader.descriptor) >= 0)
        close(writeOnly)
        let reason = String(cString: strerror(EBADF))
        #expect(throws: CheckpointError.unreadable(path: file.path, reason: reason)) {
            try check(reader, 0..<100)
        }
    }

    @Test(arguments: CacheUse.allCases)
    func endingTooEarlyIsAnError(cache: CacheUse) throws {
        let reader = try BlockReader(file, cache: cache)
        let other = open(try folder.write("short", to: "other"), O_RDONLY)
        try #require(other >= 0 && dup2(other, reader.descriptor) >= 0)
        close(other)
        let reason = "it ends at byte 5"
        #expect(throws: CheckpointError.unreadable(path: file.path, reason: reason)) {
            try check(reader, 0..<100)
        }
    }

    @Test func changesAreErrors() throws {
        let reader = try BlockReader(file, cache: .never)
        var times = [timespec](repeating: timespec(tv_sec: 1, tv_nsec: 1), count: 2)
        try #require(utimensat(AT_FDCWD, file.path, &times, 0) == 0)
        let changed = CheckpointError.changed(path: file.path, reason: "it was written to")
        #expect(throws: changed) { try check(reader, 0..<100) }
        #expect(throws: changed) { try BlockReader(file, cache: .never) }
    }
}
