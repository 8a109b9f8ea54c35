import Foundation
import Tensors
import TestSupport
import Testing

@testable import Checkpoints

/// Files with seeded damage to what they say about quantisation: each is read or refused with a
/// typed error.
///
/// 500 inputs of each file, 20,000 when `KREA2_LONG_TESTS` is set.
struct QuantizationMutationTests {
    private static let isLong = ProcessInfo.processInfo.environment["KREA2_LONG_TESTS"] != nil
    private static let inputs = isLong ? 20_000 : 500

    /// The tensors of a sound file, which are damaged one by one.
    private struct Contents {
        var tensors: [String: (type: ElementType, shape: [Int], bytes: [UInt8])] = [:]
        var metadata: [String: String]

        init(_ checkpoint: Checkpoint) throws {
            metadata = checkpoint.metadata
            for name in checkpoint.names {
                let tensor = try #require(checkpoint.tensor(name))
                tensors[name] = (tensor.elementType, tensor.shape, bytes(of: tensor))
            }
        }
    }

    private static let words = [
        "int8_tensorwise", "float8_e4m3fn", "float8_e5m2", "nvfp4", "format", "convrot", "params",
        "convrot_groupsize", "layers", "true", "null", "256", "64", "16", "4", "0", "-4", "1e9",
        "9223372036854775808", "\"\"", "{", "}", "[", "]", ",", ":", "\"", "\\u0000",
    ]

    private func damage(_ text: [UInt8], _ random: inout SeededGenerator) -> [UInt8] {
        var text = text
        for _ in 0..<Int.random(in: 1...3, using: &random) where !text.isEmpty {
            let place = Int.random(in: 0..<text.count, using: &random)
            let word = Self.words.randomElement(using: &random) ?? ""
            switch Int.random(in: 0..<6, using: &random) {
            case 0: text.removeSubrange(place...)
            case 1: text.remove(at: place)
            case 2: text[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            case 3: text.insert(contentsOf: word.utf8, at: place)
            default:
                // A whole word or number is replaced by another.
                let isWord = { (byte: UInt8) in
                    byte == UInt8(ascii: "_") || Character(Unicode.Scalar(byte)).isLetter
                        || Character(Unicode.Scalar(byte)).isNumber
                }
                let end = text[place...].firstIndex { !isWord($0) } ?? text.count
                let start = text[..<place].lastIndex { !isWord($0) }.map { $0 + 1 } ?? 0
                text.replaceSubrange(start..<max(start, end), with: word.utf8)
            }
        }
        return text
    }

    private func damage(_ contents: inout Contents, _ random: inout SeededGenerator) {
        guard let name = contents.tensors.keys.sorted().randomElement(using: &random),
            var tensor = contents.tensors[name]
        else { return }
        let isNote = name.hasSuffix("comfy_quant")
        switch Int.random(in: 0..<8, using: &random) {
        case 0: contents.tensors[name] = nil
        case 1:
            let ends = ["weight_scale", "scale_weight", "comfy_quant", "weight_scale_2", "x"]
            let module = name.split(separator: ".").dropLast().joined(separator: ".")
            let end = ends.randomElement(using: &random) ?? ""
            contents.tensors[name] = nil
            contents.tensors["\(module).\(end)"] = tensor
        case 2:
            let types = ElementType.allCases.filter { $0.byteCount == tensor.type.byteCount }
            tensor.type = types.randomElement(using: &random) ?? tensor.type
            contents.tensors[name] = tensor
        case 3:
            let shapes = [[tensor.shape.reduce(1, *)], [1] + tensor.shape, tensor.shape.reversed()]
            tensor.shape = shapes.randomElement(using: &random) ?? []
            contents.tensors[name] = tensor
        case 4 where !isNote && !tensor.bytes.isEmpty:
            let place = Int.random(in: 0..<tensor.bytes.count, using: &random)
            tensor.bytes[place] = [0, 0x7F, 0xFF].randomElement(using: &random) ?? 0
            contents.tensors[name] = tensor
        default:
            if let notes = contents.metadata["_quantization_metadata"] {
                contents.metadata["_quantization_metadata"] = String(
                    decoding: damage(Array(notes.utf8), &random),
                    as: UTF8.self
                )
            } else if isNote {
                tensor.bytes = damage(tensor.bytes, &random)
                tensor.shape = [tensor.bytes.count]
                contents.tensors[name] = tensor
            }
        }
    }

    @Test(arguments: ["noted", "header"])
    func filesAreReadOrRefused(_ file: String) throws {
        let folder = try TemporaryFolder()
        let sound = try Contents(QuantizedFixture.checkpoint(file))
        let shapes = sound.tensors.filter { $0.key.hasSuffix(".weight") }.mapValues(\.shape)
        var random = SeededGenerator(seed: 21)
        var read = 0
        var reasons: Set<String> = []
        for input in 0..<Self.inputs {
            var contents = sound
            if input > 0 {
                for _ in 0..<Int.random(in: 1...3, using: &random) { damage(&contents, &random) }
            }
            var writer = SafetensorsWriter(metadata: contents.metadata)
            for (name, entry) in contents.tensors {
                writer.add(name, tensor(entry.bytes, entry.type, entry.shape))
            }
            let path = folder.file("m.safetensors")
            try writer.write(to: path, overwriting: true)
            let checkpoint = try Checkpoint(path: path)
            let reader = WeightReader(checkpoint)
            for (name, shape) in shapes.sorted(by: { $0.key < $1.key }) {
                let matrix = reader.weightMatrix(name, shape[0], shape[1])
                #expect([matrix.rows, matrix.columns] == shape, "input \(input)")
                let scales = matrix.scale?.elements ?? []
                #expect(scales.allSatisfy { $0.isFinite }, "input \(input)")
            }
            _ = StoredWeights(checkpoint).all
            do throws(CheckpointError) {
                try reader.finish()
                read += 1
            } catch {
                let line = error.description
                #expect(!line.contains { $0.isNewline }, "input \(input)")
                reasons.formUnion(
                    line.split(separator: ";").map { $0.split(separator: " ").suffix(4).joined() }
                )
            }
        }
        #expect(read > 0 && read < Self.inputs / 2, "\(read)")
        #expect(reasons.count > 20, "\(reasons.count)")
    }
}
