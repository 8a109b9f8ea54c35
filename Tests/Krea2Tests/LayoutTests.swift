import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// Every layout of the same weights gives the same picture, bit for bit.
struct LayoutTests {
    /// What the fixtures give as they are.
    private enum Original {
        static let head16 = Result { try Outcome(FixtureModel.files("head16")) }
        static let head48 = Result { try Outcome(FixtureModel.files("head48")) }
        static let head128 = Result { try Outcome(FixtureModel.files("head128")) }

        static func of(_ model: String) throws -> Outcome {
            switch model {
            case "head16": try head16.get()
            case "head48": try head48.get()
            default: try head128.get()
            }
        }
    }

    private static let official = "pipeline/models/head16/turbo.safetensors"

    private func expectSame(
        _ copy: ModelCopy,
        as model: String,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let differences = try Outcome(copy.files).differences(from: Original.of(model))
        #expect(differences == [], sourceLocation: sourceLocation)
    }

    // MARK: Transformer

    /// Runs head16 with another file in place of its transformer.
    private func expectSameWithTransformer(_ weights: Weights) throws {
        var copy = try ModelCopy("head16")
        copy.files.transformer = try weights.write(to: copy.folder.file("turbo.safetensors"))
        try expectSame(copy, as: "head16")
    }

    @Test func theOfficialFileEqualsTheDiffusersFolder() throws {
        try expectSameWithTransformer(try Weights(Fixture.path(Self.official)))
    }

    @Test(arguments: [
        "model.diffusion_model.", "diffusion_model.", "transformer.", "model.transformer.",
        "module.", "model.",
    ])
    func prefixesAreTakenOff(prefix: String) throws {
        try expectSameWithTransformer(try Weights(Fixture.path(Self.official)).prefixed(prefix))
        guard prefix.hasPrefix("model.") else { return }
        let diffusers = try FixtureModel.files("head16").transformer
        try expectSameWithTransformer(try Weights(diffusers).prefixed(prefix))
    }

    @Test(arguments: ["", "model.diffusion_model."])
    func strayTensorsAreIgnored(prefix: String) throws {
        let stray = Tensor([Float](repeating: .nan, count: 96 * 96), shape: [96, 96])
        let weights = try Weights(Fixture.path(Self.official))
            .adding(["last.down.weight": stray, "last.up.weight": stray])
        try expectSameWithTransformer(weights.prefixed(prefix))
    }

    @Test(arguments: [
        ("txtfusion.projector.weight", [3]), ("last.modulation.lin", [192]),
        ("last.modulation.lin", [1, 2, 96]), ("blocks.1.mod.lin", [6, 96]),
        ("blocks.1.mod.lin", [1, 6, 96]),
    ])
    func otherShapesOfAsManyElementsAreAccepted(name: String, shape: [Int]) throws {
        let weights = try Weights(Fixture.path(Self.official))
        let before = try #require(weights.tensors[name]?.shape)
        #expect(before != shape)
        try expectSameWithTransformer(weights.reshaped { key, _ in key == name ? shape : nil })
    }

    @Test(arguments: [1, 3])
    func shardsEqualOneFile(count: Int) throws {
        var copy = try ModelCopy("head16")
        let weights = try Weights(Fixture.path(Self.official))
        let index = try weights.write(shards: count, to: copy.makeFolder("transformer"))
        for path in [copy.folder.file("transformer"), index] {
            copy.files.transformer = path
            try expectSame(copy, as: "head16")
        }
    }

    // MARK: Settings

    /// The settings of head128 have θ, ε and statistics that nothing else tells.
    @Test func indexesAndSingleFilesHaveTheSettingsBesideThem() throws {
        var copy = try ModelCopy("head128")
        copy.files.transformer += "/diffusion_pytorch_model.safetensors.index.json"
        copy.files.textEncoder += "/model.safetensors.index.json"
        copy.files.autoencoder += "/diffusion_pytorch_model.safetensors"
        try expectSame(copy, as: "head128")

        let folder = try copy.makeFolder("transformer")
        let fixture = try FixtureModel.files("head128").transformer
        copy.files.transformer = try Weights(fixture).write(to: folder + "/raw.safetensors")
        try FileManager.default.copyItem(
            atPath: fixture + "/config.json",
            toPath: folder + "/config.json"
        )
        try expectSame(copy, as: "head128")
        let autoencoder = try FixtureModel.files("head128").autoencoder
        copy.files.autoencoder = try Weights(autoencoder)
            .write(shards: 2, to: copy.makeFolder("vae"))
        try FileManager.default.copyItem(
            atPath: autoencoder + "/config.json",
            toPath: copy.folder.file("vae/config.json")
        )
        try expectSame(copy, as: "head128")
    }

