import Compute
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// One change of every layer, in every dialect.
struct LoRADialectTests {
    private let targets = LoRAFixture.targets
    private var random = SeededGenerator(seed: 3)

    @Test func theReleasedModelsHave264Layers() {
        let layers = LoRATargets(.released).layers
        #expect(layers.count == 264)
        #expect(Set(layers.map(\.name)).count == 264)
        // A sample of every kind, against the sizes of the published files.
        for (name, outputs, inputs) in [
            ("first", 6144, 64), ("last.linear", 64, 6144), ("tmlp.0", 6144, 256),
            ("tmlp.2", 6144, 6144), ("tproj.1", 36864, 6144), ("txtmlp.1", 6144, 2560),
            ("txtmlp.3", 6144, 6144), ("txtfusion.projector", 1, 12),
            ("txtfusion.layerwise_blocks.1.attn.wk", 2560, 2560),
            ("txtfusion.refiner_blocks.0.mlp.down", 2560, 6912),
            ("blocks.27.attn.wq", 6144, 6144), ("blocks.0.attn.wv", 1536, 6144),
            ("blocks.5.attn.gate", 6144, 6144), ("blocks.5.mlp.gate", 16384, 6144),
            ("blocks.5.mlp.down", 6144, 16384),
        ] {
            let layer = LoRATargets.Layer(name: name, outputs: outputs, inputs: inputs)
            #expect(layers.contains(layer), "\(name)")
        }
    }

    @Test(arguments: [
        ("transformer.img_in", "first"), ("transformer.final_layer.linear", "last.linear"),
        ("transformer.time_embed.linear_1", "tmlp.0"), ("transformer.time_mod_proj", "tproj.1"),
        ("transformer.txt_in.linear_2", "txtmlp.3"),
        ("transformer.text_fusion.projector", "txtfusion.projector"),
        (
            "transformer.text_fusion.layerwise_blocks.0.attn.to_out.0",
            "txtfusion.layerwise_blocks.0.attn.wo"
        ),
        ("transformer.transformer_blocks.1.attn.to_gate", "blocks.1.attn.gate"),
        ("transformer.transformer_blocks.1.ff.gate", "blocks.1.mlp.gate"),
        (
            "lora_unet_txtfusion_layerwise_blocks_0_attn_wo",
            "txtfusion.layerwise_blocks.0.attn.wo"
        ),
        ("lycoris_transformer_blocks_0_attn_to_out_0", "blocks.0.attn.wo"),
    ])
    func finds(module: String, layer: String) throws {
        let key = try #require(LoRAKey(module + ".lora_down.weight"))
        let index = targets.layers.firstIndex { $0.name == layer }
        #expect(try targets.target(key) == .layer(#require(index)))
    }

    /// A file of every layer with rank 2 and alpha 4, or the same without alpha.
    private mutating func fixture(
        _ dialect: LoRADialect
    ) -> (file: LoRAFixture, differences: [PlainMatrix]) {
        var file = LoRAFixture()
        let differences = targets.layers.map { layer in
            let down = Tensor.random([2, layer.inputs], &random)
            let up = Tensor.random([layer.outputs, 2], &random)
            let module = dialect.module(layer.name)
            file.tensors[module + dialect.ends.down] = down
            file.tensors[module + dialect.ends.up] = up
            if dialect.hasAlpha { file.add(module + ".alpha", 4) }
            return PlainMatrix(up).times(PlainMatrix(down)).scaled(dialect.hasAlpha ? 2 : 1)
        }
        return (file, differences)
    }

    @Test(arguments: LoRADialect.allCases)
    mutating func reachesEveryLayer(_ dialect: LoRADialect) throws {
        let (file, differences) = fixture(dialect)
        let lora = try file.open()
        #expect(lora.layerCount == 40 && lora.modelLayerCount == 40)
        #expect(lora.ranks == [2] && lora.ignored.isEmpty)
        for (module, expected) in zip(lora.modules, differences) {
            let found = module.difference
            #expect(found?.values == expected.values, "\(targets.layers[module.layer].name)")
        }
    }

    // MARK: Query, key and value as one layer

    private let fused = "transformer.transformer_blocks.1.attn.to_qkv"

    /// The rows of a change of query, key and value at once: 16, 8 and 8 of 32.
    private func expect(_ file: LoRAFixture, gives whole: PlainMatrix) throws {
        let lora = try file.open()
        let names = lora.modules.map { targets.layers[$0.layer].name }
        #expect(names == ["wq", "wk", "wv"].map { "blocks.1.attn.\($0)" })
        for (module, rows) in zip(lora.modules, [0..<16, 16..<24, 24..<32]) {
            let found = module.difference
            #expect(found?.values == whole.rows(rows).values)
        }
    }

    @Test mutating func splitsFusedFactors() throws {
        var file = LoRAFixture()
        file.add("\(fused).lora_A.weight", 3, 16, random: &random)
        file.add("\(fused).lora_B.weight", 32, 3, random: &random)
        let (down, up) = (
            file.tensors["\(fused).lora_A.weight"], file.tensors["\(fused).lora_B.weight"]
        )
        let whole = PlainMatrix(try #require(up)).times(PlainMatrix(try #require(down)))
        try expect(file, gives: whole)
    }

    @Test mutating func splitsFusedProductsOfAllKinds() throws {
        var file = LoRAFixture()
        let flat = "lycoris_transformer_blocks_1_attn_to_qkv"
        // The second factor's 16 rows do not divide the parts' evenly.
        file.add("\(flat).lokr_w1", 2, 4, random: &random)
        file.add("\(flat).lokr_w2", 16, 4, random: &random)
        let (first, second) = (
            try #require(file.tensors["\(flat).lokr_w1"]),
            try #require(file.tensors["\(flat).lokr_w2"])
        )
        try expect(file, gives: PlainMatrix(first).kronecker(PlainMatrix(second)))

        var difference = LoRAFixture()
        difference.add("\(fused).diff", 32, 16, random: &random)
        try expect(
            difference,
            gives: PlainMatrix(try #require(difference.tensors["\(fused).diff"]))
        )
    }

    @Test mutating func splitsWhatGoesWithFusedFactors() throws {
        var file = LoRAFixture()
        file.add("\(fused).lora_A.weight", 3, 16, random: &random)
        file.add("\(fused).lora_B.weight", 32, 3, random: &random)
        file.add("\(fused).lora_magnitude_vector", 32, random: &random)
        file.add("\(fused).diff_b", 32, random: &random)
        let lengths = try #require(file.tensors["\(fused).lora_magnitude_vector"]).elements
        let biases = try #require(file.tensors["\(fused).diff_b"]).elements
        let lora = try file.open()
        for (module, rows) in zip(lora.modules, [0..<16, 16..<24, 24..<32]) {
            guard case .rows(let part)? = module.magnitude else {
                Issue.record("no lengths")
                return
            }
            #expect(part.elements == Array(lengths[rows]))
            #expect(module.bias?.elements == Array(biases[rows]))
        }
    }

    @Test mutating func fusedAndSingleLayersExclude() throws {
        var (file, _) = fixture(.diffusers)
        file.add("\(fused).lora_A.weight", 3, 16, random: &random)
        file.add("\(fused).lora_B.weight", 32, 3, random: &random)
        let problems = try file.problems()
        #expect(problems.count == 1)
        guard case .repeated? = problems.first else {
            Issue.record("\(problems)")
            return
        }
    }
}
