import Foundation
import Images
import TestSupport
import Testing

/// Small files that claim to be huge pictures, through every command that reads pictures.
@Suite(.serialized)
struct PictureBombTests {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
    }

    private static func bigEndian(_ number: UInt32) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: number >> $0) }
    }

    /// A picture of one pixel that says it has others.
    private static func png(_ width: UInt32, _ height: UInt32) throws -> [UInt8] {
        let pixel = try PixelImage(width: 1, height: 1, rgb: [1, 2, 3])
        var bytes = try PNG.encode(pixel, metadata: nil)
        bytes.replaceSubrange(16..<24, with: bigEndian(width) + bigEndian(height))
        return bytes
    }

    /// A frame and a scan without tables and data.
    private static func jpeg(_ width: UInt32, _ height: UInt32) -> [UInt8] {
        [0xFF, 0xD8, 0xFF, 0xC0, 0, 11, 8] + bigEndian(height)[2...] + bigEndian(width)[2...]
            + [1, 1, 0x11, 0, 0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0, 0x55, 0xFF, 0xD9]
    }

    /// A lossless picture that ends with its header.
    private static func webp(_ width: UInt32, _ height: UInt32) -> [UInt8] {
        let sides = bigEndian((width - 1) | (height - 1) << 14)
        let data = [0x2F] + sides.reversed() + [0, 0, 0]
        return Array("RIFF".utf8) + [UInt8(12 + data.count), 0, 0, 0] + Array("WEBPVP8L".utf8)
            + [UInt8(data.count), 0, 0, 0] + data
    }

    private static let bombs:
        [(name: String, says: String, bytes: @Sendable () throws -> [UInt8])] =
            [
                ("a.png", "8100 x 8100 pixels large", { try png(8100, 8100) }),
                ("b.png", "2147483648 x 2147483648 pixels large", { try png(1 << 31, 1 << 31) }),
                ("c.png", "not a valid PNG file", { try png(8000, 8000) }),
                ("d.jpg", "65535 x 65535 pixels large", { jpeg(65535, 65535) }),
                ("e.jpg", "not a valid JPEG file", { jpeg(8000, 8000) }),
                ("f.webp", "16384 x 16384 pixels large", { webp(16384, 16384) }),
                ("g.webp", "not a valid WebP file", { webp(8000, 8000) }),
            ]

    private static let commands = [
        "generate x --size 64x64 --style-reference", "generate x --size 64x64 --init-image",
        "generate x --size 64x64 --init-image sound.png --mask", "style encode",
        "moodboard create -o x.k2board",
    ]

    @Test(arguments: bombs.indices, commands)
    func isRefusedInOneLine(_ index: Int, command: String) throws {
        let (name, says, bytes) = Self.bombs[index]
        try folder.write(bytes(), to: name)
        let sound = try PixelImage(
            width: 64,
            height: 64,
            rgb: .init(repeating: 9, count: 64 * 64 * 3)
        )
        try folder.write(PNG.encode(sound, metadata: nil), to: "sound.png")
        let arguments = command.split(separator: " ").map(String.init)
        let run = try CommandRun.process(arguments + [name, "-m", fixtureModel], in: folder.path)
        #expect(run.code == 65, "\(run.errors)")
        #expect(
            run.errors.contains("krea2: \(name): ") && run.errors.contains(says),
            "\(run.errors)"
        )
        #expect(run.errors.split(separator: "\n").count == 1, "\(run.errors)")
        #expect(try folder.names() == [name, "sound.png"])
    }
}