    @Test func settingsOfAnotherModelBesideASingleFileAreNotRead() throws {
        var copy = try ModelCopy("head48")
        for part in [\ModelFiles.transformer, \.autoencoder] {
            copy.files[keyPath: part] = try Weights(copy.files[keyPath: part])
                .write(
                    to: copy.folder.file(URL(filePath: copy.files[keyPath: part]).lastPathComponent)
                )
        }
        try copy.folder.write(#"{"_class_name": "Other", "num_layers": 7}"#, to: "config.json")
        try expectSame(copy, as: "head48")
    }

    /// Both dialects of the rotary settings, and those of a text model alone.
    @Test(arguments: ["head16", "head128"], ["rope_parameters", "rope_scaling", "text"])
    func dialectsOfTheEncodersSettingsAreTheSame(model: String, dialect: String) throws {
        var copy = try ModelCopy(model)
        let folder = try copy.makeFolder("text_encoder")
        let source = URL(filePath: copy.files.textEncoder)
        _ = try Weights(source.path).write(to: folder + "/model.safetensors")
        let data = try Data(contentsOf: source.appending(path: "config.json"))
        var config = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
        var text = try #require(config["text_config"] as? [String: Any])
        let parameters = text.removeValue(forKey: "rope_parameters") as? [String: Any]
        let theta = try #require(
            text.removeValue(forKey: "rope_theta") ?? parameters?["rope_theta"]
        )
        text["rope_scaling"] = nil
        let section: [String: Any] = ["mrope_section": [2, 2, 2], "rope_type": "default"]
        if dialect == "rope_scaling" {
            text["rope_theta"] = theta
            text["rope_scaling"] = section
        } else {
            text["rope_parameters"] = section.merging(["rope_theta": theta]) { old, _ in old }
        }
        config["text_config"] = text
        try JSONSerialization.data(withJSONObject: dialect == "text" ? text : config)
            .write(to: URL(filePath: folder + "/config.json"))
        copy.files.textEncoder = folder
        try expectSame(copy, as: model)

        // The settings do count.
        guard dialect == "text" else { return }
        text["rope_parameters"] = ["rope_theta": 1234]
        config["text_config"] = text
        try JSONSerialization.data(withJSONObject: config)
            .write(to: URL(filePath: folder + "/config.json"))
        #expect(try Outcome(copy.files).velocityError(from: Original.of(model)) > 1e-5)
    }

    // MARK: Text encoder

    /// Names of head16's tensors, which begin with `language_model.` and `visual.`, in other files.
    @Test(arguments: [
        ("model.language_model.", "model.visual."), ("language_model.", "visual."),
        ("model.", "visual."), ("", "visual."), ("model.language_model.", nil),
        ("language_model.", nil),
    ])
    func namesOfTheEncoderAreTheSame(language: String, vision: String?) throws {
        var copy = try ModelCopy("head16")
        let weights = try Weights(copy.files.textEncoder).renamed { name in
            if name.hasPrefix("visual.") { return vision.map { $0 + name.dropFirst(7) } }
            return language + name.dropFirst("language_model.".count)
        }
        #expect(weights.tensors.keys.contains { $0.contains("visual.") } == (vision != nil))
        // Without settings: its θ and ε are the usual ones.
        copy.files.textEncoder = try weights.write(to: copy.folder.file("e.safetensors"))
        if vision != nil { try expectSame(copy, as: "head16") }
        let embedding = try #require(weights.tensors[language + "embed_tokens.weight"])
        let nan = Tensor([Float](repeating: .nan, count: embedding.count), shape: embedding.shape)
        var heads = ["lm_head.weight": nan]
        heads[language + "lm_head.weight"] = nan
        try weights.adding(heads).write(to: copy.files.textEncoder)
        try expectSame(copy, as: "head16")
    }

    @Test func settingsTellTheEncoderWhereNamesDoNot() throws {
        var copy = try ModelCopy("head16")
        let weights = try Weights(copy.files.textEncoder).renamed { name in
            name.hasPrefix("visual.") ? nil : "model." + name.dropFirst("language_model.".count)
        }
        let folder = try copy.makeFolder("text_encoder")
        try weights.write(to: folder + "/model.safetensors")
        try FileManager.default.copyItem(
            atPath: copy.files.textEncoder + "/config.json",
            toPath: folder + "/config.json"
        )
        copy.files.textEncoder = folder
        try expectSame(copy, as: "head16")
    }

    // MARK: Autoencoder

