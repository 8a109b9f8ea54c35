package import Tensors

/// Where tensors lie in a safetensors file that is to be written, and the header that says so.
package struct SafetensorsLayout: Sendable {
    /// One tensor of the file.
    package struct Entry: Sendable, Equatable {
        /// Name in the file.
        package let name: String
        /// How the elements are stored.
        package let elementType: ElementType
        /// Sizes from the slowest axis to the fastest.
        package let shape: [Int]

        /// Describes a tensor.
        package init(_ name: String, _ elementType: ElementType, _ shape: [Int]) {
            self.name = name
            self.elementType = elementType
            self.shape = shape
        }

        /// Bytes of the elements.
        package var byteCount: Int { shape.reduce(elementType.byteCount, *) }
    }

    /// The length, the JSON and blanks up to a multiple of 8 bytes.
    package let header: [UInt8]
    /// Bytes of the whole file.
    package let byteCount: Int
    /// First byte of each tensor, counted from the start of the file.
    private let offsets: [String: Int]

    /// Lays tensors out one after the other.
    ///
    /// - Parameters:
    ///   - entries: In the order of the data part; wide element types before narrow ones, so that
    ///     each starts at a multiple of its element's size. No name is there twice or is
    ///     `__metadata__`.
    ///   - metadata: Free-form text; left out when empty.
    package init(_ entries: [Entry], metadata: [String: String]) {
        var members: [String] = []
        if !metadata.isEmpty {
            let pairs = metadata.sorted { $0.key < $1.key }
                .map { Self.quoted($0.key) + ":" + Self.quoted($0.value) }
            members.append("\"__metadata__\":{\(pairs.joined(separator: ","))}")
        }
        var offsets: [String: Int] = [:]
        var offset = 0
        for entry in entries {
            let shape = entry.shape.map(String.init).joined(separator: ",")
            let end = offset + entry.byteCount
            members.append(
                "\(Self.quoted(entry.name)):{\"dtype\":\"\(entry.elementType.rawValue)\","
                    + "\"shape\":[\(shape)],\"data_offsets\":[\(offset),\(end)]}"
            )
            precondition(
                offsets.updateValue(offset, forKey: entry.name) == nil,
                "\(entry.name) is there twice"
            )
            offset = end
        }
        var text = Array("{\(members.joined(separator: ","))}".utf8)
        while text.count % 8 != 0 { text.append(UInt8(ascii: " ")) }
        let length = withUnsafeBytes(of: UInt64(text.count).littleEndian) { Array($0) }
        let dataStart = length.count + text.count
        header = length + text
        byteCount = dataStart + offset
        self.offsets = offsets.mapValues { dataStart + $0 }
    }

    /// First byte of a tensor, counted from the start of the file; traps where there is none.
    package func offset(of name: String) -> Int {
        guard let offset = offsets[name] else { preconditionFailure("no tensor \(name)") }
        return offset
    }

    /// Throws when the header is longer than readers take.
    ///
    /// - Parameter path: The file, for the error.
    /// - Throws: `.cannotWrite`.
    package func checkHeader(_ path: String) throws(CheckpointError) {
        guard header.count <= SafetensorsFile.longestHeader + SafetensorsHeader.lengthByteCount
        else {
            let limit = SafetensorsFile.longestHeader
            throw .cannotWrite(path: path, reason: "its header would exceed \(limit) bytes")
        }
    }

    /// A JSON string.
    private static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": quoted += "\\\(scalar)"
            case "\0"..<" ":
                let digits = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}
