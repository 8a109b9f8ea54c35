import Foundation
import Images
import TestSupport
import Testing

@testable import Krea2CLI

/// Sliders without LoRAs through the built command, with a small model.
@Suite(.serialized)
struct SliderPolesCommandTests {
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private var environment: [String: String] { ["XDG_CACHE_HOME": folder.file("cache")] }

    private func generate(
        _ arguments: [String],
        model: String = fixtureModel,
        seed: UInt64 = 7
    ) throws -> CommandRun {
        let run = try CommandRun.process(
            ["generate", "a fox", "-m", model, "--size", "64x64", "--steps", "2"]
                + ["-s", "\(seed)", "-o", "o.png", "--force"] + arguments,
            in: folder.path,
            environment: environment
        )
        #expect(run.code == 0, "\(run.errors)")
        return run
    }

    private func bytes(_ name: String = "o.png") throws -> [UInt8] {
        Array(try Data(contentsOf: URL(fileURLWithPath: folder.file(name))))
    }

    private func pixels(_ arguments: String...) throws -> [UInt8] {
        _ = try generate(arguments)
        return try PNG.decode(bytes()).rgb
    }

    private func record(_ name: String = "o.png") throws -> GenerationRecord {
        let text = try PNG.readText(path: folder.file(name)).text(GenerationRecord.keyword)
        return try GenerationRecord(json: try #require(text))
    }

    /// Names of what is kept of encoded texts.
    private func kept() throws -> [String] {
        let path = folder.file("cache/krea2/encodings")
        guard FileManager.default.fileExists(atPath: path) else { return [] }
        return try FileManager.default.contentsOfDirectory(atPath: path)
    }

    @Test func textsTakeThePlaceOfMissingLoRAs() throws {
        _ = try generate(["--plan", "--intensity", "60"])
        #expect(try kept().isEmpty)
        let base = try pixels()
        _ = try generate(["--no-metadata"])
        let plain = try bytes()
        _ = try generate(["--no-metadata", "--intensity", "0", "--slider", "movement=0"])
        #expect(try bytes() == plain)
        // Nothing but the prompt is encoded so far.
        #expect(try kept().count == 1)

        let run = try generate(["--intensity", "60"])
        let line = "slider intensity 60: approximate, by texts in place of a LoRA, strength 0.3"
        #expect(run.errors.contains("krea2: \(line)\n"), "\(run.errors)")
        let moved = try PNG.decode(bytes()).rgb
        #expect(moved != base)
        #expect(try kept().count == 5)
        let slider = try #require(try record().sliders?.first)
        #expect(slider.name == "intensity" && slider.value == 60 && slider.kind == "poles")
        #expect(slider.isApproximate == true && slider.scale == 0.3 && slider.window == [0, 1])
        #expect(slider.digest.hasPrefix("texts-sha256:") && !slider.isRandom)
        #expect(try record().referenceMode == "attention" && record().references == nil)
        // From the cache, and without one.
        #expect(try pixels("--slider", "intensity=60") == moved)
        #expect(try pixels("--slider", "intensity=60", "--no-cache") == moved)
        #expect(try pixels("--slider", "intensity=-60") != moved)
        #expect(
            try pixels("--complexity", "50", "--intensity", "60")
                == pixels("--intensity", "60", "--complexity", "50")
        )
        #expect(try pixels("--intensity", "60", "--reference-mode", "exact") != moved)
        #expect(try record().referenceMode == "exact")
    }

    @Test func drawnValuesAreReplayed() throws {
        _ = try generate(["--random-sliders", "--num-images", "2", "--movement", "-30"])
        let records = [try record(), try record("o_2.png")]
        for record in records {
            let sliders = try #require(record.sliders)
            #expect(sliders.map(\.name) == ["complexity", "intensity", "movement"])
            #expect(sliders.map(\.isRandom) == [true, true, false] && sliders[2].value == -30)
            #expect(sliders.allSatisfy { $0.kind == "poles" && $0.isApproximate == true })
        }
        #expect(records[0].sliders != records[1].sliders)
        let pictures = try ["o.png", "o_2.png"].map { try PNG.decode(bytes($0)).rgb }
        for (record, picture) in zip(records, pictures) {
            let values = (record.sliders ?? []).flatMap { ["--slider", "\($0.name)=\($0.value)"] }
            _ = try generate(values, seed: record.seed)
            #expect(try PNG.decode(bytes()).rgb == picture)
        }
    }

    @Test func manifestsMayHaveTexts() throws {
        try folder.write(
            """
            {"format": "krea2-slider", "version": 1, "name": "age", "kind": "poles",
             "poles": {"positive": ["old", "very old"], "negative": ["young"]},
             "eta_positive": 1, "window": [0.5, 1]}
            """,
            to: "age.json"
        )
        let run = try generate(["--slider-file", "age.json", "--slider", "age=50"])
        #expect(run.errors.contains("slider age 50: approximate"), "\(run.errors)")
        let slider = try #require(try record().sliders?.first)
        #expect(slider.scale == 0.5 && slider.window == [0.5, 1] && slider.kind == "poles")
    }

    /// The embedded model has LoRAs, which go first unless a manifest says otherwise.
    @Test func aLoRAGoesFirst() throws {
        let model = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("weights/mini/turbo.safetensors").path
        var run = try generate(["--intensity", "60"], model: model)
        #expect(!run.errors.contains("approximate"), "\(run.errors)")
        #expect(try record().sliders?.first?.kind == "signed")
        #expect(try record().sliders?.first?.isApproximate == nil)
        #expect(try record().referenceMode == nil)
        try folder.write(
            #"{"format": "krea2-slider", "version": 1, "name": "intensity", "kind": "poles"}"#,
            to: "i.json"
        )
        run = try generate(["--intensity", "60", "--slider-file", "i.json"], model: model)
        #expect(run.errors.contains("slider intensity 60: approximate"), "\(run.errors)")
        #expect(try record().sliders?.map(\.kind) == ["poles"])
    }
}
