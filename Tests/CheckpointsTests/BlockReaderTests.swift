import Glibc
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

    /// Drops the file from the cache; cancels the test where the file system keeps everything.
    private func drop() throws {
        let descriptor = open(file.path, O_RDWR)
        try #require(descriptor >= 0 && fsync(descriptor) == 0)
        posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
        close(descriptor)
        if file.file.isResident(0..<4096) { try Test.cancel("files stay in memory here") }
    }

    /// Whether the last read went past the cache.
    private func isDirect(_ reader: BlockReader) -> Bool {
        fcntl(reader.descriptor, F_GETFL) & __O_DIRECT != 0
    }

    @Test func takesFromTheCacheWhatIsThere() throws {
        let whole = 0..<contents.count
        let reader = try BlockReader(file, cache: .ifResident)
        try #require(file.file.isResident(whole))
        try check(reader, whole)
        #expect(!isDirect(reader) && file.file.isResident(whole))

        try drop()
        try check(reader, whole)
        #expect(isDirect(reader) && !file.file.isResident(0..<4096))
    }

    @Test func dropsWhatItReadThroughTheCache() throws {
        try drop()
        try check(try BlockReader(file, cache: .always), 0..<contents.count)
        #expect(!file.file.isResident(0..<4096))
    }

    @Test func readsPartsFromTheCache() throws {
        try drop()
        // The second piece is there, the first is not.
        let rest = BlockReader.pieceByteCount..<contents.count
        let descriptor = open(file.path, O_RDONLY)
        var bytes = [UInt8](repeating: 0, count: rest.count)
        try #require(pread(descriptor, &bytes, rest.count, rest.lowerBound) == rest.count)
        close(descriptor)
        let reader = try BlockReader(file, cache: .ifResident)
        try check(reader, 0..<contents.count)
        #expect(!isDirect(reader) && !file.file.isResident(0..<4096))
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
