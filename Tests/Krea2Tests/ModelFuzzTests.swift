import Checkpoints
import Compute
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// The tensors of a weight file without their elements, all of which are zero.
private struct Shapes {
    var entries: [(name: String, type: ElementType, shape: [Int])]

    init(_ path: String) throws {
        let checkpoint = try Checkpoint(path: path)
        entries = checkpoint.names.compactMap { name in
            checkpoint.record(name).map { (name, $0.elementType, $0.shape) }
        }
    }

    /// Damages one entry; the file stays a sound one unless two tensors get the same name.
    mutating func damage(_ random: inout SeededGenerator) {
        guard let index = entries.indices.randomElement(using: &random),
            let other = entries.indices.randomElement(using: &random)
        else { return }
        switch Int.random(in: 0..<10, using: &random) {
        case 0: entries.remove(at: index)
        case 1: entries.append((entries[index].name + ".x", .float32, entries[other].shape))
        case 2: entries[index].name = entries[other].name
        case 3:
            (entries[index].shape, entries[other].shape) =
                (entries[other].shape, entries[index].shape)
        case 4: entries[index].type = ElementType.allCases.randomElement(using: &random) ?? .int8
        case 5:
            let digits = ["0", "1", "2", "7", "99", "-1", "9223372036854775808", "x", ""]
            entries[index].name = entries[index].name.split(separator: ".").map { part in
                Int(part) == nil ? String(part) : digits.randomElement(using: &random) ?? ""
            }.joined(separator: ".")
        case 6: entries[index].shape.append(1)
        case 7: _ = entries[index].shape.popLast()
        case 8: entries[index].name = String(entries[index].name.dropFirst(2))
        default:
            let sizes = [0, 1, 2, 3, 16, 48, 95, 97, 1024, 1025, 4096]
            guard let axis = entries[index].shape.indices.randomElement(using: &random) else {
                return
            }
            entries[index].shape[axis] = sizes.randomElement(using: &random) ?? 0
        }
    }

    /// The header, and the bytes of data that it describes.
    var header: (text: [UInt8], dataByteCount: Int) {
        var end = 0
        let members = entries.map { entry in
            let start = end
            end += entry.shape.reduce(entry.type.byteCount, *)
            return "\"\(entry.name)\":{\"dtype\":\"\(entry.type.rawValue)\","
                + "\"shape\":\(entry.shape),\"data_offsets\":[\(start),\(end)]}"
        }
        return (Array("{\(members.joined(separator: ","))}".utf8), end)
    }
}

/// Models with seeded damage open or are refused with a typed error; nothing traps.
///
/// 1,000 inputs, 100,000 when `KREA2_LONG_TESTS` is set.
struct ModelFuzzTests {
    private static let isLong = ProcessInfo.processInfo.environment["KREA2_LONG_TESTS"] != nil
    private static let inputs = isLong ? 100_000 : 1_000

    /// One part of a model: its tensors, its settings, and how it is opened.
    private struct Target {
        let shapes: Shapes
        let settings: [String: Any]?
        let open: (_ folder: String) throws -> Void
    }

    private static func targets() throws -> [Target] {
        let model = try FixtureModel.files("head16")
        func settings(_ folder: String) throws -> [String: Any]? {
            let data = try Data(contentsOf: URL(filePath: folder + "/config.json"))
            return try JSONSerialization.jsonObject(with: data) as? [String: Any]
        }
        func openTransformer(_ folder: String) throws {
            let files = try TransformerFiles(path: folder)
            _ = try Transformer(files)
        }
        let operators = Operators(threads: 1)
        func openAutoencoder(_ folder: String) throws {
            let files = try AutoencoderFiles(path: folder)
            let encoder = Result { try LatentEncoder(files, operators: operators) }
            _ = try Autoencoder(files, operators: operators)
            _ = try encoder.get()
        }
        let official = FixtureModel.path("head16/turbo.safetensors")
        let comfy = try FixtureModel.files("head48").autoencoder
        return [
            Target(
                shapes: try Shapes(model.transformer),
                settings: try settings(model.transformer),
                open: openTransformer
            ),
            Target(shapes: try Shapes(official), settings: nil, open: openTransformer),
            Target(
                shapes: try Shapes(model.textEncoder),
                settings: try settings(model.textEncoder)
            ) { folder in
                _ = try TextEncoder(TextEncoderFiles(path: folder), taps: [2, 5, 6])
            },
            Target(
                shapes: try Shapes(model.autoencoder),
                settings: try settings(model.autoencoder),
                open: openAutoencoder
            ),
            Target(shapes: try Shapes(comfy), settings: nil, open: openAutoencoder),
        ]
    }

    // MARK: Damage

    private let values: [Any] = [
        NSNull(), true, -1, 0, 1, 2, 3, 7, 16, 1000, 1024, 1025, 262_144, 16_777_216, Int.max, 0.25,
        1e300, 1e-300, "", "16", [Any](), [1, 2], [0, 8, 8], [String: Any](),
    ]

    /// A copy with one member somewhere removed, renamed or replaced.
    private func damaged(_ object: [String: Any], _ random: inout SeededGenerator) -> [String: Any]
    {
        var object = object
        guard let key = object.keys.sorted().randomElement(using: &random) else { return object }
        if let inner = object[key] as? [String: Any], random.happens(9, in: 10) {
            object[key] = damaged(inner, &random)
            return object
        }
        switch Int.random(in: 0..<8, using: &random) {
        case 0: object[key] = nil
        case 1: object[key + "x"] = object.removeValue(forKey: key)
        default: object[key] = values.randomElement(using: &random)
        }
        return object
    }

