import Tensors
import TestSupport
import Testing

@testable import Checkpoints

/// The order of events, without a thread.
struct WeightStreamStateTests {
    /// A state for ten matrices of which two are in use at a time.
    private func state(more: Int = 0) throws -> WeightStreamState {
        var random = SeededGenerator(seed: 1)
        let byteCounts = [Int](repeating: 8192, count: 10)
        let fixture = try StreamFixture(byteCounts, shards: 1, &random)
        let plan = WeightPlan(
            fixture.tensors,
            of: fixture.checkpoint,
            budget: fixture.minimum(held: 16_384) + more,
            held: 16_384
        )
        let memory = Storage(byteCount: plan.ringByteCount + plan.pinnedByteCount)
        return WeightStreamState(plan, memory: memory)
    }

    /// What is to be read next, nil when nothing is.
    private func nextJob(_ state: inout WeightStreamState) -> WeightStreamState.Job? {
        guard case .read(let job)? = state.nextStep() else { return nil }
        return job
    }

    @Test func readsAheadUntilTheRingIsFull() throws {
        var state = try state()
        var count = 0
        while let job = nextJob(&state) {
            #expect(state.isWanted(job))
            state.finish(job)
            count += 1
        }
        // Two in use, the next one, and room for what may stay free at the end.
        #expect(count == 4)
        #expect(state.nextStep() == nil)
        for index in 0..<2 { #expect(state.take(index) != nil) }
        #expect(state.nextStep() == nil)
        state.release(0)
        #expect(nextJob(&state) != nil)
    }

    @Test func nothingIsThereBeforeItIsRead() throws {
        var state = try state()
        #expect(state.take(0) == nil)
        let job = try #require(nextJob(&state))
        #expect(state.take(0) == nil)
        state.finish(job)
        #expect(state.take(0) != nil && state.take(1) == nil)
    }

    @Test func startingAgainDropsWhatIsBeingRead() throws {
        var state = try state()
        for _ in 0..<2 { state.finish(try #require(nextJob(&state))) }
        #expect(state.take(0) != nil)
        let late = try #require(nextJob(&state))
        state.restart()
        #expect(!state.isWanted(late))
        state.finish(late)
        #expect(state.take(0) == nil)
        let first = try #require(nextJob(&state))
        #expect(first.offset == 0 && state.isWanted(first))
    }

    @Test func startingAgainKeepsWhatStays() throws {
        var state = try state(more: 30_000)
        var late: WeightStreamState.Job?
        for _ in 0..<10 {
            let next = try #require(nextJob(&state))
            // The first pinned matrix lies behind the ring.
            if next.offset >= state.plan.ringByteCount {
                late = next
                break
            }
            state.finish(next)
        }
        #expect(state.take(0) != nil)
        state.restart()
        let job = try #require(late)
        #expect(state.isWanted(job))
        let before = state.residentByteCount
        state.finish(job)
        #expect(state.residentByteCount > before)
    }

    @Test func startingAgainBetweenRoundsDropsNothing() throws {
        var state = try state()
        for index in 0..<10 {
            while let job = nextJob(&state) { state.finish(job) }
            #expect(state.take(index) != nil)
            if index < 9 { state.release(index) }
        }
        while let job = nextJob(&state) { state.finish(job) }
        state.restart()
        #expect(state.take(0) != nil)
    }

    @Test func endsWhenStoppedFailedOrDone() throws {
        func isEnd(_ step: WeightStreamState.Step?) -> Bool {
            if case .end? = step { true } else { false }
        }
        var stopped = try state()
        let job = try #require(nextJob(&stopped))
        stopped.isStopped = true
        #expect(!stopped.isWanted(job) && isEnd(stopped.nextStep()))

        var failed = try state()
        failed.finish(try #require(nextJob(&failed)))
        failed.failure = .missing(path: "p")
        #expect(isEnd(failed.nextStep()))
        // What was read before is good.
        #expect(try failed.take(0)?.get() != nil)
        #expect(throws: CheckpointError.missing(path: "p")) { try failed.take(1)?.get() }

        var complete = try state(more: 1_000_000)
        for _ in 0..<10 { complete.finish(try #require(nextJob(&complete))) }
        #expect(isEnd(complete.nextStep()))
    }
}
