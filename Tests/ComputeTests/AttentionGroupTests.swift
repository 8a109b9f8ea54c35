import Foundation
import TestSupport
import Tensors
import Testing

@testable import Compute

private let narrowLevels = ["scalar"] + fastBfloat16Levels

/// Attention with weighted groups of keys.
struct AttentionGroupTests {
    /// Float32 against float64; observed at most 3.5e-7.
    private static let limit = 1.4e-6
    /// The same with scores of 80, which are rounded to 4e-6; observed at most 1.2e-6.
    private static let extremeLimit = 4.5e-6
    /// bfloat16 rounds weights, and the result, to 8 bits; observed at most 0.0034.
    private static let narrowLimit = 0.012

    private static let seeds = UInt64(1)...10

    /// All rows of the result, and the checked ones in float64.
    private func run(
        _ sizes: GroupCase,
        _ operators: Operators
    ) -> (found: [Float], exact: [Float]) {
        let (query, key, value) = inputs(sizes, operators)
        let output = Tensor(guarded: query.shape, elementType: query.elementType)
        sizes.run(operators, query, key, value, into: output)
        return (floats(output), sizes.direct(query, key, value))
    }

    /// In the type of the operators' activations.
    private func inputs(
        _ sizes: GroupCase,
        _ operators: Operators
    ) -> (query: Tensor, key: Tensor, value: Tensor) {
        let (query, key, value) = sizes.inputs()
        guard operators.activations == .bfloat16 else { return (query, key, value) }
        return (
            narrowed(query, operators), narrowed(key, operators), narrowed(value, operators)
        )
    }

    private func narrowed(_ x: Tensor, _ operators: Operators) -> Tensor {
        let copy = Tensor(guarded: x.shape, elementType: .bfloat16)
        operators.narrow(x, into: copy)
        return copy
    }

    private func floats(_ x: Tensor) -> [Float] { x.exactElements.map { Float($0) } }

    // MARK: Formula

    @Test(arguments: allLevels)
    func agreesWithFormula(level: String) throws {
        let operators = try operators(level)
        for seed in Self.seeds {
            let sizes = GroupCase.random(seed)
            let (found, exact) = run(sizes, operators)
            expectClose(sizes.checked(found), exact, limit: Self.limit, "\(sizes)")
        }
    }

    @Test(arguments: narrowLevels)
    func agreesWithFormulaInBfloat16(level: String) throws {
        let operators = try operators(level, policy: .bfloat16)
        for seed in Self.seeds {
            let sizes = GroupCase.random(seed)
            let (found, exact) = run(sizes, operators)
            expectClose(sizes.checked(found), exact, limit: Self.narrowLimit, "\(sizes)")
        }
    }

    @Test(arguments: allLevels)
    func extremeScoresStayExact(level: String) throws {
        let operators = try operators(level)
        for seed in Self.seeds {
            var sizes = GroupCase.random(seed, range: 60)
            sizes.headSize = 16
            let (found, exact) = run(sizes, operators)
            expectClose(sizes.checked(found), exact, limit: Self.extremeLimit, "\(sizes)")
        }
    }

    @Test(arguments: narrowLevels)
    func extremeScoresStayCloseInBfloat16(level: String) throws {
        let operators = try operators(level, policy: .bfloat16)
        for seed in Self.seeds {
            var sizes = GroupCase.random(seed, range: 60)
            sizes.headSize = 16
            let (found, exact) = run(sizes, operators)
            expectClose(sizes.checked(found), exact, limit: Self.narrowLimit, "\(sizes)")
        }
    }

    /// A group that nobody looks at, and one that everybody looks at alone.
    @Test(arguments: allLevels, [Float(-200), -90, 90, 200])
    func oddsMayBeTooLargeOrSmallForNumbers(level: String, logMass: Float) throws {
        let operators = try operators(level)
        let group = GroupCase.Group(count: 5, weight: -1.5, logMass: logMass)
        let sizes = GroupCase(groups: [group, group])
        let (found, exact) = run(sizes, operators)
        expectClose(sizes.checked(found), exact, limit: Self.limit)
    }

    // MARK: Plain attention

    @Test(arguments: allLevels)
    func withoutGroupsItIsPlain(level: String) throws {
        let operators = try operators(level)
        let sizes = GroupCase(groups: [])
        let (query, key, value) = sizes.inputs()
        let expected = Tensor(guarded: query.shape)
        operators.attention(query, key, value, heads: 4, keyValueHeads: 2, into: expected)
        #expect(sizes.run(operators) == expected.elements)
    }

