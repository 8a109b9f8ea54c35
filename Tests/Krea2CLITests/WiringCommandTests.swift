import Foundation
import Images
import Krea2
import TestSupport
import Testing

@testable import Krea2CLI

/// References in the transformer's sequence, with the embedded model and through the built command.
@Suite(.serialized)
struct WiringCommandTests {
    private let folder: TemporaryFolder
    private let digest: String

    private static let embedded = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("weights/mini")

    init() throws {
        folder = try TemporaryFolder()
        for (index, name) in ["a.png", "b.png"].enumerated() {
            let image = try PixelImage(
                width: 96,
                height: 70,
                rgb: (0..<3 * 96 * 70).map { UInt8(truncatingIfNeeded: $0 * (7 + index) / 5) }
            )
            try folder.write(PNG.encode(image, metadata: nil), to: name)
        }
        for name in ["s.safetensors", "t.safetensors"] {
            try FileManager.default.copyItem(
                at: Self.embedded.appendingPathComponent("loras/sepia.safetensors"),
                to: URL(fileURLWithPath: folder.file(name))
            )
        }
        digest = String(try Engine.digest(ofFile: folder.file("s.safetensors")).dropFirst(7))
    }

    /// The smallest picture there is.
    private func generate(_ arguments: [String]) throws -> CommandRun {
        let model = Self.embedded.appendingPathComponent("turbo.safetensors").path
        return try CommandRun.process(
            ["generate", "a red boat", "-m", model, "--size", "64x64", "--steps", "1", "-s", "7"]
                + ["-o", "o.png", "--force"] + arguments,
            in: folder.path,
            environment: ["KREA2_CACHE": "off"]
        )
    }

    private func pixels(_ arguments: String...) throws -> [UInt8] {
        let run = try generate(arguments)
        #expect(run.code == 0, "\(run.errors)")
        return try PNG.decode(
            Array(try Data(contentsOf: URL(fileURLWithPath: folder.file("o.png"))))
        ).rgb
    }

