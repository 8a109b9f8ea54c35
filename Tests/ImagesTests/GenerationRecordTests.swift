import TestSupport
import Testing

@testable import Images

/// A record as the command writes it.
func sampleRecord(
    engineVersion: String = "0.1.0",
    prompt: String = "a fox walking in the snow",
    negativePrompt: String? = nil,
    seed: UInt64 = 42,
    guidance: Float = 0,
    shift: Double = 1.15,
    digest: String = "sha256:0123456789abcdef",
    loras: [GenerationRecord.LoRA] = [],
    sliders: [GenerationRecord.Slider] = [],
    references: [GenerationRecord.Reference] = [],
    moodboards: [GenerationRecord.Moodboard] = [],
    referenceMode: String? = nil,
    referenceWiring: String? = nil,
    referenceBoost: Float? = nil,
    initialImage: GenerationRecord.InitialImage? = nil
) -> GenerationRecord {
    GenerationRecord(
        engineVersion: engineVersion,
        checkpoint: guidance > 0 ? .raw : .turbo,
        digests: .init(
            transformer: digest,
            textEncoder: "sha256:11",
            autoencoder: "sha256:22",
            tokenizer: "sha256:33"
        ),
        prompt: prompt,
        negativePrompt: negativePrompt,
        seed: seed,
        width: 1024,
        height: 576,
        steps: 8,
        guidance: guidance,
        shift: shift,
        precision: "f32",
        kernels: "avx512",
        imageIndex: 0,
        loras: loras,
        sliders: sliders,
        references: references,
        moodboards: moodboards,
        referenceMode: referenceMode,
        referenceWiring: referenceWiring,
        referenceBoost: referenceBoost,
        initialImage: initialImage
    )
}

/// What stands in the last line of `parameters` for a guidance of 0.
private let lastLine =
    "Steps: 8, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Seed: 42, Size: 1024x576, "
    + "Model hash: 0123456789, Model: krea2-turbo, Mu: 1.15, Version: krea2 0.1.0"

struct GenerationRecordTests {
    @Test func writesSortedJSON() throws {
        let expected =
            #"{"cfgScale":1,"checkpoint":"turbo","digests":{"autoencoder":"sha256:22","#
            + #""textEncoder":"sha256:11","tokenizer":"sha256:33","#
            + #""transformer":"sha256:0123456789abcdef"},"engineVersion":"0.1.0","#
            + #""formatVersion":1,"guidance":0,"height":576,"imageIndex":0,"kernels":"avx512","#
            + #""noise":"torch-cpu-float32","precision":"f32","#
            + #""prompt":"a/b \"狐\"\n\u0000","seed":42,"shift":1.15,"steps":8,"#
            + #""width":1024}"#
        #expect(try sampleRecord(prompt: "a/b \"狐\"\n\0").json() == expected)
    }

