import Foundation
import Tensors

@testable import Compute

/// Attention of a base and some groups of keys with weights, all of them random.
struct GroupCase {
    /// One group.
    struct Group {
        var count: Int
        var weight: Float
        var logMass: Float = 0
        /// How often each key counts; nil for once.
        var counts: [Float]?
        /// Which family it belongs to.
        var family = 0
    }

    var headSize = 16
    /// Queries that see all groups.
    var queries = 30
    /// Keys of the base.
    var keys = 140
    var groups: [Group]
    var heads = 4
    var keyValueHeads = 2
    /// Largest query element; scores grow with it.
    var range: Float = 1
    var rule = AttentionFamily.Rule.displacement
    var seed: UInt64 = 1
    /// How often each key of the base counts for queries that see all groups; nil for once.
    var keyCounts: [Float]?

    /// Up to ten groups in two families, weights from −2 to 2.
    static func random(_ seed: UInt64, range: Float = 1) -> GroupCase {
        var random = Random(seed)
        func pick<Value>(_ values: [Value]) -> Value {
            values[Int(abs(random.next()) * Float(values.count)) % values.count]
        }
        let groups = (0..<pick([1, 2, 3, 4, 10])).map { _ in
            let count = pick([1, 1, 2, 17, 64, 129])
            let counts = (0..<count).map { _ in exp(2 * random.next()) }
            return Group(
                count: count,
                weight: 2 * random.next(),
                logMass: pick([0, 3 * random.next()]),
                counts: pick([nil, counts]),
                family: pick([0, 0, 1])
            )
        }
        var sizes = GroupCase(
            headSize: pick([9, 16, 16, 40, 128]),
            queries: pick([1, 11, 24, 48, 49, 200]),
            keys: pick([1, 40, 128, 140]),
            groups: groups,
            heads: 2,
            keyValueHeads: 1,
            range: range,
            seed: seed
        )
        sizes.keyCounts = pick([nil, (0..<sizes.keys).map { _ in exp(2 * random.next()) }])
        return sizes
    }

    /// Rows of the keys of each group, after those of the base.
    var places: [Range<Int>] {
        groups.reduce(into: []) { places, group in
            let first = places.last?.upperBound ?? keys
            places.append(first..<first + group.count)
        }
    }

    /// Rows of each group as queries, after the others.
    var groupQueries: [Range<Int>] {
        places.map { $0.lowerBound - keys + queries..<$0.upperBound - keys + queries }
    }

    private var members: [AttentionGroup] {
        zip(groups, places).map { group, place in
            AttentionGroup(
                keys: place,
                weight: group.weight,
                logMass: group.logMass,
                keyLogs: group.keyLogs
            )
        }
    }

    var spans: [AttentionSpan] {
        let families = [0, 1].compactMap { family -> AttentionFamily? in
            let own = zip(groups, members).filter { $0.0.family == family }.map { $0.1 }
            return own.isEmpty ? nil : AttentionFamily(own, rule: rule)
        }
        let own = groups.indices.map { index in
            let keys = AttentionGroup(
                keys: places[index],
                weight: 1,
                keyLogs: groups[index].keyLogs
            )
            return AttentionSpan(groupQueries[index], families: [AttentionFamily([keys])])
        }
        let keyLogs = keyCounts.map { Tensor(guarded: $0.map { log($0) }, keys) }
        return [AttentionSpan(0..<queries, families: families, keyLogs: keyLogs)] + own
    }

    func inputs() -> (query: Tensor, key: Tensor, value: Tensor) {
        var random = Random(seed &+ 77)
        let rows = groups.reduce(0) { $0 + $1.count }
        return (
            random.tensor(queries + rows, heads * headSize, range: range),
            random.tensor(keys + rows, keyValueHeads * headSize),
            random.tensor(keys + rows, keyValueHeads * headSize)
        )
    }

    func run(
        _ operators: Operators,
        _ query: Tensor,
        _ key: Tensor,
        _ value: Tensor,
        into output: Tensor
    ) {
        operators.attention(
            query,
            key,
            value,
            heads: heads,
            keyValueHeads: keyValueHeads,
            base: 0..<keys,
            spans: spans,
            into: output
        )
    }

