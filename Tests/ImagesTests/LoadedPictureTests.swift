import TestSupport
import Testing

@testable import Images

/// Largest difference of two pictures' values; nil where their sizes differ.
func largestDifference(_ a: PixelImage, _ b: PixelImage) -> Int? {
    guard a.width == b.width, a.height == b.height else { return nil }
    return zip(a.rgb, b.rgb).map { abs(Int($0) - Int($1)) }.max()
}

/// A JPEG file that ends where its picture data would start.
private func jpegStart(width: UInt16, height: UInt16) -> [UInt8] {
    let sides = [height, width].flatMap { [UInt8(truncatingIfNeeded: $0 >> 8), UInt8($0 & 0xFF)] }
    let frame: [UInt8] = [0xFF, 0xC0, 0, 11, 8] + sides + [1, 1, 0x11, 0]
    return [0xFF, 0xD8] + frame + [0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0]
}

/// A JPEG file of one grey block whose three components are stored in turn, again and again.
private func greyJPEG(scanCount: Int) -> [UInt8] {
    let quantization = [0xFF, 0xDB, 0, 67, 0] + [UInt8](repeating: 1, count: 64)
    let components: [UInt8] = [1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0]
    let frame: [UInt8] = [0xFF, 0xC0, 0, 17, 8, 0, 8, 0, 8, 3] + components
    // Codes of one bit for "no difference" and "no coefficients".
    let tables = [UInt8(0x00), 0x10].flatMap { table in
        [0xFF, 0xC4, 0, 20, table, 1] + [UInt8](repeating: 0, count: 16)
    }
    var file: [UInt8] = [0xFF, 0xD8] + quantization + frame + tables
    for index in 0..<scanCount {
        file += [0xFF, 0xDA, 0, 8, 1, UInt8(index % 3 + 1), 0, 0, 63, 0, 0b0011_1111]
    }
    return file + [0xFF, 0xD9]
}

/// A WebP file with an extended header alone.
private func webpStart(width: Int, height: Int) -> [UInt8] {
    let sides = [width - 1, height - 1].flatMap { side in
        [0, 8, 16].map { UInt8(truncatingIfNeeded: side >> $0) }
    }
    let chunk = Array("WEBPVP8X".utf8) + [10, 0, 0, 0, 0, 0, 0, 0] + sides
    return Array("RIFF".utf8) + [UInt8(chunk.count), 0, 0, 0] + chunk
}

struct LoadedPictureTests {
    @Test(arguments: PictureFixture.readable)
    func agreesWithPIL(_ fixture: PictureFixture) throws {
        let picture = try LoadedPicture(fixture.file)
        let expected = try #require(fixture.image)
        #expect(picture.format == fixture.format)
        #expect(largestDifference(picture.image, expected) == 0)
    }

    @Test func hasFilesOfAllKinds() {
        // 26 kinds of PNG pixels, each interlaced and not, and eight orientations.
        #expect(PictureFixture.readable.count { $0.name.hasPrefix("png-") } == 52 + 2 + 8)
        #expect(PictureFixture.readable.count { $0.name.hasPrefix("jpeg-") } == 10 + 8)
        #expect(PictureFixture.readable.count { $0.name.hasPrefix("webp-") } == 5 + 8)
    }

    @Test func notesWhatItLeavesOut() throws {
        let profile = ["its colour profile is not applied; its colours are taken as sRGB"]
        let inks = ["its inks are converted without a colour profile"]
        let animation = ["it is animated; only its first picture is used"]
        for fixture in PictureFixture.readable {
            let expected =
                switch fixture.name {
                case "jpeg-icc", "png-icc", "webp-icc": profile
                case "jpeg-cmyk", "jpeg-ycck": inks
                case "png-animation": animation
                default: [String]()
                }
            #expect(try LoadedPicture(fixture.file).notes == expected, "\(fixture.name)")
        }
    }

