import Checkpoints
import Foundation
import Tensors
import Testing

@testable import Krea2

/// Files under `Tests/Fixtures`.
enum Fixture {
    /// Absolute path of a file, such as `pipeline/cases.json`.
    static func path(_ name: String) -> String {
        URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appending(path: "Fixtures/\(name)").path(percentEncoded: false)
    }

    /// The transformer of the embedded checkpoint, `turbo` or `raw`.
    static func embedded(_ variant: String) -> String {
        path("../../weights/mini/\(variant).safetensors")
    }

    /// The bytes of a file.
    static func bytes(_ name: String) throws -> [UInt8] {
        Array(try Data(contentsOf: URL(filePath: path(name))))
    }

    /// The cases in a JSON file; without them tests would have nothing to fail on.
    static func cases<Case: Decodable>(_ name: String) -> [Case] {
        do {
            return try JSONDecoder().decode([Case].self, from: Data(bytes(name)))
        } catch {
            preconditionFailure("\(name): \(error)")
        }
    }

    /// The tensors that a case of `pipeline/cases.json` has computed.
    static func dump(_ name: String) throws -> FixtureTensors {
        try FixtureTensors("pipeline/dumps/\(name).safetensors")
    }
}

/// The tensors of one safetensors file under `Tests/Fixtures`.
struct FixtureTensors {
    private let file: SafetensorsFile

    /// Opens a file, such as `pipeline/dumps/head16-turbo.safetensors`.
    init(_ name: String) throws {
        file = try SafetensorsFile(path: Fixture.path(name))
    }

    /// Names of all tensors, sorted.
    var names: [String] { file.tensors.keys.sorted() }

    /// The view of a tensor.
    func tensor(_ name: String) throws -> Tensor {
        try #require(file.tensor(name), "no tensor \(name) in \(file.path)")
    }

    /// The sizes of a tensor.
    func shape(_ name: String) throws -> [Int] { try tensor(name).shape }

    /// The elements of a float32 tensor.
    func floats(_ name: String) throws -> [Float] { try tensor(name).elements }

    /// The elements of an I64 tensor.
    func integers(_ name: String) throws -> [Int64] { try values(name, .int64) }

    /// The elements of a U8 tensor.
    func bytes(_ name: String) throws -> [UInt8] { try values(name, .uint8) }

    private func values<Element: BitwiseCopyable>(
        _ name: String,
        _ type: ElementType
    ) throws -> [Element] {
        let tensor = try tensor(name)
        try #require(tensor.elementType == type, "\(name) has \(tensor.elementType) elements")
        let start = tensor.address.assumingMemoryBound(to: Element.self)
        return Array(UnsafeBufferPointer(start: start, count: tensor.count))
    }
}
