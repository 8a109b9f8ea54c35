import Glibc
import Tensors
import TestSupport
import Testing

@testable import Checkpoints

struct SafetensorsFileTests {
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    @Test func viewsElementsInTheFile() throws {
        // 72 bytes of header make the data start at byte 80.
        var header = "{\(entry("a", "F32", [2, 2], 0, 16))}"
        header += String(repeating: " ", count: 72 - header.utf8.count)
        let path = try folder.write(safetensors(header, data: 16), to: "m.safetensors")
        let file = try SafetensorsFile(path: path)
        let tensor = try #require(file.tensor("a"))
        #expect(tensor.shape == [2, 2])
        #expect(tensor.byteOffset == 80)
        #expect(tensor.storage === file.tensor("a")?.storage)
        #expect(tensor.elements[0].bitPattern == 0x0302_0100)
        #expect(tensor.elements[3].bitPattern == 0x0F0E_0D0C)
        #expect(file.tensor("b") == nil)
    }

    @Test func viewsOutliveTheFile() throws {
        let path = try folder.write(
            safetensors("{\(entry("a", "U8", [4], 0, 4))}", data: 4),
            to: "m.safetensors"
        )
        let tensor = try #require(try SafetensorsFile(path: path).tensor("a"))
        unlink(path)
        #expect(bytes(of: tensor) == [0, 1, 2, 3])
    }

    @Test(arguments: 0..<8)
    func misalignedTensorsAreUsable(padding: Int) throws {
        let entries = [entry("a", "F32", [3], 0, 12), entry("b", "F64", [2], 12, 28)]
        var header = "{\(entries.joined(separator: ","))}"
        while header.utf8.count % 8 != padding { header += " " }
        let path = try folder.write(safetensors(header, data: 28), to: "m.safetensors")
        let file = try SafetensorsFile(path: path)
        for (name, range) in [("a", 0..<12), ("b", 12..<28)] {
            let tensor = try #require(file.tensor(name))
            #expect(bytes(of: tensor) == range.map(UInt8.init))
            let size = UInt(tensor.elementType.byteCount)
            #expect(UInt(bitPattern: tensor.address) % size == 0)
            #expect(file.tensor(name)?.address == tensor.address)
        }
        #expect(file.tensors["a"]?.isAligned == (padding % 4 == 0))
        #expect(file.tensors["b"]?.isAligned == (padding == 4))
    }

    @Test func refusesToCopyTooMuch() throws {
        let entries = [entry("a", "F32", [3], 0, 12), entry("b", "U8", [9], 12, 21)]
        var header = "{\(entries.joined(separator: ","))}"
        while header.utf8.count % 8 != 1 { header += " " }
        let path = try folder.write(safetensors(header, data: 21), to: "m.safetensors")
        _ = try SafetensorsFile(path: path, mostMisalignedBytes: 12)
        let error = #expect(throws: CheckpointError.self) {
            try SafetensorsFile(path: path, mostMisalignedBytes: 11)
        }
        #expect(error?.description.hasPrefix("\(path): 12 bytes in tensors that do not") == true)
        #expect(error?.description.contains("expected at most 11; ") == true)
    }

    @Test func tensorsWithoutElementsAreViews() throws {
        let header = "{\(entry("a", "U8", [1], 0, 1)),\(entry("none", "F32", [0, 4], 1, 1))}"
        let path = try folder.write(safetensors(header, data: 1), to: "m.safetensors")
        let tensor = try #require(try SafetensorsFile(path: path).tensor("none"))
        #expect(tensor.shape == [0, 4] && tensor.elements.isEmpty)
    }

    // MARK: Errors

    @Test func refusesFilesThatAreNoWeights() throws {
        let missing = folder.file("missing.safetensors")
        #expect(throws: CheckpointError.missing(path: missing)) {
            try SafetensorsFile(path: missing)
        }
        let empty = try folder.write("", to: "empty.safetensors")
        let error = #expect(throws: CheckpointError.self) { try SafetensorsFile(path: empty) }
        #expect(error?.description == "\(empty): no bytes, expected a header")
        #expect(error?.isMissingFile == false)

        let folderError = #expect(throws: CheckpointError.self) {
            try SafetensorsFile(path: folder.path)
        }
        #expect(
            folderError?.description
                == "\(folder.path): cannot be read: it is a folder, expected a file"
        )
        #expect(folderError?.isMissingFile == true)
    }

    @Test func errorsNameTheFileAndTheTensor() throws {
        let header = "{\(entry("blocks.0.attn.wq.weight", "F32", [2, 3], 0, 20))}"
        let path = try folder.write(safetensors(header, data: 20), to: "m.safetensors")
        let error = #expect(throws: CheckpointError.self) { try SafetensorsFile(path: path) }
        #expect(
            error?.description == "\(path): tensor blocks.0.attn.wq.weight has 20 bytes of data, "
                + "expected 24 for shape [2, 3] of F32"
        )
        #expect(error?.isMissingFile == false)
    }

    // MARK: Changes

    /// A file of several pages with one tensor of 40,000 bytes.
    private func openLarge() throws -> SafetensorsFile {
        let bytes = safetensors("{\(entry("a", "U8", [40_000], 0, 40_000))}", data: 40_000)
        return try SafetensorsFile(path: try folder.write(bytes, to: "m.safetensors"))
    }

    @Test func truncationWhileMappedIsAnError() throws {
        let file = try openLarge()
        let tensor = try #require(file.tensor("a"))
        try file.checkUnchanged()
        try #require(truncate(file.path, 100) == 0)
        #expect(bytes(of: tensor).suffix(1000).allSatisfy { $0 == 0 })
        let error = #expect(throws: CheckpointError.self) { try file.checkUnchanged() }
        #expect(
            error?.description
                == "\(file.path): changed while in use: part of it could not be read any more"
        )
        #expect(error?.isMissingFile == false)
    }

    @Test func writingWhileMappedIsAnError() throws {
        let file = try openLarge()
        let descriptor = open(file.path, O_WRONLY | O_APPEND)
        #expect(write(descriptor, "x", 1) == 1)
        close(descriptor)
        let size = file.headerByteCount + 40_000
        #expect(
            throws: CheckpointError.changed(
                path: file.path,
                reason: "its size went from \(size) to \(size + 1) bytes"
            )
        ) {
            try file.checkUnchanged()
        }
    }

    @Test func adviceKeepsElements() throws {
        let file = try openLarge()
        let tensor = try #require(file.tensor("a"))
        let elements = bytes(of: tensor)
        file.prefetch(tensor)
        file.release(tensor)
        #expect(bytes(of: tensor) == elements)
        file.release(Tensor(zeros: [100_000]))
        file.prefetch(Tensor(zeros: [100_000]))
    }
}
