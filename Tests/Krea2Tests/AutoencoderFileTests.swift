import Checkpoints
import Compute
import TestSupport
import Tensors
import Testing

@testable import Krea2

/// What files an autoencoder is read from, and what is said of those that do not fit.
struct AutoencoderFileTests {
    private let folder: TemporaryFolder
    private let path: String
    private let operators = Operators(threads: 1)

    init() throws {
        folder = try TemporaryFolder()
        path = folder.file("vae.safetensors")
    }

    /// The problems of a changed copy of a model, read without its configuration.
    private func problems(
        _ model: String,
        reshaping: [String: [Int]] = [:],
        retyping: [String: ElementType] = [:],
        rename: (String) -> String? = { $0 }
    ) throws -> [WeightProblem] {
        try AutoencoderFixture.write(
            AutoencoderFixture.checkpoint(model),
            to: path,
            reshaping: reshaping,
            retyping: retyping,
            rename: rename
        )
        let error = #expect(throws: CheckpointError.self) {
            try Autoencoder(AutoencoderFiles(path: path), operators: operators)
        }
        guard case .unfit(let file, let problems) = error else {
            Issue.record("\(String(describing: error))")
            return []
        }
        #expect(file == path)
        return problems
    }

    // MARK: Names

    /// A Wan name by the table of the layouts, written out for two residual blocks.
    private static let wanNames = [
        "post_quant_conv.bias": "conv2.bias",
        "quant_conv.weight": "conv1.weight",
        "encoder.conv_in.bias": "encoder.conv1.bias",
        "encoder.down_blocks.1.norm2.gamma": "encoder.downsamples.1.residual.3.gamma",
        "encoder.down_blocks.2.resample.1.weight": "encoder.downsamples.2.resample.1.weight",
        "encoder.down_blocks.3.conv_shortcut.bias": "encoder.downsamples.3.shortcut.bias",
        "encoder.down_blocks.10.conv1.weight": "encoder.downsamples.10.residual.2.weight",
        "encoder.mid_block.attentions.0.proj.weight": "encoder.middle.1.proj.weight",
        "encoder.norm_out.gamma": "encoder.head.0.gamma",
        "encoder.conv_out.weight": "encoder.head.2.weight",
        "decoder.conv_in.weight": "decoder.conv1.weight",
        "decoder.mid_block.resnets.0.norm1.gamma": "decoder.middle.0.residual.0.gamma",
        "decoder.mid_block.attentions.0.to_qkv.bias": "decoder.middle.1.to_qkv.bias",
        "decoder.mid_block.resnets.1.conv2.weight": "decoder.middle.2.residual.6.weight",
        "decoder.up_blocks.0.resnets.2.norm2.gamma": "decoder.upsamples.2.residual.3.gamma",
        "decoder.up_blocks.0.upsamplers.0.resample.1.bias": "decoder.upsamples.3.resample.1.bias",
        "decoder.up_blocks.1.resnets.0.conv_shortcut.bias": "decoder.upsamples.4.shortcut.bias",
        "decoder.up_blocks.3.resnets.2.conv1.weight": "decoder.upsamples.14.residual.2.weight",
        "decoder.norm_out.gamma": "decoder.head.0.gamma",
        "decoder.conv_out.bias": "decoder.head.2.bias",
    ]

    @Test(arguments: wanNames.keys.sorted())
    func knowsWansNames(name: String) {
        let names = AutoencoderNames(layout: .wan, residualBlocks: 2)
        #expect(names.stored(name) == Self.wanNames[name])
        #expect(AutoencoderNames(layout: .diffusers, residualBlocks: 2).stored(name) == name)
    }

    @Test func findsThePlacesOfOtherBlockCounts() {
        let names = AutoencoderNames(layout: .wan, residualBlocks: 1)
        let upsampling = "decoder.up_blocks.2.upsamplers.0.resample.1.bias"
        #expect(names.stored(upsampling) == "decoder.upsamples.8.resample.1.bias")
        let residual = "decoder.up_blocks.3.resnets.1.conv1.bias"
        #expect(names.stored(residual) == "decoder.upsamples.10.residual.2.bias")
    }

    @Test(arguments: [("head16", ""), ("head128", ""), ("head16", "first_stage_model.")])
    func readsWansNamesAndPrefixes(model: String, prefix: String) throws {
        let checkpoint = try AutoencoderFixture.checkpoint(model)
        let blocks = model == "head128" ? 1 : 2
        let names = AutoencoderNames(layout: .wan, residualBlocks: blocks)
        try AutoencoderFixture.write(checkpoint, to: path) { prefix + names.stored($0) }
        let settings = try ConfigurationFile(beside: AutoencoderFixture.path(model))
        let first = try Autoencoder(AutoencoderFiles(checkpoint, settings), operators: operators)
        let second = try Autoencoder(
            AutoencoderFiles(Checkpoint(path: path), settings),
            operators: operators
        )
        let latent = randomLatent(3, 2)
        let expected = try Decoded(latent, first, operators).planes.elements
        #expect(try Decoded(latent, second, operators).planes.elements == expected)

        let picture = randomPicture(24, 16)
        let latents = try [
            AutoencoderFiles(checkpoint, settings),
            AutoencoderFiles(Checkpoint(path: path), settings),
        ].map { files in
            let encoder = try LatentEncoder(files, operators: operators)
            return try Encoded(picture, height: 24, width: 16, encoder, operators).latent.elements
        }
        #expect(latents[0] == latents[1])
    }

    @Test(arguments: ["", "first_stage_model."])
    func readsFilesWithoutEncoder(prefix: String) throws {
        try AutoencoderFixture.write(AutoencoderFixture.checkpoint("head48"), to: path) { name in
            name.hasPrefix("encoder.") || name.hasPrefix("conv1.") || name.contains("time_conv")
                ? nil : prefix + name
        }
        let files = try AutoencoderFiles(path: path)
        _ = try Autoencoder(files, operators: operators)
        #expect(files.byteCount(of: .encoder) == 0)
        #expect(
            throws: CheckpointError.damaged(
                path: path,
                tensor: nil,
                found: "a decoder alone",
                expected: "an autoencoder with its encoder, which pictures to begin with need"
            )
        ) { try LatentEncoder(files, operators: operators) }
    }

    /// What is wrong with the encoder is said where it is used, and only there.
    @Test(arguments: [
        ("head16", "encoder.down_blocks.2.resample.1.weight"), ("head16", "quant_conv.bias"),
        ("head48", "encoder.downsamples.9.residual.0.gamma"), ("head48", "conv1.weight"),
    ])
    func namesWhatTheEncoderLacks(model: String, tensor: String) throws {
        try AutoencoderFixture.write(AutoencoderFixture.checkpoint(model), to: path) { name in
            name == tensor ? "encoder.surplus" : name
        }
        let files = try AutoencoderFiles(path: path)
        _ = try Autoencoder(files, operators: operators)
        let problems: [WeightProblem] = [
            .missing(tensor: tensor, file: path), .surplus(tensor: "encoder.surplus", file: path),
        ]
        #expect(throws: CheckpointError.unfit(path: path, problems: problems)) {
            try LatentEncoder(files, operators: operators)
        }
    }

    // MARK: Sizes

    @Test(arguments: ["head16", "head48", "head128"])
    func takesSizesFromShapes(model: String) throws {
        let config = try AutoencoderFiles(AutoencoderFixture.checkpoint(model), nil).config
        let width = model == "head48" ? 5 : 4
        #expect(config.channels == [width, 2 * width, 4 * width, 4 * width])
        #expect(config.residualBlocks == (model == "head128" ? 1 : 2))
        #expect(config.latentChannels == 16)
        let told = try AutoencoderFixture.files(model).config
        #expect(told.channels == config.channels)
        #expect(told.residualBlocks == config.residualBlocks)
        #expect((told == config) == (model != "head128"))
    }

    // MARK: Files that do not fit

    @Test func namesMissingTensors() throws {
        let name = "decoder.up_blocks.1.resnets.0.conv1.bias"
        #expect(
            try problems("head16") { $0 == name ? nil : $0 }
                == [.missing(tensor: name, file: path)]
        )
        let wanName = "decoder.upsamples.7.resample.1.weight"
        #expect(
            try problems("head48") { $0 == wanName ? nil : $0 }
                == [.missing(tensor: wanName, file: path)]
        )
    }

    @Test(arguments: [
        ("decoder.up_blocks.2.resnets.0.conv1.weight", [8, 8, 3, 3], [8, 8, 3, 3, 3]),
        ("decoder.up_blocks.2.resnets.0.conv1.bias", [9], [8]),
        ("decoder.mid_block.attentions.0.to_qkv.weight", [16, 16, 1, 1], [48, 16, 1, 1]),
        ("post_quant_conv.weight", [16, 15, 1, 1, 1], [16, 16, 1, 1, 1]),
        ("decoder.conv_out.weight", [4, 4, 3, 3, 3], [3, 4, 3, 3, 3]),
    ])
    func namesMisshapenTensors(name: String, found: [Int], expected: [Int]) throws {
        #expect(
            try problems("head16", reshaping: [name: found])
                == [.misshapen(tensor: name, file: path, found: found, expected: [expected])]
        )
    }

    @Test func namesSurplusAndMistypedTensors() throws {
        #expect(
            try problems("head16") { $0 == "quant_conv.bias" ? "decoder.extra.bias" : $0 }
                == [.surplus(tensor: "decoder.extra.bias", file: path)]
        )
        let name = "decoder.conv_in.weight"
        #expect(
            try problems("head16", retyping: [name: .float8E4M3])
                == [.mistyped(tensor: name, file: path, found: "F8_E4M3")]
        )
    }

    /// Opening finds the faults too, before any work is done.
    @Test func openingAPipelineChecksTheTensors() throws {
        let name = "decoder.conv_out.weight"
        try AutoencoderFixture.write(
            AutoencoderFixture.checkpoint("head16"),
            to: path,
            reshaping: [name: [4, 4, 3, 3, 3]]
        )
        var files = try FixtureModel.files("head16")
        files.autoencoder = path
        let problem = WeightProblem.misshapen(
            tensor: name,
            file: path,
            found: [4, 4, 3, 3, 3],
            expected: [[3, 4, 3, 3, 3]]
        )
        #expect(throws: GenerationError.model(.unfit(path: path, problems: [problem]))) {
            try Pipeline(files)
        }
    }

    @Test func filesThatChangedAreNotRead() throws {
        let checkpoint = try AutoencoderFixture.checkpoint("head16")
        try AutoencoderFixture.write(checkpoint, to: path)
        let files = try AutoencoderFiles(path: path)
        try AutoencoderFixture.write(checkpoint, to: path)
        #expect(
            throws: CheckpointError.changed(path: path, reason: "another file took its place")
        ) {
            try Autoencoder(files, operators: operators)
        }
    }

    @Test func namesOtherModels() throws {
        try AutoencoderFixture.write(AutoencoderFixture.checkpoint("head16"), to: path) {
            "x." + $0 + "x"
        }
        let error = #expect(throws: CheckpointError.self) { try AutoencoderFiles(path: path) }
        #expect(error?.description.contains("expected a Qwen-Image or Wan 2.1 autoencoder") == true)
    }

    @Test func refusesUnknownStatistics() throws {
        try AutoencoderFixture.write(
            AutoencoderFixture.checkpoint("head16"),
            to: path,
            reshaping: [
                "post_quant_conv.weight": [8, 8, 1, 1, 1], "post_quant_conv.bias": [8],
                "decoder.conv_in.weight": [16, 8, 3, 3, 3],
            ]
        )
        let error = #expect(throws: CheckpointError.self) {
            try Autoencoder(AutoencoderFiles(path: path), operators: operators)
        }
        #expect(error?.description.contains("8 latent channels without") == true)
    }

    // MARK: Configurations

    @Test(arguments: [
        ("{", "JSON"), ("[]", "a JSON object"),
        (config(width: "0"), "\"base_dim\""), (config(width: "4.5"), "\"base_dim\""),
        (config(width: "1024"), "channels"),
        (config(multipliers: "[1, 2, 4]"), "channels"),
        (config(multipliers: "[1, 2, 4, 9223372036854775807]"), "\"dim_mult\""),
        (config(multipliers: "[1, 2, 4, -4]"), "\"dim_mult\""),
        (config(blocks: "17"), "\"num_res_blocks\""), (config(scales: "[1]"), "\"attn_scales\""),
        (config(mean: "[0]"), "\"latents_mean\""), (config(mean: "[0, 1e99]"), "\"latents_mean\""),
        (config(mean: "[0, \"\"]"), "\"latents_mean\""),
        (config(deviation: "[1, 0]"), "\"latents_std\""),
        (config(deviation: "null"), "\"latents_std\""),
    ])
    func refusesDamagedConfigurations(text: String, mention: String) throws {
        let error = #expect(throws: CheckpointError.self) {
            try settings(text)
        }
        let description = error?.description ?? ""
        #expect(
            description.hasPrefix(folder.file("config.json: ")) && description.contains(mention)
        )
    }

    @Test func acceptsConfigurations() throws {
        let config = try settings(Self.config())
        #expect(config.channels == [3, 6, 12, 12] && config.latentChannels == 2)
        #expect(config.latentMean == [0, 0.5] && config.latentDeviation == [1, 2])
    }

    /// What is read of a configuration, beside the tensors of a model.
    private func settings(_ text: String) throws -> AutoencoderConfig {
        let file = try ConfigurationFile(path: folder.write(text, to: "config.json"))
        return try AutoencoderFiles(AutoencoderFixture.checkpoint("head16"), file).config
    }

    private static func config(
        width: String = "3",
        multipliers: String = "[1, 2, 4, 4]",
        blocks: String = "2",
        scales: String = "[]",
        mean: String = "[0, 0.5]",
        deviation: String = "[1, 2]"
    ) -> String {
        """
        {"base_dim": \(width), "dim_mult": \(multipliers), "num_res_blocks": \(blocks),
        "z_dim": 2, "attn_scales": \(scales), "latents_mean": \(mean), "latents_std": \(deviation)}
        """
    }
}
