import Foundation
import Testing

@testable import Images

/// A new folder that goes away with the value's last user.
private final class Folder {
    let path: String

    init() throws {
        path = NSTemporaryDirectory() + "krea2-files-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    /// All names inside, temporary ones included.
    var names: [String] {
        get throws { try FileManager.default.contentsOfDirectory(atPath: path).sorted() }
    }

    func read(_ name: String) throws -> [UInt8] {
        try readFile("\(path)/\(name)", largestByteCount: 1 << 24)
    }
}

/// Ends a child process with a text where something is not as expected.
private func require(_ condition: Bool, _ text: @autoclosure () -> String) {
    guard !condition else { return }
    FileHandle.standardError.write(Data((text() + "\n").utf8))
    exit(1)
}

/// Ends a child process where writing does not fail as expected.
private func requireFailure(_ expected: ImageError, byteCount: Int, path: String) {
    do throws(ImageError) {
        try writeFile([UInt8](repeating: 1, count: byteCount), to: path, overwriting: false)
        require(false, "no error")
    } catch {
        require(error == expected, "\(error)")
    }
}

struct FileWritingTests {
    @Test func writesANewFile() throws {
        let folder = try Folder()
        let bytes = [UInt8](repeating: 7, count: 3_000_000)
        try writeFile(bytes, to: folder.path + "/a.png", overwriting: false)
        try writeFile([], to: folder.path + "/empty.png", overwriting: false)
        #expect(try folder.read("a.png") == bytes)
        #expect(try folder.read("empty.png") == [])
        #expect(try folder.names == ["a.png", "empty.png"])
    }

    @Test func writesIntoTheCurrentFolder() async {
        await #expect(processExitsWith: .success) {
            let folder = try Folder()
            require(chdir(folder.path) == 0, "no chdir")
            try writeFile([1], to: "a.png", overwriting: false)
            require(try folder.names == ["a.png"], "wrong names")
        }
    }

    @Test func replacesOnlyWhenTold() throws {
        let folder = try Folder()
        let path = folder.path + "/a.png"
        try writeFile([1], to: path, overwriting: true)
        #expect(throws: ImageError.alreadyExists(path: path)) {
            try writeFile([2], to: path, overwriting: false)
        }
        #expect(throws: ImageError.alreadyExists(path: path)) {
            try checkWritable(path, overwriting: false)
        }
        #expect(try folder.read("a.png") == [1])
        try checkWritable(path, overwriting: true)
        try writeFile([2], to: path, overwriting: true)
        #expect(try folder.read("a.png") == [2])
        #expect(try folder.names == ["a.png"])
    }

    @Test(arguments: [false, true])
    func doesNotReplaceAFileThatAppearsMeanwhile(byLinking: Bool) throws {
        let folder = try Folder()
        let path = folder.path + "/a.png"
        let target = try WriteTarget(path)
        try target.refuseUnsuitable(overwriting: false)
        let (descriptor, temporary) = try target.createTemporary()
        try target.fill(descriptor, with: [2])
        try writeFile([1], to: path, overwriting: false)
        #expect(throws: ImageError.alreadyExists(path: path)) {
            if byLinking {
                try target.publishByLinking(temporary)
            } else {
                try target.publish(temporary, overwriting: false)
            }
        }
        #expect(try folder.read("a.png") == [1])
    }

    @Test func publishesByLinking() throws {
        let folder = try Folder()
        let target = try WriteTarget(folder.path + "/a.png")
        let (descriptor, temporary) = try target.createTemporary()
        try target.fill(descriptor, with: [5])
        try target.publishByLinking(temporary)
        #expect(try folder.names == ["a.png"])
        #expect(try folder.read("a.png") == [5])
    }

    @Test func namesAMissingFolder() throws {
        let folder = try Folder()
        let path = folder.path + "/no/a.png"
        let error = ImageError.missingFolder(path: path, folder: folder.path + "/no")
        #expect(throws: error) { try writeFile([1], to: path, overwriting: false) }
        #expect(throws: error) { try checkWritable(path, overwriting: true) }
        #expect(
            error.description
                == "\(path): there is no folder \(folder.path)/no; create it first"
        )
        try writeFile([1], to: folder.path + "/no", overwriting: false)
        #expect(throws: error) { try writeFile([1], to: path, overwriting: false) }
    }

    @Test func leavesFoldersDevicesAndLinksAlone() throws {
        let folder = try Folder()
        let manager = FileManager.default
        try manager.createDirectory(
            atPath: folder.path + "/folder",
            withIntermediateDirectories: false
        )
        try writeFile([1], to: folder.path + "/a.png", overwriting: false)
        try manager.createSymbolicLink(
            atPath: folder.path + "/link",
            withDestinationPath: folder.path + "/a.png"
        )
        let paths =
            ["folder", "folder/", "new/", ".", "..", "link"].map { "\(folder.path)/\($0)" }
            + ["/dev/null", "", "/", folder.path + "/a\0.png"]
        for path in paths {
            #expect(throws: ImageError.notAFile(path: path)) {
                try writeFile([2], to: path, overwriting: true)
            }
        }
        #expect(throws: ImageError.notAFile(path: "/dev/null")) {
            try writeFile([2], to: "/dev/null", overwriting: false)
        }
        #expect(try folder.names == ["a.png", "folder", "link"])
        #expect(try folder.read("a.png") == [1])
    }

    @Test func refusesNamesTooLong() throws {
        let folder = try Folder()
        let path = folder.path + "/" + String(repeating: "a", count: 256)
        #expect(
            throws: ImageError.writeFailed(path: path, reason: "File name too long")
        ) { try checkWritable(path, overwriting: false) }
        let longest = folder.path + "/" + String(repeating: "a", count: 255)
        try writeFile([1], to: longest, overwriting: false)
    }

    @Test func namesMissingPermission() async {
        await #expect(processExitsWith: .success) {
            let folder = try Folder()
            require(chmod(folder.path, 0o555) == 0, "no chmod")
            // Root may write everywhere, so it becomes somebody else.
            let user = geteuid()
            if user == 0 { require(seteuid(65534) == 0, "no seteuid") }
            let path = folder.path + "/a.png"
            let expected = ImageError.notPermitted(path: path, reason: "Permission denied")
            requireFailure(expected, byteCount: 1, path: path)
            require(seteuid(user) == 0, "no way back")
        }
    }

    @Test func reportsAFullDevice() throws {
        let target = try WriteTarget("/somewhere/a.png")
        let full = open("/dev/full", O_WRONLY)
        guard full >= 0 else { try Test.cancel("this machine lacks /dev/full") }
        #expect(
            throws: ImageError.diskFull(
                path: "/somewhere/a.png",
                reason: "No space left on device"
            )
        ) { try target.fill(full, with: [1, 2, 3]) }
    }

    @Test func leavesNothingBehindAtASizeLimit() async {
        await #expect(processExitsWith: .success) {
            // The write that crosses the limit is cut short, the next one fails.
            let folder = try Folder()
            signal(SIGXFSZ, SIG_IGN)
            var limit = rlimit(rlim_cur: 100_000, rlim_max: 100_000)
            require(setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0, "no limit")
            let path = folder.path + "/a.png"
            let expected = ImageError.diskFull(path: path, reason: "File too large")
            requireFailure(expected, byteCount: 150_000, path: path)
            require(try folder.names.isEmpty, "something is left behind")
            try writeFile([UInt8](repeating: 1, count: 99_000), to: path, overwriting: false)
        }
    }

    @Test func leavesNothingBehindOnAFullDisk() throws {
        let folder = try Folder()
        guard mount("tmpfs", folder.path, "tmpfs", 0, "size=64k") == 0 else {
            try Test.cancel("this process may not mount a small disk")
        }
        defer { umount2(folder.path, Int32(MNT_DETACH)) }
        let path = folder.path + "/a.png"
        try writeFile([1], to: path, overwriting: false)
        #expect(throws: ImageError.diskFull(path: path, reason: "No space left on device")) {
            try writeFile([UInt8](repeating: 2, count: 100_000), to: path, overwriting: true)
        }
        #expect(try folder.names == ["a.png"])
        #expect(try folder.read("a.png") == [1])
    }
}

