import Checkpoints
import Foundation
import Images
import Krea2
import TestSupport
import Tensors
import Testing

@testable import Krea2CLI

/// LoRAs and sliders of the embedded model, through the built command.
@Suite(.serialized)
struct LoRACommandTests {
    private let folder: TemporaryFolder
    private let model = embedded.appendingPathComponent("turbo.safetensors").path

    private static let embedded = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("weights/mini")

    init() throws {
        folder = try TemporaryFolder()
    }

    private func lora(_ name: String) -> String {
        Self.embedded.appendingPathComponent("loras/\(name).safetensors").path
    }

    /// The smallest picture there is.
    private func generate(_ arguments: String..., name: String = "a.png") throws -> CommandRun {
        try CommandRun.process(
            ["generate", "a red boat", "-m", model, "--size", "64x64", "--steps", "1", "-s", "7"]
                + ["-o", name, "--force"] + arguments,
            in: folder.path
        )
    }

    private func pixels(_ name: String = "a.png") throws -> PixelImage {
        try PNG.decode(Array(try Data(contentsOf: URL(fileURLWithPath: folder.file(name)))))
    }

    private func record(_ name: String = "a.png") throws -> GenerationRecord {
        let text = try PNG.readText(path: folder.file(name)).text(GenerationRecord.keyword)
        return try GenerationRecord(json: try #require(text))
    }

    private func digest(_ path: String) throws -> String {
        try SafetensorsFile(path: path).fullDigest()
    }

    // MARK: generate

    @Test func lorasAreNamedAppliedAndRecorded() throws {
        #expect(try generate(name: "plain.png").code == 0)
        let run = try generate("--lora", "sepia:0.5", "--lora", lora("blueprint"))
        #expect(run.code == 0, "\(run.errors)")
        for line in [
            "lora \(lora("sepia")): 56 of 88 layers, rank 8, scale 0.5",
            "lora \(lora("blueprint")): 56 of 88 layers, rank 8, scale 1",
        ] {
            #expect(run.errors.contains("krea2: \(line)\n"), "\(run.errors)")
        }
        #expect(try pixels() != pixels("plain.png"))
        let loras = try #require(try record().loras)
        #expect(loras.map(\.name) == ["sepia", "blueprint"] && loras.map(\.scale) == [0.5, 1])
        #expect(loras.map(\.digest) == [try digest(lora("sepia")), try digest(lora("blueprint"))])
        #expect(try record("plain.png").loras == nil && record().sliders == nil)
    }

    @Test func scaleZeroOpensNothing() throws {
        try folder.write("no LoRA", to: "x.safetensors")
        #expect(try generate("--no-metadata", name: "plain.png").code == 0)
        let run = try generate(
            "--no-metadata",
            "--lora",
            "x.safetensors:0",
            "--intensity",
            "0",
            "--slider",
            "none=0"
        )
        #expect(run.code == 0 && run.errors.contains("x.safetensors: scale 0, not applied"))
        #expect(
            FileManager.default.contents(atPath: folder.file("a.png"))
                == FileManager.default.contents(atPath: folder.file("plain.png"))
        )
    }

    @Test func slidersAreRecordedAndReplayed() throws {
        let run = try generate("--random-sliders", "--movement", "-30")
        #expect(run.code == 0, "\(run.errors)")
        let sliders = try #require(try record().sliders)
        #expect(sliders.map(\.name) == ["complexity", "intensity", "movement"])
        #expect(sliders.map(\.isRandom) == [true, true, false] && sliders[2].value == -30)
        #expect(sliders[2].scale == -0.3 && sliders[2].kind == "signed")
        #expect(sliders[2].digest == (try digest(lora("movement"))))
        #expect(sliders[2].window == [0, 1])
        let values = sliders.flatMap { ["--slider", "\($0.name)=\($0.value)"] }
        let again = try CommandRun.process(
            ["generate", "a red boat", "-m", model, "--size", "64x64", "--steps", "1", "-s", "7"]
                + ["-o", "b.png"] + values,
            in: folder.path
        )
        #expect(again.code == 0, "\(again.errors)")
        #expect(try pixels() == pixels("b.png"))
    }

    @Test func everyPictureHasItsOwnRandomSliders() throws {
        let run = try generate("--random-sliders", "--num-images", "2")
        #expect(run.code == 0 && run.lines == ["a.png", "a_2.png"], "\(run.errors)")
        let (first, second) = (try record(), try record("a_2.png"))
        #expect(first.seed == 7 && second.seed == 8 && second.imageIndex == 1)
        #expect(first.sliders != nil && first.sliders != second.sliders)
        let dump = try generate("--random-sliders", "--num-images", "2", "--dump", "d.safetensors")
        #expect(dump.code == 64 && dump.isOneErrorLine)
    }

