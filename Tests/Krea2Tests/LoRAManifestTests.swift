import TestSupport
import Testing

@testable import Krea2

/// What stands beside a LoRA about what it was trained for.
struct LoRAManifestTests {
    private let folder: TemporaryFolder
    private let digits = String(repeating: "0a", count: 32)

    init() throws { folder = try TemporaryFolder() }

    private func manifest(_ members: String) throws -> LoRAManifest? {
        _ = try folder.write(
            #"{"format": "krea2-lora", "version": 1, "sha256": "\#(digits)", \#(members)}"#,
            to: "a.lora.json"
        )
        return try LoRAManifest(beside: folder.file("a.safetensors"))
    }

    @Test func namesTheWiring() throws {
        let plain = try #require(try manifest(#""wiring": "index_t0", "isolate": false"#))
        #expect(plain.wiring == .indexT0 && plain.boost == 1)
        #expect(plain.path == folder.file("a.lora.json"))
        let boosted = try #require(try manifest(#""wiring": "frame_t", "ref_boost": 2.5"#))
        #expect(boosted.wiring == .frameT && boosted.boost == 2.5)
        #expect(try #require(try manifest(#""wiring": "none""#)).wiring == nil)
        #expect(try LoRAManifest(beside: folder.file("b.safetensors")) == nil)
    }

    @Test func isAboutOneFile() throws {
        var lora = LoRAFixture()
        var random = SeededGenerator(seed: 1)
        lora.add("first.lora_A.weight", 1, 8, random: &random)
        lora.add("first.lora_B.weight", 16, 1, random: &random)
        let path = try lora.write(to: folder)
        let file = try LoRAFile(path: path, targets: LoRAFixture.targets)
        let other = try #require(try manifest(#""wiring": "frame_t""#))
        let error = #expect(throws: GenerationError.self) { try other.check(file) }
        #expect(error?.category == .unfitFile)
        #expect(error?.description.contains("as \(folder.file("a.lora.json")) says") == true)
        let own = file.digest.dropFirst("sha256:".count).uppercased()
        _ = try folder.write(
            #"{"format": "krea2-lora", "version": 1, "sha256": "\#(own)", "wiring": "frame_t"}"#,
            to: "a.lora.json"
        )
        try #require(try LoRAManifest(beside: path)).check(file)
    }

    @Test(arguments: [
        #""wiring": "index""#, #""wiring": 1"#, #""other": 1"#,
        #""wiring": "index_t0", "isolate": true"#, #""wiring": "index_t0", "ref_boost": 2"#,
        #""wiring": "frame_t", "ref_boost": 0"#, #""wiring": "frame_t", "ref_boost": "2""#,
        #""wiring": "none", "version": 2"#, #""wiring": "none""# + "}",
    ])
    func refuses(_ members: String) throws {
        let error = #expect(throws: GenerationError.self) { try manifest(members) }
        #expect(error?.category == .unfitFile)
        #expect(error?.description.contains("a.lora.json") == true)
    }

    @Test func refusesOtherFormats() throws {
        for text in [
            "", "[]", #"{"format": "krea2-slider", "version": 1}"#,
            #"{"format": "krea2-lora", "version": 1, "sha256": "12", "wiring": "none"}"#,
        ] {
            _ = try folder.write(text, to: "a.lora.json")
            #expect(throws: GenerationError.self) {
                try LoRAManifest(beside: folder.file("a.safetensors"))
            }
        }
    }
}