    private func damage(_ bytes: inout [UInt8], _ random: inout SeededGenerator) {
        for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
            let place = Int.random(in: 0..<bytes.count, using: &random)
            switch Int.random(in: 0..<5, using: &random) {
            case 0: bytes.removeSubrange(place...)
            case 1: bytes.remove(at: place)
            case 2: bytes.insert(UInt8.random(in: 0...255, using: &random), at: place)
            case 3: bytes[place] = Array("0919-.,:{}[]\"eE".utf8).randomElement(using: &random) ?? 0
            default: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            }
        }
    }

    /// Writes damaged files of a part into a folder.
    private func write(
        _ target: Target,
        to folder: TemporaryFolder,
        _ random: inout SeededGenerator
    ) throws {
        var shapes = target.shapes
        let isInSettings = target.settings != nil && random.happens(1, in: 2)
        if !isInSettings {
            for _ in 0..<Int.random(in: 1...3, using: &random) { shapes.damage(&random) }
        }
        var (header, dataByteCount) = shapes.header
        if !isInSettings, random.happens(1, in: 8) { damage(&header, &random) }
        let path = folder.file("model.safetensors")
        // All zero, and no blocks on the disk.
        let length = withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) }
        try folder.write(length + header, to: "model.safetensors")
        try #require(truncate(path, 8 + header.count + dataByteCount) == 0)

        guard var settings = target.settings else { return }
        if isInSettings, random.happens(2, in: 3) {
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                settings = damaged(settings, &random)
            }
        }
        var text = Array(
            try JSONSerialization.data(withJSONObject: settings, options: [.sortedKeys])
        )
        if isInSettings, random.happens(1, in: 3) { damage(&text, &random) }
        try folder.write(text, to: "config.json")
    }

    // MARK: Tests

    @Test func partsOpenOrAreRefused() throws {
        var random = SeededGenerator(seed: 11)
        let targets = try Self.targets()
        let folders = try targets.map { _ in try TemporaryFolder() }
        var opened = 0
        var reasons: Set<String> = []
        for input in 0..<Self.inputs {
            let index = input % targets.count
            try write(targets[index], to: folders[index], &random)
            do {
                try targets[index].open(folders[index].path)
                opened += 1
            } catch let error as CheckpointError {
                let line = error.description
                #expect(!line.isEmpty && !line.contains { $0.isNewline }, "input \(input)")
                reasons.insert(line.split(separator: " ").dropFirst().prefix(4).joined())
            } catch {
                Issue.record("input \(input): \(error)")
            }
        }
        // The damage is neither always fatal nor always the same.
        #expect(opened > Self.inputs / 20 && opened < Self.inputs / 2, "\(opened)")
        #expect(reasons.count > 100, "\(reasons.count)")
    }

    /// Files to convert, plain and quantised; some of those that can be planned are written too.
    @Test func conversionsArePlannedOrRefused() throws {
        var random = SeededGenerator(seed: 13)
        let folder = try TemporaryFolder()
        let model = try FixtureModel.files("head16")
        var sources = try [model.transformer, model.textEncoder].map { try Shapes($0) }
        for (index, source) in [model.transformer, model.textEncoder].enumerated() {
            let path = folder.file("\(index).safetensors")
            try Conversion(path: source, to: .int8).run(to: path)
            // Notes would be no JSON in a file of zeros; integers with scales need none.
            var shapes = try Shapes(path)
            shapes.entries.removeAll { $0.name.hasSuffix("comfy_quant") }
            sources.append(shapes)
        }
        let formats = ConversionFormat.allCases
        let inputs = Self.inputs / 4
        var planned = 0
        for input in 0..<inputs {
            let target = Target(shapes: sources[input % sources.count], settings: nil) { _ in }
            try write(target, to: folder, &random)
            do throws(GenerationError) {
                let conversion = try Conversion(
                    path: folder.file("model.safetensors"),
                    to: formats[input % formats.count]
                )
                planned += 1
                guard planned.isMultiple(of: 10) else { continue }
                try conversion.run(to: folder.file("out.safetensors"), overwriting: true)
            } catch {
                #expect(error.category == .unfitFile, "input \(input): \(error)")
            }
        }
        #expect(planned > inputs / 20 && planned < inputs, "\(planned)")
    }

    /// Settings that concern the model as a whole, with the other parts as they are.
    @Test func pipelinesOpenOrAreRefused() throws {
        var random = SeededGenerator(seed: 12)
        var copy = try ModelCopy("head16")
        let names = ["model_index.json", "scheduler/scheduler_config.json"]
        let texts = try names.map { try Fixture.bytes("pipeline/models/head16/\($0)") }
        copy.files.modelIndex = copy.folder.file("index.json")
        copy.files.scheduler = copy.folder.file("scheduler.json")
        var opened = 0
        let inputs = Self.inputs / 50
        for input in 0..<inputs {
            for (text, name) in zip(texts, ["index.json", "scheduler.json"]) {
                let object = try #require(
                    try JSONSerialization.jsonObject(with: Data(text)) as? [String: Any]
                )
                let changed = damaged(object, &random)
                var bytes = Array(try JSONSerialization.data(withJSONObject: changed))
                if random.happens(1, in: 4) { damage(&bytes, &random) }
                try copy.folder.write(bytes, to: name)
            }
            do throws(GenerationError) {
                let pipeline = try Pipeline(copy.files)
                _ = try pipeline.plan(GenerationRequest(prompt: "", width: 64, height: 64))
                opened += 1
            } catch {
                #expect(error.category == .unfitFile, "input \(input): \(error)")
            }
        }
        #expect(opened > 0 && opened < inputs, "\(opened)")
    }
}
