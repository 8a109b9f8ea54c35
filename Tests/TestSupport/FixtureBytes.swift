import Checkpoints
import Foundation
import Tensors

/// The U8 and I64 tensors of a safetensors file under `Tests/Fixtures`.
package struct FixtureBytes {
    /// The fixtures are not as the test thinks.
    package struct Mismatch: Error {
        let name: String
        let found: String
    }

    private let file: SafetensorsFile

    /// Opens a file, such as `pictures/decoding.safetensors`.
    package init(_ name: String) throws {
        let folder = URL(filePath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "Fixtures")
        file = try SafetensorsFile(path: folder.appending(path: name).path(percentEncoded: false))
    }

    /// Names of all tensors, sorted.
    package var names: [String] { file.tensors.keys.sorted() }

    /// The sizes of a tensor.
    package func shape(_ name: String) throws -> [Int] { try tensor(name).shape }

    /// The elements of a U8 tensor.
    package func bytes(_ name: String) throws -> [UInt8] { try values(name, .uint8) }

    /// The elements of an I64 tensor.
    package func integers(_ name: String) throws -> [Int] {
        let values: [Int64] = try values(name, .int64)
        return values.map { Int($0) }
    }

    private func tensor(_ name: String) throws -> Tensor {
        guard let tensor = file.tensor(name) else {
            throw Mismatch(name: name, found: "nothing")
        }
        return tensor
    }

    private func values<Element: BitwiseCopyable>(
        _ name: String,
        _ type: ElementType
    ) throws -> [Element] {
        let tensor = try tensor(name)
        guard tensor.elementType == type else {
            throw Mismatch(name: name, found: "\(tensor.elementType)")
        }
        let start = tensor.address.assumingMemoryBound(to: Element.self)
        return Array(UnsafeBufferPointer(start: start, count: tensor.count))
    }
}
