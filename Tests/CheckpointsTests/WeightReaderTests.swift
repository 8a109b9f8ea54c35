import Tensors
import TestSupport
import Testing

@testable import Checkpoints

struct WeightReaderTests {
    private let folder: TemporaryFolder
    private let path: String
    private let checkpoint: Checkpoint

    init() throws {
        folder = try TemporaryFolder()
        path = folder.file("m.safetensors")
        var writer = SafetensorsWriter()
        writer.add("first.weight", Tensor([1, 2, 3, 4, 5, 6], shape: [2, 3]))
        writer.add("blocks.0.scale", Tensor([7, 8], shape: [2]))
        writer.add("blocks.1.scale", Tensor([9, 10], shape: [2]))
        writer.add("half", [0x3C00, 0x4000] as [UInt16], as: .float16, shape: [2])
        writer.add("brain", [0x3F80, 0x4000] as [UInt16], as: .bfloat16, shape: [2])
        writer.add("tiny", [1, 2, 3, 4] as [UInt8], as: .float8E4M3, shape: [2, 2])
        try writer.write(to: path)
        checkpoint = try Checkpoint(path: path)
    }

    private func problems(_ error: CheckpointError?) -> [WeightProblem] {
        guard case .unfit(path, let problems) = error else {
            Issue.record("\(String(describing: error))")
            return []
        }
        return problems
    }

    @Test func readsEverything() throws {
        let reader = WeightReader(checkpoint)
        #expect(reader.tensor("first.weight", shape: [2, 3]).elements == [1, 2, 3, 4, 5, 6])
        let blocks = (0..<2).map { reader.scoped("blocks.").scoped("\($0).") }
        #expect(blocks.map { $0.tensor("scale", shape: [2]).elements } == [[7, 8], [9, 10]])
        #expect(reader.tensor("half", shape: [2]).elementType == .float16)
        #expect(reader.tensor("brain", shape: [2]).elementType == .bfloat16)
        try reader.finish { $0 == "tiny" }
    }

    @Test func renames() throws {
        let reader = WeightReader(checkpoint) { $0.replacing("layers", with: "blocks") }
        #expect(reader.scoped("layers.1.").tensor("scale", shape: [2]).elements == [9, 10])
        #expect(reader.shape("layers.0.scale") == [2])
        let error = #expect(throws: CheckpointError.self) {
            _ = reader.scoped("layers.7.").tensor("scale", shape: [2])
            try reader.finish { _ in true }
        }
        #expect(problems(error) == [.missing(tensor: "blocks.7.scale", file: path)])
    }

    @Test func looksWithoutUsing() throws {
        let reader = WeightReader(checkpoint).scoped("blocks.0.")
        #expect(reader.shape("scale") == [2] && reader.shape("shift") == nil)
        let error = #expect(throws: CheckpointError.self) { try reader.finish() }
        #expect(problems(error).count == checkpoint.names.count)
    }

    @Test func acceptsOtherShapesOfAsManyElements() throws {
        let reader = WeightReader(checkpoint)
        let flat = reader.tensor("first.weight", shape: [6], orShapes: [[1, 6], [2, 3]])
        #expect(flat.shape == [6] && flat.elements == [1, 2, 3, 4, 5, 6])
        try reader.finish { _ in true }
        _ = reader.tensor("half", shape: [1, 2], orShapes: [[2, 1], [1, 1, 2]])
        let error = #expect(throws: CheckpointError.self) { try reader.finish { _ in true } }
        #expect(
            error?.description == "\(path): tensor half in \(path) has shape [2], "
                + "expected [1, 2] or [2, 1] or [1, 1, 2]"
        )
    }

    @Test func namesEveryProblem() throws {
        let reader = WeightReader(checkpoint)
        _ = reader.tensor("first.weight", shape: [3, 2])
        _ = reader.tensor("gone", shape: [4])
        _ = reader.tensor("gone", shape: [4])
        _ = reader.tensor("tiny", shape: [2, 2])
        _ = reader.scoped("blocks.0.").tensor("scale", shape: [2])
        let error = #expect(throws: CheckpointError.self) {
            try reader.finish { $0.hasPrefix("b") }
        }
        #expect(
            problems(error) == [
                .misshapen(
                    tensor: "first.weight",
                    file: path,
                    found: [2, 3],
                    expected: [[3, 2]]
                ),
                .missing(tensor: "gone", file: path),
                .mistyped(tensor: "tiny", file: path, found: "F8_E4M3"),
                .surplus(tensor: "half", file: path),
            ]
        )
        #expect(
            error?.description == "\(path): "
                + "tensor first.weight in \(path) has shape [2, 3], expected [3, 2]; "
                + "tensor gone is missing from \(path); "
                + "tensor tiny in \(path): type F8_E4M3 is known but not computed with, "
                + "expected F32, F16 or BF16; "
                + "tensor half in \(path) is not expected"
        )
        #expect(error?.isMissingFile == false)
    }

    @Test func wrongShapeAndTypeAreTwoProblems() throws {
        let reader = WeightReader(checkpoint)
        #expect(reader.tensor("tiny", shape: [4]).elements == [0, 0, 0, 0])
        let error = #expect(throws: CheckpointError.self) { try reader.finish { _ in true } }
        #expect(problems(error).count == 2)
    }

    @Test func describesTheFirstTwelve() throws {
        let reader = WeightReader(checkpoint)
        for index in 0..<20 { _ = reader.tensor("x\(index)", shape: [1]) }
        let error = #expect(throws: CheckpointError.self) { try reader.finish { _ in true } }
        #expect(problems(error).count == 20)
        let text = error?.description ?? ""
        #expect(text.contains("tensor x11 is missing") && !text.contains("x12"))
        #expect(text.hasSuffix("; and 8 more"))
        #expect(!text.contains("\n"))
    }

    @Test func namesTensorsAsInTheFile() throws {
        let reader = WeightReader(checkpoint.strippingPrefix("blocks."))
        #expect(reader.tensor("0.scale", shape: [2]).elements == [7, 8])
        _ = reader.tensor("2.scale", shape: [2])
        let error = #expect(throws: CheckpointError.self) { try reader.finish() }
        #expect(
            problems(error) == [
                .missing(tensor: "blocks.2.scale", file: path),
                .surplus(tensor: "blocks.1.scale", file: path),
            ]
        )
    }

    @Test func placeholdersAreZerosOfAnyShape() throws {
        let reader = WeightReader(checkpoint)
        #expect(reader.tensor("x", shape: [3, 2]).elements == [Float](repeating: 0, count: 6))
        #expect(reader.tensor("y", shape: []).elements == [0])
        #expect(reader.tensor("z", shape: [0, 5]).shape == [0, 5])
        let large = reader.tensor("large", shape: [1 << 20, 1 << 14])
        #expect(large.shape == [1 << 20, 1 << 14])
        #expect(large.row((1 << 20) - 1).elements.allSatisfy { $0 == 0 })
        for shape in [[1 << 40, 1 << 40], [Int.max, 2], [1 << 60], [-1, 4]] {
            #expect(reader.tensor("huge", shape: shape).count == 0)
        }
    }
}