    /// One group of weight 1 is as if its keys were in the base.
    @Test(arguments: allLevels + fastBfloat16Levels, [false, true])
    func weightOneIsConcatenation(level: String, isNarrow: Bool) throws {
        let operators = try operators(level, policy: isNarrow ? .bfloat16 : .float32)
        guard !isNarrow || operators.activations == .bfloat16 else { return }
        let sizes = GroupCase(groups: [GroupCase.Group(count: 33, weight: 1)])
        let (query, key, value) = inputs(sizes, operators)
        let expected = Tensor(guarded: query.shape, elementType: query.elementType)
        operators.attention(query, key, value, heads: 4, keyValueHeads: 2, into: expected)
        let found = run(sizes, operators).found
        expectClose(found, floats(expected), limit: isNarrow ? 0.006 : 1e-6)
    }

    /// A key that counts three times is three equal keys.
    @Test(arguments: allLevels + fastBfloat16Levels, [false, true])
    func keysMayCountSeveralTimes(level: String, isNarrow: Bool) throws {
        let operators = try operators(level, policy: isNarrow ? .bfloat16 : .float32)
        guard !isNarrow || operators.activations == .bfloat16 else { return }
        var random = Random(8)
        var (query, key) = (random.tensor(50, 32), random.tensor(130, 32))
        let repeated = Tensor(guarded: [390, 32])
        for row in 0..<390 { repeated.row(row).copy(from: key.row(row / 3)) }
        var all = repeated
        if isNarrow {
            query = narrowed(query, operators)
            key = narrowed(key, operators)
            all = narrowed(repeated, operators)
        }
        let logs = Tensor(guarded: [Float](repeating: log(3), count: 130), 130)
        func attend(_ key: Tensor, _ logs: Tensor?) -> (output: Tensor, sums: Tensor) {
            let output = Tensor(guarded: query.shape, elementType: query.elementType)
            let sums = Tensor(guarded: [2, 50])
            operators.attention(
                query,
                key,
                key,
                heads: 2,
                keyValueHeads: 2,
                keyLogs: logs,
                into: output,
                logSums: sums
            )
            return (output, sums)
        }
        let (found, expected) = (attend(key, logs), attend(all, nil))
        let limit = isNarrow ? 0.006 : 1e-6
        expectClose(floats(found.output), floats(expected.output), limit: limit)
        expectClose(found.sums.elements, expected.sums.elements, limit: 1e-5)
    }

    // MARK: Properties

    private func group(_ weight: Float, count: Int = 20, family: Int = 0) -> GroupCase.Group {
        GroupCase.Group(count: count, weight: weight, logMass: 1.2, family: family)
    }

    /// What groups of these weights change, in the rows that see all of them.
    private func steps(
        _ weights: [Float],
        _ operators: Operators,
        rule: AttentionFamily.Rule = .displacement
    ) -> [Float] {
        func run(_ weights: [Float]) -> ArraySlice<Float> {
            var sizes = GroupCase(groups: weights.map { group($0) })
            sizes.rule = rule
            return sizes.run(operators).prefix(sizes.queries * 64)
        }
        return zip(run(weights), run(weights.map { _ in 0 })).map { $0 - $1 }
    }

    private func scaled(_ x: [Float], _ factor: Float) -> [Float] { x.map { factor * $0 } }

    /// Differences of results; observed at most 1.9e-7.
    private static let stepLimit = 7e-7

    @Test(arguments: allLevels)
    func effectsAreLinearAndAddUpToOne(level: String) throws {
        let operators = try operators(level)
        let (first, second) = (steps([1, 0], operators), steps([0, 1], operators))
        for (a, b) in [(Float(0.25), Float(0.5)), (-0.3, 0.7), (-0.5, -0.5), (0, 1)] {
            let sum = zip(scaled(first, a), scaled(second, b)).map { $0 + $1 }
            expectClose(steps([a, b], operators), sum, limit: Self.stepLimit, "\(a) and \(b)")
        }
    }

    @Test(arguments: allLevels)
    func effectsAreOddAndGrow(level: String) throws {
        let operators = try operators(level)
        var length = 0.0
        for weight in [Float(0.1), 0.5, 1, 1.5, 2, 5, 100] {
            let step = steps([weight], operators)
            let opposite = steps([-weight], operators)
            expectClose(opposite, scaled(step, -1), limit: Self.stepLimit, "\(weight)")
            let next = step.reduce(0.0) { $0 + Double($1 * $1) }
            #expect(next > length, "\(weight)")
            length = next
        }
    }

    @Test(arguments: allLevels)
    func beyondOneTheMassIsMultiplied(level: String) throws {
        let operators = try operators(level)
        for weight in [Float(1.01), 1.5, 2, 10] {
            let (found, expected) = (
                steps([weight], operators), steps([weight], operators, rule: .mass)
            )
            expectClose(found, expected, limit: Self.stepLimit, "\(weight)")
        }
    }

