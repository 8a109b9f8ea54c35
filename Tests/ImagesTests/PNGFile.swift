/// A PNG file taken apart, to look at and to damage with care.
struct PNGFile: Equatable {
    /// One chunk, without length and CRC.
    struct Chunk: Equatable {
        var type: String
        var data: [UInt8]
    }

    var chunks: [Chunk]

    init(_ chunks: [Chunk]) {
        self.chunks = chunks
    }

    /// Takes sound bytes apart; nil for others.
    init?(_ bytes: [UInt8]) {
        guard bytes.starts(with: [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]) else {
            return nil
        }
        chunks = []
        var position = 8
        while position < bytes.count {
            guard position + 12 <= bytes.count else { return nil }
            let length = Int(bigEndian(bytes[position..<position + 4]))
            let end = position + 8 + length
            guard
                end + 4 <= bytes.count,
                crc32(bytes[position + 4..<end]) == bigEndian(bytes[end..<end + 4])
            else { return nil }
            let type = String(decoding: bytes[position + 4..<position + 8], as: UTF8.self)
            chunks.append(Chunk(type: type, data: Array(bytes[position + 8..<end])))
            position = end + 4
        }
    }

    /// The bytes of the file, with right lengths and CRCs.
    var bytes: [UInt8] {
        [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A] + chunks.flatMap(\.bytes)
    }

    /// The data of all chunks of one type.
    func data(_ type: String) -> [[UInt8]] {
        chunks.filter { $0.type == type }.map(\.data)
    }
}

extension PNGFile.Chunk {
    /// The chunk as stored.
    var bytes: [UInt8] {
        let body = Array(type.utf8) + data
        return bigEndian(UInt32(data.count)) + body + bigEndian(crc32(body))
    }

    static func header(
        width: UInt32,
        height: UInt32,
        bitDepth: UInt8 = 8,
        colorType: UInt8 = 2,
        interlace: UInt8 = 0
    ) -> Self {
        let data =
            bigEndian(width) + bigEndian(height) + [bitDepth, colorType, 0, 0, interlace]
        return Self(type: "IHDR", data: data)
    }

    static let end = Self(type: "IEND", data: [])

    /// Any picture data will do where only texts are read.
    static let somePicture = Self(type: "IDAT", data: [1, 2, 3])

    static func picture(_ rows: [UInt8]) -> Self {
        Self(type: "IDAT", data: zlibStored(rows))
    }

    static func text(_ keyword: String, _ text: [UInt8]) -> Self {
        Self(type: "tEXt", data: Array(keyword.utf8) + [0] + text)
    }

    static func compressedText(_ keyword: String, zlib: [UInt8]) -> Self {
        Self(type: "zTXt", data: Array(keyword.utf8) + [0, 0] + zlib)
    }

    static func internationalText(
        _ keyword: String,
        _ text: [UInt8],
        isCompressed: Bool = false
    ) -> Self {
        let flags: [UInt8] = [0, isCompressed ? 1 : 0, 0]
        let language = Array("de".utf8) + [0] + Array("Schlüssel".utf8) + [0]
        return Self(type: "iTXt", data: Array(keyword.utf8) + flags + language + text)
    }
}

/// Splits a number into bytes, highest first.
func bigEndian(_ value: UInt32) -> [UInt8] {
    [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) }
}

/// Joins four bytes, highest first.
func bigEndian(_ bytes: some Sequence<UInt8>) -> UInt32 {
    bytes.reduce(0) { $0 << 8 | UInt32($1) }
}

private let crcTable: [UInt32] = (0..<256).map { index in
    (0..<8).reduce(UInt32(index)) { value, _ in
        value & 1 == 1 ? 0xEDB8_8320 ^ (value >> 1) : value >> 1
    }
}

/// The CRC of a PNG chunk's type and data.
func crc32(_ bytes: some Sequence<UInt8>) -> UInt32 {
    ~bytes.reduce(~UInt32(0)) { crcTable[Int(UInt8(truncatingIfNeeded: $0) ^ $1)] ^ ($0 >> 8) }
}

/// A zlib stream that holds the bytes uncompressed.
func zlibStored(_ bytes: [UInt8]) -> [UInt8] {
    var stream: [UInt8] = [0x78, 0x01]
    var a: UInt32 = 1
    var b: UInt32 = 0
    for byte in bytes {
        a = (a + UInt32(byte)) % 65521
        b = (b + a) % 65521
    }
    var rest = bytes[...]
    repeat {
        let part = rest.prefix(65535)
        rest = rest.dropFirst(65535)
        let length = UInt16(part.count)
        stream.append(rest.isEmpty ? 1 : 0)
        for value in [length, ~length] {
            stream += [UInt8(truncatingIfNeeded: value), UInt8(truncatingIfNeeded: value >> 8)]
        }
        stream += part
    } while !rest.isEmpty
    return stream + bigEndian(b << 16 | a)
}

/// A zlib stream of 1/159 the length of the text it holds: the letter A, `count` times 258 times,
/// and once more.
func zlibBomb(count: Int) -> [UInt8] {
    var stream: [UInt8] = [0x78, 0x9C]
    var bits: UInt32 = 0
    var bitCount: UInt32 = 0
    /// Appends bits, the first one lowest.
    func append(_ value: UInt32, _ length: UInt32) {
        bits |= value << bitCount
        bitCount += length
        while bitCount >= 8 {
            stream.append(UInt8(truncatingIfNeeded: bits))
            bits >>= 8
            bitCount -= 8
        }
    }
    append(1, 1)  // last block
    append(1, 2)  // fixed Huffman codes
    append(0b1000_1110, 8)  // literal 65, code 0x30 + 65 = 0b01110001 from its highest bit
    for _ in 0..<count {
        append(0b1010_0011, 8)  // length 258, code 0b11000101 from its highest bit
        append(0, 5)  // distance 1
    }
    append(0, 7)  // end of block
    append(0, 7)  // to the next byte
    var a: UInt64 = 1
    var b: UInt64 = 0
    let length = UInt64(count * 258 + 1)
    a = (1 + 65 * length) % 65521
    b = (length + 65 * (length * (length + 1) / 2 % 65521)) % 65521
    return stream + bigEndian(UInt32(b << 16 | a))
}