    @Test(arguments: awkwardTexts + ["nul\0nul"])
    func survivesAPicture(text: String) throws {
        let record = sampleRecord(prompt: text, negativePrompt: text, guidance: 3.5)
        let image = try randomImage(width: 2, height: 2)
        let description = try PNG.readText(PNG.encode(image, metadata: record))
        let found = try #require(try description.record())
        #expect(found == record)
        #expect(Array(found.prompt.unicodeScalars) == Array(text.unicodeScalars))
        #expect(
            description.texts.map(\.keyword) == ["XML:com.adobe.xmp", "parameters", "krea2"]
        )
        let parameters = try #require(description.text("parameters"))
        #expect(Array(parameters.unicodeScalars) == Array(record.parameters.unicodeScalars))
    }

    @Test func keepsLoRAsAndSliders() throws {
        let record = sampleRecord(
            loras: [
                .init(name: "a, b", digest: "sha256:0123456789abcdef", scale: 0.8),
                .init(name: "c", digest: "sha256:fedcba9876543210", scale: -4),
            ],
            sliders: [
                .init(
                    name: "intensity",
                    value: -30,
                    kind: "signed",
                    digest: "sha256:77",
                    scale: -0.3,
                    window: [0, 0.5],
                    isRandom: true
                ),
                .init(
                    name: "movement",
                    value: 100,
                    kind: "poles",
                    digest: "texts-sha256:88",
                    scale: 0.5,
                    window: [0, 1],
                    isRandom: false,
                    isApproximate: true
                ),
            ]
        )
        let json = try record.json()
        #expect(json.contains(#""loras":[{"digest":"sha256:0123456789abcdef","name":"a, b","#))
        #expect(try GenerationRecord(json: json) == record)
        #expect(json.contains(#""digest":"texts-sha256:88","isApproximate":true,"isRandom":false"#))
        #expect(json.contains(#""digest":"sha256:77","isRandom":true"#))
        #expect(
            record.parameters.hasSuffix(
                lastLine + #", Lora hashes: "a, b: 0123456789, c: fedcba9876", "#
                    + #"Lora scales: "a, b: 0.8, c: -4", Sliders: "intensity: -30, movement: 100""#
            ),
            "\(record.parameters)"
        )
    }

    @Test func keepsReferencesAndMoodboards() throws {
        let record = sampleRecord(
            references: [
                .init(
                    content: "pixels-sha256:0123456789abcdef",
                    strength: -0.6,
                    prep: "tiles",
                    side: 384,
                    window: [0.1, 0.8],
                    blocks: [7, 27],
                    taps: [1, 0.5, 0],
                    caption: 0.25,
                    encoder: "sha256:99"
                ),
                .init(content: "b", strength: 2, prep: "none", side: 192, window: [0, 1]),
            ],
            moodboards: [
                .init(content: "pictures-sha256:fedcba9876543210", pictures: 12, strength: 0.35),
                .init(content: "d", pictures: 1, strength: 1, encoder: "sha256:99"),
            ],
            referenceMode: "attention"
        )
        let json = try record.json()
        #expect(json.contains(#""content":"b","prep":"none","side":192,"strength":2,"#))
        #expect(json.contains(#""window":[0,1]}"#) && !json.contains("null"))
        #expect(try GenerationRecord(json: json) == record)
        #expect(
            record.parameters.hasSuffix(
                lastLine + #", Style references: "0123456789: -0.6, b: 2", "#
                    + #"Moodboards: "fedcba9876: 0.35, d: 1""#
            ),
            "\(record.parameters)"
        )
    }

    @Test func keepsWirings() throws {
        let record = sampleRecord(referenceWiring: "frame_t", referenceBoost: 2.5)
        let json = try record.json()
        #expect(json.contains(#""referenceBoost":2.5,"referenceWiring":"frame_t","#))
        #expect(try GenerationRecord(json: json) == record)
        #expect(record.parameters.hasSuffix(lastLine + ", Reference wiring: frame_t"))
        let endless = json.replacing("2.5", with: "1e60")
        #expect(throws: ImageError.invalidRecord(reason: "a number is not finite")) {
            try GenerationRecord(json: endless)
        }
    }

    @Test(arguments: [
        (#""references":[{"content":1}]"#, "references[0].content has an unusable value"),
        (
            #""references":[{"content":"a","strength":1,"prep":"none","side":9,"window":[0,1],"#
                + #""blocks":[0.5,1]}]"#,
            "references[0].blocks has an unusable value"
        ),
        (
            #""references":[{"content":"a","strength":1e60,"prep":"none","side":9,"window":[0,1]}]"#,
            "a number is not finite"
        ),
        (#""moodboards":[{"content":"a"}]"#, "moodboards[0].pictures is missing"),
        (
            #""moodboards":[{"content":"a","pictures":1,"strength":1e60}]"#,
            "a number is not finite"
        ),
        (#""referenceMode":1"#, "referenceMode has an unusable value"),
        (#""referenceWiring":[]"#, "referenceWiring has an unusable value"),
        (#""referenceBoost":"2""#, "referenceBoost has an unusable value"),
    ])
    func refusesDamagedReferences(member: String, reason: String) throws {
        let json = try sampleRecord().json().dropLast() + ",\(member)}"
        #expect(throws: ImageError.invalidRecord(reason: reason)) {
            try GenerationRecord(json: String(json))
        }
    }

    @Test(arguments: [
        (#""loras":{}"#, "loras has an unusable value"),
        (#""loras":[1]"#, "loras has an unusable value"),
        (#""loras":[{"name":"a","digest":"b"}]"#, "loras[0].scale is missing"),
        (#""loras":[{"name":"a","digest":"b","scale":1e60}]"#, "a number is not finite"),
        (#""sliders":[{"name":"a","value":"1"}]"#, "sliders[0].value has an unusable value"),
    ])
    func refusesDamagedLoRAs(member: String, reason: String) throws {
        let json = try sampleRecord().json().dropLast() + ",\(member)}"
        #expect(throws: ImageError.invalidRecord(reason: reason)) {
            try GenerationRecord(json: String(json))
        }
    }

    @Test(arguments: [nil, "sha256:99"])
    func keepsWhatThePictureBeganWith(maskDigest: String?) throws {
        let record = sampleRecord(
            initialImage: .init(digest: "sha256:88", strength: 0.65, maskDigest: maskDigest)
        )
        let json = try record.json()
        let mask = maskDigest.map { #""maskDigest":"\#($0)","# } ?? ""
        #expect(
            json.contains(#""initialImage":{"digest":"sha256:88",\#(mask)"strength":0.65}"#),
            "\(json)"
        )
        #expect(try GenerationRecord(json: json) == record)
        #expect(record.parameters.hasSuffix(lastLine + ", Denoising strength: 0.65"))
    }

    @Test(arguments: [
        ("[]", "initialImage has an unusable value"), ("{}", "initialImage.digest is missing"),
        (#"{"digest":"a"}"#, "initialImage.strength is missing"),
        (#"{"digest":"a","strength":1.5}"#, "strength 1.5"),
        (#"{"digest":"a","strength":1e999}"#, "strength inf"),
        (
            #"{"digest":"a","strength":1,"maskDigest":1}"#,
            "initialImage.maskDigest has an unusable value"
        ),
    ])
    func refusesDamagedInitialImages(value: String, reason: String) throws {
        let json = try sampleRecord().json().dropLast() + ",\"initialImage\":\(value)}"
        #expect(throws: ImageError.invalidRecord(reason: reason)) {
            try GenerationRecord(json: String(json))
        }
    }

    @Test func keepsNumbersExactly() throws {
        var random = SeededGenerator(seed: 7)
        let seeds: [UInt64] = [0, 1 << 53 + 1, UInt64(Int64.max)]
        for index in 0..<500 {
            let record = sampleRecord(
                seed: seeds[index % 3],
                guidance: Float(bitPattern: UInt32.random(in: 0..<0x7F80_0000, using: &random)),
                shift: Double.random(in: -4...4, using: &random)
            )
            let found = try GenerationRecord(json: record.json())
            #expect(found.seed == record.seed)
            #expect(found.guidance.bitPattern == record.guidance.bitPattern)
            #expect(found.cfgScale.bitPattern == record.cfgScale.bitPattern)
            #expect(found.shift.bitPattern == record.shift.bitPattern)
        }
    }

    @Test func passesOverUnknownKeys() throws {
        let record = sampleRecord()
        let json = try record.json()
        let extended = #"{"aNewKey":{"a":[1,null]},"# + json.dropFirst()
        #expect(try GenerationRecord(json: extended) == record)
    }

    @Test(arguments: [
        ("", "the text ends here at byte 0 of its JSON"), ("[1]", "it is not a JSON object"),
        ("{", "the text ends here at byte 1 of its JSON"), ("{}", "formatVersion is missing"),
        (#"{"formatVersion":2}"#, "format 2, expected 1 to 1"),
        (#"{"formatVersion":0}"#, "format 0, expected 1 to 1"),
        (#"{"formatVersion":"1"}"#, "formatVersion has an unusable value"),
        (#"{"formatVersion":null}"#, "formatVersion has an unusable value"),
        (#"{"formatVersion":1}"#, "checkpoint is missing"),
        ("\u{0}", "expected a value at byte 0 of its JSON"),
        (
            String(repeating: "[", count: 100_000),
            "more than 128 levels of nesting at byte 128 of its JSON"
        ),
        (
            String(repeating: #"{"a":"#, count: 100_000),
            "more than 128 levels of nesting at byte 640 of its JSON"
        ),
    ])
    func namesWhatIsWrong(json: String, reason: String) {
        #expect(throws: ImageError.invalidRecord(reason: reason)) {
            try GenerationRecord(json: json)
        }
    }

    @Test(arguments: [
        (#""seed":42"#, #""seed":-1"#, "seed has an unusable value"),
        (#""seed":42"#, #""seed":1.5"#, "seed has an unusable value"),
        (#""seed":42"#, #""seed":9223372036854775808"#, "seed has an unusable value"),
        (#""seed":42"#, #""seed":99999999999999999999"#, "seed has an unusable value"),
        (#""width":1024"#, #""width":0"#, "0 x 576 pixels"),
        (#""width":1024"#, #""width":9223372036854775807"#, "9223372036854775807 x 576"),
        (#""steps":8"#, #""steps":0"#, "0 steps"),
        (#""imageIndex":0"#, #""imageIndex":-1"#, "image index -1"),
        (#""cfgScale":1"#, #""cfgScale":3"#, "cfgScale 3.0, expected guidance + 1 = 1.0"),
        (#""guidance":0"#, #""guidance":1e999"#, "a number is not finite"),
        (#""checkpoint":"turbo""#, #""checkpoint":"base""#, "checkpoint has an unusable value"),
        (#""tokenizer":"#, #""tokeniser":"#, "digests.tokenizer is missing"),
        (#""prompt":"#, #""Prompt":"#, "prompt is missing"),
    ])
    func refusesImpossibleValues(found: String, replacement: String, reason: String) throws {
        let json = try sampleRecord().json()
        #expect(json.contains(found))
        let error = #expect(throws: ImageError.self) {
            try GenerationRecord(json: json.replacing(found, with: replacement))
        }
        guard case .invalidRecord(let actual) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(actual.hasPrefix(reason), "\(actual)")
    }

    @Test(arguments: [Double.nan, .infinity, -.infinity])
    func refusesToWriteWhatIsNotANumber(number: Double) {
        #expect(throws: ImageError.unwritableRecord(reason: "it contains the number \(number)")) {
            try sampleRecord(shift: number).json()
        }
    }
}

struct GenerationParametersTests {
    @Test func namesPromptAndValues() {
        #expect(sampleRecord(prompt: "a fox").parameters == "a fox\n" + lastLine)
        #expect(sampleRecord(prompt: "").parameters == lastLine)
        #expect(sampleRecord(prompt: "a\nb\0").parameters == "a\nb\u{FFFD}\n" + lastLine)
    }

    @Test func namesTheNegativePromptOnlyWithGuidance() {
        #expect(sampleRecord(prompt: "a", negativePrompt: "b").parameters == "a\n" + lastLine)
        let guided =
            lastLine
            .replacing("CFG scale: 1,", with: "CFG scale: 4.5,")
            .replacing("krea2-turbo", with: "krea2-raw")
        #expect(
            sampleRecord(prompt: "a", negativePrompt: "b, c", guidance: 3.5).parameters
                == "a\nNegative prompt: b, c\n" + guided
        )
        #expect(
            sampleRecord(prompt: "a", negativePrompt: "", guidance: 3.5).parameters
                == "a\n" + guided
        )
    }

    @Test(arguments: [
        ("1-beta", "krea2 1-beta"), ("a,b", #""krea2 a,b""#), ("a:b", #""krea2 a:b""#),
        ("a\n\t\"\\", #""krea2 a\n\u0009\"\\""#), ("say \"hi\"", "krea2 say \"hi\""),
    ])
    func quotesLikeTheWebInterface(version: String, expected: String) {
        let parameters = sampleRecord(engineVersion: version).parameters
        #expect(parameters.hasSuffix("Version: " + expected))
    }

    @Test(arguments: [("sha256:abcdef0123456789", "abcdef0123"), ("abc", "abc"), ("", "")])
    func shortensTheDigest(digest: String, expected: String) {
        #expect(sampleRecord(digest: digest).parameters.contains("Model hash: \(expected), Model:"))
    }
}