    /// The limit acts only where strengths add up to more than 1.
    @Test func sharesStayBelowTheLimitUpToOne() {
        var random = Random(6)
        for _ in 0..<3000 {
            let raw = (0..<4).map { _ in Double(abs(random.next())) }
            let odds = (0..<4).map { _ in exp(6 * Double(random.next())) }
            let total = raw.reduce(1e-9, +)
            let share = zip(raw, odds).reduce(0.0) { $0 + $1.0 / total * $1.1 / (1 + $1.1) }
            let sum = zip(raw, odds).reduce(0.0) { $0 + $1.0 / total * $1.1 }
            #expect(share <= sum / (1 + sum) * (1 + 1e-12))
        }
    }

    @Test(arguments: allLevels)
    func familiesDoNotLimitEachOther(level: String) throws {
        let operators = try operators(level)
        func run(_ weights: (Float, Float)) -> [Float] {
            let groups = [group(weights.0), group(weights.1, family: 1)]
            return GroupCase(groups: groups).run(operators)
        }
        let alone = run((0, 0))
        let sum = zip(alone, zip(run((2, 0)), run((0, -2)))).map { $1.0 + $1.1 - $0 }
        expectClose(run((2, -2)), sum, limit: 1e-6)
    }

    /// The published rule for multiplying the softmax masses of references.
    @Test(arguments: allLevels)
    func massesMultiplyBeforeNormalising(level: String) throws {
        let operators = try operators(level)
        var sizes = GroupCase(groups: [group(3), group(0.25, count: 7)])
        sizes.rule = .mass
        let (query, key, value) = sizes.inputs()
        let found = sizes.run(operators).prefix(sizes.queries * 64)
        func attend(_ keys: Range<Int>) -> (output: [Float], logs: [Float]) {
            let (output, logs) = (Tensor(guarded: query.shape), Tensor(guarded: [4, query.rows]))
            operators.attention(
                query,
                key.rows(keys),
                value.rows(keys),
                heads: 4,
                keyValueHeads: 2,
                into: output,
                logSums: logs
            )
            return (output.elements, logs.elements)
        }
        let parts = ([0..<sizes.keys] + sizes.places).map(attend)
        let expected = (0..<sizes.queries * 64).map { index in
            let (row, head) = (index / 64, index % 64 / 16)
            let masses = parts.indices.map { part in
                let mass = part > 0 ? Double(sizes.groups[part - 1].logMass) : 0
                return exp(Double(parts[part].logs[head * query.rows + row]) + mass)
            }
            let total = masses.reduce(0, +)
            let whole = zip(masses, parts).reduce(0.0) { $0 + $1.0 * Double($1.1.output[index]) }
            var (numerator, denominator) = (whole / total, 1.0)
            for (group, place) in zip(sizes.groups, 1...) {
                let surplus = (Double(group.weight) - 1) * masses[place] / total
                numerator += surplus * Double(parts[place].output[index])
                denominator += surplus
            }
            return Float(numerator / denominator)
        }
        expectClose(Array(found), expected, limit: 1e-6)
    }

    // MARK: Memory and threads

    @Test(arguments: allLevels + fastBfloat16Levels, [false, true])
    func threadsAndPlaceChangeNothing(level: String, isNarrow: Bool) throws {
        let policy: ArithmeticPolicy = isNarrow ? .bfloat16 : .float32
        let one = try operators(level, policy: policy)
        guard !isNarrow || one.activations == .bfloat16 else { return }
        let sizes = GroupCase.random(3)
        let expected = run(sizes, one).found
        for threads in [2, 3] {
            let found = run(sizes, try operators(level, threads: threads, policy: policy)).found
            #expect(found == expected, "\(threads) threads")
        }
        let (query, key, value) = inputs(sizes, one)
        sizes.run(one, query, key, value, into: query)
        #expect(floats(query) == expected)
    }

    @Test(arguments: allLevels)
    func nanReachesThoseWhoSeeIt(level: String) throws {
        let operators = try operators(level)
        let sizes = GroupCase(groups: [group(1), group(-0.5)])
        let (query, key, value) = sizes.inputs()
        // A key of the first group, of the first key head.
        key.floats[(sizes.keys + 3) * 32 + 5] = .nan
        let output = Tensor(guarded: query.shape)
        sizes.run(operators, query, key, value, into: output)
        let blind = sizes.groupQueries[1]
        let expected = (0..<query.count).map { !blind.contains($0 / 64) && $0 % 64 < 32 }
        #expect(output.elements.map(\.isNaN) == expected)
    }
}
