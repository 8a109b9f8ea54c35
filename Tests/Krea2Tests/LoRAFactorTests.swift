import Compute
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// Factorisations, scales, and what else a file says of one layer.
struct LoRAFactorTests {
    private var random = SeededGenerator(seed: 4)
    private var file = LoRAFixture()
    private let module = "diffusion_model.blocks.0.attn.wk"

    /// The tensors of the layer: 8 outputs, 16 inputs.
    private mutating func add(_ shapes: KeyValuePairs<String, [Int]>) -> [PlainMatrix] {
        shapes.map { end, shape in
            let tensor = Tensor.random(shape, &random)
            file.tensors[module + end] = tensor
            return PlainMatrix(tensor.reshaped(tensor.rows, tensor.rowCount))
        }
    }

    private func opened() throws -> LoRAModule {
        let modules = try file.open().modules
        #expect(
            modules.map(\.layer) == [
                LoRAFixture.targets.layers.firstIndex {
                    $0.name == "blocks.0.attn.wk"
                }
            ]
        )
        return try #require(modules.first)
    }

    @Test mutating func factors() throws {
        let m = add([".lora_down.weight": [3, 16], ".lora_up.weight": [8, 3]])
        #expect(try opened().difference?.values == m[1].times(m[0]).values)
    }

    /// 1×1 convolutions have two ones at the end of their shapes.
    @Test mutating func factorsOfOneByOneConvolutions() throws {
        let m = add([".lora_down.weight": [3, 16, 1, 1], ".lora_up.weight": [8, 3, 1, 1]])
        #expect(try opened().difference?.values == m[1].times(m[0]).values)
    }

    @Test(arguments: [ElementType.float16, .bfloat16])
    mutating func factorsOfHalves(_ type: ElementType) throws {
        let halves = [UInt16](repeating: type == .float16 ? 0x3C00 : 0x3F80, count: 24)
        for (end, shape) in [(".lora_A.weight", [1, 16]), (".lora_B.weight", [8, 1])] {
            let tensor = Tensor(
                Storage(byteCount: 48),
                byteOffset: 0,
                shape: shape,
                elementType: type
            )
            halves.prefix(tensor.count).withUnsafeBytes {
                tensor.storage.bytes.copyBytes(from: $0)
            }
            file.tensors[module + end] = tensor
        }
        #expect(try opened().difference?.values == [Double](repeating: 1, count: 128))
    }

    @Test mutating func hadamardProducts() throws {
        let m = add([
            ".hada_w1_a": [8, 2], ".hada_w1_b": [2, 16], ".hada_w2_a": [8, 3],
            ".hada_w2_b": [3, 16],
        ])
        file.add(module + ".alpha", 6)
        let (first, second) = (m[0].times(m[1]), m[2].times(m[3]))
        let expected = PlainMatrix(8, 16) { first[$0, $1] * second[$0, $1] * 3 }
        let found = try #require(try opened().difference)
        #expect(relativeError(found.floats, expected.floats) < 1e-7)
    }

    @Test(arguments: [false, true], [false, true])
    mutating func kroneckerProducts(isLeftFull: Bool, isRightFull: Bool) throws {
        let left =
            isLeftFull
            ? add([".lokr_w1": [2, 4]]) : add([".lokr_w1_a": [2, 3], ".lokr_w1_b": [3, 4]])
        let right =
            isRightFull
            ? add([".lokr_w2": [4, 4]]) : add([".lokr_w2_a": [4, 5], ".lokr_w2_b": [5, 4]])
        file.add(module + ".alpha", 15)
        let first = isLeftFull ? left[0] : left[0].times(left[1])
        let second = isRightFull ? right[0] : right[0].times(right[1])
        // The right factor's rank counts first; an alpha beside two whole factors means nothing.
        let scale = !isRightFull ? 3.0 : !isLeftFull ? 5 : 1
        let expected = first.kronecker(second).scaled(scale)
        let found = try #require(try opened().difference)
        #expect(relativeError(found.floats, expected.floats) < 1e-7)
    }

    @Test mutating func dummyAlphasOfWholeFactorsMeanNothing() throws {
        _ = add([".lokr_w1": [2, 4], ".lokr_w2": [4, 4]])
        file.add(module + ".alpha", 9_999_999_827_968)
        #expect(try opened().scale == 1)
    }

    @Test mutating func wholeDifferences() throws {
        let m = add([".diff": [8, 16], ".diff_b": [8]])
        let module = try opened()
        #expect(module.difference?.values == m[0].values)
        #expect(module.bias?.elements == m[1].floats)
        #expect(module.biasScale == 1 && module.rank == nil)
    }

    @Test mutating func biasesAlone() throws {
        _ = add([".diff_b": [8]])
        #expect(try opened().change == nil)
    }

    /// PEFT's `lora_bias` is a part of the second factor and is scaled with it.
    @Test mutating func biasesOfFactors() throws {
        let m = add([
            ".lora_A.weight": [2, 16], ".lora_B.weight": [8, 2], ".lora_B.bias": [8],
        ])
        file.add(module + ".alpha", 1)
        let module = try opened()
        #expect(module.bias?.elements == m[2].floats)
        #expect(module.biasScale == 0.5)
    }

    @Test(arguments: [
        (".dora_scale", [8, 1], true), (".dora_scale", [1, 16], false),
        (".lora_magnitude_vector", [8], true), (".lora_magnitude_vector.weight", [8], true),
        (".lora_magnitude_vector.default.weight", [8], true),
    ])
    mutating func lengths(end: String, shape: [Int], areOfRows: Bool) throws {
        _ = add([".lora_A.weight": [2, 16], ".lora_B.weight": [8, 2]])
        file.tensors[module + end] = Tensor.random(shape, &random)
        switch try opened().magnitude {
        case .rows(let lengths): #expect(areOfRows && lengths.shape == [8])
        case .columns(let lengths): #expect(!areOfRows && lengths.shape == [16])
        case nil: Issue.record("no lengths")
        }
    }

    // MARK: Scales

    private mutating func scale(
        _ alpha: Float? = nil,
        metadata: [String: String] = [:],
        module: String = "transformer.transformer_blocks.0.attn.to_k"
    ) throws -> Float {
        var file = LoRAFixture(metadata: metadata)
        file.add(module + ".lora_down.weight", 4, 16, random: &random)
        file.add(module + ".lora_up.weight", 8, 4, random: &random)
        if let alpha { file.add(module + ".alpha", alpha) }
        return try #require(try file.open().modules.first).scale
    }

    private func adapter(_ text: String) -> [String: String] {
        ["lora_adapter_metadata": "{\"transformer.r\": 4, \(text)}"]
    }

    @Test mutating func scalesFollowAlphaAndRank() throws {
        #expect(try scale() == 1)
        #expect(try scale(2) == 0.5)
        #expect(try scale(metadata: adapter(#""transformer.lora_alpha": 8"#)) == 2)
        #expect(try scale(metadata: adapter(#""transformer.lora_alpha": 8.0"#)) == 2)
        #expect(try scale(metadata: adapter(#""transformer.lora_alpha": null"#)) == 1)
        #expect(try scale(metadata: adapter(#""text_encoder.lora_alpha": 8"#)) == 1)
    }

    @Test mutating func aModulesOwnAlphaWins() throws {
        let all = adapter(
            #""transformer.lora_alpha": 8, "transformer.alpha_pattern": {"attn.to_k": 16}"#
        )
        #expect(try scale(1, metadata: all) == 0.25)
        #expect(try scale(metadata: all) == 4)
    }

    @Test mutating func patternsAreNamesOrTheirEnds() throws {
        func pattern(_ text: String) -> [String: String] {
            adapter(#""transformer.lora_alpha": 8, "transformer.alpha_pattern": {\#(text)}"#)
        }
        #expect(try scale(metadata: pattern(#""transformer_blocks.0.attn.to_k": 4"#)) == 1)
        #expect(try scale(metadata: pattern(#""to_k": 12"#)) == 3)
        #expect(try scale(metadata: pattern(#""to_k": 12, "attn.to_k": 4"#)) == 1)
        #expect(try scale(metadata: pattern(#""o_k": 12, "to_q": 1"#)) == 2)
        #expect(try scale(metadata: pattern(#""^transformer_blocks.0.attn.to_k$": 4"#)) == 1)
        #expect(try scale(metadata: pattern(#""^attn.to_k": 4"#)) == 2)
        #expect(try scale(metadata: pattern(#""attn\\.to_k": 4"#)) == 1)
        #expect(throws: GenerationError.self) {
            try scale(metadata: pattern(#""blocks\\.[0-9]+": 12"#))
        }
    }

    @Test mutating func scalesWithTheRootOfTheRank() throws {
        let root = adapter(#""transformer.lora_alpha": 8, "transformer.use_rslora": true"#)
        #expect(try scale(metadata: root) == 4)
        let linear = adapter(#""transformer.lora_alpha": 8, "transformer.use_rslora": false"#)
        #expect(try scale(metadata: linear) == 2)
    }

    /// Converters that fold alpha into the factors leave the setting in the header.
    @Test mutating func kohyasSettingIsForKohyasNames() throws {
        let metadata = ["ss_network_alpha": "2.0"]
        let module = "lora_unet_blocks_0_attn_wk"
        #expect(try scale(metadata: metadata, module: module) == 0.5)
        #expect(try scale(1, metadata: metadata, module: module) == 0.25)
        #expect(try scale(metadata: ["ss_network_alpha": "None"], module: module) == 1)
        #expect(try scale(metadata: metadata, module: "diffusion_model.blocks.0.attn.wk") == 1)
    }

    @Test(arguments: [ElementType.float64, .int64, .int32, .float16, .bfloat16])
    mutating func alphasOfEveryType(_ type: ElementType) throws {
        _ = add([".lora_down.weight": [4, 16], ".lora_up.weight": [8, 4]])
        let bits: UInt64 =
            switch type {
            case .float64: 2.0.bitPattern
            case .float16: 0x4000
            case .bfloat16: 0x4000
            default: 2
            }
        let tensor = Tensor(Storage(byteCount: 8), byteOffset: 0, shape: [1], elementType: type)
        withUnsafeBytes(of: bits.littleEndian) {
            tensor.storage.bytes.copyBytes(from: $0)
        }
        file.tensors[module + ".alpha"] = tensor
        #expect(try opened().scale == 0.5)
    }
}