    /// The result in float32.
    func run(_ operators: Operators) -> [Float] {
        let (query, key, value) = inputs()
        let output = Tensor(guarded: query.shape)
        run(operators, query, key, value, into: output)
        return output.elements
    }

    // MARK: Formula

    /// What a softmax over some keys gives, with the logarithm of its sum of exponentials.
    private struct Part {
        var log: Double
        var values: [Double]
    }

    /// Some rows, of the queries that see all groups and of those of groups.
    var checkedRows: [Int] {
        let ranges = [0..<queries] + [groupQueries.first, groupQueries.last].compactMap(\.self)
        return Set(ranges.flatMap { [$0.lowerBound, $0.upperBound - 1] }).sorted()
    }

    /// Their elements, of all.
    func checked(_ elements: [Float]) -> [Float] {
        let width = heads * headSize
        return checkedRows.flatMap { elements[$0 * width..<($0 + 1) * width] }
    }

    /// The formula in float64, for some rows.
    func direct(_ query: Tensor, _ key: Tensor, _ value: Tensor) -> [Float] {
        let (q, k, v) = (query.exactElements, key.exactElements, value.exactElements)
        let width = keyValueHeads * headSize
        var output: [Float] = []
        for row in checkedRows {
            for head in 0..<heads {
                let own = (row * heads + head) * headSize
                let column = head * keyValueHeads / heads * headSize
                func part(_ keys: Range<Int>, _ logs: [Double]) -> Part {
                    let scores = zip(keys, logs).map { key, keyLog in
                        var score = 0.0
                        for d in 0..<headSize { score += q[own + d] * k[key * width + column + d] }
                        return score / Double(headSize).squareRoot() + keyLog
                    }
                    let largest = scores.max() ?? 0
                    let weights = scores.map { exp($0 - largest) }
                    let total = weights.reduce(0, +)
                    let values = (0..<headSize).map { d in
                        var sum = 0.0
                        for (key, weight) in zip(keys, weights) {
                            sum += weight * v[key * width + column + d]
                        }
                        return sum / total
                    }
                    return Part(log: largest + log(total), values: values)
                }
                let group = groupQueries.firstIndex { $0.contains(row) }
                let counts = group == nil ? keyCounts : nil
                let logs = counts.map { $0.map { Double(log($0)) } }
                let base = part(0..<keys, logs ?? [Double](repeating: 0, count: keys))
                let others = groups.indices.map { part(places[$0], groups[$0].logs) }
                let result =
                    group.map { Self.joined(base, others[$0]) } ?? combined(base, others)
                output += result.map { Float($0) }
            }
        }
        return output
    }

    /// A softmax over both.
    private static func joined(_ a: Part, _ b: Part) -> [Double] {
        let share = 1 / (1 + exp(a.log - b.log))
        return zip(a.values, b.values).map { $0 + share * ($1 - $0) }
    }

    private func combined(_ base: Part, _ others: [Part]) -> [Double] {
        var result = base.values
        for family in [0, 1] {
            let terms = zip(groups, others).filter { $0.0.family == family }.map { group, part in
                let odds = exp(part.log + Double(group.logMass) - base.log)
                return (weight: Double(group.weight), odds: odds, values: part.values)
            }
            guard !terms.isEmpty else { continue }
            let share = terms.reduce(0.0) { $0 + abs($1.weight) / (1 + 1 / $1.odds) }
            let odds = terms.reduce(0.0) { $0 + abs($1.weight) * $1.odds }
            let limit = 1 / (1 + 1 / odds)
            for term in terms {
                let amount =
                    rule == .mass
                    ? term.odds / (1 + odds) : min(1, limit / share) / (1 + 1 / term.odds)
                for d in result.indices {
                    result[d] += term.weight * amount * (term.values[d] - base.values[d])
                }
            }
        }
        return result
    }
}

extension GroupCase.Group {
    var keyLogs: Tensor? {
        counts.map { counts in Tensor(guarded: counts.map { log($0) }, counts.count) }
    }

    /// The same numbers that the kernels get.
    fileprivate var logs: [Double] {
        counts.map { $0.map { Double(log($0)) } } ?? [Double](repeating: 0, count: count)
    }
}
