import Compute
import Foundation
import TestSupport
import Tensors
import Testing

/// One attention of random queries, keys and values.
struct AttentionCase {
    var headSize: Int
    var queries: Int
    var keys: Int
    var heads = 4
    var keyValueHeads = 2
    /// Position of the first query if the mask is causal.
    var firstPosition: Int?
    /// Largest query element; scores grow with it.
    var range: Float = 1

    /// Every head size with counts around the query panels and the key blocks, masked or not.
    static let sweep: [AttentionCase] = {
        let counts = [
            (1, 1), (3, 127), (11, 128), (12, 129), (13, 300), (23, 40), (24, 128), (25, 257),
            (47, 129), (48, 64), (49, 130),
        ]
        return [9, 16, 48, 128, 130].flatMap { headSize in
            counts.flatMap { queries, keys in
                let plain = AttentionCase(headSize: headSize, queries: queries, keys: keys)
                var causal = plain
                causal.firstPosition = max(0, keys - queries)
                var early = plain
                early.firstPosition = 2
                return [plain, causal, early]
            }
        }
            + [(4, 4), (6, 2), (4, 1), (1, 1)].map { heads, keyValueHeads in
                AttentionCase(
                    headSize: 16,
                    queries: 30,
                    keys: 140,
                    heads: heads,
                    keyValueHeads: keyValueHeads
                )
            }
    }()

    var mask: AttentionMask { firstPosition.map { .causal(firstPosition: $0) } ?? .none }

    func inputs() -> (query: Tensor, key: Tensor, value: Tensor) {
        var random = Random(UInt64(headSize * 1_000_000 + queries * 1000 + keys))
        return (
            random.tensor(queries, heads * headSize, range: range),
            random.tensor(keys, keyValueHeads * headSize),
            random.tensor(keys, keyValueHeads * headSize)
        )
    }

    func run(_ operators: Operators) -> Tensor {
        let (query, key, value) = inputs()
        let output = Tensor(guarded: query.shape)
        run(operators, query, key, value, into: output)
        return output
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
            mask: mask,
            into: output
        )
    }

    /// The formula in float64: softmax(q kᵀ / √headSize) v for every head.
    func direct() -> [Float] {
        let (query, key, value) = inputs()
        let (q, k, v) = (query.exactElements, key.exactElements, value.exactElements)
        var output = [Float](repeating: 0, count: query.count)
        for head in 0..<heads {
            let group = head * keyValueHeads / heads * headSize
            for i in 0..<queries {
                let own = i * query.rowCount + head * headSize
                let visible = firstPosition.map { min(keys, $0 + i + 1) } ?? keys
                let scores = (0..<visible).map { j in
                    var sum = 0.0
                    for d in 0..<headSize { sum += q[own + d] * k[j * key.rowCount + group + d] }
                    return sum / Double(headSize).squareRoot()
                }
                let largest = scores.max() ?? 0
                let weights = scores.map { exp($0 - largest) }
                let total = weights.reduce(0, +)
                for d in 0..<headSize {
                    var sum = 0.0
                    for j in 0..<visible { sum += weights[j] * v[j * key.rowCount + group + d] }
                    output[own + d] = Float(sum / total)
                }
            }
        }
        return output
    }
}

struct AttentionTests {
    /// Observed at most 4.2e-7, with 300 keys.
    static let scalarLimit = 1.6e-6
    /// Observed at most 3.7e-7.
    static let levelLimit = 1.4e-6
    /// Observed at most 7.9e-7: a score of 80 is rounded to 4e-6.
    static let extremeLimit = 3e-6

    @Test func scalarAgreesWithFormula() throws {
        let scalar = try operators("scalar")
        for sizes in AttentionCase.sweep where sizes.headSize < 20 && sizes.queries < 25 {
            let output = sizes.run(scalar).elements
            expectClose(output, sizes.direct(), limit: Self.scalarLimit, "\(sizes)")
        }
    }