    @Test func manifestsMayBeAnywhere() throws {
        try folder.write(
            """
            {"format": "krea2-slider", "version": 1, "name": "ink", "kind": "signed",
             "file": "\(lora("blueprint"))", "scale_at_100": 2, "window": [0.5, 1]}
            """,
            to: "ink.json"
        )
        let run = try generate("--slider-file", "ink.json", "--slider", "ink=50")
        #expect(run.code == 0, "\(run.errors)")
        #expect(run.errors.contains("slider ink 50: \(lora("blueprint")): 56 of 88 layers"))
        let slider = try #require(try record().sliders?.first)
        #expect(slider.scale == 1 && slider.window == [0.5, 1])
    }

    @Test func whatIsMissingOrUnfitIsSaid() throws {
        var writer = SafetensorsWriter()
        writer.add("double_blocks.0.img_attn.qkv.lora_A.weight", Tensor(zeros: [4, 3072]))
        try writer.write(to: folder.file("flux.safetensors"))
        try folder.write("", to: "empty.safetensors")
        for (arguments, code, text) in [
            (["--lora", "nowhere"], Int32(66), "LoRA nowhere found in"),
            (["--lora", "flux.safetensors"], 65, "it was made for FLUX"),
            (["--lora", "empty.safetensors"], 65, "no bytes"),
            (["--slider", "age=5"], 65, "no LoRA for the slider age found in"),
            (["--slider-file", "none.json"], 66, "no such file"),
            (["--slider-file", "flux.safetensors"], 65, "krea2-slider"),
            (["--lora", model], 65, "it is no LoRA"),
        ] {
            let run = try CommandRun.process(
                ["generate", "a", "-m", model, "--size", "64x64", "-o", "z.png"] + arguments,
                in: folder.path
            )
            #expect(run.code == code && run.isOneErrorLine, "\(arguments): \(run.errors)")
            #expect(run.errors.contains(text), "\(run.errors)")
            #expect(!FileManager.default.fileExists(atPath: folder.file("z.png")))
        }
    }

    // MARK: lora check

    @Test func checkTellsWhatAFileIs() throws {
        let run = CommandRun.inProcess("lora", "check", lora("blueprint"), "-m", model)
        #expect(run.code == 0, "\(run.errors)")
        #expect(run.lines.first == "\(lora("blueprint")): LoRA for Krea 2")
        for line in [
            "  dialect     diffusers", "  method      LoRA (56 modules)", "  rank        8",
            "  alpha       none, which makes scale 1", "  layers      56 of 88 of \(model)",
            "  verdict     can be used",
        ] {
            #expect(run.lines.contains(line), "\(line) in \(run.text)")
        }
        #expect(run.lines.filter { $0.hasPrefix("  effect      blocks.") }.count == 8)
        let json = CommandRun.inProcess("lora", "check", lora("blueprint"), "-m", model, "--json")
        let object = try JSONSerialization.jsonObject(with: Data(json.output)) as? [String: Any]
        #expect(object?["layers"] as? Int == 56 && object?["modelLayers"] as? Int == 88)
        #expect(object?["verdict"] as? String == "applies")
        #expect(object?["digest"] as? String == (try digest(lora("blueprint"))))
        let norms = (object?["blocks"] as? [[String: Any]])?.compactMap { $0["norm"] as? Double }
        #expect(norms?.count == 8 && norms?.allSatisfy { $0 > 0.01 } == true, "\(norms ?? [])")
    }

    @Test func checkRefusesWhatCannotBeUsed() throws {
        // The released models are wider.
        let other = CommandRun.inProcess("lora", "check", lora("sepia"))
        #expect(other.code == 65 && other.isOneErrorLine)
        #expect(other.text.contains("  layers      0 of 264 of the released models"))
        #expect(other.text.contains("a transformer of width 256 (Krea 2 mini)"))
        let plain = CommandRun.inProcess("lora", "check", model)
        #expect(plain.code == 65 && plain.text.hasPrefix("\(model): no LoRA\n"))
        let both = CommandRun.inProcess(
            "lora",
            "check",
            folder.file("x"),
            lora("sepia"),
            "-m",
            model
        )
        #expect(both.code == 66 && both.text.contains("can be used"))
        for arguments in [["lora"], ["lora", "check"], ["lora", "chek", "x"]] {
            let run = try CommandRun.process(arguments, in: folder.path)
            #expect(run.code == 64 && run.isOneErrorLine, "\(run.errors)")
        }
    }

