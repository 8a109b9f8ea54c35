import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// Settings that are wrong, or contradict the tensors, are refused; none of them takes the machine.
@Suite(.timeLimit(.minutes(1)))
struct SettingsErrorTests {
    private var copy: ModelCopy

    init() throws {
        copy = try ModelCopy("head16")
        try copy.copyParts()
    }

    /// Replaces members of a JSON object of the model by JSON texts; `a.b` is a member of `a`.
    private func set(_ values: [String: String], in name: String) throws {
        let data = Data(try Fixture.bytes("pipeline/models/head16/\(name)"))
        var object = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
        var marks: [String: String] = [:]
        for (index, (key, value)) in values.sorted(by: { $0.key < $1.key }).enumerated() {
            marks["\"@\(index)@\""] = value
            let keys = key.split(separator: ".").map(String.init)
            if keys.count == 2 {
                var inner = try #require(object[keys[0]] as? [String: Any])
                inner[keys[1]] = "@\(index)@"
                object[keys[0]] = inner
            } else {
                object[key] = "@\(index)@"
            }
        }
        let json = try JSONSerialization.data(withJSONObject: object)
        var text = String(decoding: json, as: UTF8.self)
        for (mark, value) in marks { text = text.replacing(mark, with: value) }
        try copy.folder.write(text, to: name)
    }

    /// Opens the model and starts a run, which is stopped before it computes.
    private func open() throws {
        let pipeline = try Pipeline(copy.files)
        let request = GenerationRequest(prompt: "a", width: 64, height: 64, steps: 1)
        _ = try pipeline.plan(request)
        _ = try pipeline.generate(request, isCancelled: { true })
    }

