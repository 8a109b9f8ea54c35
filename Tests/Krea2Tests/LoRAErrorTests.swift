import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// One way of being wrong, and what is said about it.
struct LoRADamage: Sendable, CustomTestStringConvertible {
    /// Part of the error's text.
    let text: String
    let damage: @Sendable (inout LoRAFixture) -> Void

    var testDescription: String { text }

    init(_ text: String, _ damage: @escaping @Sendable (inout LoRAFixture) -> Void) {
        (self.text, self.damage) = (text, damage)
    }

    static let module = "diffusion_model.blocks.0.attn.wk"

    /// A tensor of ones replaces or joins those of the module.
    init(_ text: String, _ end: String, _ shape: [Int], without: [String] = []) {
        self.init(text) { file in
            for end in without { file.tensors[Self.module + end] = nil }
            file.tensors[Self.module + end] = .ones(shape)
        }
    }

    /// One tensor more, under a name of its own.
    init(_ text: String, named name: String, _ shape: [Int] = [2, 16]) {
        self.init(text) { $0.tensors[name] = .ones(shape) }
    }

    /// Tensors that take the place of the module's factors.
    init(_ text: String, instead shapes: [String: [Int]]) {
        self.init(text) { file in
            file.tensors = [:]
            for (end, shape) in shapes { file.tensors[Self.module + end] = .ones(shape) }
        }
    }

    /// Settings of PEFT in the header.
    init(_ text: String, adapter: String) {
        self.init(text) { $0.metadata["lora_adapter_metadata"] = adapter }
    }

    static let (down, up) = (".lora_down.weight", ".lora_up.weight")

    static let shapes = [
        LoRADamage("has shape [2, 15], expected [any, 16]", down, [2, 15]),
        LoRADamage("has shape [2, 17], expected [any, 16]", down, [2, 17]),
        LoRADamage("has shape [16], expected [any, 16]", down, [16]),
        LoRADamage("has shape [], expected [any, 16]", down, []),
        LoRADamage("has shape [2, 8, 2], expected [any, 16]", down, [2, 8, 2]),
        LoRADamage("has shape [2, 16, 3, 3], expected [any, 16]", down, [2, 16, 3, 3]),
        LoRADamage("has shape [0, 16], expected some elements", down, [0, 16]),
        LoRADamage("has shape [8, 2], expected [8, 3]", down, [3, 16]),
        LoRADamage("has shape [7, 2], expected [8, 2]", up, [7, 2]),
        LoRADamage("has shape [2, 8], expected [8, 2]", up, [2, 8]),
        LoRADamage("has shape [8, 3], expected [8, 2]", up, [8, 3]),
        LoRADamage("has shape [8, 0], expected some elements", up, [8, 0]),
        LoRADamage("has shape [8193, 16], expected a rank of at most 8192", down, [8193, 16]),
        LoRADamage("has shape [2], expected one number", ".alpha", [2]),
        LoRADamage("has shape [0], expected one number", ".alpha", [0]),
        LoRADamage("has shape [7], expected [8]", ".diff_b", [7]),
        LoRADamage("has shape [8, 1], expected [8]", ".diff_b", [8, 1]),
        LoRADamage("has shape [16], expected [8]", ".lora_up.bias", [16]),
        LoRADamage("has shape [7], expected [8], [8, 1] or [1, 16]", ".dora_scale", [7]),
        LoRADamage("has shape [16], expected [8]", ".dora_scale", [16]),
        LoRADamage("has shape [8, 16], expected [8]", ".dora_scale", [8, 16]),
        LoRADamage("has shape [16, 8], expected [8, 16]", instead: [".diff": [16, 8]]),
        LoRADamage("has shape [128], expected [8, 16]", instead: [".diff": [128]]),
    ]

