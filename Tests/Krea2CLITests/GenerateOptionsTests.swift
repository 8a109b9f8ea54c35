import Krea2
import TestSupport
import Testing

@testable import Krea2CLI

/// What the options of `generate` come to.
struct GenerateOptionsTests {
    private func settings(_ arguments: [String]) throws(Failure) -> GenerateSettings {
        try Generate.settings(from: GenerateSettings.table.scan(arguments))
    }

    @Test func defaults() throws {
        let settings = try settings(["a fox"])
        var expected = GenerateSettings()
        expected.prompt = "a fox"
        #expect(settings == expected)
        #expect(settings.output == "krea2-{seed}.png")
        #expect(settings.imageCount == 1)
        #expect(settings.size == nil && settings.seed == nil && settings.threads == nil)
    }

    @Test func everyOptionReachesItsSetting() throws {
        let settings = try settings(
            """
            -p fox -n fog -m M --text-encoder E --vae V --tokenizer T --variant raw --size 640x480 \
            --steps 3 --cfg 2.5 --mu -0.5 -s 9223372036854775807 --num-images 1 -o a.png \
            --precision f32 -t 4 --plan --dump d.safetensors --progress json --no-metadata --json \
            -v --force --lora a.safetensors --lora b:c:-0.5 --lora-lenient --intensity -100 \
            --complexity 0 --movement 7 --slider age=3 --slider hair=4 --slider-file s.json \
            --random-sliders --style-reference a.png --style-reference b.k2ref:-2,side=192 \
            --moodboard d --moodboard e.k2board:0.5 --reference-mode exact \
            --reference-wiring frame_t --reference-boost 2.5 --allow-compatible-encoder --no-cache \
            --init-image i.png --strength 0.25 --mask m.png
            """.split(separator: " ").map(String.init)
        )
        var expected = GenerateSettings()
        expected.prompt = "fox"
        expected.negativePrompt = "fog"
        expected.model = "M"
        expected.textEncoder = "E"
        expected.autoencoder = "V"
        expected.tokenizer = "T"
        expected.variant = .raw
        expected.size = .sides(width: 640, height: 480)
        expected.steps = 3
        expected.guidance = .official(2.5)
        expected.shift = -0.5
        expected.seed = 9_223_372_036_854_775_807
        expected.imageCount = 1
        expected.initialImage = "i.png"
        expected.strength = 0.25
        expected.mask = "m.png"
        expected.output = "a.png"
        expected.precision = .float32
        expected.threads = 4
        expected.isPlan = true
        expected.dump = "d.safetensors"
        expected.progress = .json
        expected.hasMetadata = false
        expected.isJSON = true
        expected.isVerbose = true
        expected.overwrites = true
        expected.loras = [
            try LoRAChoice(parsing: "a.safetensors"), try LoRAChoice(parsing: "b:c:-0.5"),
        ]
        expected.isLoRALenient = true
        expected.sliders = [
            "intensity": -100, "complexity": 0, "movement": 7, "age": 3, "hair": 4,
        ]
        expected.sliderFiles = ["s.json"]
        expected.hasRandomSliders = true
        expected.references = [
            try ReferenceChoice(parsing: "a.png"),
            try ReferenceChoice(parsing: "b.k2ref:-2,side=192"),
        ]
        expected.moodboards = [
            try MoodboardChoice(parsing: "d"), try MoodboardChoice(parsing: "e.k2board:0.5"),
        ]
        expected.referenceMode = .exact
        expected.wiring = .frameT
        expected.referenceBoost = 2.5
        expected.allowsOtherEncoder = true
        expected.isCacheOff = true
        #expect(settings == expected)
    }