    private func record() throws -> GenerationRecord {
        let text = try PNG.readText(path: folder.file("o.png")).text(GenerationRecord.keyword)
        return try GenerationRecord(json: try #require(text))
    }

    private func manifest(
        _ wiring: String,
        of name: String = "s",
        digest: String? = nil,
        more: String = ""
    ) throws {
        let sha256 = digest ?? self.digest
        try folder.write(
            #"{"format": "krea2-lora", "version": 1, "sha256": "\#(sha256)", "wiring": "\#(wiring)""#
                + more + "}",
            to: "\(name).lora.json"
        )
    }

    // MARK: Wirings

    @Test func wiringsAreAppliedAndRecorded() throws {
        let base = try pixels()
        let beside = try pixels("--style-reference", "a.png:1")
        #expect(try pixels("--style-reference", "a.png:1", "--reference-wiring", "none") == beside)
        #expect(try record().referenceWiring == nil && record().referenceMode == "attention")
        let index = try pixels("--style-reference", "a.png", "--reference-wiring", "index_t0")
        let found = try record()
        #expect(found.referenceWiring == "index_t0" && found.referenceBoost == nil)
        #expect(found.referenceMode == nil && found.references?.count == 1)
        let reference = try #require(found.references?.first)
        #expect(reference.strength == 1 && reference.side == 512 && reference.prep == "none")
        #expect(reference.content.hasPrefix("pixels-sha256:"))
        let frame = try pixels(
            "--style-reference",
            "a.png:1,side=1024",
            "--reference-wiring",
            "frame_t",
            "--reference-boost",
            "2"
        )
        #expect(try record().referenceBoost == 2 && record().references?.first?.side == 1024)
        #expect(Set([base, beside, index, frame]).count == 4)
        let zero = try pixels("--style-reference", "a.png:0", "--reference-wiring", "index_t0")
        #expect(try zero == base && record().references == nil && record().referenceWiring == nil)
        #expect(try pixels("--reference-wiring", "index_t0") == base)
    }

    @Test func linesSayWhatStandsWhere() throws {
        let run = try generate([
            "--style-reference", "a.png", "--style-reference", "b.png:-0.5", "--style-reference",
            "a.png:0", "--reference-wiring", "index_t0",
        ])
        for line in [
            "wiring index_t0 (--reference-wiring)",
            "reference a.png: 4 x 6 tokens of the latent, strength 1",
            "reference b.png: 4 x 6 tokens of the latent, strength -0.5",
            "reference a.png: strength 0, not used",
        ] { #expect(run.errors.contains(line), "\(line) in \(run.errors)") }
    }

    @Test func manifestsChooseUnlessTheUserDoes() throws {
        let references = ["--style-reference", "a.png", "--lora", "s.safetensors"]
        func pixels(_ more: String...) throws -> [UInt8] {
            let run = try generate(references + more)
            #expect(run.code == 0, "\(run.errors)")
            return try PNG.decode(
                Array(try Data(contentsOf: URL(fileURLWithPath: folder.file("o.png"))))
            ).rgb
        }
        let beside = try pixels()
        let index = try pixels("--reference-wiring", "index_t0")
        let boosted = try pixels("--reference-wiring", "frame_t", "--reference-boost", "3")
        try manifest("index_t0")
        #expect(try pixels() == index)
        #expect(try pixels("--reference-wiring", "none") == beside)
        try manifest("frame_t", more: #", "ref_boost": 3"#)
        #expect(try pixels() == boosted && record().referenceBoost == 3)
        try manifest("none")
        #expect(try pixels() == beside)
    }

    @Test func lorasFadeOutWithTheirReferences() throws {
        try manifest("index_t0")
        _ = try pixels(
            "--style-reference",
            "a.png:0.125",
            "--lora",
            "s.safetensors:0.8",
            "--lora",
            "t.safetensors"
        )
        let loras = try #require(try record().loras)
        #expect(loras.map(\.name) == ["s", "t"] && loras.map(\.scale) == [0.4, 1])
        _ = try pixels("--style-reference", "a.png:-0.3", "--lora", "s.safetensors:0.8")
        #expect(try record().loras?.map(\.scale) == [0.8])
        let base = try pixels()
        let run = try generate(["--style-reference", "a.png:0", "--lora", "s.safetensors"])
        #expect(run.errors.contains("all references have strength 0, not applied"))
        #expect(try record().loras == nil)
        #expect(try pixels("--style-reference", "a.png:0", "--lora", "s.safetensors") == base)
        // Without any reference it is a LoRA like others.
        let alone = try pixels("--lora", "s.safetensors")
        #expect(try alone != base && pixels("--lora", "t.safetensors") == alone)
    }

    @Test func plansCountLatents() throws {
        let run = try generate([
            "--style-reference", "a.png", "--reference-wiring", "index_t0", "--plan",
        ])
        #expect(run.code == 0, "\(run.errors)")
        #expect(run.text.contains("whole run, reference latent [24, 64]"), "\(run.text)")
        #expect(run.text.contains("references"))
    }

    // MARK: Errors

    private static let failures: [(line: String, code: Int32, reason: String)] = [
        ("--style-reference a.png,prep=soft", 64, "prep has no meaning with the wiring index_t0"),
        ("--style-reference a.png,window=late", 64, "window has no meaning"),
        ("--style-reference a.png,preset=style", 64, "prep has no meaning"),
        ("--style-reference a.png,caption=1", 64, "caption has no meaning"),
        ("--style-reference x.k2ref", 64, "the wiring index_t0 needs the picture itself"),
        ("--style-reference a.png --reference-boost 2", 64, "needs --reference-wiring frame_t"),
        ("--style-reference gone.png", 66, "gone.png"),
        ("--style-reference text.png", 65, "text.png"),
        ("--style-reference small.png", 65, "small.png: "),
        (
            "--style-reference a.png:0.5 --reference-mode exact", 64,
            "the mode exact takes references of strength 1"
        ),
    ]

    @Test(arguments: failures)
    func failuresAreOneLine(_ line: String, code: Int32, reason: String) throws {
        try folder.write("hello, world", to: "text.png")
        let rgb = [UInt8](repeating: 9, count: 27 * 99 * 3)
        let small = try PixelImage(width: 27, height: 99, rgb: rgb)
        try folder.write(PNG.encode(small, metadata: nil), to: "small.png")
        let words = line.split(separator: " ").map(String.init)
        let run = try generate(words + ["--reference-wiring", "index_t0"])
        #expect(run.code == code && run.isOneErrorLine, "\(run.errors)")
        #expect(run.errors.contains(reason), "\(run.errors)")
    }

    @Test func othersAreRefused() throws {
        func refuses(_ code: Int32, _ reason: String, _ arguments: String...) throws {
            let run = try generate(["--style-reference", "a.png"] + arguments)
            #expect(run.code == code && run.isOneErrorLine, "\(run.errors)")
            #expect(run.errors.contains(reason), "\(run.errors)")
        }
        try refuses(64, "needs --reference-wiring frame_t", "--reference-boost", "2")
        try refuses(64, "side 1000, expected at most 768", "--style-reference", "b.png,side=1000")
        try manifest("index_t0", digest: String(repeating: "1", count: 64))
        try refuses(65, "s.lora.json says", "--lora", "s.safetensors")
        try manifest("index_t0", more: #", "isolate": true"#)
        try refuses(65, "isolated references are not supported", "--lora", "s.safetensors")
        try manifest("index_t0")
        try manifest("frame_t", of: "t")
        try refuses(
            64,
            "LoRAs for frame_t and index_t0 together; choose with --reference-wiring",
            "--lora",
            "s.safetensors",
            "--lora",
            "t.safetensors"
        )
    }
}
