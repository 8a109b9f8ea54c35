import JSON
package import Tensors

/// Where a tensor's elements are in a file, and what they are.
package struct TensorRecord: Sendable, Equatable {
    /// How the elements are stored.
    package let elementType: ElementType
    /// Sizes from the slowest axis to the fastest; empty for a single element.
    package let shape: [Int]
    /// Bytes of the elements, counted from the start of the file.
    package let range: Range<Int>

    /// Whether the elements start at a multiple of their size; the format does not promise it.
    package var isAligned: Bool { range.lowerBound % elementType.byteCount == 0 }
}

/// The header of a safetensors file, checked in full.
///
/// Tensors fill the data part in some order, without overlaps, holes or bytes left over. All that
/// the format's reference implementation refuses is refused, and beyond that:
/// - a key that repeats, anywhere;
/// - headers that do not start with `{`, as the format demands, and null for `__metadata__`;
/// - shapes of more than 64 axes, or whose non-zero sizes do not fit into an integer;
/// - element types that `ElementType` does not know.
///
/// Source: safetensors format description, and the behaviour of the `safetensors` library 0.8.
struct SafetensorsHeader {
    /// Bytes of the length before the header.
    static let lengthByteCount = 8

    /// The tensors by name.
    private(set) var tensors: [String: TensorRecord] = [:]
    /// The free-form text of `__metadata__`.
    private(set) var metadata: [String: String] = [:]
    /// Where the data part starts in the file.
    let dataStart: Int

    private let path: String
    private let dataByteCount: Int

    /// Reads the header of a whole file.
    ///
    /// - Parameters:
    ///   - file: All bytes of the file; those after the header are not touched.
    ///   - path: Path of the file, for errors.
    ///   - longest: Most bytes of the header.
    /// - Throws: `.damaged`.
    init(
        _ file: UnsafeRawBufferPointer,
        path: String,
        longest: Int = SafetensorsFile.longestHeader
    ) throws(CheckpointError) {
        self.path = path
        dataStart = try Self.dataStart(of: file, path: path, longest: longest)
        dataByteCount = file.count - dataStart
        // A copy, so that a file that changes meanwhile cannot show two faces.
        let text = [UInt8](UnsafeRawBufferPointer(rebasing: file[Self.lengthByteCount..<dataStart]))
        guard text.first == UInt8(ascii: "{") else {
            throw .damaged(
                path: path,
                tensor: nil,
                found: "a header that starts with byte \(text.first.map(String.init) ?? "none")",
                expected: "{"
            )
        }
        for (name, value) in try jsonObject(text, path: path).sorted(by: { $0.key < $1.key }) {
            if name == Self.metadataKey {
                try readMetadata(value)
            } else {
                tensors[name] = try HeaderEntry(name, value, path: path)
                    .record(dataStart: dataStart, dataByteCount: dataByteCount)
            }
        }
        try checkLayout()
    }

    /// Checks the length before the header.
    private static func dataStart(
        of file: UnsafeRawBufferPointer,
        path: String,
        longest: Int
    ) throws(CheckpointError) -> Int {
        func damaged(_ found: String, _ expected: String) -> CheckpointError {
            .damaged(path: path, tensor: nil, found: found, expected: expected)
        }
        guard file.count >= lengthByteCount else {
            throw damaged("\(file.count) bytes", "at least \(lengthByteCount)")
        }
        let length = UInt64(littleEndian: file.loadUnaligned(as: UInt64.self))
        if length > longest, let kind = otherFormat(file) {
            throw damaged(kind, "a safetensors file")
        }
        guard length <= longest else {
            throw damaged("a header of \(length) bytes", "at most \(longest)")
        }
        guard Int(length) <= file.count - lengthByteCount else {
            throw damaged(
                "a header of \(length) bytes in a file of \(file.count)",
                "a header that ends inside the file"
            )
        }
        return lengthByteCount + Int(length)
    }

    /// What else the file is, for the mistakes that are easily made.
    private static func otherFormat(_ file: UnsafeRawBufferPointer) -> String? {
        let marks = [
            ("version https://git-lfs", "a Git LFS pointer in place of the file"),
            ("GGUF", "a GGUF file"),
            ("PK\u{3}\u{4}", "a zip archive such as PyTorch writes"),
        ]
        return marks.first { file.starts(with: $0.0.utf8) }?.1
    }

    private static let metadataKey = "__metadata__"

    /// Fills `metadata`.
    private mutating func readMetadata(_ value: JSONValue) throws(CheckpointError) {
        func damaged(_ found: String, _ expected: String) -> CheckpointError {
            .damaged(path: path, tensor: nil, found: found, expected: expected)
        }
        guard case .object(let members) = value else {
            throw damaged("\(Self.metadataKey) \(value)", "an object")
        }
        for (key, value) in members {
            guard case .string(let text) = value else {
                throw damaged("\(quoted(key)) \(value) in \(Self.metadataKey)", "text")
            }
            metadata[key] = text
        }
    }
}

