import Checkpoints
import Compute
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// References beside the prompt in runs of a small model.
struct GroupRunTests {
    private static let precisions = [Precision.float32, .bfloat16, .int8]
    /// Differences of velocities in float32; observed at most 1.5e-7.
    private static let limit = 6e-7

    private func pipeline(
        _ precision: Precision = .float32,
        threads: Int = 1,
        memory: Int? = nil
    ) throws -> Pipeline {
        try FixtureModel.pipeline(
            "head16",
            precision,
            threads: threads,
            variant: .raw,
            memory: memory
        )
    }

    private func request(
        _ groups: [ConditioningGroup],
        mode: ConditioningGroup.Mode = .attention,
        steps: Int = 1,
        prompt: String = "a red fox"
    ) -> GenerationRequest {
        GenerationRequest(
            prompt: prompt,
            negativePrompt: "blue",
            width: 64,
            height: 64,
            steps: steps,
            guidance: 2,
            seed: 5,
            groups: groups,
            groupMode: mode
        )
    }

    private func run(
        _ pipeline: Pipeline,
        _ groups: [ConditioningGroup] = [],
        mode: ConditioningGroup.Mode = .attention,
        steps: Int = 1
    ) throws -> [Float] {
        try Outcome(pipeline, request(groups, mode: mode, steps: steps)).floats("latents")
    }

    /// Velocity of the first step with the prompt.
    private func velocity(
        _ pipeline: Pipeline,
        _ groups: [ConditioningGroup],
        mode: ConditioningGroup.Mode = .attention
    ) throws -> [Float] {
        try Outcome(pipeline, request(groups, mode: mode)).floats("step0.cond")
    }

    private func group(
        _ seed: UInt64,
        _ strength: Float,
        window: ClosedRange<Double> = 0...1,
        blocks: ClosedRange<Int>? = nil
    ) throws -> ConditioningGroup {
        try GroupFixture.group(seed, strength, window: window, blocks: blocks)
    }

    // MARK: Identities

    @Test(arguments: precisions, ConditioningGroup.Mode.allCases)
    func noneIsTheBase(_ precision: Precision, _ mode: ConditioningGroup.Mode) throws {
        let pipeline = try pipeline(precision)
        let base = try run(pipeline)
        let (bytes, work) = (
            try pipeline.plan(request([])).peakBytes,
            try pipeline.plan(request([])).floatingPointOperations
        )
        for groups in try [
            [group(1, 0)], (1...10).map { try group($0, 0) }, [group(1, 0.7), group(1, -0.7)],
        ] {
            #expect(try run(pipeline, groups, mode: mode) == base)
            let plan = try pipeline.plan(request(groups, mode: mode))
            #expect(plan.peakBytes == bytes && plan.floatingPointOperations == work)
        }
        #expect(try run(pipeline, [group(1, 0.7)], mode: mode) != base)
    }

    @Test(arguments: precisions)
    func orderAndEqualRowsDoNotMatter(_ precision: Precision) throws {
        let pipeline = try pipeline(precision)
        let groups = try [group(1, 0.75), group(2, -0.5), group(3, 1.5)]
        let all = try run(pipeline, groups)
        #expect(try run(pipeline, groups.reversed()) == all)
        let parts = try [group(1, 0.25), groups[2], groups[1], group(1, 0.5)]
        #expect(try run(pipeline, parts) == all)
        #expect(try run(pipeline, [groups[0]]) != all)
    }

