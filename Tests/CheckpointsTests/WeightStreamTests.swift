import Foundation
import Glibc
import TestSupport
import Tensors
import Testing

@testable import Checkpoints

/// What a stream hands out; a stream that hangs ends at the time limit.
@Suite(.timeLimit(.minutes(5)))
struct WeightStreamTests {
    private static let isLong = ProcessInfo.processInfo.environment["KREA2_LONG_TESTS"] != nil

    /// Takes and releases at random for some rounds, which may break off; compares all bytes when
    /// a tensor comes and again before it goes.
    private func use(
        _ stream: WeightStream,
        _ fixture: StreamFixture,
        rounds: Int,
        _ random: inout SeededGenerator
    ) throws {
        let held = stream.plan.held
        let breaksOff = Bool.random(using: &random)
        for _ in 0..<rounds {
            var inUse: [(index: Int, tensor: Tensor)] = []
            func giveBack() {
                let (index, tensor) = inUse.removeFirst()
                fixture.check(tensor, index)
                stream.release(index)
            }
            for index in fixture.tensors.indices {
                let room = held - fixture.tensors[index].byteCount
                while !inUse.isEmpty && inUse.reduce(0, { $0 + $1.tensor.byteCount }) > room {
                    giveBack()
                }
                let tensor = try stream.take(index)
                #expect(tensor.shape == fixture.tensors[index].shape)
                #expect(tensor.elementType == fixture.tensors[index].elementType)
                fixture.check(tensor, index)
                inUse.append((index, tensor))
                while !inUse.isEmpty && Int.random(in: 0..<4, using: &random) == 0 { giveBack() }
                if breaksOff && Int.random(in: 0..<fixture.tensors.count, using: &random) == 0 {
                    break
                }
            }
            while !inUse.isEmpty && Int.random(in: 0..<8, using: &random) != 0 { giveBack() }
            stream.restart()
        }
    }

    // MARK: Bytes

    @Test func handsOutTheBytesOfTheFiles() throws {
        for seed in 0..<(Self.isLong ? 5000 : 100) {
            var random = SeededGenerator(seed: UInt64(seed))
            let fixture = try StreamFixture(
                tensors: .random(in: 1..<14, using: &random),
                shards: .random(in: 1..<4, using: &random),
                &random
            )
            let held = Int.random(in: 0..<3 * fixture.largest + 1, using: &random)
            let spare = fixture.byteCount + 8192 * fixture.tensors.count
            let stream = try fixture.stream(
                held: held,
                more: [0, 1, spare / 8, spare / 2, spare].randomElement(using: &random) ?? 0,
                cache: CacheUse.allCases.randomElement(using: &random) ?? .never
            )
            try use(stream, fixture, rounds: 3, &random)
            let plan = stream.plan
            #expect(stream.statistics.residentByteCount <= plan.residentByteCount, "seed \(seed)")
            #expect(plan.residentByteCount <= fixture.minimum(held: held) + spare)
        }
    }

    @Test(arguments: CacheUse.allCases)
    func readsLargeTensorsInPieces(cache: CacheUse) throws {
        var random = SeededGenerator(seed: 1)
        let piece = BlockReader.pieceByteCount
        let fixture = try StreamFixture([piece + 12, 40, 2 * piece], shards: 2, &random)
        let stream = try fixture.stream(more: 50, cache: cache)
        try use(stream, fixture, rounds: 2, &random)
    }

    @Test func handsOutMisalignedTensorsAsTheyAre() throws {
        let folder = try TemporaryFolder()
        let entries = [entry("a", "U8", [5], 0, 5), entry("b", "F32", [3], 5, 17)]
        var header = "{\(entries.joined(separator: ","))}"
        while header.utf8.count % 4 != 0 { header += " " }
        let path = try folder.write(safetensors(header, data: 17), to: "m.safetensors")
        let checkpoint = try Checkpoint(path: path)
        let tensors = checkpoint.names.compactMap { checkpoint.tensor($0) }
        let all = WeightPlan.minimumByteCount(tensors, of: checkpoint, held: 17)
        let stream = try WeightStream(tensors, of: checkpoint, budget: all, held: 17)
        #expect(stream.plan.copiedByteCount == 12)
        for _ in 0..<2 {
            #expect(bytes(of: try stream.take(0)) == [0, 1, 2, 3, 4])
            #expect(try stream.take(1).address == tensors[1].address)
            stream.restart()
        }
    }