    static let partners = [
        LoRADamage("lora_up.weight has no lora_A", ".diff_b", [8], without: [down]),
        LoRADamage("lora_down.weight has no lora_B", ".diff_b", [8], without: [up]),
        LoRADamage("alpha has no lora_A", instead: [".alpha": []]),
        LoRADamage("dora_scale has no lora_A", instead: [".dora_scale": [8]]),
        LoRADamage("lora_up.bias has no lora_B", instead: [".lora_up.bias": [8]]),
        LoRADamage("hada_w1_a has no hada_w1_b", instead: [".hada_w1_a": [8, 2]]),
        LoRADamage("hada_w1_b has no hada_w1_a", instead: [".hada_w1_b": [2, 16]]),
        LoRADamage(
            "hada_w1_a has no hada_w2_a",
            instead: [".hada_w1_a": [8, 2], ".hada_w1_b": [2, 16]]
        ),
        LoRADamage(
            "hada_w2_a has no hada_w2_b",
            instead: [".hada_w1_a": [8, 2], ".hada_w1_b": [2, 16], ".hada_w2_a": [8, 2]]
        ),
        LoRADamage(
            "hada_w2_a has shape [8, 3], expected [8, 2]",
            instead: [
                ".hada_w1_a": [8, 2], ".hada_w1_b": [2, 16], ".hada_w2_a": [8, 3],
                ".hada_w2_b": [2, 16],
            ]
        ),
        LoRADamage("lokr_w1 has no lokr_w2", instead: [".lokr_w1": [2, 4]]),
        LoRADamage("lokr_w2 has no lokr_w1", instead: [".lokr_w2": [4, 4]]),
        LoRADamage(
            "lokr_w1_a has no lokr_w1_b",
            instead: [".lokr_w1_a": [2, 4], ".lokr_w2": [4, 4]]
        ),
        LoRADamage(
            "lokr_w2_b has no lokr_w2_a",
            instead: [".lokr_w1": [2, 4], ".lokr_w2_b": [2, 4]]
        ),
        LoRADamage(
            "lokr_w1 has shape [2, 4, 4, 5], expected factors of [8, 16]",
            instead: [".lokr_w1": [2, 4], ".lokr_w2": [4, 5]]
        ),
        LoRADamage(
            "lokr_w2_a has shape [4, 3], expected [any, 2]",
            instead: [".lokr_w1": [2, 4], ".lokr_w2_a": [4, 3], ".lokr_w2_b": [2, 4]]
        ),
    ]

    static let repetitions = [
        LoRADamage("are the same", ".lora_A.weight", [2, 16]),
        LoRADamage("are the same", ".lora_down", [2, 16]),
        LoRADamage("are the same", named: "blocks.0.attn.wk.lora_B.weight", [8, 2]),
        LoRADamage(
            "are the same",
            named: "lora_unet_blocks_0_attn_wk.lora_up.weight",
            [8, 2]
        ),
        LoRADamage("are the same", named: "blocks.0.attn.wk.alpha", []),
        LoRADamage(
            "are the same",
            instead: [".lokr_w1": [2, 4], ".lokr_w1_a": [2, 2], ".lokr_w2": [4, 4]]
        ),
        LoRADamage("are the same") { file in
            file.tensors[module + ".diff_b"] = .ones([8])
            file.tensors[module + ".lora_up.bias"] = .ones([8])
        },
        LoRADamage("more than one change of a layer", ".diff", [8, 16]),
        LoRADamage("more than one change of a layer") { file in
            file.tensors[module + ".lokr_w1"] = .ones([2, 4])
            file.tensors[module + ".lokr_w2"] = .ones([4, 4])
        },
    ]

    static let values =
        [Float.nan, .infinity, -.infinity].flatMap { value in
            [down, up, ".alpha", ".diff_b", ".dora_scale"].map { end in
                LoRADamage("\(end) holds NaN or infinity") { file in
                    let old = file.tensors[module + end]
                    let shape = old?.shape ?? [8]
                    var elements = [Float](repeating: 1, count: shape.reduce(1, *))
                    elements[elements.count - 1] = value
                    file.tensors[module + end] = Tensor(elements, shape: shape)
                }
            }
        } + [
            LoRADamage("holds NaN or infinity") { file in
                let bits = Storage(byteCount: 2 * 32)
                bits.bytes.storeBytes(of: 0x7C00, as: UInt16.self)
                file.tensors[module + down] = Tensor(
                    bits,
                    byteOffset: 0,
                    shape: [2, 16],
                    elementType: .float16
                )
            },
            LoRADamage("holds NaN or infinity") { file in
                // Too large a number for a factor.
                file.metadata["lora_adapter_metadata"] = #"{"transformer.lora_alpha": 1e300}"#
                file.tensors[module + ".alpha"] = nil
            },
        ]

