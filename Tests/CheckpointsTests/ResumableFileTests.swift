import Glibc
import Tensors
import TestSupport
import Testing

@testable import Checkpoints

struct ResumableFileTests {
    private let folder: TemporaryFolder
    private let path: String

    init() throws {
        folder = try TemporaryFolder()
        path = folder.file("m.safetensors")
    }

    private let layout = SafetensorsLayout(
        [.init("a", .float32, [2]), .init("b", .uint8, [3]), .init("c", .uint8, [0, 4])],
        metadata: ["k": "v"]
    )

    private func open(
        identity: String = "source 1",
        overwriting: Bool = false
    ) throws -> ResumableFile {
        try ResumableFile(
            path: path,
            layout: layout,
            pieces: 3,
            identity: identity,
            overwriting: overwriting
        )
    }

    private func writeFirst(_ file: ResumableFile) throws {
        try file.write(Tensor([1, 2], shape: [2]), to: "a")
        try file.finishPiece()
    }

    private func writeRest(_ file: ResumableFile) throws {
        try file.write(Tensor(bytes: [3, 4, 5]), to: "b")
        try file.finishPiece()
        try file.write(Tensor(zeros: [0]), to: "c")
        try file.finishPiece()
    }

    private func expectComplete() throws {
        let file = try SafetensorsFile(path: path)
        #expect(file.tensor("a")?.elements == [1, 2])
        #expect(file.tensor("b").map(bytes) == [3, 4, 5])
        #expect(file.tensors["c"]?.shape == [0, 4])
        #expect(file.metadata == ["k": "v"])
        #expect(try folder.names() == ["m.safetensors"])
    }

    @Test func appearsWhenItIsComplete() throws {
        let file = try open()
        try writeFirst(file)
        #expect(try !folder.names().contains("m.safetensors"))
        try writeRest(file)
        try file.finish()
        try expectComplete()
    }

    @Test func writesInAnyOrderAndPieceByPiece() throws {
        let file = try open()
        try file.write(Tensor(bytes: [5]), to: "b", at: 2)
        try file.write(Tensor(bytes: [3, 4]), to: "b")
        try file.write(Tensor([2], shape: [1]), to: "a", at: 4)
        try file.write(Tensor([1], shape: [1]), to: "a")
        try file.finish()
        try expectComplete()
    }

    @Test func goesOnWhereItWasSaved() throws {
        do {
            let file = try open()
            try writeFirst(file)
            try file.save()
        }
        #expect(try folder.names().count == 2)
        let file = try open()
        #expect(file.finishedPieces == 1)
        try writeRest(file)
        try file.finish()
        try expectComplete()
    }

    @Test func whatWasNotSavedIsWrittenAgain() throws {
        do {
            let file = try open()
            try writeFirst(file)
            try file.save()
            try writeRest(file)
        }
        #expect(try open().finishedPieces == 1)
    }

    @Test(arguments: ["identity", "layout", "length", "state", "number", "no state"])
    func startsAnewWhereSomethingDiffers(_ change: String) throws {
        do {
            let file = try open()
            try writeFirst(file)
            try file.save()
        }
        let state = "m.safetensors.krea2-partial.json"
        switch change {
        case "length": try #require(truncate(path + ".krea2-partial", 20) == 0)
        case "state": try folder.write("{", to: state)
        case "number":
            let bytes = try MappedFile(path: folder.file(state)).withBytes { [UInt8]($0) }
            let text = String(decoding: bytes, as: UTF8.self)
            try folder.write(text.replacing(":1}", with: ":4}"), to: state)
        case "no state": try #require(unlink(folder.file(state)) == 0)
        default: break
        }
        let file = try ResumableFile(
            path: path,
            layout: change == "layout"
                ? SafetensorsLayout([.init("a", .float32, [2])], metadata: [:]) : layout,
            pieces: 3,
            identity: change == "identity" ? "source 2" : "source 1",
            overwriting: false
        )
        #expect(file.finishedPieces == 0)
        guard change != "layout" else { return }
        try writeFirst(file)
        try writeRest(file)
        try file.finish()
        try expectComplete()
    }