    @Test func needsNoTensors() throws {
        let folder = try TemporaryFolder()
        let header = "{\(entry("a", "U8", [5], 0, 5))}"
        let path = try folder.write(safetensors(header, data: 5), to: "m.safetensors")
        let stream = try WeightStream([], of: try Checkpoint(path: path), budget: 0, held: 0)
        stream.restart()
        #expect(stream.statistics.readByteCount == 0)
    }

    // MARK: Memory

    @Test func readsOnceWhatFits() throws {
        var random = SeededGenerator(seed: 2)
        let byteCounts = (1...12).map { 2000 * $0 }
        let fixture = try StreamFixture(byteCounts, shards: 1, &random)
        let spare = fixture.byteCount + 8192 * 12
        let stream = try fixture.stream(more: spare)
        #expect(stream.plan.ringByteCount == 0 && stream.plan.streamedByteCount == 0)
        for _ in 0..<3 { try use(stream, fixture, rounds: 1, &random) }
        for index in fixture.tensors.indices {
            _ = try stream.take(index)
            stream.release(index)
        }
        let statistics = stream.statistics
        // The last block may end with the file.
        #expect((0..<4096).contains(stream.plan.pinnedByteCount - statistics.readByteCount))
        #expect(statistics.residentByteCount == stream.plan.pinnedByteCount)
    }

    @Test func readsTheRestInEveryRound() throws {
        var random = SeededGenerator(seed: 3)
        let fixture = try StreamFixture([Int](repeating: 40_960, count: 20), shards: 1, &random)
        let stream = try fixture.stream(more: 400_000)
        let plan = stream.plan
        #expect((300_000...400_000).contains(plan.pinnedByteCount))
        for _ in 0..<3 {
            for index in fixture.tensors.indices {
                _ = try stream.take(index)
                stream.release(index)
            }
        }
        let read = stream.statistics.readByteCount
        let least = plan.pinnedByteCount + 3 * plan.streamedByteCount - 3 * 4096
        #expect((least...least + 3 * 4096 + plan.ringByteCount).contains(read))
    }

    @Test func memoryGoesBackWithTheStream() throws {
        var random = SeededGenerator(seed: 4)
        let fixture = try StreamFixture([9000, 5000, 20_000], shards: 1, &random)
        var stream: WeightStream? = try fixture.stream()
        var tensor = try stream?.take(0)
        weak let storage = tensor?.storage
        stream = nil
        #expect(storage != nil)
        fixture.check(try #require(tensor), 0)
        tensor = nil
        #expect(storage == nil)
    }

    @Test func endsAtAnyTime() throws {
        for seed in 0..<50 {
            var random = SeededGenerator(seed: UInt64(seed))
            let fixture = try StreamFixture(tensors: 9, &random)
            let stream = try fixture.stream(more: [0, 1 << 20].randomElement(using: &random) ?? 0)
            for index in 0..<Int.random(in: 0..<3, using: &random) {
                _ = try stream.take(index)
                stream.release(index)
            }
        }
    }

    // MARK: Errors

    /// Takes tensors until that fails.
    private func failure(
        _ stream: WeightStream,
        _ fixture: StreamFixture,
        from first: Int
    ) -> CheckpointError? {
        for use in first..<first + 3 * fixture.tensors.count {
            let index = use % fixture.tensors.count
            do throws(CheckpointError) {
                fixture.check(try stream.take(index), index)
            } catch {
                #expect(throws: error) { try stream.take(index) }
                return error
            }
            stream.release(index)
        }
        return nil
    }

    @Test(arguments: CacheUse.allCases.filter { $0 != .inPlace })
    func truncationIsAnError(cache: CacheUse) throws {
        var random = SeededGenerator(seed: 5)
        let fixture = try StreamFixture([Int](repeating: 50_000, count: 30), shards: 1, &random)
        let stream = try fixture.stream(more: 100_000, cache: cache)
        let path = fixture.folder.file("0.safetensors")
        let size = fixture.checkpoint.files[0].file.byteCount
        _ = try stream.take(0)
        stream.release(0)
        try #require(truncate(path, 30_000) == 0)
        #expect(
            failure(stream, fixture, from: 1)
                == .changed(path: path, reason: "its size went from \(size) to 30000 bytes")
        )
        stream.restart()
        #expect(failure(stream, fixture, from: 0) != nil)
    }