    static let types = [ElementType.float64, .int8, .uint8, .bool, .float8E4M3, .int64].map {
        type in
        LoRADamage("has type \(type.rawValue), expected F32, F16 or BF16") { file in
            file.tensors[module + down] = Tensor(
                Storage(byteCount: 32 * 8),
                byteOffset: 0,
                shape: [2, 16],
                elementType: type
            )
        }
    }

    static let methods =
        [
            (".hada_t1", "LoHa of a convolution"), (".lokr_t2", "LoRA of a convolution"),
            (".lora_mid.weight", "LoRA of a convolution"), (".oft_blocks", "OFT"),
            (".oft_diag", "OFT"), (".boft_R", "BOFT"), (".a1.weight", "GLoRA"),
            (".on_input", "IA3"),
            (".ia3_l", "IA3"), (".vera_lambda_b", "VeRA"), (".lora_embedding_A", "an embedding"),
            (".b_norm", "the bias of a norm"), (".reshape_weight", "Control-LoRA"),
            (".set_weight", "a whole weight"), (".weight", "a whole weight"),
            (".bias", "a whole weight"),
        ].map { end, method in LoRADamage(method, end, [8, 16]) } + [
            LoRADamage(
                "a whole weight, as in a checkpoint or a Control-LoRA, is not supported",
                named: "first.weight",
                [16, 16]
            ),
            LoRADamage("DoRA over the inputs of query, key and value") { file in
                let fused = "transformer.transformer_blocks.1.attn.to_qkv"
                file.tensors[fused + ".lora_A.weight"] = .ones([2, 16])
                file.tensors[fused + ".lora_B.weight"] = .ones([32, 2])
                file.tensors[fused + ".dora_scale"] = .ones([1, 16])
            },
        ]

    static let vectors = [
        LoRADamage("has shape [15], expected [16]", named: "blocks.0.prenorm.scale.diff", [15]),
        LoRADamage("has shape [16, 6], expected [6, 16]", named: "blocks.0.mod.lin.diff", [16, 6]),
        LoRADamage(
            "more than a difference of a norm or a table is not supported",
            named: "transformer_blocks.0.norm1.lora_A.weight",
            [1, 16]
        ),
        LoRADamage("holds NaN or infinity") { file in
            file.tensors["blocks.0.prenorm.diff"] = Tensor(
                [Float](repeating: .nan, count: 16),
                shape: [16]
            )
        },
        LoRADamage("blocks.0.prenorm.scale.diff are the same") { file in
            file.tensors["blocks.0.prenorm.scale.diff"] = .ones([16])
            file.tensors["blocks.0.prenorm.diff"] = .ones([16])
        },
    ]

