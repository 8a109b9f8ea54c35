import Checkpoints
import Foundation
import Images
import TestSupport
import Tensors
import Testing

@testable import Krea2CLI

/// What `krea2 generate` makes: sizes, recommended values, equal bytes, dumps, records.
@Suite(.serialized)
struct GenerateResultTests {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
    }

    private func generate(
        _ arguments: [String],
        model: String = fixtureModel
    ) throws -> CommandRun {
        let run = try CommandRun.process(
            ["generate", "-m", model, "-s", "7"] + arguments,
            in: folder.path
        )
        #expect(run.code == 0, "\(run.errors)")
        return run
    }

    private func bytes(_ name: String) throws -> [UInt8] {
        Array(try Data(contentsOf: URL(fileURLWithPath: folder.file(name))))
    }

    /// The documented sizes of resolution class 1024.
    private static let documented = [
        ("1:1", 1024, 1024), ("4:3", 1184, 896), ("3:2", 1248, 832), ("16:9", 1376, 768),
        ("2.35:1", 1568, 672), ("4:5", 928, 1152), ("2:3", 832, 1248), ("9:16", 768, 1376),
    ]

    @Test func documentedSizesAreResolved() throws {
        for (ratio, width, height) in Self.documented {
            let run = try generate(["a", "--plan", "--json", "--aspect-ratio", ratio])
            let plan = try JSONSerialization.jsonObject(with: Data(run.output)) as? [String: Any]
            #expect(plan?["width"] as? Int == width, "\(ratio)")
            #expect(plan?["height"] as? Int == height, "\(ratio)")
        }
    }

    @Test func picturesOfAHalvedClassHaveHalfTheSides() throws {
        let model = try ModelCopy(in: folder)
        try model.add(#""resolution_class": 512"#, to: "model_index.json")
        for (ratio, width, height) in Self.documented {
            let arguments = [
                "a", "--steps", "1", "--aspect-ratio", ratio, "-o", "a.png", "--force",
            ]
            _ = try generate(arguments, model: model.path)
            let picture = try PNG.decode(bytes("a.png"))
            #expect(picture.width == width / 2 && picture.height == height / 2, "\(ratio)")
        }
    }

    @Test func variantsChooseTheirOwnValues() throws {
        for (variant, width, values) in [
            ("turbo", "64", "steps 8, cfg 0 (cfg-scale 1), mu 1.15,"),
            // 0.5 + (tokens - 256) * 0.65 / 6144
            ("raw", "64", "steps 52, cfg 3.5 (cfg-scale 4.5), mu 0.474609,"),
            ("raw", "128", "steps 52, cfg 3.5 (cfg-scale 4.5), mu 0.476302,"),
        ] {
            let size = ["-W", width, "-H", "64"]
            let run = try generate(["a", "-o", "a.png", "--force", "--variant", variant] + size)
            #expect(run.errors.contains(values), "\(run.errors)")
            let record = try PNG.readText(bytes("a.png")).record()
            #expect(record?.steps == (variant == "turbo" ? 8 : 52))
            #expect(record?.guidance == (variant == "turbo" ? 0 : 3.5))
        }
    }

    @Test func equalCommandsGiveEqualBytesWithAnyNumberOfThreads() throws {
        for (threads, name) in [("1", "a"), ("2", "b"), ("2", "c"), ("3", "d")] {
            _ = try generate([
                "a fox", "--size", "144x96", "--steps", "2", "--cfg", "2", "--num-images", "2",
                "-t", threads, "-o", "\(name)%d.png", "--dump", name,
            ])
        }
        for other in ["b", "c", "d"] {
            for suffix in ["0.png", "1.png", ""] {
                let equal = try bytes(other + suffix) == bytes("a" + suffix)
                #expect(equal, "\(other)\(suffix)")
            }
        }
        #expect(try bytes("a0.png") != bytes("a1.png"))
    }

    @Test func promptsBeyondTheLimitAreCutWithAMessage() throws {
        let words = Array(repeating: "fox", count: 600).joined(separator: " ")
        let arguments = ["--size", "64x64", "--steps", "1", "--dump", "d", "-o", "a.png"]
        let run = try generate([words] + arguments)
        #expect(run.errors.contains("krea2: prompt: the last "), "\(run.errors)")
        #expect(run.errors.contains(" tokens are dropped, 507 fit\n"), "\(run.errors)")
        // 34 of the prefix, 507 of the prompt, 5 of the suffix.
        let file = try SafetensorsFile(path: folder.file("d"))
        #expect(file.tensors["ids.pos"]?.shape == [34 + 507 + 5])
        #expect(try PNG.readText(bytes("a.png")).record()?.prompt == words)
    }

    @Test func dumpsWhatIsDocumented() throws {
        _ = try generate([
            "a fox", "--size", "64x80", "--steps", "2", "--cfg", "2", "--num-images", "2",
            "--dump", "dump.safetensors",
        ])
        let file = try SafetensorsFile(path: folder.file("dump.safetensors"))
        let found = file.tensors.map { name, record in
            "\(name) \(record.elementType.rawValue) \(record.shape)"
        }
        var expected = [
            "ids.pos I64 [41]", "ids.neg I64 [39]", "taps.pos F32 [7, 3, 48]",
            "taps.neg F32 [5, 3, 48]", "text.pos.fused F32 [7, 48]", "text.pos.in F32 [7, 96]",
            "text.neg.fused F32 [5, 48]", "text.neg.in F32 [5, 96]", "noise F32 [2, 16, 10, 8]",
            "sigmas F32 [3]", "step0.block0 F32 [27, 96]", "step0.block1 F32 [27, 96]",
            "latents F32 [2, 16, 10, 8]", "vae.in F32 [2, 16, 10, 8]",
            "vae.out F32 [2, 3, 80, 64]", "rgb U8 [2, 80, 64, 3]",
        ]
        for step in 0..<2 {
            expected += ["cond", "uncond", "velocity", "latents"].map {
                "step\(step).\($0) F32 [2, 20, 64]"
            }
        }
        #expect(found.sorted() == expected.sorted())
        let pictures = try ["krea2-7.png", "krea2-8.png"].flatMap { try PNG.decode(bytes($0)).rgb }
        let rgb = try #require(file.tensor("rgb"))
        let pixels = (0..<rgb.count).map { rgb.address.load(fromByteOffset: $0, as: UInt8.self) }
        #expect(pixels == pictures)
    }

    @Test(arguments: [
        "a fox", "Füchse – «é»", "狐が雪の中を歩く", "\u{1F98A}\u{200D}\u{2744}", "two\nlines\n",
    ])
    func inspectPrintsBackWhatWasAskedFor(_ prompt: String) throws {
        _ = try generate([prompt, "--size", "64x64", "--steps", "1", "--cfg", "2", "-o", "a.png"])
        let json = try CommandRun.process(["inspect", "--json", "a.png"], in: folder.path)
        let object = try JSONSerialization.jsonObject(with: Data(json.output)) as? [String: Any]
        let record = try #require(object?["krea2"] as? [String: Any])
        let found = try #require(record["prompt"] as? String)
        // Equal strings may be made of different scalars.
        #expect(Array(found.utf8) == Array(prompt.utf8))
        #expect(record["seed"] as? Int == 7)
        #expect(record["guidance"] as? Double == 2)
        #expect(record["steps"] as? Int == 1)
        let text = try CommandRun.process(["inspect", "a.png"], in: folder.path)
        for line in prompt.split(separator: "\n") {
            #expect(text.text.contains("\n    \(line)\n"), "\(text.text)")
        }
    }

    @Test func promptsTooLongForAPictureAreRefusedBeforeTheRun() throws {
        let record = { (byteCount: Int) in
            GenerationRecord(
                engineVersion: "0",
                checkpoint: .raw,
                digests: .init(transformer: "", textEncoder: "", autoencoder: "", tokenizer: ""),
                // JSON writes six characters for each of these.
                prompt: String(repeating: "\u{1}", count: byteCount),
                negativePrompt: nil,
                seed: 0,
                width: 64,
                height: 64,
                steps: 1,
                guidance: 0,
                shift: 0,
                precision: "f32",
                kernels: "scalar",
                imageIndex: 0
            )
        }
        try PictureFile.check(record(Generate.promptByteLimit))
        let error = #expect(throws: Failure.self) {
            try PictureFile.check(record(PNG.largestTextByteCount / 6))
        }
        #expect(error?.code == .wrongUsage)
        #expect(error?.message.contains("; --no-metadata leaves it out; see krea2") == true)
    }

    @Test func planPredictsMemoryAndTime() throws {
        let run = try generate(["a", "--plan", "--json", "-t", "1"])
        let plan = try JSONSerialization.jsonObject(with: Data(run.output)) as? [String: Any]
        let number = { (key: String) in plan?[key] as? Double ?? .nan }
        let weights = (plan?["weights"] as? [[String: Any]])?.compactMap {
            $0["byteCount"] as? Double
        }
        #expect(weights?.count == 3)
        let parts = ["arenaBytes", "residentWeightBytes", "programBytes"].map(number)
        #expect(number("peakBytes") == parts.reduce(0, +))
        #expect(number("residentWeightBytes") <= weights?.reduce(0, +) ?? .nan)
        // The text encoder's last layers and its vision tower are not read.
        let all = weights?.reduce(0, +) ?? .nan
        #expect(number("diskBytes") < all)
        #expect(number("diskBytes") > all / 2)

        let stages = plan?["stages"] as? [[String: Any]] ?? []
        #expect(
            stages.map { $0["name"] as? String } == ["text encoder", "transformer", "autoencoder"]
        )
        for key in ["seconds", "diskBytes", "floatingPointOperations"] {
            let parts = stages.map { $0[key] as? Double ?? .nan }
            #expect(parts.allSatisfy { $0 > 0 })
            #expect(abs(parts.reduce(0, +) / number(key) - 1) < 1e-9, "\(key)")
        }
    }

    @Test func planMeasuresTheMachineOnce() throws {
        let first = try generate(["a", "--plan", "-t", "1"])
        #expect(first.text.contains("\nmemory       "))
        #expect(first.errors.contains("measuring this machine with threads 1"))
        #expect(try folder.names() == [".cache"])
        let second = try generate(["a", "--plan", "-t", "1"])
        #expect(second.text == first.text)
        #expect(second.errors.isEmpty)

        let files = try FileManager.default.subpathsOfDirectory(atPath: folder.file(".cache/krea2"))
        try folder.write("{}", to: ".cache/krea2/" + (try #require(files.first)))
        let third = try generate(["a", "--plan", "-t", "1"])
        #expect(third.code == 0)
        #expect(third.errors.contains("measuring this machine"))
    }
}