// MARK: Entries

/// One tensor's entry in a header; unknown keys are passed over, as in the reference.
private struct HeaderEntry {
    private let name: String
    private let members: [String: JSONValue]
    private let path: String

    /// Most axes of a tensor.
    private static let mostAxes = 64

    init(_ name: String, _ value: JSONValue, path: String) throws(CheckpointError) {
        guard case .object(let members) = value else {
            throw .damaged(path: path, tensor: name, found: "\(value)", expected: "an object")
        }
        self.name = name
        self.members = members
        self.path = path
    }

    /// The entry's contents, checked against the file.
    ///
    /// - Parameters:
    ///   - dataStart: Where the data part starts in the file.
    ///   - dataByteCount: Bytes of the data part.
    /// - Returns: The record.
    /// - Throws: `.damaged`.
    func record(dataStart: Int, dataByteCount: Int) throws(CheckpointError) -> TensorRecord {
        let elementType = try elementType()
        let shape = try integers("shape", most: Self.mostAxes)
        let offsets = try integers("data_offsets", most: 2)
        guard offsets.count == 2, offsets[0] <= offsets[1] else {
            throw damaged("data_offsets \(offsets)", "a start and an end")
        }
        guard offsets[1] <= dataByteCount else {
            throw damaged(
                "data up to byte \(offsets[1])",
                "at most the \(dataByteCount) bytes after the header; is the file cut short?"
            )
        }
        let expected = try byteCount(shape, elementType)
        guard offsets[1] - offsets[0] == expected else {
            throw damaged(
                "\(offsets[1] - offsets[0]) bytes of data",
                "\(expected) for shape \(shape) of \(elementType.rawValue)"
            )
        }
        return TensorRecord(
            elementType: elementType,
            shape: shape,
            range: dataStart + offsets[0]..<dataStart + offsets[1]
        )
    }

    private func elementType() throws(CheckpointError) -> ElementType {
        let value = try member("dtype")
        guard case .string(let name) = value, let type = ElementType(rawValue: name) else {
            let known = ElementType.allCases.map(\.rawValue).joined(separator: " ")
            throw damaged("type \(value)", "one of \(known)")
        }
        return type
    }

    /// Bytes of all elements.
    private func byteCount(
        _ shape: [Int],
        _ elementType: ElementType
    ) throws(CheckpointError) -> Int {
        // Sizes of zero are left out, so that no partial product of the shape can overflow either.
        let byteCount = shape.reduce(Optional(elementType.byteCount)) { product, size in
            let next = product?.multipliedReportingOverflow(by: max(size, 1))
            return next.flatMap { $0.overflow ? nil : $0.partialValue }
        }
        guard let byteCount else { throw damaged("shape \(shape)", "fewer than 2^63 bytes") }
        return shape.contains(0) ? 0 : byteCount
    }

    /// Whole numbers from 0.
    private func integers(_ key: String, most: Int) throws(CheckpointError) -> [Int] {
        let value = try member(key)
        guard case .array(let elements) = value else {
            throw damaged("\(key) \(value)", "whole numbers from 0")
        }
        guard elements.count <= most else {
            throw damaged("\(key) of \(elements.count) numbers", "at most \(most)")
        }
        var integers: [Int] = []
        for element in elements {
            guard case .integer(let integer) = element, integer >= 0 else {
                throw damaged("\(key) with \(element)", "whole numbers from 0")
            }
            integers.append(integer)
        }
        return integers
    }

    private func member(_ key: String) throws(CheckpointError) -> JSONValue {
        guard let value = members[key] else { throw damaged("no \(key)", "one") }
        return value
    }

    private func damaged(_ found: String, _ expected: String) -> CheckpointError {
        .damaged(path: path, tensor: name, found: found, expected: expected)
    }
}

// MARK: Layout

extension SafetensorsHeader {
    /// Checks that the tensors fill the data part: no overlaps, no holes, no bytes left over.
    private func checkLayout() throws(CheckpointError) {
        let inOrder = tensors.sorted {
            ($0.value.range.lowerBound, $0.value.range.upperBound, $0.key)
                < ($1.value.range.lowerBound, $1.value.range.upperBound, $1.key)
        }
        var end = dataStart
        var previous: String?
        for (name, record) in inOrder {
            let start = record.range.lowerBound
            guard start == end else {
                let before = previous.map { "where tensor \($0) ends" } ?? "where the data starts"
                throw .damaged(
                    path: path,
                    tensor: name,
                    found: "data from byte \(start - dataStart), "
                        + (start < end ? "an overlap" : "after a hole"),
                    expected: "byte \(end - dataStart), \(before)"
                )
            }
            end = record.range.upperBound
            previous = name
        }
        guard end == dataStart + dataByteCount else {
            throw .damaged(
                path: path,
                tensor: nil,
                found: "\(dataByteCount) bytes of data",
                expected: "the \(end - dataStart) bytes that the header describes"
            )
        }
    }
}
