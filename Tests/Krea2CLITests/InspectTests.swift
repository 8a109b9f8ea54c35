import Checkpoints
import Foundation
import Images
import TestSupport
import Tensors
import Testing

@testable import Krea2
@testable import Krea2CLI

/// `krea2 inspect` on weights.
struct InspectModelTests {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
    }

    /// Writes a file of zeros with these names and shapes.
    private func write(
        _ shapes: [String: [Int]],
        metadata: [String: String] = [:],
        to name: String = "model.safetensors"
    ) throws -> String {
        var writer = SafetensorsWriter(metadata: metadata)
        for (name, shape) in shapes { writer.add(name, Tensor(zeros: shape)) }
        try writer.write(to: folder.file(name))
        return folder.file(name)
    }

    private let official = [
        "txtfusion.projector.weight": [1, 3], "blocks.0.attn.qknorm.qnorm.scale": [16],
        "blocks.0.attn.wq.weight": [64, 64], "blocks.0.attn.wk.weight": [32, 64],
        "blocks.0.mlp.up.weight": [96, 64], "blocks.1.prenorm.scale": [64],
        "blocks.10.prenorm.scale": [64], "first.weight": [64, 8], "txtmlp.0.scale": [24],
    ]

    @Test func derivesTheSizesOfATransformer() throws {
        let path = try write(official, metadata: ["format": "pt"])
        let run = CommandRun.inProcess("inspect", path)
        #expect(run.code == 0)
        #expect(run.errors.isEmpty)
        #expect(run.lines.first == "\(path): Krea 2 transformer, official names")
        #expect(
            run.lines.contains(
                "  sizes     blocks 3, heads 4, key-value heads 2, head size 16, width 64, "
                    + "values per token 8, feed-forward width 96, text width 24, taps 3"
            ),
            "\(run.text)"
        )
        #expect(run.lines.contains("  tensors   9, 12971 elements, 50.7 KiB"), "\(run.text)")
        #expect(run.lines.contains("  types     F32 9 (50.7 KiB)"))
        #expect(run.lines.contains("  metadata  format = pt"))
    }

    @Test(arguments: [
        (
            ModelInspection.Kind.diffusersTransformer,
            ["text_fusion.projector.weight", "transformer_blocks.0.attn.to_gate.weight"]
        ),
        (.textEncoder, ["embed_tokens.weight", "layers.0.self_attn.q_norm.weight", "visual.x"]),
        (.plainLanguageModel, ["embed_tokens.weight", "layers.0.self_attn.q_norm.weight"]),
        (.diffusersAutoencoder, ["decoder.conv_in.weight", "post_quant_conv.weight"]),
        (.wanAutoencoder, ["decoder.conv1.weight", "decoder.middle.0.residual.0.gamma"]),
        (.dump, ["sigmas", "noise"]),
        (.unknown, ["embed_tokens.weight", "noise"]),
        (.unknown, ["xembed_tokens.weight", "xlayers.0.self_attn.q_norm.weight"]),
    ])
    func recognises(_ kind: ModelInspection.Kind, names: [String]) throws {
        let shapes = Dictionary(uniqueKeysWithValues: names.map { ($0, [2, 2]) })
        #expect(try ModelInspection(path: write(shapes)).kind == kind)
    }

    @Test func prefixesAreSeenThrough() throws {
        let prefixed = Dictionary(
            uniqueKeysWithValues: official.map { ("model.diffusion_model.\($0)", $1) }
        )
        let model = try ModelInspection(path: write(prefixed))
        #expect(model.kind == .officialTransformer)
        #expect(model.prefix == "model.diffusion_model.")
        #expect(
            model.sizes == (try ModelInspection(path: write(official, to: "b.safetensors"))).sizes
        )
    }

    @Test func namesFormsOfQuantisation() throws {
        let path = folder.file("q.safetensors")
        let layers =
            #"{"layers":{"rotated":{"convrot":true,"convrot_groupsize":4},"#
            + #""packed":{"format":"nvfp4"},"odd":{"format":7}}}"#
        var writer = SafetensorsWriter(metadata: ["_quantization_metadata": layers, "k": "v"])
        for (name, type) in [
            ("rotated", ElementType.int8), ("single", .int8), ("packed", .uint8), ("odd", .int8),
            ("bare", .float8E5M2),
        ] {
            writer.add("\(name).weight", [1, 2, 3, 4] as [UInt8], as: type, shape: [1, 4])
        }
        for name in ["rotated", "single"] {
            writer.add("\(name).weight_scale", Tensor([1], shape: []))
        }
        writer.add("plain.weight", Tensor([1], shape: [1, 1]))
        try writer.write(to: path)
        let run = CommandRun.inProcess("inspect", path)
        #expect(
            run.lines.filter { $0.contains("quantised") || $0.contains("metadata") } == [
                "  quantised damaged: 1 (4 B)", "  quantised float8_e5m2, no scale: 1 (4 B)",
                "  quantised int8_tensorwise: 1 (4 B)",
                "  quantised int8_tensorwise, convrot 4: 1 (4 B)",
                "  quantised nvfp4, not supported: 1 (4 B)", "  metadata  k = v",
            ],
            "\(run.text)"
        )
        let json = CommandRun.inProcess("inspect", "--json", path)
        let object = try JSONSerialization.jsonObject(with: Data(json.output)) as? [String: Any]
        #expect((object?["quantized"] as? [[String: Any]])?.count == 5)
        #expect((object?["metadata"] as? [String: String])?.count == 2)
    }

    @Test func oddShapesAreNoTrap() throws {
        let shapes = [
            "txtfusion.projector.weight": [], "blocks.0.attn.qknorm.qnorm.scale": [0],
            "blocks.0.attn.wq.weight": [64], "blocks.0.attn.wk.weight": [32, 64],
        ]
        let model = try ModelInspection(path: write(shapes))
        #expect(model.kind == .officialTransformer)
        #expect(model.sizes == [.init(name: "blocks", value: 1)])
    }
}

