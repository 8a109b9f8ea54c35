import Images
import TestSupport
import Testing

@testable import References

/// Pictures and what becomes of them, by PIL.
private struct Fixture {
    let bytes: FixtureBytes

    init() throws {
        bytes = try FixtureBytes("pictures/preparation.safetensors")
    }

    /// The picture in a tensor `[height, width, 3]`.
    func image(_ name: String) throws -> PixelImage {
        let shape = try bytes.shape(name)
        return try PixelImage(width: shape[1], height: shape[0], rgb: bytes.bytes(name))
    }

    /// The digest in hexadecimal digits.
    var digest: String {
        get throws {
            try bytes.bytes("digest").map { byte in
                let digits = String(byte, radix: 16)
                return digits.count == 1 ? "0" + digits : digits
            }.joined()
        }
    }
}

/// The 64 × 64 tiles of a picture, and what is left of rows and columns.
private func tiles(_ image: PixelImage) -> [[UInt8]] {
    stride(from: 0, to: image.height, by: 64).flatMap { top in
        stride(from: 0, to: image.width, by: 64).map { left in
            let right = min(left + 64, image.width)
            return (top..<min(top + 64, image.height)).flatMap { row in
                image.rgb[(row * image.width + left) * 3..<(row * image.width + right) * 3]
            }
        }
    }
}

struct PreparedReferenceTests {
    @Test(arguments: Treatment.allCases)
    func agreesWithPIL(_ treatment: Treatment) throws {
        let fixture = try Fixture()
        let reference = try PreparedReference(
            fixture.image("source"),
            side: 192,
            treatment: treatment
        )
        #expect(try reference.image == fixture.image(treatment.rawValue))
        #expect(try reference.contentID == "pixels-sha256:" + fixture.digest)
    }

    @Test func namesContentByPixelsAndSides() throws {
        let source = try Fixture().image("source")
        func id(_ image: PixelImage) throws -> String {
            try PreparedReference(image, side: 192, treatment: .untreated).contentID
        }
        let sourceID = try id(source)
        var rgb = source.rgb
        rgb[rgb.count - 1] ^= 1
        let others = [
            try PixelImage(width: source.width, height: source.height, rgb: rgb),
            try PixelImage(width: source.height, height: source.width, rgb: source.rgb),
        ]
        for other in others { #expect(try id(other) != sourceID) }
        #expect(try id(Fixture().image("source")) == sourceID)
    }

    @Test func onlyChangesTilesPlaces() throws {
        let source = try Fixture().image("source").resized(width: 480, height: 224)
        let shuffled = try Treatment.tiles.applied(to: source, seed: 5)
        #expect(shuffled != source)
        #expect(try Treatment.tiles.applied(to: source, seed: 5) == shuffled)
        #expect(try Treatment.tiles.applied(to: source, seed: 6) != shuffled)
        let order: ([UInt8], [UInt8]) -> Bool = { $0.lexicographicallyPrecedes($1) }
        #expect(tiles(shuffled).sorted(by: order) == tiles(source).sorted(by: order))
        // One tile, and one with what is left beside it.
        for width in [64, 96] {
            let small = try source.resized(width: width, height: 64)
            #expect(try Treatment.tiles.applied(to: small, seed: 5) == small)
        }
    }

    @Test func keepsSizes() throws {
        for (width, height) in [(28, 28), (30, 500), (700, 28), (64, 2000), (300, 200)] {
            let rgb = (0..<width * height * 3).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
            let image = try PixelImage(width: width, height: height, rgb: rgb)
            let size = try ReferenceSize(image, side: 192)
            for treatment in Treatment.allCases {
                let reference = try PreparedReference(image, side: 192, treatment: treatment)
                #expect(reference.image.width == size.width)
                #expect(reference.image.height == size.height)
            }
        }
    }
}

struct ReferenceSizeTests {
    /// Agrees with transformers for pictures that are not too narrow.
    @Test func agreesWithSmartResize() throws {
        let sizes = try FixtureBytes("pictures/preparation.safetensors").integers("sizes")
        #expect(sizes.count == 400 * 5)
        for row in stride(from: 0, to: sizes.count, by: 5) {
            let (width, height, side) = (sizes[row], sizes[row + 1], sizes[row + 2])
            let size = try ReferenceSize(width: width, height: height, side: side)
            #expect([size.width, size.height] == Array(sizes[row + 3...row + 4]))
        }
    }

    @Test(arguments: [
        (28, 28, 384, 64, 64), (64, 64, 384, 64, 64), (47, 95, 384, 64, 128),
        (384, 384, 384, 384, 384), (383, 383, 384, 384, 384), (2000, 2000, 384, 384, 384),
        (4000, 3000, 384, 416, 320), (1000, 100, 192, 576, 64), (16_384, 28, 384, 2304, 64),
        (28, 16_384, 192, 64, 576), (16_384, 3967, 768, 1536, 352), (28, 4000, 768, 64, 9152),
    ])
    func isAsExpected(width: Int, height: Int, side: Int, columns: Int, rows: Int) throws {
        let size = try ReferenceSize(width: width, height: height, side: side)
        #expect([size.width, size.height] == [columns, rows])
    }

    @Test func keepsItsBounds() throws {
        for side in [192, 256, 384, 500, 768] {
            for width in stride(from: 28, through: 16_384, by: 97) {
                for height in [28, 31, 64, 100, 385, 1000, 3967] {
                    let size = try ReferenceSize(width: width, height: height, side: side)
                    #expect(size.width * size.height <= side * side)
                    #expect(size.width % 32 == 0 && size.height % 32 == 0)
                    #expect(min(size.width, size.height) >= 64)
                    let turned = try ReferenceSize(width: height, height: width, side: side)
                    #expect(turned.width == size.height && turned.height == size.width)
                }
            }
        }
    }

    @Test func refusesSmallPictures() throws {
        let error = #expect(throws: ImageError.self) {
            try ReferenceSize(width: 100, height: 27, side: 384)
        }
        #expect(
            error?.description
                == "a picture of 100 x 27 pixels, expected sides of at least 28 pixels"
        )
    }
}
