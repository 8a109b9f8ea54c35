import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// Manifests of sliders, where they are found, and random values.
struct SliderTests {
    private let folder: TemporaryFolder
    private var lora = LoRAFixture()

    init() throws {
        folder = try TemporaryFolder()
        lora.tensors["first.lora_A.weight"] = Tensor([1, 2, 3, 4, 5, 6, 7, 8], shape: [1, 8])
        lora.tensors["first.lora_B.weight"] = Tensor(zeros: [16, 1])
    }

    private func manifest(_ members: String, _ name: String = "a.slider.json") throws -> String {
        try folder.write(
            #"{"format": "krea2-slider", "version": 1, "name": "a", \#(members)}"#,
            to: name
        )
    }

    private func open(_ path: String) throws(GenerationError) -> LoRAFile {
        try LoRAFile(path: path, targets: LoRAFixture.targets)
    }

    // MARK: Values

    @Test func signedSlidersHaveOneFile() throws {
        _ = try lora.write(to: folder, as: "x.safetensors")
        let slider = try SliderManifest(
            path: manifest(
                #""kind": "signed", "file": "x.safetensors", "scale_at_100": 1.5, "#
                    + #""window": [0.25, 1], "labels": ["muted", "vivid"], "base": "raw""#
            )
        )
        #expect(slider.name == "a" && slider.kind == .signed)
        for (value, scale) in [(100, Float(1.5)), (-100, -1.5), (50, 0.75), (-1, -0.015)] {
            let use = try #require(try slider.use(value, open: open))
            #expect(use.scale == scale && use.window == 0.25...1)
            #expect(use.file.path == folder.file("x.safetensors"))
        }
    }

