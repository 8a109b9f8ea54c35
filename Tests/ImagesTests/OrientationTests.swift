import TestSupport
import Testing

@testable import Images

/// EXIF data with one entry.
private func exif(
    _ order: String = "II",
    tag: UInt16 = 0x0112,
    type: UInt16 = 3,
    value: UInt16
) -> [UInt8] {
    let isLittle = order == "II"
    func bytes(_ value: UInt32, _ count: Int) -> [UInt8] {
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * UInt32($0))) }
        return isLittle ? bytes : bytes.reversed()
    }
    return Array(order.utf8) + bytes(42, 2) + bytes(8, 4) + bytes(1, 2)
        + bytes(UInt32(tag), 2) + bytes(UInt32(type), 2) + bytes(1, 4)
        + bytes(UInt32(value), 2) + [0, 0] + bytes(0, 4)
}

struct OrientationTests {
    @Test func readsAllValues() {
        for value in 0...9 {
            for order in ["II", "MM"] {
                let data = exif(order, value: UInt16(value))
                #expect(Orientation(exif: data) == Orientation(rawValue: value))
                let named = Array("Exif\0\0".utf8) + data
                #expect(Orientation(exif: named) == Orientation(rawValue: value))
            }
        }
        #expect(Orientation(exif: exif(tag: 0x0100, value: 6)) == .upright)
        #expect(Orientation(exif: exif(type: 4, value: 6)) == nil)
        #expect(Orientation(exif: exif("IM", value: 6)) == nil)
    }

    @Test func refusesDataThatEndsEarly() {
        let data = exif(value: 6)
        for count in 0..<20 {
            #expect(Orientation(exif: Array(data.prefix(count))) == nil, "\(count)")
        }
        var far = data
        for place in 4..<8 { far[place] = 0xFF }
        #expect(Orientation(exif: far) == nil)
        var many = exif(tag: 0x0100, value: 6)
        (many[8], many[9]) = (0xFF, 0xFF)
        #expect(Orientation(exif: many) == nil)
    }

    @Test func survivesAnyData() {
        var random = SeededGenerator(seed: 24)
        var found: Set<Orientation?> = []
        for _ in 0..<mutationCount {
            var data = exif(["II", "MM"].randomElement(using: &random) ?? "II", value: 6)
            data.damage(&random)
            found.insert(Orientation(exif: data))
        }
        #expect(found.contains(nil) && found.contains(.quarterTurn) && found.count > 3)
    }

    @Test func turnsAPicture() throws {
        // 1 2 3
        // 4 5 6
        let image = try picture(width: 3, [1, 2, 3, 4, 5, 6])
        let expected: [Orientation: PixelImage] = [
            .upright: image,
            .mirrored: try picture(width: 3, [3, 2, 1, 6, 5, 4]),
            .upsideDown: try picture(width: 3, [6, 5, 4, 3, 2, 1]),
            .flipped: try picture(width: 3, [4, 5, 6, 1, 2, 3]),
            .transposed: try picture(width: 2, [1, 4, 2, 5, 3, 6]),
            .quarterTurn: try picture(width: 2, [4, 1, 5, 2, 6, 3]),
            .transversed: try picture(width: 2, [6, 3, 5, 2, 4, 1]),
            .quarterTurnBack: try picture(width: 2, [3, 6, 2, 5, 1, 4]),
        ]
        for orientation in Orientation.allCases {
            #expect(try orientation.applied(to: image) == expected[orientation], "\(orientation)")
        }
    }

    @Test func saysWhereExifIsUnreadable() throws {
        let jpeg = try PictureFixture.named("jpeg-exif-6")
        let place = try #require(jpeg.file.firstRange(of: Array("Exif\0\0".utf8))).upperBound
        var file = jpeg.file
        file[place] = UInt8(ascii: "x")
        let picture = try LoadedPicture(file)
        #expect(picture.notes == ["its EXIF data cannot be read, so it is not turned"])
        #expect(picture.image.width == 11)
    }

    /// A picture whose channels are `v`, 10 v and 20 v.
    private func picture(width: Int, _ values: [UInt8]) throws -> PixelImage {
        try PixelImage(
            width: width,
            height: values.count / width,
            rgb: values.flatMap { [$0, 10 * $0, 20 * $0] }
        )
    }
}
