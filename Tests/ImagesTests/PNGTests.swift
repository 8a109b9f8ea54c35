import TestSupport
import Testing

@testable import Images

/// A picture of seeded random pixels.
func randomImage(width: Int, height: Int, seed: UInt64 = 1) throws -> PixelImage {
    var random = SeededGenerator(seed: seed)
    let rgb = (0..<width * height * 3).map { _ in UInt8.random(in: 0...255, using: &random) }
    return try PixelImage(width: width, height: height, rgb: rgb)
}

struct PNGTests {
    @Test(arguments: [(1, 1), (3, 2), (1, 70), (129, 1), (64, 48)])
    func decodesWhatItEncodes(width: Int, height: Int) throws {
        let image = try randomImage(width: width, height: height)
        let bytes = try PNG.encode(image, metadata: sampleRecord())
        #expect(try PNG.decode(bytes) == image)
    }

    @Test func decodesGradients() throws {
        // Smooth rows use the filters that noise does not.
        var rgb: [UInt8] = []
        for y in 0..<64 {
            for x in 0..<64 { rgb += [x * 4, y * 4, (x + y) * 2].map { UInt8($0) } }
        }
        let image = try PixelImage(width: 64, height: 64, rgb: rgb)
        let bytes = try PNG.encode(image, metadata: nil)
        #expect(try PNG.decode(bytes) == image)
        #expect(bytes.count < rgb.count / 10)
    }

    @Test func writesTheSameBytesAgain() throws {
        let image = try randomImage(width: 40, height: 30)
        let first = try PNG.encode(image, metadata: sampleRecord())
        #expect(try PNG.encode(image, metadata: sampleRecord()) == first)
    }

    @Test func writesChunksInOrder() throws {
        let image = try randomImage(width: 3, height: 5)
        let bytes = try PNG.encode(image, metadata: sampleRecord(prompt: "a 狐"))
        let file = try #require(PNGFile(bytes))
        let types = file.chunks.map(\.type)
        let expected = ["IHDR", "gAMA", "cHRM", "sRGB", "iTXt", "iTXt", "iTXt", "IDAT", "IEND"]
        #expect(Set(types) == Set(expected) && types.count == expected.count)
        #expect(types.first == "IHDR" && Array(types.suffix(2)) == ["IDAT", "IEND"])
        #expect(file.data("IHDR") == [bigEndian(3) + bigEndian(5) + [8, 2, 0, 0, 0]])
        #expect(file.data("sRGB") == [[0]])
        #expect(file.data("gAMA") == [bigEndian(45455)])
    }

    @Test(arguments: [(0, 1, 0), (1, 0, 0), (-1, -1, 3), (2, 2, 11), (2, 2, 13), (Int.max, 2, 6)])
    func refusesImpossiblePixels(width: Int, height: Int, byteCount: Int) {
        let rgb = [UInt8](repeating: 0, count: byteCount)
        #expect(
            throws: ImageError.invalidPixels(width: width, height: height, byteCount: byteCount)
        ) { try PixelImage(width: width, height: height, rgb: rgb) }
    }

    @Test func decodesInterlacedFiles() throws {
        let image = try randomImage(width: 11, height: 9)
        let passes = [
            (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
            (0, 1, 1, 2),
        ]
        var rows: [UInt8] = []
        for (left, top, across, down) in passes {
            for y in stride(from: top, to: 9, by: down) {
                rows.append(0)
                for x in stride(from: left, to: 11, by: across) {
                    rows += image.rgb[(y * 11 + x) * 3..<(y * 11 + x) * 3 + 3]
                }
            }
        }
        let file = PNGFile([.header(width: 11, height: 9, interlace: 1), .picture(rows), .end])
        #expect(try PNG.decode(file.bytes) == image)
    }

    @Test(arguments: [
        (UInt8(8), UInt8(0), "8-bit grey"), (16, 2, "16-bit RGB"), (8, 6, "8-bit RGB with alpha"),
        (8, 4, "8-bit grey with alpha"),
    ])
    func refusesOtherKindsOfPixels(bitDepth: UInt8, colorType: UInt8, name: String) {
        let header = PNGFile.Chunk.header(
            width: 1,
            height: 1,
            bitDepth: bitDepth,
            colorType: colorType
        )
        let bytes = PNGFile([header, .somePicture, .end]).bytes
        #expect(throws: ImageError.unsupported(found: name, expected: "8-bit RGB")) {
            try PNG.decode(bytes)
        }
    }

    @Test func refusesHugePicturesBeforeReservingMemory() {
        let header = PNGFile.Chunk.header(width: 16_384, height: 16_384)
        let bytes = PNGFile([header, .somePicture, .end]).bytes
        let error = #expect(throws: ImageError.self) { try PNG.decode(bytes) }
        #expect(error?.description.hasPrefix("the PNG file is 16384 x 16384 pixels large") == true)
    }

    @Test func refusesDamagedPictures() throws {
        let bytes = try PNG.encode(randomImage(width: 20, height: 20), metadata: nil)
        for count in stride(from: 0, to: bytes.count, by: 7) {
            #expect(throws: ImageError.self) { try PNG.decode(Array(bytes.prefix(count))) }
        }
        var file = try #require(PNGFile(bytes))
        let index = try #require(file.chunks.firstIndex { $0.type == "IDAT" })
        file.chunks[index].data.removeLast(300)
        #expect(throws: ImageError.self) { try PNG.decode(file.bytes) }

        var wrong = bytes
        wrong[bytes.count - 13] ^= 1
        #expect(throws: ImageError.damaged(path: nil, reason: "IDAT: CRC error")) {
            try PNG.decode(wrong)
        }

        var other = bytes
        let place = try #require(bytes.firstRange(of: Array("sRGB".utf8))).upperBound
        other[place] ^= 1
        #expect(throws: ImageError.damaged(path: nil, reason: "sRGB: CRC error")) {
            try PNG.decode(other)
        }
    }
}
