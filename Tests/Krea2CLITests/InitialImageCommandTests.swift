import Foundation
import Images
import Krea2
import TestSupport
import Testing

@testable import Krea2CLI

/// `krea2 generate --init-image` as a process.
@Suite(.serialized)
struct InitialImageCommandTests {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
        try write("init.png") { x, y in [UInt8(4 * x), UInt8(4 * y), UInt8(x ^ y)] }
    }

    /// Writes a picture of 64×64 pixels.
    private func write(_ name: String, _ pixel: (Int, Int) -> [UInt8]) throws {
        let rgb = (0..<64 * 64).flatMap { pixel($0 % 64, $0 / 64) }
        let image = try PixelImage(width: 64, height: 64, rgb: rgb)
        try folder.write(PNG.encode(image, metadata: nil), to: name)
    }

    private func generate(_ arguments: String..., name: String = "a.png") throws -> CommandRun {
        try CommandRun.process(
            ["generate", "a fox", "-m", fixtureModel, "--size", "64x64", "--steps", "4"]
                + ["-s", "7", "-o", name, "--force"] + arguments,
            in: folder.path
        )
    }

    private func pixels(_ name: String = "a.png") throws -> [UInt8] {
        try PNG.decode(Array(Data(contentsOf: URL(fileURLWithPath: folder.file(name))))).rgb
    }

    private func record(_ name: String = "a.png") throws -> GenerationRecord {
        let text = try PNG.readText(path: folder.file(name)).text(GenerationRecord.keyword)
        return try GenerationRecord(json: try #require(text))
    }

    @Test func picturesToBeginWithAreRecorded() throws {
        let run = try generate("--init-image", "init.png", "--strength", "0.5")
        #expect(run.code == 0, "\(run.errors)")
        #expect(run.errors.contains("steps 4 (the last 2)"), "\(run.errors)")
        let digest = try Engine.digest(ofFile: folder.file("init.png"))
        #expect(digest.hasPrefix("sha256:") && digest.count == 71)
        let initial = try #require(record().initialImage)
        #expect(initial == .init(digest: digest, strength: 0.5))
        #expect(try record().steps == 4)
        let texts = try PNG.readText(path: folder.file("a.png")).texts
        #expect(texts.allSatisfy { !$0.value.contains("init.png") })
        // The same again, then without, and with another strength.
        #expect(try generate("--init-image", "init.png", "--strength", ".5", name: "b").code == 0)
        #expect(try pixels("b") == pixels())
        #expect(try generate(name: "b").code == 0)
        #expect(try pixels("b") != pixels())
        #expect(try record("b").initialImage == nil)
        #expect(try generate("--init-image", "init.png", name: "b").code == 0)
        #expect(try record("b").initialImage?.strength == 0.6)
    }

    @Test func masksAreGreyAndRecorded() throws {
        // As bright as 128, and below.
        try write("white.png") { _, _ in [128, 128, 128] }
        try write("black.png") { _, _ in [255, 85, 9] }
        let begin = ["--init-image", "init.png", "--strength", "0.7"]
        func run(_ arguments: [String], _ name: String) throws {
            let all = begin + arguments
            let run = try CommandRun.process(
                ["generate", "a fox", "-m", fixtureModel, "--size", "64x64", "--steps", "4"]
                    + ["-s", "7", "-o", name] + all,
                in: folder.path
            )
            #expect(run.code == 0, "\(run.errors)")
        }
        try run([], "none")
        try run(["--mask", "white.png"], "all")
        try run(["--mask", "black.png"], "nothing")
        #expect(try pixels("all") == pixels("none"))
        #expect(try pixels("nothing") != pixels("none"))
        let digest = try Engine.digest(ofFile: folder.file("black.png"))
        #expect(try record("nothing").initialImage?.maskDigest == digest)
        #expect(try record("none").initialImage?.maskDigest == nil)
    }

    @Test func otherSizesAreStretched() throws {
        let rgb = (0..<3 * 40 * 20).map { UInt8($0 * 37 % 256) }
        let small = try PixelImage(width: 40, height: 20, rgb: rgb)
        let large = try small.resized(width: 64, height: 64, filter: .lanczos)
        try folder.write(PNG.encode(small, metadata: nil), to: "small.png")
        try folder.write(PNG.encode(large, metadata: nil), to: "large.png")
        let run = try generate("--init-image", "small.png", "--mask", "small.png")
        #expect(run.code == 0, "\(run.errors)")
        #expect(run.errors.contains("krea2: small.png: 40x20 is stretched to 64x64\n"))
        let other = try generate("--init-image", "large.png", "--mask", "large.png", name: "b")
        #expect(other.code == 0 && !other.errors.contains("stretched"), "\(other.errors)")
        #expect(try pixels("b") == pixels())
    }

    @Test func refusesFilesThatAreNone() throws {
        try folder.write("no picture", to: "text.png")
        let before = try folder.names()
        for (code, arguments, words) in [
            (Int32(66), ["--init-image", "none.png"], "none.png: no such file"),
            (65, ["--init-image", "text.png"], "text.png: "),
            (66, ["--init-image", "init.png", "--mask", "none.png"], "none.png: no such file"),
            (65, ["--init-image", "init.png", "--mask", "text.png"], "text.png: "),
            (64, ["--init-image", "init.png", "--strength", "0"], "leaves none of 4 steps"),
        ] {
            let run = try CommandRun.process(
                ["generate", "a fox", "-m", fixtureModel, "--size", "64x64", "--steps", "4"]
                    + ["--quiet"] + arguments,
                in: folder.path
            )
            #expect(run.code == code, "\(run.errors)")
            #expect(run.isOneErrorLine && run.errors.contains(words), "\(run.errors)")
        }
        #expect(try folder.names() == before)
    }
}