struct FileReadingTests {
    @Test func readsTextFromAFile() throws {
        let folder = try Folder()
        let path = folder.path + "/a.png"
        let record = sampleRecord()
        let bytes = try PNG.encode(randomImage(width: 2, height: 2), metadata: record)
        try writeFile(bytes, to: path, overwriting: false)
        #expect(try PNG.readText(path: path).record() == record)
    }

    @Test func namesFilesItCannotRead() throws {
        let folder = try Folder()
        let missing = folder.path + "/no.png"
        #expect(throws: ImageError.missingFile(path: missing)) {
            try PNG.readText(path: missing)
        }
        #expect(
            throws: ImageError.unreadableFile(path: "/dev/zero", reason: "it is not a regular file")
        ) {
            try PNG.readText(path: "/dev/zero")
        }
        #expect(
            throws: ImageError.unreadableFile(path: folder.path, reason: "it is not a regular file")
        ) { try PNG.readText(path: folder.path) }
        let path = folder.path + "/a.png"
        try writeFile([1, 2, 3], to: path, overwriting: false)
        #expect(
            throws: ImageError.unreadableFile(
                path: path,
                reason: "it has 3 bytes, expected at most 2"
            )
        ) { try readFile(path, largestByteCount: 2) }
        #expect(throws: ImageError.damaged(path: path, reason: "it does not start like one")) {
            try PNG.readText(path: path)
        }
    }
}

struct ImageErrorTests {
    @Test func isOneLineWhateverThePath() {
        let path = "a\nb\u{1B}[31m\u{2028}狐.png"
        let errors: [ImageError] = [
            .damaged(path: path, reason: path), .missingFile(path: path),
            .unreadableFile(path: path, reason: path), .alreadyExists(path: path),
            .missingFolder(path: path, folder: path), .notAFile(path: path),
            .notPermitted(path: path, reason: path), .diskFull(path: path, reason: path),
            .writeFailed(path: path, reason: path), .invalidRecord(reason: path),
            .invalidText(keyword: path, reason: path), .encodingFailed(reason: path),
            .unwritableRecord(reason: path), .unknownFormat(path: path, found: path),
            .unsupported(path: path, format: .jpeg, found: path, expected: path),
        ]
        for error in errors {
            #expect(error.description.contains(#"a\u{a}b\u{1b}[31m\u{2028}狐.png"#))
            #expect(!error.description.contains { $0.isNewline })
        }
        #expect(errors.filter(\.isMissingFile).count == 2)
        #expect(errors.filter(\.isWriteFailure).count == 6)
    }
}
