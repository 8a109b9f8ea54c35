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
    /// Longest header read, the reference implementation's limit.
    static let longest = 100_000_000
    /// Bytes of the length before the header.
    static let lengthByteCount = 8
    /// Most axes of a tensor.
    static let mostAxes = 64

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
    /// - Throws: `.damaged`.
    init(_ file: UnsafeRawBufferPointer, path: String) throws(CheckpointError) {
        self.path = path
        dataStart = try Self.dataStart(of: file, path: path)
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
        do throws(JSONError) {
            try readEntries(text)
        } catch {
            throw Self.damaged(path, error)
        }
        try checkLayout()
    }

    /// Checks the length before the header.
    private static func dataStart(
        of file: UnsafeRawBufferPointer,
        path: String
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

    /// The error that names the tensor the JSON error is inside of.
    private static func damaged(_ path: String, _ error: JSONError) -> CheckpointError {
        let isTensor = error.keys.first.map { $0 != metadataKey } ?? false
        let keys = error.keys.dropFirst(isTensor ? 1 : 0).joined(separator: ".")
        return .damaged(
            path: path,
            tensor: isTensor ? error.keys.first : nil,
            found: keys.isEmpty ? error.found : "\(keys) with \(error.found)",
            expected: error.expected
        )
    }
}

// MARK: Entries

extension SafetensorsHeader {
    private static let metadataKey = "__metadata__"

    /// Fills `tensors` and `metadata` from the header's JSON.
    private mutating func readEntries(_ text: [UInt8]) throws(JSONError) {
        var scanner = JSONScanner(text)
        try scanner.object { name, scanner throws(JSONError) in
            if name == Self.metadataKey {
                try scanner.object { key, scanner throws(JSONError) in
                    metadata[key] = try scanner.string()
                }
            } else {
                tensors[name] = try record(&scanner)
            }
        }
        try scanner.end()
    }

    /// Reads one tensor's entry; unknown keys are passed over, as in the reference.
    private func record(_ scanner: inout JSONScanner) throws(JSONError) -> TensorRecord {
        var typeName: String?
        var shape: [Int]?
        var offsets: [Int]?
        try scanner.object { key, scanner throws(JSONError) in
            switch key {
            case "dtype": typeName = try scanner.string()
            case "shape": shape = try Self.integers(&scanner, most: Self.mostAxes)
            case "data_offsets": offsets = try Self.integers(&scanner, most: 2)
            default: try scanner.skipValue()
            }
        }
        guard let typeName, let shape, let offsets else {
            let key = typeName == nil ? "dtype" : shape == nil ? "shape" : "data_offsets"
            throw JSONError(found: "no \(key)", expected: "one")
        }
        let elementType = try Self.elementType(named: typeName)
        return TensorRecord(
            elementType: elementType,
            shape: shape,
            range: try range(offsets, shape, elementType)
        )
    }

    private static func elementType(named name: String) throws(JSONError) -> ElementType {
        guard let type = ElementType(rawValue: name) else {
            throw JSONError(
                found: "type \(name)",
                expected: "one of " + ElementType.allCases.map(\.rawValue).joined(separator: " ")
            )
        }
        return type
    }

    private static func integers(
        _ scanner: inout JSONScanner,
        most: Int
    ) throws(JSONError) -> [Int] {
        var integers: [Int] = []
        try scanner.array { index, scanner throws(JSONError) in
            guard index < most else {
                throw JSONError(found: "more than \(most) numbers", expected: "at most \(most)")
            }
            integers.append(try scanner.unsignedInteger())
        }
        return integers
    }

    /// Checks one tensor's offsets against the file and its shape; gives its bytes in the file.
    private func range(
        _ offsets: [Int],
        _ shape: [Int],
        _ elementType: ElementType
    ) throws(JSONError) -> Range<Int> {
        guard offsets.count == 2, offsets[0] <= offsets[1] else {
            throw JSONError(found: "data_offsets \(offsets)", expected: "a start and an end")
        }
        guard offsets[1] <= dataByteCount else {
            throw JSONError(
                found: "data up to byte \(offsets[1])",
                expected:
                    "at most the \(dataByteCount) bytes after the header; is the file cut short?"
            )
        }
        // Sizes of zero are left out, so that no partial product of the shape can overflow either.
        let byteCount = shape.reduce(Optional(elementType.byteCount)) { product, size in
            let next = product?.multipliedReportingOverflow(by: max(size, 1))
            return next.flatMap { $0.overflow ? nil : $0.partialValue }
        }
        guard let byteCount else {
            throw JSONError(found: "shape \(shape)", expected: "fewer than 2^63 bytes")
        }
        let expected = shape.contains(0) ? 0 : byteCount
        guard offsets[1] - offsets[0] == expected else {
            throw JSONError(
                found: "\(offsets[1] - offsets[0]) bytes of data",
                expected: "\(expected) for shape \(shape) of \(elementType.rawValue)"
            )
        }
        return dataStart + offsets[0]..<dataStart + offsets[1]
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
