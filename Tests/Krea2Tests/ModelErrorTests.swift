import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// Files that are no model, or no model of ours, are refused in one line that says why.
struct ModelErrorTests {
    /// A part of a model, with a weight file of head16 or its like in one file.
    enum Part: String, CaseIterable, Sendable {
        case transformer
        case textEncoder
        case autoencoder
        case tokenizer

        var path: WritableKeyPath<ModelFiles, String> {
            switch self {
            case .transformer: \.transformer
            case .textEncoder: \.textEncoder
            case .autoencoder: \.autoencoder
            case .tokenizer: \.tokenizer
            }
        }
    }

    private var copy: ModelCopy

    init() throws { copy = try ModelCopy("head16") }

    private func expectRefusal(
        _ files: ModelFiles,
        _ category: GenerationError.Category,
        mentioning texts: String...,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let error = #expect(throws: GenerationError.self, sourceLocation: sourceLocation) {
            try Pipeline(files)
        }
        guard let error else { return }
        #expect(error.category == category, "\(error)", sourceLocation: sourceLocation)
        let line = error.description
        #expect(!line.contains { $0.isNewline } && line.count < 6000, "\(line)")
        for text in texts {
            #expect(line.contains(text), "\(line)", sourceLocation: sourceLocation)
        }
    }

    /// Writes changed weights of head16 in place of a part.
    private mutating func replace(_ part: Part, _ change: (Weights) -> Weights) throws {
        let path = copy.folder.file("\(part.rawValue).safetensors")
        try change(Weights(copy.files[keyPath: part.path])).write(to: path)
        copy.files[keyPath: part.path] = path
    }

    private var file: (Part) -> String {
        { [folder = copy.folder] in folder.file("\($0.rawValue).safetensors") }
    }

    // MARK: Tensors

    private static let tensors: [(Part, String)] = [
        (.transformer, "transformer_blocks.1.attn.to_k.weight"),
        (.transformer, "transformer_blocks.0.scale_shift_table"),
        (.transformer, "text_fusion.refiner_blocks.1.ff.down.weight"),
        (.transformer, "final_layer.linear.bias"),
        (.textEncoder, "language_model.layers.3.mlp.up_proj.weight"),
        (.textEncoder, "language_model.layers.5.self_attn.k_norm.weight"),
        (.autoencoder, "decoder.up_blocks.2.resnets.1.conv2.weight"),
    ]

    @Test(arguments: tensors)
    mutating func missingTensorsAreNamed(part: Part, name: String) throws {
        try replace(part) { $0.renamed { $0 == name ? nil : $0 } }
        expectRefusal(
            copy.files,
            .unfitFile,
            mentioning: "tensor \(name) is missing from \(file(part))"
        )
    }

    @Test(arguments: tensors)
    mutating func surplusTensorsAreNamed(part: Part, name: String) throws {
        let other = name.replacing(".weight", with: ".weight_scale") + ".extra"
        try replace(part) { $0.adding([other: Tensor(zeros: [2])]) }
        expectRefusal(
            copy.files,
            .unfitFile,
            mentioning: "tensor \(other) in \(file(part)) is not expected"
        )
    }

    @Test(arguments: tensors)
    mutating func misshapenTensorsAreNamed(part: Part, name: String) throws {
        try replace(part) { weights in
            weights.reshaped { key, tensor in key == name ? [tensor.count, 1, 1] : nil }
        }
        expectRefusal(
            copy.files,
            .unfitFile,
            mentioning: "tensor \(name) in \(file(part)) has shape [",
            ", 1, 1], expected ["
        )
    }

    @Test(
        arguments: tensors,
        [ElementType.uint8, .float8E8M0, .float64, .int64, .bool]
    )
    mutating func typesThatAreNotComputedWithAreNamed(
        tensor: (Part, String),
        type: ElementType
    ) throws {
        let (part, name) = tensor
        try replace(part) { weights in
            guard let shape = weights.tensors[name]?.shape else { return weights }
            let storage = Storage(byteCount: shape.reduce(type.byteCount, *))
            let zeros = Tensor(storage, byteOffset: 0, shape: shape, elementType: type)
            return weights.adding([name: zeros])
        }
        expectRefusal(
            copy.files,
            .unfitFile,
            mentioning: "tensor \(name) in \(file(part))",
            "type \(type.rawValue)",
            "expected F32, F16"
        )
    }

    @Test mutating func missingShardsAreNamed() throws {
        let folder = try copy.makeFolder("transformer")
        _ = try Weights(copy.files.transformer).write(shards: 3, to: folder)
        copy.files.transformer = folder
        let shard = folder + "/model-00002-of-00003.safetensors"
        try FileManager.default.removeItem(atPath: shard)
        expectRefusal(copy.files, .missingFile, mentioning: shard, "model.safetensors.index.json")
    }

    // MARK: Other models

    @Test mutating func plainLanguageModelsAreRefused() throws {
        try replace(.textEncoder) { weights in
            weights.renamed { name in
                name.hasPrefix("visual.") ? nil : name.replacing("language_model.", with: "model.")
            }
        }
        expectRefusal(
            copy.files,
            .unfitFile,
            mentioning: file(.textEncoder),
            "Qwen3-4B",
            "expected Qwen3-VL-4B"
        )
        try copy.folder.write(#"{"model_type": "qwen3"}"#, to: "config.json")
        expectRefusal(copy.files, .unfitFile, mentioning: "a model of type qwen3", "Qwen3-VL-4B")
    }

    @Test func swappedPartsAreRefused() throws {
        let expected: [Part: String] = [
            .transformer: "expected a Krea 2 transformer",
            .textEncoder: "expected a Qwen3-VL-4B text encoder",
            .autoencoder: "decoder.conv_in.weight", .tokenizer: "tokenizer",
        ]
        for part in Part.allCases {
            for other in Part.allCases where other != part {
                var files = copy.files
                files[keyPath: part.path] = copy.files[keyPath: other.path]
                let isWeights = part != .tokenizer && other != .tokenizer
                // The autoencoder's settings are looked at first, where there are any.
                let mention = isWeights && part != .autoencoder ? expected[part] : nil
                expectRefusal(
                    files,
                    isWeights ? .unfitFile : .missingFile,
                    mentioning: mention ?? files[keyPath: part.path]
                )
            }
        }
    }

    /// The official file, whose folder has no settings, in place of the other parts.
    @Test func singleFilesOfOtherPartsAreRefused() throws {
        var files = copy.files
        let official = FixtureModel.path("head16/turbo.safetensors")
        files.textEncoder = official
        expectRefusal(files, .unfitFile, mentioning: official, "Qwen3-VL-4B text encoder")
        let comfy = try FixtureModel.files("head48")
        files = copy.files
        for path in [comfy.textEncoder, comfy.autoencoder] {
            files.transformer = path
            expectRefusal(files, .unfitFile, mentioning: path, "expected a Krea 2 transformer")
        }
        files = copy.files
        // Sound, but of other sizes.
        files.textEncoder = comfy.textEncoder
        expectRefusal(files, .unfitFile, mentioning: comfy.textEncoder, "width of the text encoder")
    }

    @Test mutating func adaptersAreNoModels() throws {
        let adapter = Weights(
            [
                "diffusion_model.blocks.0.attn.wq.lora_A.weight": Tensor(zeros: [4, 96]),
                "diffusion_model.blocks.0.attn.wq.lora_B.weight": Tensor(zeros: [96, 4]),
            ]
        )
        for part in [Part.transformer, .textEncoder, .autoencoder] {
            var files = copy.files
            files[keyPath: part.path] = try adapter.write(to: file(part))
            expectRefusal(files, .unfitFile, mentioning: file(part), "expected a")
        }
    }

    // MARK: No weights at all

    enum Thing: CaseIterable, Sendable {
        case nothing, folder, pipe, device, loop, empty, text, zeros, largeZeros
    }

    /// Puts something of a kind at `path`.
    private func make(_ thing: Thing, at path: String) throws {
        switch thing {
        case .nothing: break
        case .folder:
            try FileManager.default.createDirectory(
                atPath: path,
                withIntermediateDirectories: true
            )
        case .pipe: try #require(mkfifo(path, 0o600) == 0)
        case .device: try #require(symlink("/dev/zero", path) == 0)
        case .loop: try #require(symlink(path, path) == 0)
        case .empty: try Data().write(to: URL(filePath: path))
        case .text: try Data("Krea 2 by Krea\n".utf8).write(to: URL(filePath: path))
        case .zeros: try Data(count: 4096).write(to: URL(filePath: path))
        case .largeZeros:
            try Data().write(to: URL(filePath: path))
            try #require(truncate(path, 100_000_000) == 0)
        }
    }

    @Test(.timeLimit(.minutes(1)), arguments: Part.allCases, Thing.allCases)
    mutating func otherThingsAreRefused(part: Part, thing: Thing) throws {
        let path = copy.folder.file(part == .tokenizer ? "tokenizer.json" : "model.safetensors")
        try make(thing, at: path)
        copy.files[keyPath: part.path] = path
        let isFile = [.empty, .text, .zeros, .largeZeros].contains(thing)
        expectRefusal(copy.files, isFile ? .unfitFile : .missingFile, mentioning: path)
    }

    /// Names of the settings below the folder of `copyParts`.
    private static let settings = [
        "transformer/config.json", "text_encoder/config.json", "vae/config.json",
        "model_index.json", "scheduler_config.json",
        "transformer/diffusion_pytorch_model.safetensors.index.json", "tokenizer/tokenizer.json",
    ]

    @Test(.timeLimit(.minutes(1)), arguments: settings, Thing.allCases)
    mutating func otherThingsAreNoSettings(name: String, thing: Thing) throws {
        try copy.copyParts()
        let path = copy.folder.file(name)
        try FileManager.default.removeItem(atPath: path)
        try make(thing, at: path)
        // Without them there are other ways to know; a link that leads nowhere is nothing.
        let isTokenizer = name.hasPrefix("tokenizer")
        let isOptional = name.hasSuffix("/config.json") || isTokenizer
        if isOptional, thing == .nothing || (isTokenizer && thing == .loop) {
            _ = try Pipeline(copy.files)
            return
        }
        let isFile = [.empty, .text, .zeros].contains(thing)
        let isLongIndex = thing == .largeZeros && name.hasSuffix(".index.json")
        let isUnfit = isFile || isLongIndex || (thing == .largeZeros && isTokenizer)
        let isAmbiguous = thing == .nothing && name.hasSuffix(".index.json")
        expectRefusal(
            copy.files,
            isUnfit || isAmbiguous ? .unfitFile : .missingFile,
            mentioning: isAmbiguous ? copy.files.transformer : path
        )
    }

    @Test(.timeLimit(.minutes(1)), arguments: settings, ["[", #"{"a":"#])
    mutating func settingsAreNotNestedWithoutEnd(name: String, bracket: String) throws {
        try copy.copyParts()
        let path = try copy.folder.write(String(repeating: bracket, count: 10_000), to: name)
        expectRefusal(copy.files, .unfitFile, mentioning: path)
    }
}
