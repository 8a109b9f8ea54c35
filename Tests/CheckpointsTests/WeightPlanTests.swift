import TestSupport
import Testing

@testable import Checkpoints

struct WeightPlanTests {
    /// 40 matrices of 9 to 10 blocks each.
    private func fixture() throws -> StreamFixture {
        var random = SeededGenerator(seed: 1)
        return try StreamFixture([Int](repeating: 36_864, count: 40), shards: 2, &random)
    }

    private func plan(_ fixture: StreamFixture, more: Int, held: Int) -> WeightPlan {
        let budget = fixture.minimum(held: held) + more
        return WeightPlan(fixture.tensors, of: fixture.checkpoint, budget: budget, held: held)
    }

    @Test func staysWithinTheBudgetAndUsesIt() throws {
        let fixture = try fixture()
        let all = fixture.tensors.count * 40_960
        for held in [0, 36_864, 73_728, 200_000] {
            for more in stride(from: 0, to: all, by: 12_345) {
                let plan = plan(fixture, more: more, held: held)
                let unused = fixture.minimum(held: held) + more - plan.residentByteCount
                #expect((0..<40_960).contains(unused) || plan.streamedByteCount == 0)
                #expect(unused >= 0)
            }
        }
    }

    @Test func spreadsWhatStays() throws {
        let fixture = try fixture()
        let plan = plan(fixture, more: 20 * 40_960, held: 36_864)
        let isPinned = plan.items.map { $0.pinnedOffset != nil }
        #expect((19...22).contains(isPinned.count { $0 }))
        for start in stride(from: 0, to: 40, by: 8) {
            #expect((3...5).contains(isPinned[start..<start + 8].count { $0 }))
        }
    }

    @Test func pinnedPlacesFollowTheRing() throws {
        let plan = plan(try fixture(), more: 300_000, held: 80_000)
        var end = plan.ringByteCount
        for item in plan.items {
            guard let offset = item.pinnedOffset else { continue }
            #expect(offset == end)
            end += item.blockByteCount
        }
        #expect(end == plan.ringByteCount + plan.pinnedByteCount)
    }

    @Test func minimumHoldsWhatIsInUseAndTheNextMatrix() throws {
        var random = SeededGenerator(seed: 2)
        let byteCounts = [Int](repeating: 4096 * 8, count: 6)
        let fixture = try StreamFixture(byteCounts, shards: 1, &random)
        let one = 9 * 4096
        // In use, next, and the end of the ring that may stay free.
        #expect(fixture.minimum(held: 1) == 3 * one)
        #expect(fixture.minimum(held: 2 * 8 * 4096) == 4 * one)
        #expect(fixture.minimum(held: 3 * 8 * 4096 - 1) == 4 * one)
        // All of them are less than a ring.
        #expect(fixture.minimum(held: 5 * 8 * 4096) == 6 * one)
        #expect(fixture.minimum(held: .max) == 6 * one)
    }
}

struct RingBufferTests {
    @Test func placesNeverOverlap() {
        for seed in 0..<200 {
            var random = SeededGenerator(seed: UInt64(seed))
            var ring = RingBuffer(byteCount: .random(in: 1..<100, using: &random))
            var places: [Range<Int>] = []
            for _ in 0..<300 {
                if Bool.random(using: &random) {
                    let length = Int.random(in: 1..<40, using: &random)
                    guard let start = ring.reserve(length) else { continue }
                    let place = start..<start + length
                    #expect(start >= 0 && place.upperBound <= ring.byteCount)
                    #expect(places.allSatisfy { !$0.overlaps(place) })
                    #expect(ring.touchedByteCount >= place.upperBound)
                    places.append(place)
                } else if !places.isEmpty {
                    places.removeFirst()
                    ring.freeOldest()
                }
            }
        }
    }

    @Test func hasRoomUpToTheEndThatStaysFree() {
        // Whatever is in use, up to 30 bytes, the next place of up to 20 fits.
        for seed in 0..<200 {
            var random = SeededGenerator(seed: UInt64(seed))
            var ring = RingBuffer(byteCount: 30 + 20 + 20)
            var lengths: [Int] = []
            for _ in 0..<300 {
                let length = Int.random(in: 1...20, using: &random)
                #expect(ring.reserve(length) != nil)
                lengths.append(length)
                while lengths.reduce(0, +) > 30 {
                    lengths.removeFirst()
                    ring.freeOldest()
                }
            }
        }
    }

    @Test func usesTheStartWhenEmpty() {
        var ring = RingBuffer(byteCount: 10)
        #expect(ring.reserve(11) == nil)
        #expect(ring.reserve(7) == 0)
        #expect(ring.reserve(4) == nil)
        ring.freeAll()
        #expect(ring.reserve(10) == 0)
        #expect(ring.reserve(1) == nil)
        #expect(ring.touchedByteCount == 10)
    }
}