    @Test func sidesCombine() throws {
        #expect(
            try settings(["-W", "64", "--height=80"]).size == .sides(width: 64, height: 80)
        )
        #expect(try settings(["-H", "80"]).size == .sides(width: nil, height: 80))
    }

    @Test func scaleIsGuidancePlusOne() throws {
        #expect(try settings(["--cfg-scale", "4.5"]).guidance?.official == 3.5)
        #expect(try settings(["--cfg-scale", "1"]).guidance?.official == 0)
        // Not 0.10000002, which float32 subtraction would give.
        #expect(try settings(["--cfg-scale", "1.1"]).guidance?.official == 0.1)
    }

    @Test(arguments: [
        ["--steps", "0"], ["--steps", "1001"], ["--cfg", "-1"], ["--cfg", "inf"],
        ["--cfg-scale", "0.9"], ["--mu", "11"], ["-s", "-1"], ["-s", "9223372036854775808"],
        ["--num-images", "0"], ["--num-images", "101"], ["-W", "63"], ["-H", "4097"],
        ["--size", "big"], ["--aspect-ratio", "5:4"], ["--variant", "base"], ["-t", "0"],
        ["--precision", "fp8"], ["--memory", "much"], ["--progress", "loud"], ["-o", "a.jpg"],
        ["-o", "%s.png"], ["-m", ""], ["--cfg", "1", "--cfg-scale", "2"],
        ["--size", "64x64", "-W", "64"], ["--aspect-ratio", "1:1", "-H", "64"],
        ["--aspect-ratio", "1:1", "--size", "64x64"], ["--quiet", "-v"], ["-p", "a", "b"],
        ["--lora", "x:4.1"], ["--lora", "x:-5"], ["--lora", "x:nan"], ["--lora", ""],
        ["--lora", ":1"], ["--intensity", "101"], ["--intensity", "0.5"], ["--slider", "a"],
        ["--slider", "=1"], ["--slider", "a=1000"], ["--slider", "a=1", "--slider", "a=2"],
        ["--intensity", "1", "--slider", "intensity=2"], ["--slider-file", ""],
        ["--preview", "x"], ["--style-reference", ""], ["--style-reference", "x:2.1"],
        ["--style-reference", "x:inf"], ["--style-reference", "x,side=191"],
        ["--style-reference", "x,side=1025"], ["--style-reference", "x,prep=blur"],
        ["--style-reference", "x,window=0.5"], ["--style-reference", "x,window=0.8-0.2"],
        ["--style-reference", "x,window=0-1.1"], ["--style-reference", "x,blocks=27-7"],
        ["--style-reference", "x,blocks=a"], ["--style-reference", "x,taps=1/b"],
        ["--style-reference", "x,caption=2"], ["--style-reference", "x,preset=loud"],
        ["--style-reference", "x,sides=256"], ["--style-reference", "x,side=256,side=256"],
        ["--style-reference", "x,side="], ["--moodboard", ""], ["--moodboard", "x:3"],
        ["--reference-mode", "fast"], ["--reference-wiring", "index"],
        ["--reference-boost", "0"], ["--reference-boost", "101"], ["--reference-boost", "nan"],
    ])
    func refuses(_ arguments: [String]) {
        let error = #expect(throws: Failure.self) { try settings(arguments) }
        #expect(error?.code == .wrongUsage)
        #expect(error?.message.hasSuffix("; see krea2 generate --help") == true)
    }

    @Test(arguments: [
        ("a", "a", Float(1)), ("a:2", "a", 2), ("a:-4", "a", -4), ("a:0", "a", 0),
        ("a:b", "a:b", 1),
        ("a:", "a:", 1), ("a:1:0.5", "a:1", 0.5), ("c:/a.safetensors", "c:/a.safetensors", 1),
        ("a:.5", "a", 0.5),
    ])
    func aNumberAfterTheLastColonIsTheScale(text: String, name: String, scale: Float) throws {
        let choice = try LoRAChoice(parsing: text)
        #expect(choice.name == name && choice.scale == scale)
    }

    @Test func unavailablePrecisionNamesTheOthers() {
        let error = #expect(throws: Failure.self) { try settings(["--precision", "fp8"]) }
        #expect(error?.message.contains("'fp8' is not one of f32, bf16, int8, auto") == true)
    }
}

