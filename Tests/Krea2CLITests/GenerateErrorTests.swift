import Checkpoints
import Foundation
import TestSupport
import Tensors
import Testing

/// Every way in which `krea2 generate` refuses or fails: the exit code, one line, and nothing left.
@Suite(.serialized)
struct GenerateErrorTests {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
    }

    /// Runs a small picture and checks the failure; nothing new may be in the folder afterwards.
    private func fails(
        _ code: Int32,
        _ words: [String],
        _ arguments: [String],
        model: String = fixtureModel,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let before = try folder.names()
        let run = try CommandRun.process(
            ["generate", "a fox", "-m", model, "--steps", "1", "--quiet"] + arguments,
            in: folder.path
        )
        #expect(run.code == code, "\(run.errors)", sourceLocation: sourceLocation)
        #expect(run.output.isEmpty, sourceLocation: sourceLocation)
        #expect(run.isOneErrorLine, "\(run.errors)", sourceLocation: sourceLocation)
        for word in words {
            let isThere = run.errors.contains(word)
            #expect(isThere, "\(word) in \(run.errors)", sourceLocation: sourceLocation)
        }
        #expect(try folder.names() == before, sourceLocation: sourceLocation)
    }

    private let small = ["--size", "64x64", "-o", "a.png"]

    @Test(arguments: [
        (["--size", "63x64"], "'63' is not a whole number from 64 to 4096"),
        (["--size", "64x4097"], "'4097' is not a whole number from 64 to 4096"),
        (["-W", "0"], "-W: '0'"),
        (["-H", "-64"], "-H: '-64'"),
        (["--size", "big"], "'big' is not WIDTHxHEIGHT"),
        (["--negative-prompt", "fog"], "--negative-prompt needs guidance"),
        (["-n", "fog", "--cfg-scale", "1"], "--negative-prompt needs guidance"),
        (["--cfg", "1", "--cfg-scale", "2"], "--cfg and --cfg-scale exclude each other"),
        (["--seed", "-1"], "'-1' is not a whole number from 0 to 9223372036854775807"),
        (["--seed", "9223372036854775808"], "'9223372036854775808' is not a whole number"),
        (["--seed", "dog"], "'dog' is not a whole number"),
        (["--seed", "9223372036854775807", "--num-images", "2"], "leaves no room for 2 pictures"),
        (["--num-images", "0"], "'0' is not a whole number"),
        (["--threads", "0"], "'0' is not a whole number"),
        (["--strength", "0.5"], "--strength needs --init-image"),
        (["--mask", "m.png"], "--mask needs --init-image"),
        (["--init-image", "i.png", "--strength", "1.1"], "'1.1' is not a number from 0 to 1"),
    ])
    func wrongUsage(_ arguments: [String], message: String) throws {
        try fails(64, [message, "; see krea2 generate --help"], arguments)
    }

    @Test func unusableOutputs() throws {
        try folder.write("mine", to: "a.png")
        try fails(73, ["a.png: exists; --force replaces it"], small)
        let missing = "no/b.png: there is no folder no; create it first"
        try fails(73, [missing], ["--size", "64x64", "-o", "no/b.png"])
        let dump = ["--size", "64x64", "-o", "b.png", "--dump"]
        try fails(73, ["no/d: there is no folder no"], dump + ["no/d"])
        try fails(73, ["a.png: exists"], dump + ["a.png"])
        try fails(73, ["b.png: two outputs have this name"], dump + ["b.png"])
        #expect(try String(contentsOfFile: folder.file("a.png"), encoding: .utf8) == "mine")
    }

    @Test func missingModel() throws {
        try fails(
            66,
            ["no-model: neither a file or folder nor a model found in"],
            [],
            model: "no-model"
        )
        let model = try ModelCopy(in: folder)
        try model.remove("transformer/diffusion_pytorch_model-00002-of-00003.safetensors")
        let names = [
            "diffusion_pytorch_model-00002-of-00003.safetensors: no such file",
            "diffusion_pytorch_model.safetensors.index.json names it",
        ]
        try fails(66, names, small, model: model.path)
    }

    @Test(arguments: [
        (
            "text_encoder", "text encoder", "--text-encoder PATH",
            ["text_encoder", "text_encoders/*qwen3vl_4b*.safetensors"]
        ),
        (
            "vae", "autoencoder", "--vae PATH",
            ["vae/diffusion_pytorch_model.safetensors", "vae/qwen_image_vae.safetensors"]
        ),
        ("tokenizer", "tokenizer", "--tokenizer PATH", ["tokenizer", "text_encoder/tokenizer"]),
    ])
    func missingCompanions(
        _ name: String,
        part: String,
        option: String,
        places: [String]
    ) throws {
        let model = try ModelCopy(in: folder)
        try model.remove(name)
        for path in [model.path, model.file("turbo.safetensors")] {
            let words = ["no \(part)", "give one with \(option)"] + places.map(model.file)
            try fails(66, words, small, model: path)
        }
        let missing = folder.file("missing")
        try fails(
            66,
            ["\(missing): no such file"],
            small + ["--vae", missing],
            model: fixtureModel
        )
    }

    @Test func plainLanguageModel() throws {
        let checkpoint = try Checkpoint(path: fixtureModel + "/text_encoder")
        var writer = SafetensorsWriter()
        for name in checkpoint.names where name.hasPrefix("language_model.") {
            let tensor = try #require(checkpoint.tensor(name))
            writer.add(
                "model." + name.dropFirst("language_model.".count),
                Tensor(zeros: tensor.shape)
            )
        }
        try writer.write(to: folder.file("qwen3_4b.safetensors"))
        let words = ["qwen3_4b.safetensors", "Qwen3-VL-4B"]
        try fails(65, words, small + ["--text-encoder", folder.file("qwen3_4b.safetensors")])
    }

    @Test(arguments: [
        "text_encoder/model-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model-00002-of-00003.safetensors",
        "vae/diffusion_pytorch_model-00002-of-00002.safetensors",
        "tokenizer/tokenizer.json", "model_index.json", "transformer/config.json",
        "vae/config.json", "text_encoder/config.json",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
    ])
    func cutFiles(_ name: String) throws {
        let model = try ModelCopy(in: folder)
        let size = try #require(
            try FileManager.default.attributesOfItem(atPath: model.file(name))[.size] as? UInt64
        )
        try model.truncate(name, to: size - 2)
        try fails(65, [model.file(name)], small, model: model.path)
        try model.truncate(name, to: 5)
        try fails(65, [model.file(name)], small, model: model.path)
    }

    @Test(arguments: [
        ("text_encoder", "language_model.layers.1.mlp.down_proj.weight", "text encoder, layer 2"),
        ("text_encoder", "language_model.layers.2.mlp.up_proj.weight", "text encoder, layer 3"),
        (
            "transformer", "text_fusion.layerwise_blocks.1.ff.down.weight",
            "text fusion, layerwise block 1"
        ),
        (
            "transformer", "text_fusion.refiner_blocks.0.attn.to_v.weight",
            "text fusion, refiner block 0"
        ),
        (
            "transformer", "transformer_blocks.1.ff.up.weight",
            "transformer, step 1, block 1"
        ),
        ("transformer", "final_layer.linear.weight", "transformer, step 1, output"),
        ("vae", "decoder.mid_block.resnets.0.conv1.weight", "autoencoder, middle block"),
        ("vae", "decoder.conv_out.bias", "autoencoder, rows 0"),
    ])
    func notANumber(_ part: String, tensor: String, place: String) throws {
        let model = try ModelCopy(in: folder)
        try model.poison(tensor, in: part)
        let words = [place, ": NaN or infinity in the result; no picture is written"]
        try fails(2, words, small, model: model.path)
    }

    @Test func fullDisks() throws {
        for arguments in [small, small + ["--no-metadata", "--dump", "d.safetensors"]] {
            // Of 512 bytes; the picture fits into 32 blocks, the dump does not.
            let blocks = arguments == small ? 1 : 32
            let run = try CommandRun.shell(
                "ulimit -f \(blocks); exec env --default-signal=XFSZ \"$0\" \"$@\"",
                [
                    CommandProcess.executable.path, "generate", "a fox", "-m", fixtureModel,
                    "--steps", "1", "--quiet",
                ] + arguments,
                in: folder.path
            )
            #expect(run.code == 73)
            #expect(run.isOneErrorLine, "\(run.errors)")
            #expect(try folder.names() == (arguments == small ? [] : ["a.png"]))
        }
    }
}
