import Glibc
import TestSupport
import Tensors
import Testing

@testable import Checkpoints

/// A checkpoint of random bytes, and its tensors in a random order of use.
struct StreamFixture {
    let folder: TemporaryFolder
    let checkpoint: Checkpoint
    let tensors: [Tensor]
    /// What the mapped files had at first.
    let contents: [[UInt8]]

    private static let types: [ElementType] = [.bfloat16, .float32, .float8E4M3]

    /// Writes shards of tensors of random sizes.
    ///
    /// - Parameters:
    ///   - byteCounts: Sizes of the tensors, at least one, in the order of the files.
    ///   - shards: Number of files.
    ///   - isAligned: Whether elements start at multiples of their size.
    ///   - random: Decides on types, bytes, padding and order.
    /// - Throws: When the disk is full.
    init(
        _ byteCounts: [Int],
        shards: Int,
        aligned isAligned: Bool = true,
        _ random: inout SeededGenerator
    ) throws {
        folder = try TemporaryFolder()
        var map: [String] = []
        for shard in 0..<shards {
            var entries: [String] = []
            var end = 0
            for index in stride(from: shard, to: byteCounts.count, by: shards) {
                let type = Self.types[Int.random(in: 0..<Self.types.count, using: &random)]
                let count = byteCounts[index] / type.byteCount
                let next = end + count * type.byteCount
                entries.append(entry("t\(index)", type.rawValue, [count], end, next))
                map.append("\"t\(index)\":\"\(shard).safetensors\"")
                end = next
            }
            var header = "{\(entries.joined(separator: ","))}"
            header += String(repeating: " ", count: .random(in: 0..<9000, using: &random))
            while isAligned && !header.utf8.count.isMultiple(of: 4) { header += " " }
            let bytes = safetensors(header) + random.bytes(end)
            try folder.write(bytes, to: "\(shard).safetensors")
        }
        try folder.write(
            "{\"weight_map\":{\(map.joined(separator: ","))}}",
            to: "model.safetensors.index.json"
        )
        let checkpoint = try Checkpoint(path: folder.path)
        self.checkpoint = checkpoint
        tensors = byteCounts.indices.shuffled(using: &random)
            .compactMap { checkpoint.tensor("t\($0)") }
        contents = tensors.map { bytes(of: $0) }
    }

    /// Tensors of a kilobyte to a few pages, some empty or tiny; rarely misaligned ones.
    init(tensors: Int, shards: Int = 1, _ random: inout SeededGenerator) throws {
        let byteCounts = (0..<tensors).map { _ in
            switch Int.random(in: 0..<8, using: &random) {
            case 0: Int.random(in: 0..<16, using: &random)
            case 1: 4096 * Int.random(in: 1..<4, using: &random)
            default: Int.random(in: 1000..<30_000, using: &random)
            }
        }
        try self.init(
            byteCounts.map { $0 / 4 * 4 },
            shards: min(shards, tensors),
            aligned: Int.random(in: 0..<8, using: &random) > 0,
            &random
        )
    }

    /// Size of the largest tensor.
    var largest: Int { tensors.map(\.byteCount).max() ?? 0 }
    /// Size of all tensors.
    var byteCount: Int { tensors.reduce(0) { $0 + $1.byteCount } }

    /// Expects that a tensor has the bytes of the file; does not print them all when it has not.
    func check(
        _ tensor: Tensor,
        _ index: Int,
        _ location: SourceLocation = #_sourceLocation
    ) {
        let isRight = isEqual(tensor.address, contents[index][...])
        #expect(isRight, "bytes of tensor \(index)", sourceLocation: location)
    }

    /// The smallest budget for a consumer that uses so many bytes at a time.
    func minimum(held: Int) -> Int {
        WeightPlan.minimumByteCount(tensors, of: checkpoint, held: held)
    }

    /// A stream with the smallest budget, or one that much above it.
    func stream(
        held: Int? = nil,
        more: Int = 0,
        cache: CacheUse = .never
    ) throws(CheckpointError) -> WeightStream {
        let held = held ?? largest
        return try WeightStream(
            tensors,
            of: checkpoint,
            budget: minimum(held: held) + more,
            held: held,
            cache: cache
        )
    }
}

/// Whether memory holds these bytes.
func isEqual(_ memory: UnsafeRawPointer, _ bytes: ArraySlice<UInt8>) -> Bool {
    bytes.withUnsafeBytes { memcmp(memory, $0.baseAddress ?? memory, $0.count) == 0 }
}

extension SeededGenerator {
    /// So many random bytes.
    mutating func bytes(_ count: Int) -> [UInt8] {
        var words: [UInt64] = []
        for _ in 0..<(count + 7) / 8 { words.append(next()) }
        return words.withUnsafeBytes { Array($0.prefix(count)) }
    }
}
