import Foundation
import Images
import TestSupport
import Testing

@testable import Krea2CLI

/// A small random model that the reference pipeline reads too.
let fixtureModel = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("Fixtures/pipeline/models/head16").path

/// The bytes every PNG begins with.
private let pngSignature: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]

/// `krea2 generate` as a process: what it writes, says and returns.
@Suite(.serialized)
struct GenerateProcessTests {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
    }

    private func generate(_ arguments: String..., input: String = "") throws -> CommandRun {
        try CommandRun.process(all(arguments), in: folder.path, input: input)
    }

    /// One step, and 64 × 64 unless another size is given: the smallest run there is.
    private func all(_ arguments: [String]) -> [String] {
        let hasSize = arguments.contains { $0.hasPrefix("--size") }
        return ["generate"] + arguments + ["-m", fixtureModel, "--steps", "1"]
            + (hasSize ? [] : ["--size", "64x64"])
    }

    @Test func writesPicturesAndPrintsTheirPaths() throws {
        let run = try generate("a fox", "-s", "7", "--num-images", "2", "-o", "p{seed}-%02d.png")
        #expect(run.code == 0)
        #expect(run.text == "p7-00.png\np8-01.png\n")
        #expect(try folder.names() == ["p7-00.png", "p8-01.png"])
        for name in try folder.names() {
            let bytes = try Data(contentsOf: URL(fileURLWithPath: folder.file(name)))
            #expect(Array(bytes.prefix(8)) == pngSignature)
        }
    }

    @Test func echoesEveryEffectiveValueOnce() throws {
        let run = try generate("a fox", "-s", "7", "--cfg-scale", "3", "--mu", "0.5", "-t", "1")
        let echo = run.errors.split(separator: "\n").filter { $0.contains("variant ") }
        #expect(echo.count == 1)
        for value in [
            "size 64x64", "steps 1", "cfg 2 (cfg-scale 3)", "mu 0.5", "seed 7", "images 1",
            "precision f32", "kernels ", "threads 1",
        ] {
            #expect(echo.first?.contains(value) == true, "\(value) in \(run.errors)")
        }
    }

    @Test func sameCommandGivesTheSameBytes() throws {
        for name in ["a.png", "b.png"] {
            #expect(try generate("a fox", "-s", "7", "-o", name).code == 0)
        }
        let manager = FileManager.default
        #expect(
            manager.contents(atPath: folder.file("a.png"))
                == manager.contents(atPath: folder.file("b.png"))
        )
    }

    @Test func omittedSeedIsRandomAndPrinted() throws {
        let names = try (0..<2).map { _ in
            let run = try generate("a fox")
            let name = try #require(run.lines.first)
            let seed = name.dropFirst("krea2-".count).dropLast(".png".count)
            #expect(UInt64(seed) != nil)
            #expect(run.errors.contains("seed \(seed),"))
            return name
        }
        #expect(names[0] != names[1])
    }

    @Test func resultsAsJSON() throws {
        let run = try generate("a fox", "-s", "7", "--json", "-o", "a.png")
        let line = try #require(run.lines.first)
        let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
        #expect(run.lines.count == 1)
        #expect(object?["path"] as? String == "a.png")
        #expect(object?["seed"] as? Int == 7)
        #expect(object?["width"] as? Int == 64)
        #expect(object?["height"] as? Int == 64)
    }

    @Test func progressAsJSONIsJSONThroughout() throws {
        let run = try generate("a fox", "--progress", "json", "--size=70x64", "-v")
        let lines = run.errors.split(separator: "\n")
        let events = try lines.map { line in
            let object = try JSONSerialization.jsonObject(with: Data(line.utf8))
            return try #require((object as? [String: Any])?["event"] as? String)
        }
        #expect(Set(events) == ["message", "settings", "progress"])
    }

    @Test func quietSaysNothing() throws {
        let run = try generate("a fox", "--quiet", "-o", "a.png")
        #expect(run.code == 0)
        #expect(run.errors.isEmpty)
        #expect(run.text == "a.png\n")
    }

    @Test func readsThePromptFromStandardInput() throws {
        for (name, prompt, input) in [
            ("a.png", "a fox\u{1F98A}", ""), ("b.png", "-", "a fox\u{1F98A}\n"),
            ("c.png", "-", "a fox\u{1F98A}"), ("d.png", "-", "a fox\u{1F98A}\n\n"),
        ] {
            let run = try generate(prompt, "-s", "7", "-o", name, input: input)
            #expect(run.code == 0, "\(run.errors)")
        }
        let pictures = ["a.png", "b.png", "c.png"].map {
            FileManager.default.contents(atPath: folder.file($0))
        }
        #expect(pictures[0] != nil && pictures[0] == pictures[1] && pictures[0] == pictures[2])
    }

    @Test func refusesAPromptThatIsNotText() throws {
        let process = try CommandProcess(
            all(["-"]),
            in: folder.path,
            bytes: [0x66, 0xFF, 0x6F]
        )
        let run = try process.finish()
        #expect(run.code == 65)
        #expect(run.isOneErrorLine)
    }

    @Test func writesThePictureToStandardOutput() throws {
        let run = try generate("a fox", "-s", "7", "-o", "-")
        #expect(run.code == 0)
        #expect(Array(run.output.prefix(8)) == pngSignature)
        #expect(try folder.names().isEmpty)
        #expect(try generate("a fox", "-s", "7", "-o", "a.png").code == 0)
        #expect(FileManager.default.contents(atPath: folder.file("a.png")) == Data(run.output))
    }

    @Test func existingFilesAreKept() throws {
        try folder.write("mine", to: "p_2.png")
        let run = try generate("a fox", "--num-images", "2", "-o", "p.png")
        #expect(run.code == 73)
        #expect(run.isOneErrorLine)
        #expect(run.errors == "krea2: p_2.png: exists; --force replaces it\n")
        #expect(try folder.names() == ["p_2.png"])
        let forced = try generate("a fox", "--num-images", "2", "-o", "p.png", "--force")
        #expect(forced.code == 0)
        #expect(try folder.names() == ["p.png", "p_2.png"])
        #expect(
            FileManager.default.contents(atPath: folder.file("p_2.png"))?.starts(with: pngSignature)
                == true
        )
    }

    @Test(arguments: [
        ["-o", "no/a.png"], ["-o", "."], ["-o", "/dev/null"], ["-o", "/dev/null", "--force"],
        ["--dump", "no/a.safetensors"], ["-o", "same", "--dump", "same"],
    ])
    func unusableOutputsAreFoundBeforeTheRun(_ arguments: [String]) throws {
        // The model does not exist, so these are found before it is looked for.
        let run = try CommandRun.process(
            ["generate", "a fox", "-m", "no-model"] + arguments,
            in: folder.path
        )
        #expect(run.code == 73)
        #expect(run.isOneErrorLine)
        #expect(try folder.names().isEmpty)
    }

    @Test func aFullDiskLeavesNothing() throws {
        let run = try CommandRun.shell(
            "ulimit -f 1; exec env --default-signal=XFSZ \"$0\" \"$@\"",
            [CommandProcess.executable.path] + all(["a fox", "-o", "a.png", "--quiet"]),
            in: folder.path
        )
        #expect(run.code == 73)
        #expect(run.isOneErrorLine, "\(run.errors)")
        #expect(run.errors.contains("a.png"))
        #expect(try folder.names().isEmpty)
    }

    @Test func missingModelsAreMissingInputs() throws {
        // Away from the package, which has a model of its own.
        let away = try TemporaryFolder()
        let executable = try CommandProcess.copy(in: away)
        let none = try CommandProcess(
            ["generate", "a fox"],
            in: folder.path,
            executable: executable
        ).finish()
        #expect(none.code == 66)
        #expect(none.isOneErrorLine)
        #expect(none.errors.contains("KREA2_MODEL (not set)"))
        #expect(none.errors.contains("scripts/quickstart"))
        let named = try CommandRun.process(
            ["generate", "a fox", "-m", "missing.safetensors"],
            in: folder.path
        )
        #expect(named.code == 66)
        #expect(named.errors.contains("missing.safetensors"))
        #expect(try folder.names().isEmpty)
    }

    @Test func negativePromptNeedsGuidance() throws {
        let refused = try generate("a fox", "-n", "fog", "--variant", "turbo")
        #expect(refused.code == 64)
        #expect(refused.isOneErrorLine)
        #expect(refused.errors.contains("--negative-prompt"))
        #expect(try folder.names().isEmpty)
        #expect(try generate("a fox", "-n", "fog", "--cfg", "2").code == 0)
    }

    @Test func sizesAreRoundedUpWithAMessage() throws {
        let run = try generate("a fox", "--size=70x64")
        #expect(run.code == 0)
        #expect(run.errors.contains("size 70x64 is rounded up to 80x64"))
        #expect(run.errors.contains("size 80x64, steps 1"))
    }
}

