import Checkpoints
import Compute
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// Stored rows with seeded damage are read, or refused with a typed error; nothing traps.
///
/// 300 inputs each, 100,000 when `KREA2_LONG_TESTS` is set.
struct ReferenceFuzzTests {
    private static let isLong = ProcessInfo.processInfo.environment["KREA2_LONG_TESTS"] != nil
    private static let inputs = isLong ? 100_000 : 300
    private static let encoder = ReferenceFixture.encoder
    private static let ids: [Int32] = [1, 2, 3]

    private let folder: TemporaryFolder
    private let cache: EncodingCache
    private var random = SeededGenerator(seed: 33)
    private var fixture = ReferenceFixture()
    private let reference: ReferenceFile
    private let prompt: Tensor
    /// Sound files: a reference, a moodboard and, from the cache, a reference and a prompt.
    private let sound: [String]

    init() throws {
        folder = try TemporaryFolder()
        cache = EncodingCache(folder: folder.file("cache"))
        var file = try fixture.reference()
        file.caption = "a caption"
        try file.write(to: folder.file("r"), overwriting: false)
        var moodboard = try MoodboardFile(
            [file, fixture.reference("pixels-sha256:cd")],
            projector: [1, 2, 3],
            threads: 1
        )
        moodboard.keywords = ["one", "two"]
        try moodboard.write(to: folder.file("b"), overwriting: false)
        reference = file
        prompt = Tensor.random([5, 3, 8], &fixture.random)
        try cache.keep(file)
        try cache.keep(prompt, of: Self.ids, by: Self.encoder)
        let names = try FileManager.default.contentsOfDirectory(atPath: cache.folder).sorted {
            $0.hasSuffix(".k2ref") && $1.hasSuffix(".k2text")
        }
        sound = ["r", "b"] + names.map { "cache/\($0)" }
    }

    private func bytes(_ name: String) throws -> [UInt8] {
        Array(try Data(contentsOf: URL(filePath: folder.file(name))))
    }

    /// Reads one of `sound`, or what is in its place.
    private func read(_ index: Int) throws(GenerationError) -> ConditioningRows {
        let path = folder.file(sound[index])
        switch index {
        case 1: return try MoodboardFile(path: path, for: Self.encoder).rows
        case 3:
            let container = try RowContainer(path: path, .prompt)
            _ = try (container.encoder(), container.word("content"))
            let contents = try container.contents()
            return try ConditioningRows(
                key: "prompt",
                taps: contents.taps,
                kinds: contents.kinds,
                multiplicities: contents.multiplicities
            )
        default: return try ReferenceFile(path: path, for: Self.encoder).rows
        }
    }

    // MARK: Bytes

