import Checkpoints
import Compute
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// LoRA files with seeded damage open or are refused with a typed error; nothing traps.
///
/// 600 inputs, 100,000 when `KREA2_LONG_TESTS` is set.
struct LoRAFuzzTests {
    private static let isLong = ProcessInfo.processInfo.environment["KREA2_LONG_TESTS"] != nil
    private static let inputs = isLong ? 100_000 : 600

    private var random = SeededGenerator(seed: 21)

    /// Shapes of a module with 8 outputs and 16 inputs, in every factorisation.
    private static let methods: [[String: [Int]]] = [
        [".lora_A.weight": [2, 16], ".lora_B.weight": [8, 2]],
        [".lora_down.weight": [3, 16], ".lora_up.weight": [8, 3], ".alpha": [], ".diff_b": [8]],
        [".lora_A.weight": [2, 16], ".lora_B.weight": [8, 2], ".dora_scale": [8, 1]],
        [
            ".hada_w1_a": [8, 2], ".hada_w1_b": [2, 16], ".hada_w2_a": [8, 2],
            ".hada_w2_b": [2, 16], ".alpha": [1],
        ],
        [".lokr_w1": [2, 4], ".lokr_w2_a": [4, 2], ".lokr_w2_b": [2, 4], ".alpha": []],
        [".lokr_w1": [2, 4], ".lokr_w2": [4, 4]],
        [".diff": [8, 16]],
    ]

    private static let modules = ["blocks.0.attn.wk", "blocks.1.attn.wv"]

    /// A sound file.
    private mutating func fixture() throws -> LoRAFixture {
        var file = LoRAFixture()
        for layer in Self.modules {
            let dialect = try #require(LoRADialect.allCases.randomElement(using: &random))
            for (end, shape) in try #require(Self.methods.randomElement(using: &random)) {
                file.tensors[dialect.module(layer) + end] = .random(shape, &random)
            }
        }
        if random.happens(1, in: 3) {
            let fused = "transformer.transformer_blocks.1.attn.to_qkv"
            file.tensors = file.tensors.filter {
                !$0.key.contains("blocks") || $0.key.contains("0")
            }
            file.add("\(fused).lora_A.weight", 2, 16, random: &random)
            file.add("\(fused).lora_B.weight", 32, 2, random: &random)
        }
        file.metadata["lora_adapter_metadata"] =
            #"{"transformer.lora_alpha": 4, "transformer.alpha_pattern": {"wk": 2}}"#
        return file
    }

    private mutating func damage(_ file: inout LoRAFixture) {
        let names = file.tensors.keys.sorted()
        guard let name = names.randomElement(using: &random),
            let other = names.randomElement(using: &random), let tensor = file.tensors[name]
        else { return }
        switch Int.random(in: 0..<9, using: &random) {
        case 0: file.tensors[name] = nil
        case 1: file.tensors[name] = file.tensors[other]
        case 2:
            var shape = tensor.shape
            guard let axis = shape.indices.randomElement(using: &random) else { return }
            shape[axis] = [0, 1, 2, 3, 8, 15, 16, 17, 32].randomElement(using: &random) ?? 0
            file.tensors[name] = .random(shape, &random)
        case 3: file.tensors[name] = tensor.reshaped(tensor.shape + [1])
        case 4:
            guard tensor.count > 0 else { return }
            tensor.floats[Int.random(in: 0..<tensor.count, using: &random)] =
                [.nan, .infinity, -0.0, 3e38].randomElement(using: &random) ?? 0
        case 5:
            file.tensors[name] = nil
            file.tensors[String(name.dropLast(Int.random(in: 1...8, using: &random)))] = tensor
        case 6:
            file.tensors[name] = nil
            file.tensors[String(name.dropFirst(Int.random(in: 1...8, using: &random)))] = tensor
        case 7:
            let texts = ["{}", "[", #"{"transformer.lora_alpha":1e400}"#, "\u{0}", ""]
            file.metadata["lora_adapter_metadata"] = texts.randomElement(using: &random)
        default:
            let letters = "._0123456789abkqvw_".map { $0 }
            var text = Array(name)
            text[Int.random(in: 0..<text.count, using: &random)] =
                letters.randomElement(using: &random) ?? "."
            file.tensors[name] = nil
            file.tensors[String(text)] = tensor
        }
    }

    /// Bytes of the header and of the data, as if a disk or a transfer had failed.
    private mutating func damage(_ bytes: inout [UInt8]) {
        for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
            let place = Int.random(in: 0..<bytes.count, using: &random)
            switch Int.random(in: 0..<4, using: &random) {
            case 0: bytes.removeSubrange(place...)
            case 1: bytes[place] = UInt8.random(in: 0...255, using: &random)
            case 2:
                bytes[place] = Array("0919-.,:{}[]\"eE_".utf8).randomElement(using: &random) ?? 0
            default: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            }
        }
    }

    @Test mutating func filesOpenOrAreRefused() throws {
        let folder = try TemporaryFolder()
        let operators = Operators(threads: 1)
        var opened = 0
        var reasons: Set<String> = []
        for input in 0..<Self.inputs {
            var file = try fixture()
            for _ in 0..<Int.random(in: 0...3, using: &random) { damage(&file) }
            let path = try file.write(to: folder)
            if random.happens(1, in: 3) {
                var bytes = Array(try Data(contentsOf: URL(filePath: path)))
                damage(&bytes)
                try folder.write(bytes, to: "a.safetensors")
            }
            do throws(GenerationError) {
                let lora = try LoRAFile(path: path, targets: LoRAFixture.targets)
                opened += 1
                #expect(lora.layerCount > 0)
                for module in lora.modules {
                    #expect(module.scale.isFinite)
                    #expect(module.squaredNorm(operators) >= 0)
                }
            } catch {
                #expect(error.category == .unfitFile, "input \(input): \(error)")
                let line = error.description
                #expect(!line.isEmpty && !line.contains { $0.isNewline }, "input \(input)")
                if case .lora(let error) = error {
                    reasons.formUnion(error.problems.map { "\($0)".prefix(40).description })
                }
            }
        }
        // The damage is neither always fatal nor always the same.
        #expect(opened > Self.inputs / 20 && opened < Self.inputs * 2 / 3, "\(opened)")
        #expect(reasons.count > 30, "\(reasons.count)")
    }
}