/// `krea2 inspect` on pictures, folders, and files that are neither.
struct InspectFileTests {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
    }

    private let record = GenerationRecord(
        engineVersion: "1.2.3",
        checkpoint: .raw,
        digests: .init(
            transformer: "sha256:aa",
            textEncoder: "b",
            autoencoder: "c",
            tokenizer: "d"
        ),
        prompt: "a \u{1F98A}\nwalking\u{7}",
        negativePrompt: "fog",
        seed: 41,
        width: 3,
        height: 2,
        steps: 5,
        guidance: 3.5,
        shift: 0.5,
        precision: "f32",
        kernels: "scalar",
        imageIndex: 0
    )

    private func picture(_ record: GenerationRecord?, to name: String) throws -> String {
        let image = try PixelImage(width: 3, height: 2, rgb: [UInt8](repeating: 9, count: 18))
        return try folder.write(PNG.encode(image, metadata: record), to: name)
    }

    @Test func printsTheTextsOfAPicture() throws {
        let path = try picture(record, to: "a.png")
        let run = CommandRun.inProcess("inspect", path)
        #expect(run.code == 0)
        #expect(run.errors.isEmpty)
        #expect(run.lines.first == "\(path): picture, 3 x 2, 8-bit RGB")
        for line in [
            "  parameters:", "    a \u{1F98A}", #"    walking\u{7}"#, "    Negative prompt: fog",
            "  krea2:", "      \"seed\" : 41,", "      \"guidance\" : 3.5,",
            "  source: made by a trained model, as its XMP says",
        ] {
            #expect(run.lines.contains(line), "\(line) in \(run.text)")
        }
    }

    @Test func printsAPictureAsJSON() throws {
        let run = CommandRun.inProcess("inspect", "--json", try picture(record, to: "a.png"))
        #expect(run.lines.count == 1)
        let object = try JSONSerialization.jsonObject(with: Data(run.output)) as? [String: Any]
        let krea2 = object?["krea2"] as? [String: Any]
        #expect(object?["kind"] as? String == "picture")
        #expect(krea2?["prompt"] as? String == record.prompt)
        #expect(krea2?["seed"] as? Int == 41)
        #expect(object?["statesTrainedModel"] as? Bool == true)
    }

    @Test func picturesWithoutARecordAreFine() throws {
        let run = CommandRun.inProcess("inspect", try picture(nil, to: "a.png"))
        #expect(run.code == 0)
        #expect(!run.text.contains("krea2:"))
        #expect(!run.text.contains("parameters:"))
    }

    /// Other programs may write any text under our name.
    @Test(arguments: ["[", #"{"a":"#])
    func deeplyNestedRecordsAreShownAsTheyAre(_ level: String) throws {
        let nested = String(repeating: level, count: 100_000)
        var bytes = try Data(contentsOf: URL(fileURLWithPath: picture(nil, to: "a.png")))
        bytes.insert(contentsOf: Self.textChunk("krea2", nested), at: 33)
        let path = try folder.write(Array(bytes), to: "b.png")
        let run = try CommandRun.process(["inspect", path], in: folder.path)
        #expect(run.code == 0, "\(run.errors)")
        #expect(run.lines.contains("    " + nested))
        let json = try CommandRun.process(["inspect", "--json", path], in: folder.path)
        let object = try JSONSerialization.jsonObject(with: Data(json.output)) as? [String: Any]
        let texts = object?["texts"] as? [[String: String]]
        #expect(texts?.first == ["keyword": "krea2", "value": nested])
        #expect(object?["krea2"] == nil)
    }

    /// A tEXt chunk, which belongs behind the header's 33 bytes or later.
    private static func textChunk(_ keyword: String, _ text: String) -> [UInt8] {
        let body = Array("tEXt\(keyword)\0\(text)".utf8)
        var check = UInt32.max
        for byte in body {
            check ^= UInt32(byte)
            for _ in 0..<8 { check = check >> 1 ^ (check & 1 == 1 ? 0xEDB8_8320 : 0) }
        }
        let bigEndian = { (number: UInt32) in (0..<4).map { UInt8(number >> (24 - 8 * $0) & 255) } }
        return bigEndian(UInt32(body.count - 4)) + body + bigEndian(~check)
    }

    @Test func damagedPicturesAreBadData() throws {
        let whole = try Data(contentsOf: URL(fileURLWithPath: picture(record, to: "a.png")))
        let path = try folder.write(Array(whole.prefix(60)), to: "cut.png")
        let run = CommandRun.inProcess("inspect", path)
        #expect(run.code == 65)
        #expect(run.isOneErrorLine)
        #expect(run.errors.contains("cut.png"))
    }

    @Test(
        arguments: [
            ("empty", []), ("short", [1, 2, 3]), ("text", Array("hello, world".utf8)),
            ("signature", Array(PNG.signature)),
        ] as [(String, [UInt8])]
    )
    func otherFilesAreBadData(_ name: String, bytes: [UInt8]) throws {
        let run = CommandRun.inProcess("inspect", try folder.write(bytes, to: name))
        #expect(run.code == 65)
        #expect(run.isOneErrorLine)
        #expect(run.errors.contains(name))
    }

    @Test func missingFilesAreMissingInputs() {
        let run = CommandRun.inProcess("inspect", folder.file("gone"))
        #expect(run.code == 66)
        #expect(run.isOneErrorLine)
        #expect(run.errors.contains("gone"))
    }

    @Test func oneBadFileDoesNotHideTheOthers() throws {
        let bad = try folder.write("hello, world", to: "bad")
        let good = try picture(record, to: "good.png")
        let run = CommandRun.inProcess("inspect", folder.file("gone"), bad, good)
        #expect(run.code == 66)
        #expect(run.errors.split(separator: "\n").count == 2)
        #expect(run.lines.first == "\(good): picture, 3 x 2, 8-bit RGB")
    }

    @Test func foldersShowTheirParts() throws {
        let run = CommandRun.inProcess("inspect", fixtureModel)
        #expect(run.code == 0)
        for line in [
            "\(fixtureModel)/transformer: Krea 2 transformer, diffusers names",
            "\(fixtureModel)/text_encoder: Qwen3-VL text encoder",
            "\(fixtureModel)/vae: Qwen-Image autoencoder, diffusers names",
        ] {
            #expect(run.lines.contains(line), "\(line) in \(run.text)")
        }
        let json = CommandRun.inProcess("inspect", "--json", fixtureModel)
        #expect(json.lines.count == 3)
    }
}