    @Test func pairsHaveAFileForEachSide() throws {
        for name in ["p", "n"] { _ = try lora.write(to: folder, as: name) }
        let slider = try SliderManifest(
            path: manifest(#""kind": "pair", "file_positive": "p", "file_negative": "n""#)
        )
        for (value, name, scale) in [(40, "p", Float(0.4)), (-40, "n", 0.4)] {
            let use = try #require(try slider.use(value, open: open))
            #expect(use.file.path == folder.file(name) && use.scale == scale)
            #expect(use.window == 0...1)
        }
    }

    @Test func zeroOpensNothing() throws {
        let slider = try SliderManifest(path: manifest(#""kind": "signed", "file": "none""#))
        let use = try slider.use(0) { path throws(GenerationError) in
            Issue.record("\(path) is opened")
            return try open(path)
        }
        #expect(use == nil)
        #expect(throws: GenerationError.self) { try slider.use(1, open: open) }
    }

    @Test func theFileIsTheOneThatIsMeant() throws {
        let path = try lora.write(to: folder, as: "x.safetensors")
        let digest = try open(path).digest.dropFirst("sha256:".count)
        for (text, isRight) in [
            (String(digest), true), (digest.uppercased(), true),
            ("00" + digest.dropFirst(2), false),
        ] {
            let slider = try SliderManifest(
                path: manifest(#""kind": "signed", "file": "x.safetensors", "sha256": "\#(text)""#)
            )
            #expect(((try? slider.use(5, open: open)) != nil) == isRight, "\(text)")
        }
    }

    @Test func manifestsInHeadersAreOfTheirFile() throws {
        var file = lora
        file.metadata = [
            "slider.format": "krea2-slider", "slider.version": "1", "slider.name": "b",
            "slider.kind": "signed", "slider.scale_at_100": "2", "slider.window": "[0, 0.5]",
        ]
        let path = try file.write(to: folder, as: "b.safetensors")
        let slider = try SliderManifest(path: path)
        let use = try #require(try slider.use(-25, open: open))
        #expect(use.scale == -0.5 && use.window == 0...0.5 && use.file.path == path)
    }

    @Test(arguments: [
        ("{}", "\"format\" null"), ("[]", "a JSON object"), ("{", "expected JSON"),
        (#"{"format": "other"}"#, "krea2-slider"),
        (#"{"format": "krea2-slider", "version": 2}"#, "\"version\" 2"),
        (#"{"format": "krea2-slider", "version": 1}"#, "a name"),
        (#"{"format": "krea2-slider", "version": 1, "name": "a/b"}"#, "a name"),
        (#"{"format": "krea2-slider", "version": 1, "name": "a", "kind": "x"}"#, "or \"poles\""),
        (#"{"format": "krea2-slider", "version": 1, "name": "a", "kind": "poles"}"#, "with texts"),
        (
            #"{"format": "krea2-slider", "version": 1, "name": "a", "kind": "poles", "poles": []}"#,
            "an object"
        ),
        (
            #"{"format": "krea2-slider", "version": 1, "name": "a", "kind": "poles", "poles": {"#
                + #""positive": ["x"]}}"#, "\"negative\" null, expected 1 to 8 texts"
        ),
        (
            #"{"format": "krea2-slider", "version": 1, "name": "a", "kind": "poles", "poles": {"#
                + #""positive": ["x", 1], "negative": ["y"]}}"#, "1 to 8 texts"
        ),
        (
            #"{"format": "krea2-slider", "version": 1, "name": "a", "kind": "poles", "poles": {"#
                + #""positive": ["x"], "negative": [""]}}"#, "1 to 8 texts"
        ),
        (
            #"{"format": "krea2-slider", "version": 1, "name": "movement", "kind": "poles", "#
                + #""eta_negative": -1}"#, "0.0 to 16.0"
        ),
        (#"{"format": "krea2-slider", "version": 1, "name": "a", "kind": "signed"}"#, "\"file\""),
        (
            #"{"format": "krea2-slider", "version": 1, "name": "a", "kind": "pair", "file": "x"}"#,
            "\"file_positive\""
        ),
        (
            #"{"format": "krea2-slider", "version": 1, "name": "a", "kind": "signed", "file": "x","#
                + #" "scale_at_100": 17}"#, "-16.0 to 16.0"
        ),
        (
            #"{"format": "krea2-slider", "version": 1, "name": "a", "kind": "signed", "file": "x","#
                + #" "window": [0.5, 0.4]}"#, "two ascending numbers from 0 to 1"
        ),
        (
            #"{"format": "krea2-slider", "version": 1, "name": "a", "kind": "signed", "file": "x","#
                + #" "window": [0, 2]}"#, "two ascending numbers from 0 to 1"
        ),
        (
            #"{"format": "krea2-slider", "version": 1, "name": "a", "kind": "signed", "file": "x","#
                + #" "window": [0]}"#, "2 numbers"
        ),
    ])
    func refuses(_ text: String, because reason: String) throws {
        let path = try folder.write(text, to: "a.slider.json")
        do throws(GenerationError) {
            _ = try SliderManifest(path: path)
            Issue.record("accepted")
        } catch {
            #expect(error.category == .unfitFile)
            #expect(error.description.contains(reason), "\(error)")
        }
    }

    // MARK: Places

    /// A model's file, which is not read, and its library.
    private func library(_ trees: [String] = []) throws -> LoRALibrary {
        try LoRALibrary(model: folder.write("", to: "turbo.safetensors"), searchFolders: trees)
    }

    private func makeFolder(_ name: String) throws {
        try FileManager.default.createDirectory(
            atPath: folder.file(name),
            withIntermediateDirectories: true
        )
    }

    @Test func findsLoRAsByName() throws {
        let library = try library([folder.file("tree")])
        #expect(
            library.folders == [
                folder.file("loras"), folder.file("tree") + "/loras", folder.path,
            ]
        )
        for name in ["loras/styles", "tree/loras"] { try makeFolder(name) }
        for name in ["loras/a", "loras/styles/b", "tree/loras/a", "tree/loras/c", "d"] {
            try folder.write("", to: name + ".safetensors")
        }
        for (name, found) in [
            ("a", "loras/a"), ("a.safetensors", "loras/a"), ("styles/b", "loras/styles/b"),
            ("c", "tree/loras/c"), ("d", "d"),
        ] {
            #expect(try library.lora(name) == folder.file(found + ".safetensors"), "\(name)")
        }
        #expect(try library.lora(folder.path) == folder.path)
        do throws(GenerationError) {
            _ = try library.lora("e")
            Issue.record("found")
        } catch {
            #expect(error.category == .missingFile)
            for folder in library.folders { #expect(error.description.contains(folder)) }
        }
        #expect(throws: GenerationError.self) { try library.lora("/none") }
    }

    @Test func findsSlidersByName() throws {
        let library = try library()
        try makeFolder("loras")
        _ = try manifest(#""kind": "signed", "file": "x""#, "loras/a.slider.json")
        _ = try manifest(#""kind": "signed", "file": "y""#)
        var file = lora
        file.metadata = [
            "slider.format": "krea2-slider", "slider.version": "1", "slider.name": "b",
            "slider.kind": "signed",
        ]
        _ = try file.write(to: folder, as: "b.safetensors")
        _ = try lora.write(to: folder, as: "c.safetensors")
        func path(_ name: String) throws -> String {
            var found = ""
            _ = try library.slider(name).use(1) { path throws(GenerationError) in
                found = path
                return try open(folder.file("c.safetensors"))
            }
            return found
        }
        #expect(try path("a") == folder.file("loras/x"))
        #expect(try path("b") == folder.file("b.safetensors"))
        #expect(try library.sliders().map(\.name) == ["a", "complexity", "intensity", "movement"])
        for name in ["c", "none", "../a", ""] {
            #expect(throws: GenerationError.missingSlider(name: name, lookedAt: library.folders)) {
                try library.slider(name)
            }
        }
        _ = try manifest(#""kind": "signed", "file": "x""#, "e.slider.json")
        #expect(throws: GenerationError.self) { try library.slider("e") }
    }

    @Test func textsTakeThePlaceOfHostedSlidersOnly() throws {
        let library = try library()
        let texts = try ["intensity", "complexity", "movement"].map { name in
            let slider = try library.slider(name)
            #expect(slider.name == name && slider.kind == .poles && slider.window == 0...1)
            let poles = try #require(slider.poles)
            #expect(poles.strength(at: 100) == 0.5 && poles.strength(at: -100) == -0.5)
            #expect(poles.positive.count == poles.negative.count)
            return poles.texts
        }
        #expect(Set(texts.joined()).count == texts.joined().count)
        #expect(throws: GenerationError.self) { try library.slider("Intensity") }
        // A LoRA goes first; a manifest may ask for the texts all the same.
        let signed = #"{"format": "krea2-slider", "version": 1, "name": "intensity", "kind": "#
        _ = try folder.write(signed + #""signed", "file": "x"}"#, to: "intensity.slider.json")
        #expect(try library.slider("intensity").poles == nil)
        #expect(try library.sliders().map(\.kind) == [.poles, .signed, .poles])
        let asked = try SliderManifest(path: folder.write(signed + #""poles"}"#, to: "i.json"))
        #expect(asked.poles?.texts == texts[0])
    }

    @Test func textsAreInNoHeader() throws {
        var file = lora
        file.metadata = [
            "slider.format": "krea2-slider", "slider.version": "1", "slider.name": "movement",
            "slider.kind": "poles",
        ]
        let path = try file.write(to: folder, as: "b.safetensors")
        #expect(throws: GenerationError.self) { try SliderManifest(path: path) }
    }

    @Test func theEmbeddedModelHasThreeSliders() throws {
        let library = try LoRALibrary(model: Fixture.embedded("turbo"), searchFolders: [])
        let sliders = try library.sliders()
        #expect(sliders.map(\.name) == ["complexity", "intensity", "movement"])
        let model = try TransformerFiles(path: Fixture.embedded("turbo"))
        let targets = LoRATargets(model.config)
        for slider in sliders {
            let use = try slider.use(100) { path throws(GenerationError) in
                try LoRAFile(path: path, targets: targets)
            }
            #expect(use?.scale == 1 && use?.file.layerCount == 56)
        }
    }

    // MARK: Random values

    @Test func drawsAreOfSeedPictureAndName() {
        let names = ["movement", "complexity", "intensity"]
        func draw(_ seed: UInt64, _ image: Int) -> [String: Int] {
            SliderDraws.values(names, seed: seed, image: image)
        }
        #expect(draw(7, 0) == draw(7, 0))
        #expect(draw(7, 0) == SliderDraws.values(names.reversed(), seed: 7, image: 0))
        #expect(draw(7, 0) != draw(7, 1) && draw(7, 0) != draw(8, 0) && draw(7, 1) != draw(8, 0))
        // These never change, so that a record says the same for ever.
        #expect(draw(7, 0) == ["complexity": 26, "intensity": -36, "movement": -41])
    }

    @Test func drawsFillTheRangeEvenly() {
        let numbers = (0..<4000).compactMap { SliderDraws.values(["a"], seed: $0, image: 0)["a"] }
        #expect(numbers.min() == -100 && numbers.max() == 100)
        let mean = Double(numbers.reduce(0, +)) / 4000
        #expect(abs(mean) < 3 * 58 / 63.2, "\(mean)")
    }
}