    @Test func leavesNothingWhereNothingIsFinished() throws {
        do {
            let file = try open()
            try file.write(Tensor([1, 2], shape: [2]), to: "a")
        }
        #expect(try folder.names() == [])
        do {
            let file = try open()
            try writeFirst(file)
            try file.save()
            file.discard()
        }
        #expect(try folder.names() == [])
    }

    @Test func keepsFilesUnlessToldOtherwise() throws {
        try folder.write("precious", to: "m.safetensors")
        #expect(throws: CheckpointError.exists(path: path)) { try open() }
        let file = try open(overwriting: true)
        try writeFirst(file)
        try writeRest(file)
        let kept = try MappedFile(path: path).withBytes { [UInt8]($0) }
        #expect(kept == Array("precious".utf8))
        try file.finish()
        try expectComplete()
    }

    @Test func keepsFilesThatAppearMeanwhile() throws {
        let file = try open()
        try writeFirst(file)
        try writeRest(file)
        try folder.write("precious", to: "m.safetensors")
        #expect(throws: CheckpointError.exists(path: path)) { try file.finish() }
    }

    @Test func replacesFilesOnly() throws {
        try #require(mkdir(path, 0o700) == 0)
        let reason = "something else than a file is there"
        #expect(throws: CheckpointError.cannotWrite(path: path, reason: reason)) {
            try open(overwriting: true)
        }
        #expect(try folder.names() == ["m.safetensors"])
    }

    @Test func twoDoNotWriteTheSame() throws {
        let file = try open()
        let reason = "another process is writing it"
        #expect(throws: CheckpointError.cannotWrite(path: path, reason: reason)) { try open() }
        try writeFirst(file)
        try writeRest(file)
        try file.finish()
        try expectComplete()
    }

    @Test func partialFilesAreNoLinks() throws {
        let precious = try folder.write("precious", to: "precious")
        try #require(symlink(precious, path + ".krea2-partial") == 0)
        #expect(throws: CheckpointError.self) { try open() }
        #expect(
            try MappedFile(path: precious).withBytes { [UInt8]($0) } == Array("precious".utf8)
        )
    }

    /// In a process of its own, where no file may grow beyond 100 kB.
    @Test func fullDisksShowAtOnceAndLeaveNothing() async {
        await #expect(processExitsWith: .success) {
            let folder = try TemporaryFolder()
            var limit = rlimit(rlim_cur: 100_000, rlim_max: 100_000)
            signal(SIGXFSZ, SIG_IGN)
            try #require(setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0)
            let path = folder.file("m.safetensors")
            let reason = String(cString: strerror(EFBIG))
            #expect(throws: CheckpointError.cannotWrite(path: path, reason: reason)) {
                try ResumableFile(
                    path: path,
                    layout: SafetensorsLayout([.init("a", .uint8, [200_000])], metadata: [:]),
                    pieces: 1,
                    identity: "",
                    overwriting: false
                )
            }
            #expect(try folder.names() == [])
        }
    }

    // MARK: Texts

    @Test func textsAreWrittenOnce() throws {
        let text = TextFile(path: folder.file("N.txt"), text: "a\nb\n")
        try text.check(overwriting: false)
        try text.write(overwriting: false)
        // The same text is no conflict, another one is.
        try text.check(overwriting: false)
        try text.write(overwriting: false)
        let other = TextFile(path: text.path, text: "c")
        #expect(throws: CheckpointError.exists(path: text.path)) {
            try other.check(overwriting: false)
        }
        #expect(throws: CheckpointError.exists(path: text.path)) {
            try other.write(overwriting: false)
        }
        try other.write(overwriting: true)
        #expect(try MappedFile(path: text.path).withBytes { [UInt8]($0) } == Array("c".utf8))
        #expect(try folder.names() == ["N.txt"])
    }
}
