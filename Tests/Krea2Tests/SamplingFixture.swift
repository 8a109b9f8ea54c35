import Checkpoints
import Foundation
import Tensors
import Testing

/// Numbers of the reference under `Tests/Fixtures/sampling`.
struct SamplingFixture {
    private let checkpoint: Checkpoint

    init(_ name: String) throws {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("Fixtures/sampling")
        checkpoint = try Checkpoint(path: folder.appendingPathComponent(name).path)
    }

    /// The names of all arrays, sorted.
    var names: [String] { checkpoint.names }

    /// The elements of one array.
    func elements(_ name: String) throws -> [Float] {
        try #require(checkpoint.tensor(name), "no array \(name)").elements
    }
}

/// Whether two arrays are equal to the last bit; 0 and −0 differ.
func haveEqualBits(_ a: [Float], _ b: [Float]) -> Bool {
    a.map(\.bitPattern) == b.map(\.bitPattern)
}