    @Test(arguments: precisions, ConditioningGroup.Mode.allCases)
    func neitherMemoryNorThreadsChangeABit(
        _ precision: Precision,
        _ mode: ConditioningGroup.Mode
    ) throws {
        let groups = try [group(1, 0.6), group(2, -0.5)]
        let free = try run(pipeline(precision), groups, mode: mode)
        let error = #expect(throws: GenerationError.self) {
            try run(pipeline(precision, threads: 2, memory: 1), groups, mode: mode)
        }
        let words = try #require(error).description.split(separator: " ")
        let needed = try #require(words.dropLast().last.flatMap { Int($0) })
        let least = try pipeline(precision, threads: 2, memory: needed << 20)
        #expect(try run(least, groups, mode: mode) == free)
    }

    @Test(arguments: precisions)
    func onlyThePromptSeesThem(_ precision: Precision) throws {
        let pipeline = try pipeline(precision)
        let alone = try Outcome(pipeline, request([]))
        let beside = try Outcome(pipeline, request([group(1, 1), group(2, -0.5)]))
        for name in ["text.pos.in", "text.neg.in", "step0.uncond"] {
            #expect(try beside.floats(name) == alone.floats(name), "\(name)")
        }
        #expect(try beside.floats("step0.cond") != alone.floats("step0.cond"))
        // Neither another prompt nor other groups change a group's rows.
        let other = try Outcome(pipeline, request([group(1, 1)], prompt: "two blue boats"))
        #expect(try other.floats("group0.in") == beside.floats("group0.in"))
    }

    // MARK: Strength

    @Test(arguments: precisions)
    func strengthOneIsThatInEitherMode(_ precision: Precision) throws {
        let (pipeline, groups) = (try pipeline(precision), try [group(1, 1)])
        let found = try velocity(pipeline, groups, mode: .exact)
        let error = try relativeError(found, velocity(pipeline, groups))
        #expect(error < Self.limit, "\(error)")
    }

    @Test func velocitiesAreLinearInExactMode() throws {
        let pipeline = try pipeline()
        func change(_ groups: [ConditioningGroup]) throws -> [Float] {
            try zip(velocity(pipeline, groups, mode: .exact), velocity(pipeline, [])).map {
                $0 - $1
            }
        }
        let whole = try change([group(1, 1)])
        for strength in [Float(-1), 0.5, 2] {
            let found = try change([group(1, strength)])
            let error = relativeError(found, whole.map { strength * $0 })
            #expect(error < Self.limit, "\(strength): \(error)")
        }
        let sum = zip(try change([group(1, 0.5)]), try change([group(2, -1.5)])).map { $0 + $1 }
        let error = try relativeError(change([group(1, 0.5), group(2, -1.5)]), sum)
        #expect(error < Self.limit, "\(error)")
    }

    /// In a network of several layers that holds for small strengths only; observed 0.01.
    @Test func smallStrengthsAddUp() throws {
        let pipeline = try pipeline()
        func change(_ groups: [ConditioningGroup]) throws -> [Float] {
            try zip(velocity(pipeline, groups), velocity(pipeline, [])).map { $0 - $1 }
        }
        let (first, second) = (try change([group(1, 0.02)]), try change([group(2, 0.02)]))
        let both = try change([group(1, 0.02), group(2, 0.02)])
        #expect(relativeError(both, zip(first, second).map { $0 + $1 }) < 0.04)
        #expect(try relativeError(change([group(1, -0.02)]), first.map { -$0 }) < 0.04)
    }

    // MARK: Controls

    @Test(arguments: ConditioningGroup.Mode.allCases)
    func windowsChooseSteps(_ mode: ConditioningGroup.Mode) throws {
        let pipeline = try pipeline()
        func run(_ windows: [ClosedRange<Double>]) throws -> [Float] {
            let groups = try windows.map { try group(1, 0.8, window: $0) }
            return try self.run(pipeline, groups, mode: mode, steps: 2)
        }
        let base = try run([])
        // No step begins there.
        #expect(try run([0...0.001]) == base)
        let (first, second, both) = (
            try run([0.999...1]), try run([0...0.998]), try run([0...1])
        )
        #expect(Set([base, first, second, both]).count == 4)
        #expect(try run([0.999...1, 0...0.998]) == both)
    }

    @Test func blocksChooseWhoSees() throws {
        let pipeline = try pipeline()
        func run(_ blocks: [ClosedRange<Int>?]) throws -> [Float] {
            try self.run(pipeline, blocks.map { try group(1, 0.8, blocks: $0) })
        }
        let (first, second, both) = (try run([0...0]), try run([1...1]), try run([nil]))
        #expect(try Set([self.run(pipeline), first, second, both]).count == 4)
        #expect(try run([0...0, 1...1]) == both)
        #expect(try run([0...1]) == both)
    }

    @Test func gainsMultiplyTaps() throws {
        let (pipeline, rows) = (try pipeline(), try GroupFixture.rows(1))
        func run(_ gains: [Float]) throws -> [Float] {
            try self.run(pipeline, [ConditioningGroup(rows, strength: 1, tapGains: gains)])
        }
        let plain = try run([])
        #expect(try run([1, 1, 1]) == plain)
        #expect(try run([1, 0, 1]) != plain)
    }

    @Test func kindsChooseRows() throws {
        let pipeline = try pipeline()
        let rows = try GroupFixture.rows(1)
        let pictures = try Outcome(pipeline, request([ConditioningGroup(rows, strength: 1)]))
        #expect(pictures.tensors["group0.in"]?.shape == [9, 96])
        let all = ConditioningGroup(
            rows,
            strength: 1,
            injected: Set(ConditioningRows.Kind.allCases)
        )
        let whole = try Outcome(pipeline, request([all])).floats("group0.in")
        #expect(whole.count == 13 * 96)
        #expect(try Array(whole[96..<10 * 96]) == pictures.floats("group0.in"))
    }

    /// Equal rows may be merged, if the row that stays counts as often.
    @Test func mergedRowsCountSeveralTimes() throws {
        let pipeline = try pipeline()
        var random = SeededGenerator(seed: 4)
        let parts = (0..<4).map { _ in
            (0..<3 * 48).map { _ in Float.random(in: -1...1, using: &random) }
        }
        let every = try GroupFixture.rows(
            key: "all",
            [parts[0], parts[0], parts[1], parts[2], parts[2], parts[2], parts[3]]
        )
        let merged = try GroupFixture.rows(key: "merged", parts, multiplicities: [2, 1, 3, 1])
        let (found, expected) = (
            try velocity(pipeline, [ConditioningGroup(merged, strength: 0.7)]),
            try velocity(pipeline, [ConditioningGroup(every, strength: 0.7)])
        )
        let error = relativeError(found, expected)
        #expect(error < Self.limit, "\(error)")
        let once = try GroupFixture.rows(key: "once", parts)
        let other = try velocity(pipeline, [ConditioningGroup(once, strength: 0.7)])
        #expect(relativeError(other, expected) > 1e-4)
    }

    @Test func massAndFamilyMatter() throws {
        let (pipeline, rows) = (try pipeline(), try GroupFixture.rows(1))
        let groups = try [group(2, 2)]
        let runs = try [
            ConditioningGroup(rows, strength: 2), ConditioningGroup(rows, strength: 2, mass: 16),
            ConditioningGroup(rows, strength: 2, family: .sliders),
        ].map { try run(pipeline, groups + [$0]) }
        #expect(Set(runs).count == 3)
    }

    @Test func tapsInBfloat16AreTheirValues() throws {
        let pipeline = try pipeline()
        let rows = try GroupFixture.rows(1)
        let narrow = Tensor(
            Storage(byteCount: 2 * rows.taps.count),
            byteOffset: 0,
            shape: rows.taps.shape,
            elementType: .bfloat16
        )
        Operators(threads: 1).narrow(rows.taps, into: narrow)
        let found = try [narrow, converted(narrow)].map { taps in
            let rows = try ConditioningRows(key: rows.key, taps: taps, kinds: rows.kinds)
            return try run(pipeline, [ConditioningGroup(rows, strength: 1)])
        }
        #expect(found[0] == found[1])
    }

    // MARK: Plans and errors

    @Test func plansCountRows() throws {
        let pipeline = try pipeline()
        func plan(
            _ groups: [ConditioningGroup],
            _ mode: ConditioningGroup.Mode = .attention,
            steps: Int = 1
        ) throws -> GenerationPlan {
            try pipeline.plan(request(groups, mode: mode, steps: steps))
        }
        let (none, one, two) = (
            try plan([]), try plan([group(1, 1)]), try plan([group(1, 1), group(2, 1)])
        )
        func work(_ plan: GenerationPlan) -> Double { plan.stages[1].work.total }
        #expect(work(two) - work(one) == work(one) - work(none) && work(one) > work(none))
        let rows = two.buffers.filter { $0.name == "reference" }
        #expect(rows.map(\.shape) == [[9, 96], [9, 96]])
        func tokens(_ plan: GenerationPlan) -> Int {
            let own = plan.buffers.filter { $0.stage == "transformer" && $0.name == "residual" }
            return own.first?.shape[0] ?? 0
        }
        #expect(tokens(two) == tokens(none) + 18)
        // One whole evaluation of the prompt more for each.
        let exact = try plan([group(1, 1), group(2, 1)], .exact)
        #expect(work(exact) - work(none) > work(two))
        #expect(tokens(exact) == tokens(none) + 9)
        // In one of two steps.
        let half = try plan([group(1, 1, window: 0.999...1)], steps: 2)
        #expect(abs(work(half) - (work(none) + work(one)) / 2) < 1e-6 * work(one))
    }

    @Test func progressEndsAtOne() throws {
        let pipeline = try pipeline()
        for mode in ConditioningGroup.Mode.allCases {
            var (last, steps): (Double, [Int]) = (0, [])
            let groups = try [group(1, 1), group(2, 0.5, window: 0.999...1)]
            _ = try pipeline.generate(
                request(groups, mode: mode, steps: 2),
                progress: { progress in
                    #expect(progress.overall >= last - 1e-9)
                    last = progress.overall
                    if steps.last != progress.step { steps.append(progress.step) }
                }
            )
            #expect(abs(last - 1) < 1e-6 && steps == [0, 1, 2], "\(mode): \(last), \(steps)")
        }
    }

    @Test func whatDoesNotFitIsRefused() throws {
        let pipeline = try pipeline()
        let rows = try GroupFixture.rows(1)
        func error(_ groups: [ConditioningGroup]) throws -> String {
            let error = #expect(throws: GenerationError.self) { try run(pipeline, groups) }
            #expect(error?.category == .request)
            return error?.description ?? ""
        }
        func refuses(_ group: ConditioningGroup, _ reason: String) throws {
            #expect(try error([group]) == "reference picture 1: \(reason)")
        }
        for strength in [Float.nan, .infinity, 101, -101] {
            try refuses(
                ConditioningGroup(rows, strength: strength),
                "strength \(strength), expected −100 to 100"
            )
        }
        try refuses(
            ConditioningGroup(rows, strength: 1, blocks: 1...2),
            "blocks 1...2, expected 0 to 1"
        )
        try refuses(
            ConditioningGroup(rows, strength: 1, tapGains: [1, 2]),
            "gains [1.0, 2.0], expected 3 numbers"
        )
        try refuses(
            ConditioningGroup(rows, strength: 1, mass: 0),
            "mass 0.0, expected above 0"
        )
        try refuses(
            ConditioningGroup(rows, strength: 1, injected: [.text]),
            "none of its 13 rows is wanted"
        )
        let foreign = try ConditioningRows(
            key: "picture 1",
            taps: Tensor(zeros: [2, 4, 48]),
            kinds: [.image, .image]
        )
        try refuses(
            ConditioningGroup(foreign, strength: 1),
            "taps [2, 4, 48], expected [rows, 3, 48], as the model has"
        )
        let other = try ConditioningRows(
            key: "picture 1",
            taps: Tensor(zeros: [1, 3, 48]),
            kinds: [.image]
        )
        let two = [ConditioningGroup(rows, strength: 1), ConditioningGroup(other, strength: 1)]
        #expect(try error(two) == "two references picture 1 that differ")
    }

    @Test func rowsMustFitTogether() throws {
        func refuses(
            _ taps: Tensor,
            _ reason: String,
            kinds: [ConditioningRows.Kind] = [.image, .image],
            multiplicities: [Float]? = nil
        ) {
            let error = #expect(throws: GenerationError.self) {
                try ConditioningRows(
                    key: "a",
                    taps: taps,
                    kinds: kinds,
                    multiplicities: multiplicities
                )
            }
            #expect(error?.description == "reference a: " + reason)
        }
        let taps = Tensor(zeros: [2, 3, 48])
        refuses(Tensor(zeros: [2, 144]), "float32 taps [2, 144], expected [rows, taps, width]")
        refuses(taps, "2 rows, 1 kinds and 1 multiplicities", kinds: [.image])
        refuses(taps, "2 rows, 2 kinds and 1 multiplicities", multiplicities: [1])
        refuses(taps, "multiplicities are numbers above 0", multiplicities: [1, 0])
        let broken = Tensor(zeros: [2, 3, 48])
        broken.write([Float](repeating: .nan, count: broken.count))
        refuses(broken, "NaN or infinity in the taps")
    }
}
