import Glibc
import Tensors
import TestSupport
import Testing

@testable import Checkpoints

struct SafetensorsWriterTests {
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    @Test func readsBackWhatItWrote() throws {
        let metadata = ["format": "pt", "a \"quoted\" key\\": "line\none\u{1}\u{1F98A}é"]
        var writer = SafetensorsWriter(metadata: metadata)
        let values = (0..<30).map { Float($0) * 0.1 - 1 }
        writer.add("latent", Tensor(values, shape: [5, 3, 2]))
        writer.add("rows", Tensor(values, shape: [5, 6]).rows(2..<4))
        writer.add("ids", [1, -2, .max, .min] as [Int64], as: .int64, shape: [4])
        writer.add("mask", [1, 2, 255] as [UInt8], as: .uint8, shape: [3, 1])
        writer.add("odd \"name\"\n\\", [0x3F80] as [UInt16], as: .bfloat16, shape: [])
        writer.add("none", [Float](), as: .float32, shape: [0, 7])
        let path = folder.file("out.safetensors")
        try writer.write(to: path)

        let file = try SafetensorsFile(path: path)
        #expect(file.metadata == metadata)
        #expect(file.tensors.count == 6)
        #expect(file.tensor("latent")?.elements == values)
        #expect(file.tensor("latent")?.shape == [5, 3, 2])
        #expect(file.tensor("rows")?.elements == Array(values[12..<24]))
        let ids = try #require(file.tensor("ids"))
        #expect(ids.elementType == .int64 && ids.shape == [4])
        #expect(
            bytes(of: ids).prefix(16) == [1, 0, 0, 0, 0, 0, 0, 0, 254] + [
                255, 255, 255, 255, 255, 255, 255,
            ]
        )
        #expect(file.tensor("mask").map(bytes) == [1, 2, 255])
        #expect(file.tensors["odd \"name\"\n\\"]?.elementType == .bfloat16)
        #expect(file.tensors["none"]?.shape == [0, 7])
        #expect(try folder.names() == ["out.safetensors"])
    }

    @Test func ordersAndAlignsTheData() throws {
        var writer = SafetensorsWriter()
        writer.add("z", [1, 2, 3] as [UInt8], as: .uint8, shape: [3])
        writer.add("b", Tensor([1], shape: [1]))
        writer.add("m", [1, 2, 3] as [UInt16], as: .float16, shape: [3])
        writer.add("a", Tensor([2, 3, 4], shape: [3]))
        writer.add("i", [5] as [Int64], as: .int64, shape: [1])
        let path = folder.file("out.safetensors")
        try writer.write(to: path)
        let file = try SafetensorsFile(path: path)
        #expect(file.headerByteCount % 8 == 0)
        let order = file.tensors.sorted { $0.value.range.lowerBound < $1.value.range.lowerBound }
        #expect(order.map(\.key) == ["i", "a", "b", "m", "z"])
        #expect(file.tensors.values.allSatisfy { $0.isAligned })
    }

    @Test func writesTheSameBytesEveryTime() throws {
        func write(_ names: [String], to file: String) throws -> [UInt8] {
            var writer = SafetensorsWriter(metadata: ["b": "1", "a": "2", "c": "3"])
            for name in names { writer.add(name, Tensor([Float(name.count)], shape: [1])) }
            try writer.write(to: folder.file(file))
            return try MappedFile(path: folder.file(file)).withBytes { [UInt8]($0) }
        }
        let names = (0..<40).map { "tensor.\($0 * $0)" }
        #expect(try write(names, to: "x") == write(names.reversed(), to: "y"))
    }

    @Test func writesAnEmptyFile() throws {
        try SafetensorsWriter().write(to: folder.file("empty.safetensors"))
        let file = try SafetensorsFile(path: folder.file("empty.safetensors"))
        #expect(file.tensors.isEmpty && file.metadata.isEmpty && file.headerByteCount == 16)
    }

    // MARK: Failures

    @Test func keepsExistingFilesUnlessToldOtherwise() throws {
        let path = try folder.write("precious", to: "out.safetensors")
        var writer = SafetensorsWriter()
        writer.add("a", Tensor([1], shape: [1]))
        let error = #expect(throws: CheckpointError.self) { try writer.write(to: path) }
        #expect(error == .exists(path: path))
        #expect(error?.description == "\(path): already exists")
        #expect(throws: CheckpointError.self) { try SafetensorsFile(path: path) }
        try writer.write(to: path, overwriting: true)
        #expect(try SafetensorsFile(path: path).tensor("a")?.elements == [1])
        #expect(try folder.names() == ["out.safetensors"])
    }

    @Test func keepsFilesThatAppearMeanwhile() throws {
        let path = folder.file("out.safetensors")
        let file = try NewFile(path: path, overwriting: false)
        try folder.write("precious", to: "out.safetensors")
        #expect(throws: CheckpointError.exists(path: path)) { try file.finish() }
        #expect(
            try Array(MappedFile(path: path).withBytes { [UInt8]($0) }) == Array("precious".utf8)
        )
    }

    @Test func namesFoldersItCannotWriteTo() throws {
        let path = folder.file("none/out.safetensors")
        let reason = String(cString: strerror(ENOENT))
        #expect(throws: CheckpointError.cannotWrite(path: path, reason: reason)) {
            try SafetensorsWriter().write(to: path)
        }
        try #require(mkdir(folder.file("taken"), 0o700) == 0)
        let error = #expect(throws: CheckpointError.self) {
            try SafetensorsWriter().write(to: folder.file("taken"), overwriting: true)
        }
        #expect(
            error?.description.hasPrefix("\(folder.file("taken")): cannot be written: ") == true
        )
        #expect(try folder.names() == ["taken"])
    }

    @Test func abandonedFilesLeaveNothing() throws {
        do {
            let file = try NewFile(path: folder.file("out"), overwriting: false)
            try [1, 2, 3].withUnsafeBytes { try file.write($0) }
            #expect(try folder.names().count == 1)
        }
        #expect(try folder.names().isEmpty)
    }

    /// In a process of its own, where no file may grow beyond 100 kB.
    @Test func fullDisksLeaveNothing() async {
        await #expect(processExitsWith: .success) {
            let folder = try TemporaryFolder()
            let path = try folder.write("precious", to: "out.safetensors")
            var limit = rlimit(rlim_cur: 100_000, rlim_max: 100_000)
            signal(SIGXFSZ, SIG_IGN)
            try #require(setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0)

            var writer = SafetensorsWriter()
            writer.add("small", Tensor(zeros: [1000]))
            writer.add("large", Tensor(zeros: [50_000]))
            for name in ["out.safetensors", "new.safetensors"] {
                let error = #expect(throws: CheckpointError.self) {
                    try writer.write(to: folder.file(name), overwriting: true)
                }
                let reason = String(cString: strerror(EFBIG))
                #expect(error == .cannotWrite(path: folder.file(name), reason: reason))
            }
            #expect(try folder.names() == ["out.safetensors"])
            let kept = try MappedFile(path: path).withBytes { [UInt8]($0) }
            #expect(kept == Array("precious".utf8))
        }
    }
}