    private func expectUnfit(
        _ mention: String = " ",
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let error = #expect(throws: GenerationError.self, sourceLocation: sourceLocation) {
            try open()
        }
        let line = error?.description ?? ""
        #expect(error?.category == .unfitFile, "\(line)", sourceLocation: sourceLocation)
        #expect(
            line.contains(mention) && line.count < 6000,
            "\(line)",
            sourceLocation: sourceLocation
        )
    }

    // MARK: Values

    private static let sizes: [(file: String, keys: [String])] = [
        (
            "transformer/config.json",
            [
                "attention_head_dim", "in_channels", "intermediate_size", "num_attention_heads",
                "num_key_value_heads", "num_layers", "num_layerwise_text_blocks",
                "num_refiner_text_blocks", "num_text_layers", "text_hidden_dim",
                "text_intermediate_size", "text_num_attention_heads", "text_num_key_value_heads",
                "timestep_embed_dim",
            ]
        ),
        (
            "text_encoder/config.json",
            [
                "text_config.head_dim", "text_config.hidden_size", "text_config.intermediate_size",
                "text_config.num_attention_heads", "text_config.num_hidden_layers",
                "text_config.num_key_value_heads", "text_config.vocab_size",
            ]
        ),
        ("vae/config.json", ["base_dim", "num_res_blocks", "z_dim"]),
    ]
    private static let places = sizes.flatMap { size in size.keys.map { (size.file, $0) } }

    /// Wrong in themselves, all of them in one test since opening fails early.
    @Test(arguments: places)
    func sizesAreWholeNumbers(file: String, key: String) throws {
        for value in [
            "0", "-1", "9223372036854775808", "1e999", "1.5", "\"6\"",
        ] {
            try set([key: value], in: file)
            expectUnfit(copy.folder.file(file))
        }
    }

    /// Right in themselves, but not those of the tensors; the largest that are accepted among them.
    @Test(arguments: places)
    func sizesMustBeThoseOfTheTensors(file: String, key: String) throws {
        // Of the encoder's layers only those that are tapped are looked for.
        let isLayers = key == "text_config.num_hidden_layers"
        let values = ["1", "5", isLayers ? "1025" : "1024", "262144", "16777216"]
        for value in file == "vae/config.json" ? ["1", "5"] : values {
            try set([key: value], in: file)
            expectUnfit()
        }
    }

    @Test func sizesTogetherCannotTakeTheMemory() throws {
        try set(
            [
                "num_attention_heads": "16777216", "attention_head_dim": "256",
                "num_key_value_heads": "16777216", "text_hidden_dim": "16777216",
                "text_num_attention_heads": "16777216", "text_num_key_value_heads": "16777216",
                "intermediate_size": "16777216", "timestep_embed_dim": "16777216",
                "in_channels": "16777216", "num_layers": "1024",
                "axes_dims_rope": "[84, 86, 86]",
            ],
            in: "transformer/config.json"
        )
        expectUnfit("no width above 262144")
        try set(
            [
                "num_attention_heads": "1024", "num_key_value_heads": "1024",
                "text_hidden_dim": "262144", "text_num_attention_heads": "1024",
                "text_num_key_value_heads": "1024", "intermediate_size": "262144",
                "timestep_embed_dim": "262144", "in_channels": "262144", "num_layers": "1024",
            ],
            in: "transformer/config.json"
        )
        expectUnfit("has shape")
    }

    @Test(arguments: [
        ("transformer/config.json", "rope_theta"), ("transformer/config.json", "norm_eps"),
        ("text_encoder/config.json", "text_config.rms_norm_eps"),
        ("text_encoder/config.json", "text_config.rope_parameters"),
    ])
    func numbersAreFiniteAndAboveZero(file: String, key: String) throws {
        for value in [
            "0", "-1", "-0.0", "1e39", "1e-46", "1e999", "-1e999", "NaN", "\"1\"", "[1]", "false",
        ] {
            let isRotary = key.hasSuffix("rope_parameters")
            try set([key: isRotary ? "{\"rope_theta\": \(value)}" : value], in: file)
            expectUnfit(copy.folder.file(file))
        }
    }

    @Test(arguments: [
        "[4, 6]", "[4, 6, 6, 0]", "[4, 6, 8]", "[5, 5, 6]", "[-4, 10, 10]", "[4.0, 6, 6]", "16",
        "[16777216, 16777216, 16777216]", "[4, 6, 16777218]", "[]", "[[4], 6, 6]", "[4, 6, null]",
    ])
    func rotaryAxesFillAHead(value: String) throws {
        try set(["axes_dims_rope": value], in: "transformer/config.json")
        expectUnfit(copy.folder.file("transformer/config.json"))
    }

    @Test(arguments: [("num_attention_heads", "5"), ("num_key_value_heads", "4")])
    func headsAreSharedEvenly(key: String, value: String) throws {
        try set([key: value], in: "transformer/config.json")
        expectUnfit("heads")
        try set([:], in: "transformer/config.json")
        try set(["text_config.\(key)": "3"], in: "text_encoder/config.json")
        expectUnfit("heads")
    }

    // MARK: Taps

    @Test(arguments: [
        ("[2, 5]", "taps: 2"), ("[2, 4, 5, 6]", "taps: 4"), ("[]", "ascending"),
        ("[5, 2, 6]", "ascending"), ("[2, 2, 6]", "ascending"), ("[0, 2, 6]", "ascending"),
        ("[-1, 2, 6]", "whole numbers"), ("[2, 5, 8]", "expected at least 8"),
        ("[2, 5, 16777216]", "expected at least 16777216"), ("[2, 5, 9999999999]", "whole numbers"),
        ("[2, 5, 6.5]", "whole numbers"), ("\"2, 5, 6\"", "a list"),
        // Those that the number of taps tells, 2, 5 and 8, are beyond this encoder.
        ("null", "expected at least 8"),
    ])
    func tapsAreLayersOfTheEncoder(value: String, mention: String) throws {
        try set(["text_encoder_select_layers": value], in: "model_index.json")
        expectUnfit(mention)
    }

    // MARK: Nothing to run

    @Test(arguments: [true, false])
    func modelsHaveBlocks(hasSettings: Bool) throws {
        let fixture = try FixtureModel.files("head16")
        for (part, start) in [
            (\ModelFiles.transformer, "transformer_blocks."),
            (\.transformer, "text_fusion.layerwise_blocks."),
            (\.textEncoder, "language_model.layers."),
        ] {
            var changed = self
            let folder = try copy.makeFolder("other")
            let weights = try Weights(fixture[keyPath: part]).renamed {
                $0.hasPrefix(start) ? nil : $0
            }
            try weights.write(to: folder + "/model.safetensors")
            let settings = try Data(
                contentsOf: URL(filePath: fixture[keyPath: part] + "/config.json")
            )
            if hasSettings { try settings.write(to: URL(filePath: folder + "/config.json")) }
            changed.copy.files[keyPath: part] = folder
            changed.expectUnfit("tensor \(start)0.")
            try FileManager.default.removeItem(atPath: folder)
        }
    }

    /// As many layers as a header has room for.
    @Test func layersAreNotWithoutNumber() throws {
        let weights = try Weights(FixtureModel.path("head16/turbo.safetensors"))
        let empty = Tensor(zeros: [0])
        var many: [String: Tensor] = [:]
        for index in 2..<2000 { many["blocks.\(index).mod.lin"] = empty }
        var changed = self
        changed.copy.files.transformer = copy.folder.file("many.safetensors")
        try weights.adding(many).write(to: changed.copy.files.transformer)
        changed.expectUnfit("2000 layers blocks.…, expected at most 1024")
    }

    /// Rows longer than the operators can multiply.
    @Test func widthsAreBounded() throws {
        let weights = try Weights(FixtureModel.path("head16/turbo.safetensors"))
        let wide = ["blocks.0.mlp.up.weight": Tensor(zeros: [262_145, 1])]
        var changed = self
        changed.copy.files.transformer = copy.folder.file("wide.safetensors")
        try weights.adding(wide).write(to: changed.copy.files.transformer)
        changed.expectUnfit("no width above 262144")
    }
}
