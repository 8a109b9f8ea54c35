import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

/// A copy of the fixture model that a test may damage.
struct ModelCopy {
    /// The folder of the model.
    let path: String

    /// Copies the model into a folder, under the name `model`.
    init(in folder: TemporaryFolder) throws {
        path = folder.file("model")
        try FileManager.default.copyItem(atPath: fixtureModel, toPath: path)
    }

    /// The path of a file in the model.
    func file(_ name: String) -> String { "\(path)/\(name)" }

    func remove(_ name: String) throws {
        try FileManager.default.removeItem(atPath: file(name))
    }

    /// Cuts a file after some bytes.
    func truncate(_ name: String, to byteCount: UInt64) throws {
        let handle = try #require(FileHandle(forWritingAtPath: file(name)))
        try handle.truncate(atOffset: byteCount)
        try handle.close()
    }

    /// Adds a member to the object in a JSON file.
    func add(_ member: String, to name: String) throws {
        let text = try String(contentsOfFile: file(name), encoding: .utf8)
        try "{\(member),\(text.dropFirst())"
            .write(toFile: file(name), atomically: false, encoding: .utf8)
    }

    /// Makes the last element of a tensor in a folder NaN; of kernels over time, only the last count.
    func poison(_ tensor: String, in folder: String) throws {
        let checkpoint = try Checkpoint(path: file(folder))
        let record = try #require(checkpoint.record(tensor), "no \(tensor)")
        let handle = try #require(FileHandle(forWritingAtPath: checkpoint.file(of: tensor)))
        let size = record.elementType.byteCount
        try handle.seek(toOffset: UInt64(record.range.upperBound - size))
        // Every bit of the exponent and of the fraction is set: NaN in each format.
        try handle.write(contentsOf: [UInt8](repeating: 0xFF, count: size - 1) + [0x7F])
        try handle.close()
    }
}