/// `--config` files.
struct ConfigFileTests {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
    }

    private func settings(_ json: String, _ flags: [String] = []) throws -> GenerateSettings {
        let path = try folder.write(json, to: "run.json")
        let scan = try GenerateSettings.table.scan(["--config", path] + flags)
        return try Generate.settings(from: scan)
    }

    @Test func namesAreThoseOfTheOptions() throws {
        let settings = try settings(
            #"""
            {"prompt": "a fox", "size": "640x480", "steps": 3, "cfg": 2.5, "seed": 9223372036854775807,
             "mu": -1, "force": true, "plan": false}
            """#
        )
        #expect(settings.prompt == "a fox")
        #expect(settings.size == .sides(width: 640, height: 480))
        #expect(settings.steps == 3)
        #expect(settings.guidance == .official(2.5))
        #expect(settings.seed == 9_223_372_036_854_775_807)
        #expect(settings.shift == -1)
        #expect(settings.overwrites && !settings.isPlan)
    }

    @Test func whatIsRepeatedIsAList() throws {
        let json = #"""
            {"prompt": "a", "lora": ["x", "y:2"], "slider": "age=3", "slider-file": [], "movement": 4}
            """#
        let file = try settings(json)
        #expect(file.loras.map(\.name) == ["x", "y"] && file.loras.map(\.scale) == [1, 2])
        #expect(file.sliders == ["age": 3, "movement": 4] && file.sliderFiles.isEmpty)
        let both = try settings(
            json,
            ["--lora", "z", "--slider", "movement=5", "--intensity", "1"]
        )
        #expect(both.loras.map(\.name) == ["z"])
        #expect(both.sliders == ["age": 3, "movement": 5, "intensity": 1])
        let references = #"{"prompt": "a", "style-reference": ["x:1", "y"], "moodboard": "d"}"#
        let styled = try settings(references, ["--style-reference", "z"])
        #expect(try settings(references).references.map(\.path) == ["x", "y"])
        #expect(styled.references.map(\.path) == ["z"] && styled.moodboards.map(\.path) == ["d"])
        #expect(throws: Failure.self) { try settings(#"{"prompt": "a", "steps": [3]}"#) }
        #expect(throws: Failure.self) { try settings(#"{"prompt": "a", "lora": [["x"]]}"#) }
    }

    @Test func flagsWin() throws {
        let settings = try settings(
            #"{"prompt": "a fox", "steps": 3, "cfg": 2, "aspect-ratio": "1:1", "quiet": true}"#,
            ["a dog", "--steps", "4", "--cfg-scale", "2", "-W", "64", "-v"]
        )
        #expect(settings.prompt == "a dog")
        #expect(settings.steps == 4)
        #expect(settings.guidance == .scale(2))
        #expect(settings.size == .sides(width: 64, height: nil))
        #expect(settings.isVerbose && !settings.isQuiet)
    }

    @Test(arguments: [
        (#"{"step": 3}"#, ExitCode.wrongUsage, #"unknown key "step""#),
        (#"{"config": "a.json"}"#, .wrongUsage, #"unknown key "config""#),
        (#"{"steps": 0}"#, .wrongUsage, "steps: '0' is not a whole number from 1 to 1000"),
        (#"{"steps": 1.5}"#, .wrongUsage, "steps: '1.5' is not a whole number"),
        (#"{"steps": true}"#, .wrongUsage, "steps: expected a text or a number"),
        (#"{"steps": null}"#, .wrongUsage, "steps: expected a text or a number"),
        (#"{"steps": [3]}"#, .wrongUsage, "steps: expected a text or a number"),
        (#"{"force": 1}"#, .wrongUsage, "force: expected true or false"),
        (#"{"cfg": 1, "cfg-scale": 2}"#, .wrongUsage, "exclude each other"),
        (#"{"steps": 3"#, .badData, "not valid JSON"),
        ("", .badData, "not valid JSON"),
        (String(repeating: "[", count: 513), .badData, "more than 128 levels of nesting at byte"),
        (#"{"steps": 3, "steps": 4}"#, .badData, #"key "steps" is there twice"#),
        ("[]", .badData, "expected a JSON object"),
    ])
    func refuses(_ json: String, code: ExitCode, message: String) throws {
        let error = #expect(throws: Failure.self) { try settings(json) }
        #expect(error?.code == code)
        #expect(error?.message.hasPrefix(folder.file("run.json")) == true)
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
    }

    @Test func missingFileIsNamed() throws {
        let scan = try GenerateSettings.table.scan(["x", "--config", folder.file("no.json")])
        let error = #expect(throws: Failure.self) { try Generate.settings(from: scan) }
        #expect(error?.code == .noInput)
        #expect(error?.message.hasPrefix(folder.file("no.json")) == true)
    }
}