    /// Bytes of the header, or of the data, as if a disk or a transfer had failed.
    private mutating func damage(_ bytes: inout [UInt8]) {
        let header = Int(bytes[0]) + Int(bytes[1]) << 8 + 8
        for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
            let end = random.happens(2, in: 3) ? min(header, bytes.count) : bytes.count
            let place = Int.random(in: 0..<end, using: &random)
            switch Int.random(in: 0..<6, using: &random) {
            case 0: bytes.removeSubrange(place...)
            case 1: bytes[place] = UInt8.random(in: 0...255, using: &random)
            case 2:
                bytes[place] = Array("0919-.,:{}[]\"eE_".utf8).randomElement(using: &random) ?? 0
            case 3: bytes.insert(UInt8.random(in: 0...255, using: &random), at: place)
            case 4: bytes.remove(at: place)
            default: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            }
        }
    }

    /// Whatever happens to its bytes, what a file gives is what was written.
    @Test mutating func damagedBytesAreNeverOtherRows() throws {
        let files = try sound.map(bytes)
        let rows = try sound.indices.map { try read($0) }
        var outcomes = Outcomes()
        for input in 0..<Self.inputs {
            let index = input % sound.count
            var bytes = files[index]
            damage(&bytes)
            try folder.write(bytes, to: sound[index])
            outcomes.add { () throws(GenerationError) in
                let found = try read(index)
                #expect(found.taps.bytes == rows[index].taps.bytes, "input \(input)")
                #expect(found.kinds == rows[index].kinds, "input \(input)")
                #expect(found.multiplicities == rows[index].multiplicities, "input \(input)")
            }
        }
        outcomes.check(reasons: 20)
    }

    /// The cache gives what was kept, or nothing, and then the file is gone.
    @Test mutating func damagedEntriesAreMissed() throws {
        let files = try sound.map(bytes)
        var hits = 0
        for input in 0..<Self.inputs {
            let index = 2 + input % 2
            var bytes = files[index]
            damage(&bytes)
            let path = try folder.write(bytes, to: sound[index])
            let taps =
                index == 2
                ? cache.reference(reference.source, by: Self.encoder)?.rows.taps
                : cache.taps(of: Self.ids, by: Self.encoder)
            #expect(FileManager.default.fileExists(atPath: path) == (taps != nil), "input \(input)")
            guard let taps else { continue }
            hits += 1
            #expect(taps.bytes == (index == 2 ? reference.rows.taps : prompt).bytes)
        }
        #expect(hits > 0 && hits < Self.inputs / 2, "\(hits)")
    }

    // MARK: Values

    private static let texts = [
        "", " ", "\u{0}", "a\nb", "\u{1B}[2J", "\u{202E}", "k2ref", "k2board", "k2text", "2", "-1",
        "0", "1", "1e3", "99999999999999999999", "sha256:", "none",
        String(repeating: "e\u{301}", count: 9000), String(repeating: "x", count: 2 << 20),
    ]

    /// Tensors and texts, as if somebody had made the file to do harm.
    private mutating func damage(_ parts: inout RowParts) {
        let names = parts.tensors.keys.sorted()
        guard let name = names.randomElement(using: &random),
            let other = names.randomElement(using: &random), let tensor = parts.tensors[name],
            let key = parts.metadata.keys.sorted().randomElement(using: &random)
        else { return }
        var bytes = tensor.bytes
        func put(_ patterns: [UInt32], _ generator: inout SeededGenerator) {
            guard bytes.count >= 4 else { return }
            let place = Int.random(in: 0..<bytes.count / 4, using: &generator)
            let pattern = patterns.randomElement(using: &generator) ?? 0
            for byte in 0..<4 {
                bytes[4 * place + byte] = UInt8(truncatingIfNeeded: pattern >> (8 * byte))
            }
            parts.tensors[name] = Tensor(bytes, tensor.elementType, shape: tensor.shape)
        }
        switch Int.random(in: 0..<10, using: &random) {
        case 0: parts.tensors[name] = nil
        case 1: parts.tensors[name] = parts.tensors[other]
        case 2:
            parts.tensors[["", name + "2", "\u{1B}"].randomElement(using: &random) ?? ""] = tensor
        case 3: parts.tensors[name] = tensor.reshaped(tensor.shape + [1])
        case 4:
            let type = [ElementType.uint8, .int8].randomElement(using: &random) ?? .uint8
            parts.tensors[name] = Tensor(bytes, type, shape: [bytes.count])
        case 5:
            // All of them, so that they still fit together.
            let rows = Int.random(in: 0...tensor.rows, using: &random)
            for name in ["taps", "kind", "mult"] {
                parts.tensors[name] = parts.tensors[name].map { $0.rows(0..<min(rows, $0.rows)) }
            }
        case 6, 7:
            // As numbers: NaN, infinity, -1, 0, 1e30, 1e-30, 2, and small and large integers.
            put(
                [
                    0x7FC0_7FC0, 0x7F80_0000, 0xBF80_0000, 0, 0x7149_F2CA, 0x0DA2_4260, 0x4000_0000,
                    1, 6, 0x0101_0101, 0x0502_0202, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF,
                ],
                &random
            )
        case 8: parts.metadata[key] = nil
        default: parts.metadata[key] = Self.texts.randomElement(using: &random)
        }
    }

    @Test mutating func rowsThatAreReadCanBeUsed() throws {
        let parts = try sound.map { try RowParts(folder.file($0)) }
        var config = LoRAFixture.config
        config.text.width = Self.encoder.width
        var outcomes = Outcomes()
        for input in 0..<Self.inputs {
            let index = input % sound.count
            var damaged = parts[index]
            for _ in 0..<Int.random(in: 1...2, using: &random) { damage(&damaged) }
            try folder.write(damaged.bytes, to: sound[index])
            outcomes.add { () throws(GenerationError) in
                let rows = try read(index)
                #expect((1...RowContainer.mostRows).contains(rows.kinds.count), "input \(input)")
                let groups = try GroupSet(
                    [ConditioningGroup(rows, strength: 1)],
                    .attention,
                    config
                )
                let member = groups.members[0]
                #expect(member.logMass.isFinite, "input \(input)")
                #expect(member.keyLogs(of: member.injectedRows)?.isFinite != false)
            }
        }
        outcomes.check(reasons: 20)
    }
}

/// What became of a series of damaged files.
private struct Outcomes {
    private var inputs = 0
    private var opened = 0
    private var reasons: Set<String> = []

    /// Reads a file; any other end than rows or a typed error ends the process.
    mutating func add(_ read: () throws(GenerationError) -> Void) {
        inputs += 1
        do throws(GenerationError) {
            try read()
            opened += 1
        } catch {
            #expect(error.category == .unfitFile, "input \(inputs): \(error)")
            let line = error.description
            #expect(!line.contains { $0.isNewline } && line.utf8.count < 20_000, "input \(inputs)")
            // What is said without the names of files, and without what was found there.
            let words = line.split(separator: " ").filter { !$0.contains("/") }
            reasons.insert(words.prefix(5).joined(separator: " "))
        }
    }

    /// The damage is to be neither always fatal nor always the same.
    func check(reasons least: Int) {
        #expect(
            opened > inputs / 200 && opened < inputs * 2 / 3,
            "\(opened) of \(inputs), \(reasons.sorted())"
        )
        #expect(reasons.count > least, "\(reasons.sorted())")
    }
}
