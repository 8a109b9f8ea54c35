import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2CLI

/// `krea2 convert`: what it writes, says and returns.
struct ConvertTests {
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private let official = fixtureModel + "/turbo.safetensors"

    @Test func writesTheFileAndItsNotice() throws {
        let path = folder.file("krea2_small.safetensors")
        let run = CommandRun.inProcess("convert", official, "--to", "int8_convrot", "-o", path)
        #expect(run.code == 0)
        #expect(run.text == path + "\n")
        #expect(run.errors.contains("transformer: 48 of 92 tensors to int8_convrot"))
        #expect(run.errors.contains("100 % 92 of 92 tensors"))
        #expect(try folder.names() == ["krea2_small.NOTICE.txt", "krea2_small.safetensors"])
        let inspection = CommandRun.inProcess("inspect", path)
        #expect(inspection.text.contains("quantised int8_tensorwise, convrot 16: 42 ("))
    }

    @Test func reportsAsJSON() throws {
        let path = folder.file("krea.safetensors")
        let run = CommandRun.inProcess(
            "convert",
            fixtureModel,
            "--part=text-encoder",
            "--to=fp8_scaled",
            "--output=\(path)",
            "--json",
            "--progress=json"
        )
        #expect(run.code == 0)
        let object = try JSONSerialization.jsonObject(with: Data(run.output)) as? [String: Any]
        #expect(object?["path"] as? String == path)
        #expect(object?["notice"] as? String == folder.file("krea.NOTICE.txt"))
        #expect(object?["part"] as? String == "text-encoder")
        #expect(object?["converted"] as? Int == 49)
        let events = try run.errors.split(separator: "\n").map { line in
            try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
        }
        #expect(events.first??["event"] as? String == "message")
        #expect(events.last??["fraction"] as? Double == 1)
    }

