import Checkpoints
import Foundation
import Images
import Krea2
import TestSupport
import Testing

@testable import Krea2CLI

/// References and moodboards through the built command, with a small model.
@Suite(.serialized)
struct ReferenceCommandTests {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
        for (index, name) in ["a.png", "b.png", "c.png"].enumerated() {
            let image = try PixelImage(
                width: 96,
                height: 64,
                rgb: (0..<3 * 96 * 64).map { UInt8(truncatingIfNeeded: $0 * (7 + index) / 5) }
            )
            try folder.write(PNG.encode(image, metadata: nil), to: name)
        }
    }

    private func run(
        _ arguments: [String],
        environment: [String: String] = ["KREA2_CACHE": "off"]
    ) throws -> CommandRun {
        try CommandRun.process(arguments, in: folder.path, environment: environment)
    }

    private func encode(_ arguments: String...) throws -> CommandRun {
        try run([arguments[0], arguments[1], "-m", fixtureModel] + arguments.dropFirst(2))
    }

    private func generate(
        _ arguments: String...,
        environment: [String: String] = ["KREA2_CACHE": "off"]
    ) throws -> CommandRun {
        try run(
            ["generate", "a fox", "-m", fixtureModel, "--size", "64x64", "--steps", "2", "-s", "7"]
                + ["-o", "o.png", "--force"] + arguments,
            environment: environment
        )
    }

    /// The pixels that a command line makes.
    private func pixels(
        _ arguments: String...,
        environment: [String: String] = ["KREA2_CACHE": "off"]
    ) throws -> [UInt8] {
        let base = [
            "generate", "a fox", "-m", fixtureModel, "--size", "64x64", "--steps", "2", "-s", "7",
            "-o", "o.png", "--force",
        ]
        let run = try run(base + arguments, environment: environment)
        #expect(run.code == 0, "\(run.errors)")
        return try PNG.decode(bytes("o.png")).rgb
    }

    private func bytes(_ name: String) throws -> [UInt8] {
        Array(try Data(contentsOf: URL(fileURLWithPath: folder.file(name))))
    }

    private func record() throws -> GenerationRecord {
        let text = try PNG.readText(path: folder.file("o.png")).text(GenerationRecord.keyword)
        return try GenerationRecord(json: try #require(text))
    }

    // MARK: Encoding

    @Test func aStoredReferenceIsThePicture() throws {
        let run = try encode("style", "encode", "a.png", "-o", "x.k2ref")
        #expect(run.code == 0 && run.lines == ["x.k2ref"], "\(run.errors)")
        let (base, direct) = (try pixels(), try pixels("--style-reference", "a.png:1"))
        #expect(direct != base)
        #expect(try pixels("--style-reference", "x.k2ref:1") == direct)
        #expect(try pixels("--style-reference", "x.k2ref:0") == base)
        #expect(
            try pixels("--style-reference", "x.k2ref:1", "--style-reference", "a.png:-1") == base
        )
        // Nothing of the picture or its name is in the file.
        let file = String(decoding: try bytes("x.k2ref"), as: UTF8.self)
        #expect(!file.contains("a.png") && !file.contains(folder.path))
    }

    @Test func severalPicturesGoToAFolder() throws {
        try FileManager.default.createDirectory(
            atPath: folder.file("out"),
            withIntermediateDirectories: false
        )
        let run = try encode("style", "encode", "a.png", "b.png", "-o", "out", "--json")
        #expect(run.code == 0, "\(run.errors)")
        let lines = try run.lines.map {
            try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any]
        }
        #expect(lines.map { $0?["path"] as? String } == ["out/a.k2ref", "out/b.k2ref"])
        #expect(
            lines.allSatisfy { ($0?["content"] as? String)?.hasPrefix("pixels-sha256:") == true }
        )
        #expect(try encode("style", "encode", "c.png").lines == ["c.k2ref"])
        #expect(try folder.names().contains("c.k2ref"))
    }

    @Test func aMoodboardOfOnePictureIsThatPicture() throws {
        let run = try encode("moodboard", "create", "a.png", "a.png", "-o", "m.k2board")
        #expect(run.code == 0 && run.lines == ["m.k2board"], "\(run.errors)")
        let board = try pixels("--moodboard", "m.k2board:0.8")
        #expect(try pixels("--style-reference", "a.png:0.8,side=256") == board)
        #expect(try pixels("--moodboard", "m.k2board:0") == pixels())
    }

    @Test func aFolderIsAMoodboard() throws {
        try FileManager.default.createDirectory(
            atPath: folder.file("d"),
            withIntermediateDirectories: false
        )
        for name in ["a.png", "b.png"] { try folder.write(bytes(name), to: "d/" + name) }
        try folder.write("no picture", to: "d/notes.txt")
        try folder.write(bytes("c.png"), to: "d/.hidden.png")
        _ = try encode("moodboard", "create", "b.png", "a.png", "-o", "m.k2board")
        let board = try pixels("--moodboard", "m.k2board:1")
        #expect(try pixels("--moodboard", "d:1") == board)
        let record = try record()
        #expect(record.moodboards?.first?.pictures == 2)
        #expect(record.moodboards?.first?.content.hasPrefix("pictures-sha256:") == true)
        #expect(record.references == nil && record.referenceMode == "attention")
    }

    // MARK: Records and inspection

    @Test func theRecordNamesContentAndNoPath() throws {
        _ = try encode("style", "encode", "a.png", "-o", "secret-name.k2ref", "--prep", "tiles")
        _ = try pixels(
            "--style-reference",
            "secret-name.k2ref:-0.5,window=late",
            "--style-reference",
            "b.png:1,side=192,blocks=0-1,taps=1/0.5/1",
            "--style-reference",
            "c.png:0"
        )
        let references = try #require(try record().references)
        #expect(references.map(\.strength) == [-0.5, 1])
        #expect(
            references.map(\.prep) == ["tiles", "none"] && references.map(\.side) == [384, 192]
        )
        #expect(references[0].window == [0, 0.8] && references[1].blocks == [0, 1])
        #expect(references[1].taps == [1, 0.5, 1] && references[0].taps == nil)
        #expect(references[0].encoder == nil)
        let text = try record().json()
        #expect(!text.contains("secret") && !text.contains("png") && !text.contains(folder.path))
        _ = try pixels("--style-reference", "a.png:0")
        #expect(try record().references == nil && record().referenceMode == nil)
    }

    /// All that the record says, and the pictures that it means, give the same pixels.
    @Test func theRecordMakesThePictureAgain() throws {
        var files: [String: String] = [:]
        for name in ["a.png", "b.png"] {
            let run = try encode("style", "encode", name, "-o", name + ".k2ref", "--json")
            files[try content(run)] = name
        }
        let board = try encode("moodboard", "create", "a.png", "c.png", "-o", "m.k2board", "--json")
        _ = try pixels(
            "--style-reference",
            "a.png:0.45,prep=tiles,side=256,window=0.1-0.9",
            "--style-reference",
            "b.png.k2ref:-0.3,blocks=0-1,taps=1/0.5/1",
            "--moodboard",
            "m.k2board:0.7",
            "--reference-mode",
            "exact"
        )
        let (first, record) = (try bytes("o.png"), try record())
        var arguments = [
            "generate", record.prompt, "-m", fixtureModel, "-o", "again.png",
            "--size", "\(record.width)x\(record.height)", "--steps", "\(record.steps)",
            "-s", "\(record.seed)", "--cfg", "\(record.guidance)", "--mu", "\(record.shift)",
            "--reference-mode", try #require(record.referenceMode),
        ]
        for reference in try #require(record.references).reversed() {
            var text = try #require(files[reference.content])
            text += ":\(reference.strength),prep=\(reference.prep),side=\(reference.side)"
            text += ",window=\(reference.window[0])-\(reference.window[1])"
            if let blocks = reference.blocks { text += ",blocks=\(blocks[0])-\(blocks[1])" }
            if let taps = reference.taps {
                text += ",taps=" + taps.map { "\($0)" }.joined(separator: "/")
            }
            arguments += ["--style-reference", text]
        }
        let moodboard = try #require(record.moodboards?.first)
        #expect(try moodboard.content == content(board))
        arguments += ["--moodboard", "m.k2board:\(moodboard.strength)"]
        let run = try run(arguments)
        #expect(run.code == 0, "\(run.errors)")
        // The order of references is not that of the first run, so the records differ in it.
        #expect(try PNG.decode(bytes("again.png")) == PNG.decode(first))
    }

    /// What `--json` calls the content of a picture or a moodboard.
    private func content(_ run: CommandRun) throws -> String {
        let line = Data(try #require(run.lines.first, "\(run.errors)").utf8)
        let object = try JSONSerialization.jsonObject(with: line) as? [String: Any]
        return try #require(object?["content"] as? String)
    }

    @Test func inspectShowsBoth() throws {
        _ = try encode("style", "encode", "a.png", "-o", "x.k2ref", "--caption", "thin lines")
        _ = try encode("moodboard", "create", "a.png", "b.png", "-o", "m.k2board")
        let run = CommandRun.inProcess("inspect", folder.file("x.k2ref"), folder.file("m.k2board"))
        #expect(run.code == 0, "\(run.errors)")
        for line in [
            "\(folder.file("x.k2ref")): style reference, for generate --style-reference",
            "\(folder.file("m.k2board")): moodboard, for generate --moodboard",
            "  metadata  caption = thin lines", "  metadata  pictures = 2",
            "  metadata  prep = none", "  sizes     rows 13, taps 3, text width 48",
        ] {
            #expect(run.lines.contains(line), "\(line) in \(run.text)")
        }
    }

    @Test func planningEncodesNothing() throws {
        let run = try generate(
            "--style-reference",
            "a.png",
            "--plan",
            environment: ["XDG_CACHE_HOME": folder.file("cache")]
        )
        #expect(run.code == 0, "\(run.errors)")
        #expect(!FileManager.default.fileExists(atPath: folder.file("cache/krea2/encodings")))
        #expect(run.text.contains(", pictures: "))
        // One that is encoded already needs none of that.
        _ = try encode("style", "encode", "a.png", "-o", "x.k2ref")
        let stored = try generate("--style-reference", "x.k2ref", "--plan")
        #expect(stored.code == 0 && !stored.text.contains(", pictures: "))
    }

    @Test func theCacheIsUsedUnlessItIsOff() throws {
        let environment = ["XDG_CACHE_HOME": folder.file("cache")]
        let direct = try pixels("--style-reference", "a.png:1")
        #expect(!FileManager.default.fileExists(atPath: folder.file("cache")))
        for _ in 0..<2 {
            #expect(try pixels("--style-reference", "a.png:1", environment: environment) == direct)
        }
        let names = try FileManager.default.contentsOfDirectory(
            atPath: folder.file("cache/krea2/encodings")
        )
        #expect(Set(names.map { $0.split(separator: ".").last }) == ["k2ref", "k2text"])
        #expect(names.count == 2)
        _ = try pixels("--style-reference", "b.png:1", "--no-cache", environment: environment)
        #expect(
            try FileManager.default.contentsOfDirectory(
                atPath: folder.file("cache/krea2/encodings")
            ).count == 2
        )
    }

    @Test func aCacheThatCannotBeWrittenIsAMessage() throws {
        let run = try generate(
            "--style-reference",
            "a.png",
            environment: ["XDG_CACHE_HOME": folder.file("b.png")]
        )
        #expect(run.code == 0, "\(run.errors)")
        for name in ["picture", "prompt"] {
            #expect(run.errors.contains("the encoded \(name) is not kept for the next run: "))
        }
    }

    /// With room for a part of it, so that each removes what others read and write.
    @Test func severalRunsShareTheCache() throws {
        let names = ["a.png", "b.png", "c.png"]
        for name in names { _ = try encode("style", "encode", name) }
        let sound = try names.map { try bytes(String($0.dropLast(4)) + ".k2ref") }
        let environment = ["XDG_CACHE_HOME": folder.file("cache"), "KREA2_CACHE": "12KiB"]
        for _ in 0..<3 {
            let processes = try (0..<3).map { number in
                let names = number == 1 ? names.reversed() : names
                let output = folder.file("out\(number)")
                try FileManager.default.createDirectory(
                    atPath: output,
                    withIntermediateDirectories: true
                )
                return try CommandProcess(
                    ["style", "encode", "-m", fixtureModel, "-o", output, "--force"] + names,
                    in: folder.path,
                    environment: environment
                )
            }
            for (number, process) in processes.enumerated() {
                let run = try process.finish()
                #expect(run.code == 0 && !run.errors.contains("not kept"), "\(run.errors)")
                for (name, sound) in zip(names, sound) {
                    #expect(try bytes("out\(number)/\(name.dropLast(4)).k2ref") == sound)
                }
            }
        }
    }

    // MARK: Progress

    @Test func encodingIsShown() throws {
        let run = try encode(
            "style",
            "encode",
            "a.png",
            "b.png",
            "-o",
            "./",
            "--progress",
            "json"
        )
        let events = try run.errors.split(separator: "\n").map { line in
            let object = try JSONSerialization.jsonObject(with: Data(line.utf8))
            return try #require(object as? [String: Any])
        }
        #expect(events.first?["text"] as? String == "encoding 2 pictures")
        let progress = events.dropFirst()
        #expect(progress.allSatisfy { $0["stage"] as? String == "references" })
        #expect(progress.last?["fraction"] as? Double == 1)
        #expect(Set(progress.compactMap { $0["step"] as? Int }) == [0, 1, 2])
        let generate = try generate("--style-reference", "a.png", "--progress", "plain")
        #expect(generate.errors.contains("100 % encoding, 1 of 1 picture, "))
        let quiet = try encode("moodboard", "create", "a.png", "-o", "m.k2board", "--quiet")
        #expect(quiet.code == 0 && quiet.errors.isEmpty)
    }

    private static let encodings = [
        ["style", "encode", "--side", "768", "-o", "./"],
        ["generate", "a fox", "--size", "64x64", "--moodboard", "d"],
    ]

    @Test(arguments: zip(encodings, [(SIGINT, 130), (SIGTERM, 143)] as [(Int32, Int32)]))
    func stopsWhileItEncodes(_ arguments: [String], _ signal: (number: Int32, code: Int32)) throws {
        let folder = try TemporaryFolder()
        // In the size in which they are seen, so that most of the time goes into encoding.
        let isStyle = arguments[0] == "style"
        let (count, side) = isStyle ? (12, 768) : (40, 256)
        let names = (0..<count).map { "d/\($0).png" }
        try FileManager.default.createDirectory(
            atPath: folder.file("d"),
            withIntermediateDirectories: false
        )
        for (index, name) in names.enumerated() {
            let grey = [UInt8](repeating: UInt8(index), count: side * side * 3)
            let image = try PixelImage(width: side, height: side, rgb: grey)
            try folder.write(PNG.encode(image, metadata: nil), to: name)
        }
        let process = try CommandProcess(
            arguments + ["-m", fixtureModel, "--progress", "plain"]
                + (isStyle ? names : []),
            in: folder.path
        )
        process.waitForError("encoding, ")
        process.send(signal.number)
        let run = try process.finish()
        #expect(run.code == signal.code, "\(run.errors)")
        #expect(run.output.isEmpty && run.errors.contains("krea2: stopped by SIG"))
        #expect(try folder.names() == ["d"])
    }

    @Test func captionsTakeTheirShare() throws {
        _ = try encode("style", "encode", "a.png", "-o", "x.k2ref", "--caption", "thin lines")
        let plain = try pixels("--style-reference", "x.k2ref:1")
        let half = try pixels("--style-reference", "x.k2ref:1,caption=0.5")
        #expect(half != plain)
        #expect(try record().references?.first?.caption == 0.5)
        // A picture has none.
        let run = try generate("--style-reference", "a.png:1,caption=0.5")
        #expect(run.errors.contains("no description in it, so all goes to the picture"))
        #expect(try PNG.decode(bytes("o.png")).rgb == plain)
        #expect(try record().references?.first?.caption == nil)
    }

    // MARK: Errors

    @Test func othersEncodersAreRefusedUnlessAllowed() throws {
        _ = try encode("style", "encode", "a.png", "-o", "x.k2ref")
        let file = try SafetensorsFile(path: folder.file("x.k2ref"))
        var metadata = file.metadata
        metadata["encoder"] = "sha256:1234"
        var writer = SafetensorsWriter(metadata: metadata)
        for name in file.tensors.keys { writer.add(name, try #require(file.tensor(name))) }
        try writer.write(to: folder.file("y.k2ref"))
        let refused = try generate("--style-reference", "y.k2ref")
        #expect(refused.code == 65 && refused.isOneErrorLine)
        #expect(refused.errors.contains("--allow-compatible-encoder"), "\(refused.errors)")
        let allowed = try generate("--style-reference", "y.k2ref", "--allow-compatible-encoder")
        #expect(allowed.code == 0, "\(allowed.errors)")
        #expect(allowed.errors.contains("made by other files of the text encoder, sha256:1234"))
        #expect(try record().references?.first?.encoder == "sha256:1234")
    }

    private static let failures: [(line: String, code: Int32)] = [
        ("generate x --style-reference gone.png", 66),
        ("generate x --style-reference gone.k2ref", 66),
        ("generate x --moodboard gone", 66),
        ("generate x --style-reference text.png", 65),
        ("generate x --style-reference text.k2ref", 65),
        ("generate x --style-reference small.png", 65),
        ("generate x --moodboard text.k2board", 65),
        ("generate x --moodboard empty", 65),
        ("generate x --style-reference a.png,blocks=0-99", 64),
        ("generate x --style-reference a.png,taps=1/1", 64),
        ("generate x --style-reference a.png:9", 64),
        ("style encode gone.png", 66),
        ("style encode text.png -o z.k2ref", 65),
        ("style encode small.png", 65),
        ("style decode a.png", 64),
        ("style encode", 64),
        ("style encode a.png -o x.png", 64),
        ("style encode a.png b.png -o x.k2ref", 64),
        ("style encode a.png --side 100", 64),
        ("style encode a.png -o none/x.k2ref", 73),
        ("style encode a.png -o old.k2ref", 73),
        ("moodboard create a.png", 64),
        ("moodboard create -o x.k2board", 64),
        ("moodboard create a.png -o x", 64),
        ("moodboard create empty -o x.k2board", 65),
        ("moodboard create gone.png -o x.k2board", 66),
    ]

    @Test(arguments: failures)
    func failuresAreOneLine(_ line: String, code: Int32) throws {
        try FileManager.default.createDirectory(
            atPath: folder.file("empty"),
            withIntermediateDirectories: false
        )
        for name in ["text.png", "text.k2ref", "text.k2board", "old.k2ref"] {
            try folder.write("hello, world", to: name)
        }
        let small = try PixelImage(
            width: 27,
            height: 99,
            rgb: .init(repeating: 9, count: 27 * 99 * 3)
        )
        try folder.write(PNG.encode(small, metadata: nil), to: "small.png")
        let before = try folder.names()
        let arguments = line.split(separator: " ").map(String.init)
        let run = try run(arguments + ["-m", fixtureModel])
        #expect(run.code == code, "\(run.errors)")
        #expect(run.isOneErrorLine, "\(run.errors)")
        #expect(try folder.names() == before)
    }
}
