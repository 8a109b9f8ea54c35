import Foundation
import Tensors
import TestSupport
import Testing

@testable import Checkpoints

/// Files under `Tests/Fixtures/quantization`.
enum QuantizedFixture {
    static func path(_ name: String) -> String {
        URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appending(path: "Fixtures/quantization/\(name).safetensors")
            .path(percentEncoded: false)
    }

    static func checkpoint(_ name: String) throws -> Checkpoint {
        try Checkpoint(path: path(name))
    }
}

/// A tensor of any type from the bytes of its elements.
func tensor(_ bytes: [UInt8], _ type: ElementType, _ shape: [Int]) -> Tensor {
    let storage = Storage(byteCount: bytes.count)
    storage.bytes.copyBytes(from: bytes)
    return Tensor(storage, byteOffset: 0, shape: shape, elementType: type)
}

/// A file with one module, `m`, of which a test says what is odd about it.
struct QuantizedModule {
    var weight = tensor([UInt8](0..<32), .int8, [2, 16])
    /// Text of `m.comfy_quant`; nil for no such tensor.
    var note: String? = #"{"format":"int8_tensorwise"}"#
    /// Other tensors by their whole names.
    var others = ["m.weight_scale": Tensor([0.5], shape: [])]
    var metadata: [String: String] = [:]

    /// Writes the file and opens it.
    func checkpoint(in folder: TemporaryFolder) throws -> Checkpoint {
        var writer = SafetensorsWriter(metadata: metadata)
        writer.add("m.weight", weight)
        if let note {
            writer.add("m.comfy_quant", Array(note.utf8), as: .uint8, shape: [note.utf8.count])
        }
        for (name, other) in others { writer.add(name, other) }
        try writer.write(to: folder.file("m.safetensors"), overwriting: true)
        return try Checkpoint(path: folder.file("m.safetensors"))
    }
}