    static let names = [
        LoRADamage("nonsense is no part of the model", named: "nonsense"),
        LoRADamage("is no part of the model", named: ""),
        LoRADamage(#"\u{1B}[31m\n is no part of the model"#, named: "\u{1B}[31m\n"),
        LoRADamage(
            "blocks.0.attn.wx.lora_A.weight is no part of the model, the nearest is "
                + "blocks.0.attn.w",
            named: "blocks.0.attn.wx.lora_A.weight"
        ),
        LoRADamage("is no part of the model", named: "blocks.2.attn.wk.lora_A.weight"),
        LoRADamage("is no part of the model", named: "blocks.00.attn.wk.lora_A.weight"),
        LoRADamage("is no part of the model", named: "blocks.0.attn.wk_.lora_A.weight"),
        LoRADamage(
            "the nearest is txtfusion_layerwise_blocks_0_mlp_down",
            named: "lora_unet_txtfusion_layerwise_0_mlp_down.lora_up.weight"
        ),
        LoRADamage("is for the text encoder", named: "text_encoder.q_proj.lora_A.weight"),
        LoRADamage("is for the text encoder", named: "lora_te_layers_0_mlp_up.lora_up.weight"),
    ]

    static let settings = [
        LoRADamage("metadata ss_network_alpha: x, expected a number") {
            $0.metadata["ss_network_alpha"] = "x"
        },
        LoRADamage("metadata ss_network_alpha: nan") { $0.metadata["ss_network_alpha"] = "nan" },
        LoRADamage("no JSON object", adapter: "{"),
        LoRADamage("no JSON object", adapter: "[]"),
        LoRADamage("no JSON object", adapter: String(repeating: "[", count: 100_000)),
        LoRADamage("expected a number", adapter: #"{"transformer.lora_alpha": "8"}"#),
        LoRADamage("expected a number", adapter: #"{"transformer.lora_alpha": [8]}"#),
        LoRADamage("expected PEFT's setting", adapter: #"{"transformer.use_rslora": "yes"}"#),
        LoRADamage("expected PEFT's setting", adapter: #"{"transformer.alpha_pattern": 4}"#),
        LoRADamage("expected a number", adapter: #"{"transformer.alpha_pattern": {"wk": {}}}"#),
        LoRADamage(
            "expected names of layers",
            adapter: #"{"transformer.alpha_pattern": {".*wk": 4}}"#
        ),
    ]

    static let all =
        shapes + partners + repetitions + values + types + methods + vectors + names + settings
}

extension Tensor {
    fileprivate static func ones(_ shape: [Int]) -> Tensor {
        Tensor([Float](repeating: 1, count: shape.reduce(1, *)), shape: shape)
    }
}

struct LoRAErrorTests {
    /// A file that is sound.
    private var file: LoRAFixture = {
        var file = LoRAFixture()
        for (end, shape) in [
            (LoRADamage.down, [2, 16]), (LoRADamage.up, [8, 2]), (".alpha", []),
        ] {
            file.tensors[LoRADamage.module + end] = .ones(shape)
        }
        file.tensors["blocks.1.mlp.up.lora_A.weight"] = .ones([1, 16])
        file.tensors["blocks.1.mlp.up.lora_B.weight"] = .ones([24, 1])
        return file
    }()

    @Test func theUndamagedFileOpens() throws {
        #expect(try file.open().layerCount == 2)
        #expect(LoRADamage.all.count >= 100)
    }

    @Test(arguments: LoRADamage.all)
    mutating func isRefused(_ kind: LoRADamage) throws {
        kind.damage(&file)
        let problems = try file.problems()
        let error = LoRAError(path: "a", problems: problems)
        #expect(error.description.contains(kind.text), "\(error)")
        #expect(!error.description.contains { $0.isNewline || $0 == "\u{1B}" })
        #expect(GenerationError.lora(error).category == .unfitFile)
    }

    @Test func whatCannotBeAppliedIsLeftOutOnDemand() throws {
        var file = file
        file.tensors["text_encoder.layers.0.mlp.up.lora_A.weight"] = .ones([1, 16])
        let lora = try file.open(isLenient: true)
        #expect(lora.layerCount == 2)
        #expect(
            lora.ignored == [
                .inapplicable(
                    key: "text_encoder.layers.0.mlp.up.lora_A.weight",
                    part: "the text encoder"
                )
            ]
        )
        file.tensors["nonsense"] = .ones([1])
        #expect(try file.problems(isLenient: true) == [.unknown(key: "nonsense", nearest: nil)])
    }

    @Test func filesWithoutAChangeAreRefused() throws {
        #expect(try LoRAFixture().problems() == [.empty])
        var file = LoRAFixture()
        file.tensors["text_encoder.a.lora_A.weight"] = .ones([1, 16])
        #expect(try file.problems(isLenient: true).first == .empty)
    }

    @Test func checkpointsAreNoLoRAs() throws {
        var file = LoRAFixture()
        for name in ["first.weight", "blocks.0.prenorm.scale"] { file.tensors[name] = .ones([2]) }
        #expect(try file.problems() == [.noLoRA(key: "blocks.0.prenorm.scale")])
    }

    @Test func twentyNamesAreListed() throws {
        var file = file
        for index in 10..<40 { file.tensors["x\(index).lora_A.weight"] = .ones([1, 16]) }
        let problems = try file.problems()
        let text = LoRAError(path: "a", problems: problems).description
        #expect(problems.count == 30)
        #expect(text.contains("x29.lora_A.weight") && !text.contains("x30.lora_A.weight"))
        #expect(text.hasSuffix("; and 10 more"))
    }

    @Test(arguments: [
        ("double_blocks.0.img_attn.qkv.lora_A.weight", [16, 3072], "FLUX"),
        ("lora_unet_double_blocks_0_img_mlp_0.lora_down.weight", [16, 3072], "FLUX"),
        ("transformer.single_transformer_blocks.3.attn.to_q.lora_A.weight", [16, 3072], "FLUX"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", [16, 3072], "FLUX"),
        (
            "transformer.transformer_blocks.0.img_mlp.net.0.proj.lora_A.weight", [4, 8],
            "Qwen-Image"
        ),
        ("transformer.transformer_blocks.0.attn.add_k_proj.lora_A.weight", [4, 8], "Qwen-Image"),
        ("joint_blocks.0.x_block.attn.qkv.lora_A.weight", [4, 8], "Stable Diffusion 3"),
        ("lora_unet_input_blocks_4_1_proj_in.lora_down.weight", [4, 8], "Stable Diffusion XL"),
        (
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight",
            [4, 2048], "Stable Diffusion XL"
        ),
        (
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
                + ".lora_down.weight",
            [4, 768], "Stable Diffusion 1"
        ),
        ("blocks.0.cross_attn.k.lora_A.weight", [4, 5120], "Wan"),
        ("lora_unet_blocks_0_self_attn_q.lora_down.weight", [4, 5120], "Wan"),
        ("layers.0.attention.qkv.lora_A.weight", [4, 3840], "Z-Image"),
        ("blocks.0.adaln_modulation_mlp.1.lora_A.weight", [4, 8], "Cosmos"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", [4, 8], "a language"),
        ("transformer_blocks.0.attn1.to_q.lora_A.weight", [4, 8], "LTX-Video"),
        ("diffusion_model.blocks.0.attn.wk.lora_A.weight", [4, 6144], "width 6144 (Krea 2)"),
    ])
    func otherModelsAreNamed(key: String, shape: [Int], model: String) throws {
        var file = LoRAFixture()
        file.tensors[key] = .ones(shape)
        let problems = try file.problems()
        guard case .otherModel(key, let found, _)? = problems.first, problems.count == 1 else {
            Issue.record("\(problems)")
            return
        }
        #expect(found.contains(model), "\(found)")
    }

    @Test func damagedFilesAreNoLoRAs() throws {
        let folder = try TemporaryFolder()
        let sound = Array(try Data(contentsOf: URL(filePath: file.write(to: folder))))
        func open(_ bytes: [UInt8]) throws {
            let path = try folder.write(bytes, to: "b.safetensors")
            _ = try LoRAFile(path: path, targets: LoRAFixture.targets)
        }
        try open(sound)
        for bytes in [
            [], Array(sound.prefix(7)), Array(sound.prefix(60)), Array(sound.dropLast()),
            sound + [0], Array(sound.dropFirst()), [UInt8](repeating: 0xFF, count: 100),
        ] {
            let error = #expect(throws: GenerationError.self) { try open(bytes) }
            #expect(error?.category == .unfitFile)
        }
        for path in [folder.path, folder.file("none")] {
            let error = #expect(throws: GenerationError.self) {
                try LoRAFile(path: path, targets: LoRAFixture.targets)
            }
            #expect(error?.category == .missingFile)
        }
    }
}