/// Signals and closed pipes.
@Suite(.serialized)
struct InterruptionTests {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
    }

    /// A run that would take far longer than the suite may.
    private var longRun: [String] {
        [
            "generate", "slow", "-m", fixtureModel, "--steps", "1000", "--num-images", "100",
            "--size", "256x256", "--progress", "plain",
        ]
    }

    @Test(arguments: [(SIGINT, 130, "SIGINT"), (SIGTERM, 143, "SIGTERM")])
    func stopsCleanly(_ signal: Int32, code: Int32, name: String) throws {
        let process = try CommandProcess(longRun, in: folder.path)
        process.waitForError("elapsed")
        process.send(signal)
        let run = try process.finish()
        #expect(run.code == code)
        #expect(run.errors.hasSuffix("krea2: stopped by \(name); no picture is written\n"))
        #expect(run.output.isEmpty)
        #expect(try folder.names().isEmpty)
    }

    @Test(arguments: zip([SIGINT, SIGTERM], [Int32(130), 143]))
    func finishedPicturesAreKept(_ signal: Int32, code: Int32) throws {
        let process = try CommandProcess(
            [
                "generate", "slow", "-m", fixtureModel, "--steps", "1", "--num-images", "100",
                "--size", "128x128", "--progress", "plain", "-o", "%d.png", "--dump", "d",
            ],
            in: folder.path
        )
        process.waitForError("picture 3 of 100")
        process.send(signal)
        let run = try process.finish()
        #expect(run.code == code)
        let names = try folder.names().sorted { $0.count < $1.count || $0 < $1 }
        #expect((2..<100).contains(names.count), "no dump, no temporary file: \(names)")
        #expect(run.lines == names)
        #expect(names == names.indices.map { "\($0).png" })
        #expect(run.errors.hasSuffix("; \(names.count) of 100 pictures written\n"))
        for name in names {
            let bytes = try Data(contentsOf: URL(fileURLWithPath: folder.file(name)))
            #expect(try PNG.decode(Array(bytes)).width == 128)
        }
    }

    @Test func picturesBeforeAFailureAreKept() throws {
        let process = try CommandProcess(
            [
                "generate", "slow", "-m", fixtureModel, "--steps", "1", "--num-images", "100",
                "--size", "128x128", "--progress", "plain", "-o", "%d.png",
            ],
            in: folder.path
        )
        process.waitForError("picture 2 of 100")
        try folder.write("mine", to: "99.png")
        try folder.write("mine", to: "50.png")
        let run = try process.finish()
        #expect(run.code == 73)
        #expect(run.lines.count == 50)
        #expect(run.errors.hasSuffix("; 50 of 100 pictures written\n"))
        #expect(try folder.names().count == 52)
    }

    @Test func aSecondSignalKills() throws {
        // Which of the two ends it depends on how soon the flag is read.
        let process = try CommandProcess(longRun, in: folder.path)
        process.waitForError("elapsed")
        process.send(SIGINT)
        process.send(SIGINT)
        let run = try process.finish()
        #expect(run.code == 130 || run.code == -SIGINT)
        #expect(try folder.names().isEmpty)
    }

    /// Runs `$0` with a standard output whose reader has ended, and prints what it returned.
    private static let withoutReader =
        "exec 4> >(:); wait $!; env --default-signal=PIPE \"$0\" \"$@\" >&4; echo $?"

    @Test(arguments: [["--help"], ["info"], ["completion", "bash"]])
    func aReaderThatHasGoneIsNoFailure(_ arguments: [String]) throws {
        let run = try CommandRun.shell(
            Self.withoutReader,
            [CommandProcess.executable.path] + arguments,
            in: folder.path
        )
        #expect(run.text == "0\n")
        #expect(run.errors.isEmpty)
    }

    @Test func resultsThatCannotBeWrittenAreAFailure() throws {
        let run = try CommandRun.shell(
            "\"$0\" info > /dev/full",
            [CommandProcess.executable.path],
            in: folder.path
        )
        #expect(run.code == 73)
        #expect(run.isOneErrorLine)
        #expect(run.errors.hasPrefix("krea2: standard output: "))
    }

    @Test func aPictureThatCannotBeDeliveredIsAFailure() throws {
        let run = try CommandRun.shell(
            Self.withoutReader,
            [
                CommandProcess.executable.path, "generate", "a fox", "-m", fixtureModel, "--size",
                "64x64", "--steps", "1", "-o", "-", "--quiet",
            ],
            in: folder.path
        )
        #expect(run.text == "73\n")
        #expect(run.isOneErrorLine)
    }
}