    @Test func foldersGetTheNamesOfComfyUI() throws {
        let run = CommandRun.inProcess(
            "convert",
            fixtureModel,
            "--part",
            "both",
            "--to",
            "fp8_scaled",
            "-o",
            folder.file("models/"),
            "--quiet"
        )
        #expect(run.code == 0 && run.errors.isEmpty)
        #expect(
            run.lines.map { $0.replacing(folder.path, with: "F") } == [
                "F/models/diffusion_models/krea2_fp8_scaled.safetensors",
                "F/models/text_encoders/qwen3vl_4b_fp8_scaled.safetensors",
            ]
        )
        // The names are found in such a folder.
        let found = CommandRun.inProcess(
            "models",
            "list",
            environment: ["KREA2_MODELS": folder.file("models")]
        )
        #expect(found.text.hasPrefix("krea2_fp8_scaled "))
    }

    @Test func saysThatNamesStartWithKrea() throws {
        let path = folder.file("mine.safetensors")
        let run = CommandRun.inProcess("convert", official, "--to", "bf16", "-o", path)
        #expect(run.code == 0)
        #expect(run.errors.contains("that the names of files passed on start with Krea"))
    }

    @Test func existingFilesNeedForce() throws {
        let path = try folder.write("precious", to: "krea.safetensors")
        let arguments = ["convert", official, "--to", "f16", "-o", path]
        let refused = try CommandRun.process(arguments, in: folder.path)
        #expect(refused.code == 73)
        #expect(refused.errors == "krea2: \(path): exists; --force replaces it\n")
        #expect(try CommandRun.process(arguments + ["--force"], in: folder.path).code == 0)
        #expect(try SafetensorsFile(path: path).tensors.count == 92)
        // Its own notice does not stand in the way of the next run.
        #expect(try CommandRun.process(arguments + ["--force"], in: folder.path).code == 0)
    }

    @Test(
        arguments: [
            ([], 64, "MODEL is missing; see krea2 convert --help"),
            (["MODEL", "-o", "x"], 64, "--to is missing; see krea2 convert --help"),
            (["MODEL", "--to", "f32"], 64, "--output is missing; see krea2 convert --help"),
            (
                ["MODEL", "-o", "x", "--to", "q4"], 64,
                "--to: 'q4' is not one of fp8_scaled, int8_convrot, bf16, f16, f32; "
                    + "see krea2 convert --help"
            ),
            (
                ["MODEL", "-o", "x", "--to", "f16", "--part", "vae"], 64,
                "--part: 'vae' is not one of transformer, text-encoder, both; see krea2 convert --help"
            ),
            (
                ["MODEL", "-o", "x", "--to", "f16", "--part", "both"], 64,
                "--part both needs a folder as --output; x is none; see krea2 convert --help"
            ),
            (
                ["MODEL/text_encoder", "-o", "x", "--to", "f16", "--part", "transformer"], 64,
                "MODEL/text_encoder is a text encoder, not a transformer; see krea2 convert --help"
            ),
            (["MODEL/vae", "-o", "x", "--to", "f16"], 65, "MODEL/vae: "),
            (["MODEL/tokenizer", "-o", "x", "--to", "f16"], 66, "no transformer found in "),
            (
                ["MODEL/none", "-o", "x", "--to", "f16"], 66,
                "MODEL/none: neither a file or folder "
            ),
            (["MODEL", "-o", "none/x", "--to", "f16"], 73, "none/x: "),
        ] as [([String], Int32, String)]
    )
    func wrongRequestsAreNamed(_ arguments: [String], _ code: Int32, _ message: String) throws {
        let model = { (text: String) in text.replacing("MODEL", with: fixtureModel) }
        let run = try CommandRun.process(["convert"] + arguments.map(model), in: folder.path)
        #expect(run.code == code)
        #expect(run.isOneErrorLine, "\(run.errors)")
        let expected = code == 64 && arguments.isEmpty ? message : model(message)
        #expect(run.errors.hasPrefix("krea2: " + expected), "\(run.errors)")
        #expect(try folder.names() == [])
    }

    @Test func damagedFilesAreBadData() throws {
        let path = try folder.write("{", to: "a.safetensors")
        let run = CommandRun.inProcess("convert", path, "--to", "f32", "-o", folder.file("b"))
        #expect(run.code == 65 && run.isOneErrorLine)
    }

    // MARK: Stopping

    /// A transformer of many blocks, of which only the matrices are there.
    private func largeModel() throws -> String {
        var writer = SafetensorsWriter()
        writer.add("first.weight", Tensor(zeros: [1, 1]))
        writer.add("txtfusion.projector.weight", Tensor(zeros: [1, 1]))
        let matrix = Tensor((0..<1 << 16).map { Float($0 % 251) }, shape: [256, 256])
        for block in 0..<60 { writer.add("blocks.\(block).attn.wq.weight", matrix) }
        try writer.write(to: folder.file("large.safetensors"))
        return folder.file("large.safetensors")
    }

    @Test(arguments: [SIGINT, SIGTERM])
    func stoppedRunsGoOn(_ signal: Int32) throws {
        let arguments = [
            "convert", try largeModel(), "--to", "int8_convrot", "-o", "krea.safetensors",
            "--progress", "json", "-t", "1",
        ]
        let process = try CommandProcess(arguments, in: folder.path)
        process.waitForError("\"event\":\"progress\"")
        process.send(signal)
        let stopped = try process.finish()
        #expect(stopped.code == 75, "\(stopped.errors)")
        let line = String(stopped.errors.split(separator: "\n").last ?? "")
        let name = signal == SIGINT ? "SIGINT" : "SIGTERM"
        #expect(line.hasPrefix("krea2: stopped by \(name); "))
        #expect(
            line.hasSuffix("krea.safetensors.krea2-partial, the same command goes on from there")
        )
        #expect(
            try folder.names() == [
                "krea.safetensors.krea2-partial", "krea.safetensors.krea2-partial.json",
                "large.safetensors",
            ]
        )
        let next = try CommandRun.process(arguments, in: folder.path)
        #expect(next.code == 0)
        #expect(next.errors.contains("that an earlier run has written"))
        #expect(
            try folder.names() == ["krea.NOTICE.txt", "krea.safetensors", "large.safetensors"]
        )
        let whole = try CommandRun.process(
            arguments.map { $0 == "krea.safetensors" ? "whole.safetensors" : $0 },
            in: folder.path
        )
        #expect(whole.code == 0)
        let manager = FileManager.default
        #expect(
            manager.contents(atPath: folder.file("krea.safetensors"))
                == manager.contents(atPath: folder.file("whole.safetensors"))
        )
    }
}