    @Test(arguments: fastLevels)
    func agreesWithScalar(level: String) throws {
        let (scalar, fast) = (try operators("scalar"), try operators(level))
        for sizes in AttentionCase.sweep {
            let expected = sizes.run(scalar).elements
            expectClose(sizes.run(fast).elements, expected, limit: Self.levelLimit, "\(sizes)")
        }
    }

    @Test(arguments: allLevels)
    func acceptsTheQueriesAsOutput(level: String) throws {
        let operators = try operators(level)
        for sizes in AttentionCase.sweep where sizes.headSize != 128 {
            let (query, key, value) = sizes.inputs()
            sizes.run(operators, query, key, value, into: query)
            expectIdentical(query, sizes.run(operators), "\(sizes)")
        }
    }

    @Test(arguments: allLevels)
    func staysExactWithExtremeScores(level: String) throws {
        let operators = try operators(level)
        // Scores between about −80 and 80: most weights vanish, none overflows.
        for position in [nil, 130] {
            var sizes = AttentionCase(headSize: 16, queries: 25, keys: 200, range: 60)
            sizes.firstPosition = position
            let output = sizes.run(operators).elements
            expectClose(output, sizes.direct(), limit: Self.extremeLimit, "\(sizes)")
        }
    }

    @Test(arguments: allLevels, [Float(-80), 80, -1e6])
    func averagesEquallyLargeScores(level: String, score: Float) throws {
        let operators = try operators(level)
        var random = Random(5)
        let query = Tensor(guarded: [Float](repeating: score, count: 16), 1, 16)
        let key = Tensor(guarded: [Float](repeating: 0.25, count: 150 * 16), 150, 16)
        let value = random.tensor(150, 16)
        let output = Tensor(guarded: [1, 16])
        operators.attention(query, key, value, heads: 1, keyValueHeads: 1, into: output)
        let mean = (0..<16).map { d in
            Float((0..<150).reduce(0.0) { $0 + Double(value.floats[$1 * 16 + d]) } / 150)
        }
        expectClose(output.elements, mean, limit: Self.extremeLimit)
    }

    @Test(arguments: allLevels)
    func spreadsNaNFromQueriesKeysAndValues(level: String) throws {
        let operators = try operators(level)
        for masked in [false, true] {
            var sizes = AttentionCase(headSize: 9, queries: 50, keys: 140)
            sizes.firstPosition = masked ? 90 : nil
            for (row, element) in [(0, 0), (3, 8), (24, 4), (49, 8)] {
                // A query of head 1 spoils that head's output of its row.
                let (query, key, value) = sizes.inputs()
                query.floats[row * 36 + 9 + element] = .nan
                let output = Tensor(guarded: query.shape)
                sizes.run(operators, query, key, value, into: output)
                let spoiled = output.elements.map(\.isNaN)
                #expect(spoiled == (0..<1800).map { $0 / 36 == row && $0 % 36 / 9 == 1 })
            }
            for (row, element) in [(0, 0), (64, 4), (90, 1), (127, 8), (128, 0)] {
                // A key or value of group 1 spoils heads 2 and 3 of all rows that see it.
                let (query, key, value) = sizes.inputs()
                let output = Tensor(guarded: query.shape)
                let broken = key.guardedCopy()
                broken.floats[row * 18 + 9 + element] = .nan
                sizes.run(operators, query, broken, value, into: output)
                let blind = masked ? max(0, row - 90) * 36 : 0
                let fromKey = output.elements.map(\.isNaN)
                #expect(fromKey == (0..<1800).map { $0 >= blind && $0 % 36 >= 18 })

                value.floats[row * 18 + 9 + element] = .nan
                sizes.run(operators, query, key, value, into: output)
                let fromValue = output.elements.dropFirst(blind).map(\.isNaN)
                #expect(
                    fromValue == (blind..<1800).map { $0 % 36 >= 18 && $0 % 9 == element }
                )
            }
        }
    }
}