    @Test(arguments: [("", true), ("", false), ("first_stage_model.", true)])
    func namesOfTheAutoencoderAreTheSame(prefix: String, hasEncoder: Bool) throws {
        let wan = AutoencoderNames(layout: .wan, residualBlocks: 2)
        func isDecoder(_ name: String) -> Bool {
            name.hasPrefix("decoder.") || name.hasPrefix("post_quant_conv.")
        }
        var copy = try ModelCopy("head16")
        let diffusers = try Weights(copy.files.autoencoder)
        copy.files.autoencoder = copy.folder.file("vae.safetensors")
        for names in [wan, AutoencoderNames(layout: .diffusers, residualBlocks: 2)] {
            try diffusers.renamed { name in
                if isDecoder(name) { return prefix + names.stored(name) }
                let encoder = name.replacing("quant_conv", with: "conv1")
                return hasEncoder ? prefix + (names == wan ? encoder : name) : nil
            }
            .write(to: copy.files.autoencoder)
            try expectSame(copy, as: "head16")
        }

        // And back: the ComfyUI file under diffusers' names.
        var other = try ModelCopy("head48")
        let comfy = try Weights(other.files.autoencoder)
        var renamed = comfy.renamed { $0.hasPrefix("encoder.") && hasEncoder ? $0 : nil }
        for name in diffusers.tensors.keys where isDecoder(name) && !name.contains("time_conv") {
            let tensor = try #require(comfy.tensors[wan.stored(name)] as Tensor?)
            renamed.tensors[name] = tensor
        }
        other.files.autoencoder = try renamed.prefixed(prefix)
            .write(to: other.folder.file("vae.safetensors"))
        try expectSame(other, as: "head48")
    }

    // MARK: Tokenizer

    @Test func tokenizersAreTheSame() throws {
        var copy = try ModelCopy("head16")
        let source = copy.files.tokenizer
        let names = [["tokenizer.json"], ["vocab.json", "merges.txt", "tokenizer_config.json"]]
        for (index, names) in names.enumerated() {
            let folder = try copy.makeFolder("tokenizer\(index)")
            for name in names {
                try FileManager.default.copyItem(
                    atPath: "\(source)/\(name)",
                    toPath: "\(folder)/\(name)"
                )
            }
            copy.files.tokenizer = folder
            try expectSame(copy, as: "head16")
        }
        for name in ["tokenizer.json", "of another name"] {
            copy.files.tokenizer = copy.folder.file(name)
            try FileManager.default.copyItem(
                atPath: "\(source)/tokenizer.json",
                toPath: copy.files.tokenizer
            )
            try expectSame(copy, as: "head16")
        }
    }

    // MARK: Element types

    private static let mixture: [ElementType] = [.float32, .float16, .bfloat16]

    /// Whatever type stores a number, it is the same number.
    @Test(arguments: ["head16", "head48", "head128"])
    func typesThatHoldTheNumbersAreTheSame(model: String) throws {
        var copy = try ModelCopy(model)
        for part in [\ModelFiles.transformer, \.textEncoder, \.autoencoder] {
            let path = copy.files[keyPath: part]
            let target: String
            if URL(filePath: path).pathExtension == "safetensors" {
                target = copy.folder.file(URL(filePath: path).lastPathComponent)
            } else {
                let folder = try copy.makeFolder(URL(filePath: path).lastPathComponent)
                try FileManager.default.copyItem(
                    atPath: path + "/config.json",
                    toPath: folder + "/config.json"
                )
                target = folder + "/model.safetensors"
                copy.files[keyPath: part] = folder
            }
            try Weights(path).stored { _ in .float32 }.write(to: target)
            if copy.files[keyPath: part] == path { copy.files[keyPath: part] = target }
        }
        try expectSame(copy, as: model)
    }

    /// Largest relative errors of the first velocity; 3.8e-3, 5.3e-4 and 2.4e-3 are seen.
    private static let limits: [(ElementType?, Double)] = [
        (.bfloat16, 1.5e-2), (.float16, 2.1e-3), (nil, 9.4e-3),
    ]

    /// Rounded weights are computed with as they are: the same as their values in float32.
    @Test(arguments: limits)
    func roundedTypesEqualTheirValues(type: ElementType?, limit: Double) throws {
        var copy = try ModelCopy("head16")
        for part in [\ModelFiles.transformer, \.textEncoder, \.autoencoder] {
            let target = copy.folder.file("\(copy.files[keyPath: part].utf8.count).safetensors")
            // Numbers that none of the types but float32 holds.
            var weights = try Weights(copy.files[keyPath: part]).stored { _ in .float32 }
            for (name, tensor) in weights.tensors {
                let values = tensor.elements.map { $0 * 0.9999 }
                weights.tensors[name] = Tensor(values, shape: tensor.shape)
            }
            copy.files[keyPath: part] = try weights.write(to: target)
        }
        let exact = try Outcome(copy.files)
        for part in [\ModelFiles.transformer, \.textEncoder, \.autoencoder] {
            let path = copy.files[keyPath: part]
            let weights = try Weights(path).stored { type ?? Self.mixture[$0 % 3] }
            try weights.write(to: path)
        }
        let rounded = try Outcome(copy.files)
        for part in [\ModelFiles.transformer, \.textEncoder, \.autoencoder] {
            let path = copy.files[keyPath: part]
            try Weights(path).stored { _ in .float32 }.write(to: path)
        }
        #expect(try Outcome(copy.files).differences(from: rounded) == [])
        let error = try rounded.velocityError(from: exact)
        #expect(error > 1e-6 && error < limit)
    }
}
