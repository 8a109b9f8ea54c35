import Glibc
import TestSupport
import Testing

@testable import Tensors

struct MappedFileTests {
    private let folder: TemporaryFolder
    private static let page = sysconf(Int32(_SC_PAGESIZE))

    init() throws { folder = try TemporaryFolder() }

    // MARK: Opening

    @Test func mapsAllBytes() throws {
        let bytes = (0..<10_001).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let file = try MappedFile(path: try folder.write(bytes, to: "a"))
        #expect(file.copy == bytes)
        #expect(file.path == folder.file("a"))
        #expect(file.withBytes { UInt(bitPattern: $0.baseAddress) % UInt(Self.page) } == 0)
        try file.checkUnchanged()
    }

    @Test func followsLinks() throws {
        try folder.write("target", to: "a")
        symlink("a", folder.file("b"))
        #expect(try MappedFile(path: folder.file("b")).copy == Array("target".utf8))
    }

    @Test func refusesWhatIsNotAFileWithBytes() throws {
        let path = try folder.write("", to: "empty")
        #expect(throws: MappingError.empty(path: path)) { try MappedFile(path: path) }

        #expect(throws: MappingError.notRegular(path: folder.path, kind: "a folder")) {
            try MappedFile(path: folder.path)
        }
        #expect(throws: MappingError.notRegular(path: "/dev/null", kind: "a device")) {
            try MappedFile(path: "/dev/null")
        }
    }

    @Test func refusesPipesWithoutWaiting() throws {
        let path = folder.file("pipe")
        try #require(mkfifo(path, 0o600) == 0)
        #expect(throws: MappingError.notRegular(path: path, kind: "a pipe")) {
            try MappedFile(path: path)
        }
    }

    @Test func tellsMissingFromUnreadable() throws {
        let missing = folder.file("missing")
        #expect(throws: MappingError.missing(path: missing)) { try MappedFile(path: missing) }
        let below = try folder.write("x", to: "file") + "/below"
        #expect(throws: MappingError.missing(path: below)) { try MappedFile(path: below) }

        let loop = folder.file("loop")
        symlink("loop", loop)
        let error = #expect(throws: MappingError.self) { try MappedFile(path: loop) }
        guard case .unreadable(loop, let reason) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(reason == String(cString: strerror(ELOOP)))
    }

    @Test func storageKeepsTheMappingAlive() throws {
        let path = try folder.write([1, 2, 3, 4], to: "a")
        let storage = try MappedFile(path: path).storage()
        unlink(path)
        #expect(Array(storage.bytes) == [1, 2, 3, 4])
    }

    // MARK: Changes

    @Test func noticesAnotherSize() throws {
        let file = try MappedFile(path: try folder.write("abc", to: "a"))
        try folder.append("d", to: "a")
        #expect(
            throws: MappingError.changed(path: file.path, reason: "its size went from 3 to 4 bytes")
        ) {
            try file.checkUnchanged()
        }
    }

    @Test func noticesAnotherTime() throws {
        let file = try MappedFile(path: try folder.write("abc", to: "a"))
        var times = [timespec](repeating: timespec(tv_sec: 1, tv_nsec: 1), count: 2)
        try #require(utimensat(AT_FDCWD, file.path, &times, 0) == 0)
        #expect(throws: MappingError.changed(path: file.path, reason: "it was written to")) {
            try file.checkUnchanged()
        }
    }

    @Test func noticesAnotherFileOfTheSameSize() throws {
        let file = try MappedFile(path: try folder.write("abc", to: "a"))
        try #require(rename(try folder.write("xyz", to: "b"), file.path) == 0)
        #expect(
            throws: MappingError.changed(path: file.path, reason: "another file took its place")
        ) {
            try file.checkUnchanged()
        }
        #expect(file.copy == Array("abc".utf8))
    }

    @Test func opensTheSameFileAgain() throws {
        let file = try MappedFile(path: try folder.write("abc", to: "a"))
        let descriptor = try file.openAgain()
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 4)
        #expect(read(descriptor, &bytes, 4) == 3 && bytes == Array("abc\0".utf8))

        try #require(rename(try folder.write("xyz", to: "b"), file.path) == 0)
        #expect(
            throws: MappingError.changed(path: file.path, reason: "another file took its place")
        ) {
            try file.openAgain()
        }
        unlink(file.path)
        #expect(throws: MappingError.missing(path: file.path)) { try file.openAgain() }
    }

    @Test func noticesRemoval() throws {
        let file = try MappedFile(path: try folder.write("abc", to: "a"))
        unlink(file.path)
        #expect(throws: MappingError.missing(path: file.path)) { try file.checkUnchanged() }
    }

    // MARK: Truncation

    @Test func survivesTruncation() throws {
        let bytes = [UInt8](repeating: 7, count: 5 * Self.page + 100)
        let file = try MappedFile(path: try folder.write(bytes, to: "a"))
        let other = try MappedFile(path: try folder.write(bytes, to: "b"))
        try #require(truncate(file.path, off_t(Self.page)) == 0)

        #expect(file[0] == 7)
        #expect(file[3 * Self.page] == 0)
        #expect(file[2 * Self.page] == 0)
        #expect(file[5 * Self.page + 99] == 0)
        #expect(other.copy == bytes)
        try other.checkUnchanged()
        #expect(throws: MappingError.self) { try file.checkUnchanged() }
    }

    @Test func remembersDamageWhenTheFileIsRestored() throws {
        let bytes = [UInt8](repeating: 7, count: 2 * Self.page)
        let file = try MappedFile(path: try folder.write(bytes, to: "a"))
        var status = stat()
        try #require(stat(file.path, &status) == 0)
        try #require(truncate(file.path, 1) == 0)
        #expect(file[Self.page] == 0)

        try #require(truncate(file.path, off_t(2 * Self.page)) == 0)
        var times = [status.st_atim, status.st_mtim]
        try #require(utimensat(AT_FDCWD, file.path, &times, 0) == 0)
        let reason = "part of it could not be read any more"
        #expect(throws: MappingError.changed(path: file.path, reason: reason)) {
            try file.checkUnchanged()
        }
    }

    @Test func slotsAreUsedAgain() throws {
        let path = try folder.write([UInt8](repeating: 7, count: Self.page + 1), to: "a")
        for _ in 0..<MappingFaults.capacity + 10 { _ = try MappedFile(path: path) }
        let damaged = try MappedFile(path: path)
        try #require(truncate(path, 1) == 0)
        #expect(damaged[Self.page] == 0)
        let fresh = try MappedFile(path: path)
        try fresh.checkUnchanged()
    }

    @Test func survivesTruncationSeenByManyThreads() async throws {
        let bytes = [UInt8](repeating: 7, count: 64 * Self.page)
        let file = try MappedFile(path: try folder.write(bytes, to: "a"))
        try #require(truncate(file.path, 0) == 0)
        let sums = await withTaskGroup(of: Int.self) { group in
            for task in 0..<8 {
                group.addTask {
                    stride(from: task, to: 64, by: 8).reduce(0) {
                        $0 + Int(file[(63 - $1) * Self.page])
                    }
                }
            }
            return await group.reduce(0, +)
        }
        #expect(sums == 0)
        #expect(throws: MappingError.self) { try file.checkUnchanged() }
    }

    @Test func leavesOtherFaultsToTheEarlierHandler() async {
        await #expect(processExitsWith: .exitCode(42)) {
            signal(SIGBUS) { _ in _exit(42) }
            try touchMappingOfNothing()
        }
    }

    @Test func leavesOtherFaultsToTheDefault() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            signal(SIGBUS, SIG_DFL)
            try touchMappingOfNothing()
        }
        await #expect(processExitsWith: .signal(SIGBUS)) {
            signal(SIGBUS, SIG_DFL)
            _ = try MappedFile(path: "/proc/self/exe")
            raise(SIGBUS)
        }
        await #expect(processExitsWith: .exitCode(3)) {
            signal(SIGBUS, SIG_IGN)
            _ = try MappedFile(path: "/proc/self/exe")
            raise(SIGBUS)
            _exit(3)
        }
    }

    // MARK: Advice

    @Test func adviceChangesNoBytes() throws {
        let bytes = (0..<8 * Self.page + 5).map { UInt8(truncatingIfNeeded: $0 / 7) }
        let file = try MappedFile(path: try folder.write(bytes, to: "a"))
        for range in [0..<bytes.count, 1..<2, 5..<5, Self.page - 1..<3 * Self.page + 1] {
            file.prefetch(range)
            #expect(file.copy == bytes)
            file.release(range)
            #expect(file.copy == bytes)
        }
        file.prefetch(-5..<Int.max)
        file.release(-5..<Int.max)
        #expect(file.copy == bytes)
        try file.checkUnchanged()
    }

    @Test func releasesWholePagesInsideTheRange() throws {
        let path = try folder.write([UInt8](repeating: 7, count: 16 * Self.page), to: "a")
        let file = try MappedFile(path: path)
        #expect(file.copy.reduce(0) { $0 + Int($1) } == 7 * 16 * Self.page)
        #expect(try mappedPages(file) == 16)
        file.release(Self.page - 1..<4 * Self.page + 1)
        #expect(try mappedPages(file) == 13)
        file.release(1..<Self.page)
        #expect(try mappedPages(file) == 13)
        file.release(0..<16 * Self.page)
        #expect(try mappedPages(file) == 0)
    }
}