    @Test func inspectTellsWhatAFileIs() throws {
        let run = CommandRun.inProcess("inspect", lora("blueprint"))
        #expect(run.code == 0)
        #expect(
            run.lines.first?.hasSuffix(": LoRA for Krea 2; krea2 lora check tells more") == true
        )
        #expect(run.lines.contains("  dialect   diffusers"), "\(run.text)")
        let json = CommandRun.inProcess("inspect", "--json", lora("blueprint"))
        let object = try JSONSerialization.jsonObject(with: Data(json.output)) as? [String: Any]
        #expect(object?["kind"] as? String == "lora")
        #expect((object?["lora"] as? [String: Any])?["modules"] as? Int == 56)
    }

    // MARK: lora trial

    @Test func trialDrawsASheetAndATable() throws {
        let arguments = [
            "lora", "trial", "sepia", "-p", "a \"red\" boat", "--scales", "0,1", "--seeds", "1,2",
            "--size", "96x64", "--steps", "1", "-o", "t.png",
        ]
        let run = try CommandRun.process(arguments, in: folder.path)
        #expect(run.code == 0, "\(run.errors)")
        #expect(run.lines == ["t.png", "t.csv"])
        let sheet = try pixels("t.png")
        // Two columns; Turbo and RAW for each of two seeds.
        #expect(sheet.width == 8 + 2 * (96 + 8) && sheet.height == 8 + 18 + 4 * (18 + 64 + 8))
        let data = try #require(FileManager.default.contents(atPath: folder.file("t.csv")))
        let table = String(decoding: data, as: UTF8.self).split(separator: "\n")
        #expect(table.count == 1 + 8)
        #expect(table[1].hasPrefix(#""mini-turbo",turbo,"a ""red"" boat",1,0,1,0,96,64,0,"#))
        let changes = table.dropFirst().map { Double($0.split(separator: ",")[9]) ?? -1 }
        for (index, change) in changes.enumerated() {
            #expect(index % 2 == 0 ? change == 0 : change > 1, "\(changes)")
        }
        let again = try CommandRun.process(arguments, in: folder.path)
        #expect(again.code == 73 && again.isOneErrorLine)
    }
}

/// Letters and pictures on a sheet.
struct ContactSheetTests {
    @Test func lettersHaveTheirShapes() {
        func rows(_ letter: Character) -> [String] {
            (0..<BitmapFont.height).map { row in
                (0..<BitmapFont.width).map {
                    BitmapFont.isSet(letter, row: row, column: $0) ? "#" : "."
                }.joined()
            }
        }
        #expect(rows("L") == ["#..", "#..", "#..", "#..", "###"])
        #expect(rows("f") == ["###", "#..", "##.", "#..", "#.."])
        #expect(rows("7") == ["###", "..#", "..#", ".#.", ".#."])
        #expect(rows(" ") == [String](repeating: "...", count: 5))
        #expect(rows("é") == rows("\u{1F98A}"))
    }

    @Test func picturesAreShrunkByAverages() throws {
        let image = try PixelImage(
            width: 3,
            height: 2,
            rgb: [0, 10, 20, 1, 10, 20, 99, 99, 99, 2, 10, 20, 4, 10, 21, 99, 99, 99]
        )
        let small = try image.shrunk(by: 2)
        #expect(small.width == 1 && small.height == 1 && small.rgb == [2, 10, 20])
        #expect(try image.shrunk(by: 1) == image)
    }

    @Test func everythingHasItsPlace() throws {
        let red = try PixelImage(width: 20, height: 4, rgb: (0..<240).map { $0 % 3 == 0 ? 255 : 0 })
        var sheet = ContactSheet(columns: ["1", "2"], cell: PictureSize(width: 20, height: 4))
        sheet.rows = [.init(label: "ab", pictures: [red, red])]
        let image = try sheet.image()
        #expect(image.width == 64 && image.height == 56)
        func color(_ x: Int, _ y: Int) -> [UInt8] {
            Array(image.rgb[3 * (y * 64 + x)..<3 * (y * 64 + x) + 3])
        }
        // Corners of the pictures, and what is beside them.
        for x in [8, 27, 36, 55] {
            #expect(color(x, 44) == [255, 0, 0] && color(x, 47) == [255, 0, 0])
        }
        for (x, y) in [(7, 44), (28, 44), (35, 44), (56, 44), (8, 43), (8, 48)] {
            #expect(color(x, y) == [255, 255, 255])
        }
        // The first points of an A: the middle of its upper row.
        #expect(color(8, 26) == [255, 255, 255] && color(10, 26) == [0, 0, 0])
    }
}