    @Test(arguments: PictureFixture.readable)
    func refusesFilesThatEndEarly(_ fixture: PictureFixture) throws {
        for count in 0..<fixture.file.count {
            let start = Array(fixture.file.prefix(count))
            let error = #expect(throws: ImageError.self) { try LoadedPicture(start) }
            switch error {
            case .damaged(nil, fixture.format, _): break
            case .unknownFormat(nil, nil): #expect(count < 12)
            default: Issue.record("\(count) bytes: \(String(describing: error))")
            }
        }
    }

    @Test func goesByContent() throws {
        let folder = try TemporaryFolder()
        let fixture = try PictureFixture.named("webp-lossy")
        let path = try folder.write(fixture.file, to: "a.png")
        let picture = try LoadedPicture(path: path)
        #expect(picture.format == .webp)
        #expect(picture.image == fixture.image)
        #expect(picture.image.width == 37)
    }

    @Test func namesOtherFormats() throws {
        let heic: [UInt8] = [0, 0, 0, 24] + Array("ftypheic".utf8) + [0, 0, 0, 0]
        let avif: [UInt8] = [0, 0, 0, 24] + Array("ftypavif".utf8) + [0, 0, 0, 0]
        let files: [(bytes: [UInt8], name: String?)] = [
            (heic, "HEIC"), (avif, "AVIF"), (try PictureFixture.named("gif").file, "GIF"),
            (try PictureFixture.named("tiff").file, "TIFF"), ([0xFF, 0x0A, 0, 0], "JPEG XL"),
            (Array("BM12345678901234".utf8), "BMP"), (Array("some text".utf8), nil), ([], nil),
        ]
        for (bytes, name) in files {
            #expect(throws: ImageError.unknownFormat(path: "a.png", found: name)) {
                try LoadedPicture(bytes, path: "a.png")
            }
        }
        #expect(
            ImageError.unknownFormat(path: "a.png", found: "HEIC").description
                == "a.png: a HEIC file, expected PNG, JPEG or WebP; convert it first"
        )
    }

    @Test func refusesAnimatedWebP() throws {
        let file = try PictureFixture.named("webp-animation").file
        let error = #expect(throws: ImageError.self) { try LoadedPicture(file, path: "a.webp") }
        #expect(
            error?.description
                == "a.webp: the WebP file is an animation, expected a single picture"
        )
    }

    @Test func refusesHugePicturesBeforeReservingMemory() {
        let header = PNGFile.Chunk.header(width: 16_384, height: 16_384)
        let wide = PNGFile.Chunk.header(width: 0xFFFF_FFFF, height: 0xFFFF_FFFF)
        let files = [
            PNGFile([header, .somePicture, .end]).bytes, PNGFile([wide, .end]).bytes,
            jpegStart(width: 16_384, height: 16_384), jpegStart(width: 65_535, height: 1),
            webpStart(width: 16_384, height: 16_384), webpStart(width: 1 << 24, height: 1),
        ]
        for file in files {
            let error = #expect(throws: ImageError.self) { try LoadedPicture(file) }
            guard case .unsupported(nil, _, let found, _) = error else {
                Issue.record("\(String(describing: error))")
                continue
            }
            #expect(found.hasSuffix("pixels large"))
        }
        #expect(
            throws: ImageError.unsupported(
                format: .jpeg,
                found: "8125 x 8001 pixels large",
                expected: "sides up to 16384 and at most 65000000 pixels"
            )
        ) { try LoadedPicture(jpegStart(width: 8125, height: 8001)) }
        // 65 megapixels are allowed, so these have data missing.
        let limits = [jpegStart(width: 8125, height: 8000), jpegStart(width: 16_384, height: 3967)]
        for file in limits {
            let error = #expect(throws: ImageError.self) { try LoadedPicture(file) }
            guard case .damaged(nil, .jpeg, _) = error else {
                Issue.record("\(String(describing: error))")
                continue
            }
        }
    }

    @Test func refusesLongFiles() throws {
        let fixture = try PictureFixture.named("png-2-8").file
        let rest = [UInt8](repeating: 0, count: LoadedPicture.largestByteCount)
        let error = #expect(throws: ImageError.self) { try LoadedPicture(fixture + rest) }
        let expected = "bytes long, expected at most 75000000"
        #expect(error?.description.hasSuffix(expected) == true)
    }

    @Test(arguments: [(0, 1), (1, 0)])
    func refusesPicturesWithoutPixels(width: UInt32, height: UInt32) {
        let header = PNGFile.Chunk.header(width: width, height: height)
        let png = PNGFile([header, .somePicture, .end]).bytes
        let reason = "a picture of \(width) x \(height) pixels"
        #expect(throws: ImageError.damaged(path: nil, format: .png, reason: reason)) {
            try LoadedPicture(png)
        }
        let jpeg = jpegStart(width: UInt16(width), height: UInt16(height))
        let error = #expect(throws: ImageError.self) { try LoadedPicture(jpeg) }
        guard case .damaged(nil, .jpeg, _) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    @Test func refusesSizesThatTheDataDoesNotHave() throws {
        // The frame header's height, one row less and one block more.
        let jpeg = try PictureFixture.named("jpeg-444").file
        let frame = try #require(jpeg.firstRange(of: [0xFF, 0xC0, 0, 17])).upperBound
        #expect(jpeg[frame + 2] == 29)
        var larger = jpeg
        larger[frame + 2] = 29 + 8
        #expect(throws: ImageError.self) { try LoadedPicture(larger) }

        let webp = try PictureFixture.named("webp-icc").file
        let extended = try #require(webp.firstRange(of: Array("VP8X".utf8))).upperBound
        #expect(webp[extended + 8] == 36)
        for width: UInt8 in [35, 37, 255] {
            var other = webp
            other[extended + 8] = width
            #expect(throws: ImageError.self) { try LoadedPicture(other) }
        }

        let png = try PictureFixture.named("png-6-16-interlaced").file
        var file = try #require(PNGFile(png))
        file.chunks[0] = .header(width: 12, height: 9, bitDepth: 16, colorType: 6, interlace: 1)
        #expect(throws: ImageError.self) { try LoadedPicture(file.bytes) }
    }

    @Test func refusesJPEGFilesOfManyScans() throws {
        let grey = [UInt8](repeating: 128, count: 8 * 8 * 3)
        for count in [3, 64] {
            #expect(try LoadedPicture(greyJPEG(scanCount: count)).image.rgb == grey)
        }
        let error = ImageError.damaged(path: nil, format: .jpeg, reason: "more than 64 scans")
        #expect(throws: error) { try LoadedPicture(greyJPEG(scanCount: 65)) }
    }

    @Test func passesOverBytesBetweenJPEGMarkers() throws {
        // libjpeg only warns of these, and cameras write them. The first segment ends at 20.
        let fixture = try PictureFixture.named("jpeg-444")
        let file = fixture.file.prefix(20) + [0, 1, 2, 0xFF, 0, 0xFF] + fixture.file.dropFirst(20)
        #expect(try LoadedPicture(Array(file)).image == fixture.image)
    }

    @Test func namesTheFile() throws {
        let folder = try TemporaryFolder()
        let jpeg = try PictureFixture.named("jpeg-444").file
        let path = try folder.write(Array(jpeg.dropLast(9)), to: "a.jpg")
        #expect(
            throws: ImageError.damaged(
                path: path,
                format: .jpeg,
                reason: "Premature end of JPEG file"
            )
        ) { try LoadedPicture(path: path) }
        #expect(throws: ImageError.missingFile(path: folder.file("b.jpg"))) {
            try LoadedPicture(path: folder.file("b.jpg"))
        }
    }

    @Test func tellsTheLibraries() {
        let versions = PictureFormat.libraryVersions
        #expect(versions.keys.sorted() == ["libjpeg-turbo", "libpng", "libwebp"])
        for version in versions.values {
            #expect(version.split(separator: ".").count == 3, "\(version)")
        }
    }
}