/// Pages of the mapping in this process's page table.
private func mappedPages(_ file: MappedFile) throws -> Int {
    let page = sysconf(Int32(_SC_PAGESIZE))
    let descriptor = open("/proc/self/pagemap", O_RDONLY)
    try #require(descriptor >= 0)
    defer { close(descriptor) }
    var entries = [UInt64](repeating: 0, count: (file.byteCount + page - 1) / page)
    let first = file.withBytes { Int(bitPattern: $0.baseAddress) } / page
    try #require(
        pread(descriptor, &entries, entries.count * 8, off_t(first * 8)) == entries.count * 8
    )
    return entries.count { $0 >> 63 == 1 }
}

/// With a guarded mapping in place, raises SIGBUS in a mapping that is not guarded.
private func touchMappingOfNothing() throws {
    let guarded = try MappedFile(path: "/proc/self/exe")
    // Without a name, as nobody could remove it afterwards.
    let descriptor = fileno(tmpfile())
    let page = sysconf(Int32(_SC_PAGESIZE))
    let address = try #require(mmap(nil, 4 * page, PROT_READ, MAP_PRIVATE, descriptor, 0))
    let byte = address.load(fromByteOffset: 2 * page, as: UInt8.self)
    // Not reached; the uses keep the mappings and the read.
    Issue.record("read \(byte) past the end of a file while \(guarded.path) is mapped")
}

extension MappedFile {
    /// A copy of all bytes.
    fileprivate var copy: [UInt8] { withBytes { [UInt8]($0) } }

    /// Reads one byte of the mapping.
    fileprivate subscript(index: Int) -> UInt8 { withBytes { $0[index] } }
}

extension TemporaryFolder {
    /// Appends text to a file of the folder.
    fileprivate func append(_ text: String, to name: String) throws {
        let descriptor = open(file(name), O_WRONLY | O_APPEND)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        try #require(Glibc.write(descriptor, text, text.utf8.count) == text.utf8.count)
    }
}
