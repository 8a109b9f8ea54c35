/// Which byte of a number comes first.
enum ByteOrder {
    /// The highest.
    case bigEndian
    /// The lowest.
    case littleEndian
}

extension [UInt8] {
    /// Reads an unsigned number; nil where the bytes end before it does.
    ///
    /// - Parameters:
    ///   - offset: Where it starts, 0 or more.
    ///   - byteCount: 1 … 4.
    ///   - order: Which byte comes first.
    /// - Returns: The number.
    func number(at offset: Int, byteCount: Int, _ order: ByteOrder) -> Int? {
        guard offset <= count - byteCount else { return nil }
        var number = 0
        for index in 0..<byteCount {
            let place = order == .bigEndian ? index : byteCount - 1 - index
            number = number << 8 | Int(self[offset + place])
        }
        return number
    }

    /// Whether the four letters of a chunk's name stand at `offset`, 0 or more.
    func hasName(_ name: String, at offset: Int) -> Bool {
        offset <= count - 4 && self[offset..<offset + 4].elementsEqual(name.utf8)
    }

    /// Finds the next marker of a JPEG file; nil where the bytes end before it does.
    ///
    /// Markers are bytes other than 255 after one or more of 255; what comes before is passed over.
    ///
    /// - Parameter position: Where to search from, at most `count`; then the byte after the marker.
    /// - Returns: The marker.
    func marker(from position: inout Int) -> Int? {
        guard
            let start = self[position...].firstIndex(of: 0xFF),
            let place = self[start...].firstIndex(where: { $0 != 0xFF })
        else { return nil }
        position = place + 1
        return Int(self[place])
    }
}
