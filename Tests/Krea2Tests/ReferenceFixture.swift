import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// References whose rows are made up.
struct ReferenceFixture {
    static let encoder = EncoderIdentity(
        family: "qwen3-vl-test",
        digest: "sha256:0123",
        template: "sha256:4567",
        taps: 3,
        width: 8
    )

    var random = SeededGenerator(seed: 5)

    /// Kinds of the rows of a picture.
    static func kinds(_ images: Int) -> [ConditioningRows.Kind] {
        [.visionStart] + [ConditioningRows.Kind](repeating: .image, count: images) + [.visionEnd]
            + [ConditioningRows.Kind](repeating: .suffix, count: 5)
    }

    /// A reference to a picture of so many tokens.
    mutating func reference(
        _ content: String = "pixels-sha256:ab",
        rows: Int = 2,
        columns: Int = 3,
        treatment: String = "none",
        side: Int = 256,
        encoder: EncoderIdentity = Self.encoder
    ) throws -> ReferenceFile {
        let kinds = Self.kinds(rows * columns)
        return try reference(
            content,
            taps: .random([kinds.count, encoder.taps, encoder.width], &random),
            rows: rows,
            columns: columns,
            treatment: treatment,
            side: side,
            encoder: encoder
        )
    }

    /// A reference with these taps.
    func reference(
        _ content: String,
        taps: Tensor,
        rows: Int,
        columns: Int,
        treatment: String = "none",
        side: Int = 256,
        encoder: EncoderIdentity = Self.encoder
    ) throws -> ReferenceFile {
        try ReferenceFile(
            taps: taps,
            kinds: Self.kinds(rows * columns),
            gridRows: rows,
            gridColumns: columns,
            source: .init(content: content, treatment: treatment, side: side),
            encoder: encoder
        )
    }
}

extension ConditioningRows {
    /// The bits of bfloat16 taps.
    var bits: [UInt16] { taps.values(as: UInt16.self) }
}

/// The parts of a file of rows, to be damaged.
struct RowParts {
    var metadata: [String: String]
    var tensors: [String: Tensor] = [:]

    /// Takes a file apart.
    init(_ path: String) throws {
        let file = try SafetensorsFile(path: path)
        metadata = file.metadata
        for (name, record) in file.tensors {
            // Not a view, which would change with the file.
            let bytes = try #require(file.tensor(name)).bytes
            tensors[name] = Tensor(bytes, record.elementType, shape: record.shape)
        }
    }

    /// Writes a file, with a checksum that fits.
    func write(to path: String) throws {
        var writer = SafetensorsWriter(metadata: metadata)
        for (name, tensor) in tensors { writer.add(name, tensor) }
        writer.metadata["checksum"] = writer.dataDigest
        try writer.write(to: path, overwriting: true)
    }

    /// A file with a checksum that fits, made without the project's writer, which asks the disk to
    /// keep it.
    var bytes: [UInt8] {
        get throws {
            var (data, header) = ([UInt8](), [String: Any]())
            for (name, tensor) in tensors.sorted(by: { $0.key > $1.key }) {
                header[name] = [
                    "dtype": tensor.elementType.rawValue, "shape": tensor.shape,
                    "data_offsets": [data.count, data.count + tensor.byteCount],
                ]
                data += tensor.bytes
            }
            var metadata = metadata
            if metadata["checksum"] != nil {
                metadata["checksum"] = "sha256:" + hexDigest(of: [data])
            }
            header["__metadata__"] = metadata
            let text = try JSONSerialization.data(withJSONObject: header)
            let length = withUnsafeBytes(of: UInt64(text.count).littleEndian) { Array($0) }
            return length + Array(text) + data
        }
    }

    mutating func setBytes(_ name: String, _ bytes: [UInt8]) {
        tensors[name] = Tensor(bytes: bytes)
    }

    mutating func setIntegers(_ name: String, _ integers: [Int32]) {
        let bytes = integers.withUnsafeBytes { Array($0) }
        tensors[name] = Tensor(bytes, .int32, shape: [integers.count])
    }
}

extension Tensor {
    /// Elements of any type, by their bytes.
    init(_ bytes: [UInt8], _ elementType: ElementType, shape: [Int]) {
        let storage = Storage(byteCount: bytes.count)
        bytes.withUnsafeBytes { storage.bytes.copyMemory(from: $0) }
        self.init(storage, byteOffset: 0, shape: shape, elementType: elementType)
    }

    /// The bytes of the elements.
    var bytes: [UInt8] { Array(UnsafeRawBufferPointer(start: address, count: byteCount)) }
}