    @Test func truncationInUseIsAnError() throws {
        var random = SeededGenerator(seed: 7)
        let fixture = try StreamFixture([Int](repeating: 50_000, count: 30), shards: 1, &random)
        let stream = try fixture.stream(cache: .inPlace)
        let first = try stream.take(0)
        try #require(truncate(fixture.folder.file("0.safetensors"), 30_000) == 0)
        // Where the file was, there are zeros; nothing crashes.
        _ = bytes(of: first)
        stream.release(0)
        #expect(throws: CheckpointError.self) {
            for index in 1..<90 {
                _ = bytes(of: try stream.take(index % 30))
                stream.release(index % 30)
            }
        }
        #expect(throws: CheckpointError.self) { try fixture.checkpoint.checkUnchanged() }
    }

    @Test func replacementIsAnError() throws {
        var random = SeededGenerator(seed: 6)
        let fixture = try StreamFixture([Int](repeating: 50_000, count: 30), shards: 1, &random)
        let path = fixture.folder.file("0.safetensors")
        let stream = try fixture.stream()
        let other = try fixture.folder.write("other", to: "other")
        try #require(rename(other, path) == 0)
        let replaced = CheckpointError.changed(path: path, reason: "another file took its place")
        #expect(failure(stream, fixture, from: 0) == replaced)
        #expect(throws: replaced) { try fixture.stream() }
        unlink(path)
        #expect(throws: CheckpointError.missing(path: path)) { try fixture.stream() }
    }

    @Test func whatIsInMemoryOutlivesTheFile() throws {
        var random = SeededGenerator(seed: 7)
        let fixture = try StreamFixture(tensors: 5, &random)
        let stream = try fixture.stream(more: fixture.byteCount + 5 * 8192)
        for index in 0..<5 {
            _ = try stream.take(index)
            stream.release(index)
        }
        unlink(fixture.folder.file("0.safetensors"))
        try use(stream, fixture, rounds: 2, &random)
    }

    // MARK: Mistakes

    @Test func trapsOnMisuse() async {
        await #expect(processExitsWith: .failure) {
            var random = SeededGenerator(seed: 8)
            _ = try StreamFixture(tensors: 12, &random).stream(more: -1)
        }
        await #expect(processExitsWith: .failure) {
            var random = SeededGenerator(seed: 8)
            _ = try StreamFixture(tensors: 5, &random).stream().take(1)
        }
        await #expect(processExitsWith: .failure) {
            var random = SeededGenerator(seed: 8)
            let stream = try StreamFixture([9000, 9000], shards: 1, &random).stream(held: 17_999)
            _ = try stream.take(0)
            _ = try stream.take(1)
        }
        await #expect(processExitsWith: .failure) {
            var random = SeededGenerator(seed: 8)
            let stream = try StreamFixture([9000, 9000], shards: 1, &random).stream(held: 18_000)
            _ = try stream.take(0)
            _ = try stream.take(1)
            stream.release(1)
        }
    }
}
