@testable import Compute
import Tensors
import Testing

/// Every operator gives the same bits on every number of threads.
struct ThreadTests {
    /// Runs `body` on 1, 2, 3 and 7 threads and compares the tensors it returns.
    private func compare(_ level: String, _ body: (Operators) -> Tensor) throws {
        let expected = body(try operators(level))
        for threads in [2, 3, 7] {
            let result = body(try operators(level, threads: threads))
            expectIdentical(result, expected, "\(threads) threads")
        }
    }

    @Test(arguments: allLevels)
    func linear(level: String) throws {
        // Many columns; few columns, where rows are split too; and a tall, thin one.
        for (rows, columns, k) in [(45, 1200, 70), (900, 33, 300), (700, 1, 9)] {
            var sizes = LinearCase(rows: rows, columns: columns, k: k, type: .bfloat16)
            sizes.hasBias = true
            try compare(level) { sizes.run($0) }
            sizes.adding = true
            try compare(level) { sizes.run($0) }
        }
    }

    @Test(arguments: allLevels)
    func attention(level: String) throws {
        var sizes = AttentionCase(headSize: 16, queries: 130, keys: 150)
        try compare(level) { sizes.run($0) }
        sizes.firstPosition = 20
        try compare(level) { sizes.run($0) }
        try compare(level) {
            let (query, key, value) = sizes.inputs()
            sizes.run($0, query, key, value, into: query)
            return query
        }
    }

    @Test(arguments: allLevels)
    func convolution(level: String) throws {
        for upsampling in [1, 2] {
            var sizes = ConvolutionCase(inputs: 5, outputs: 33, width: 31, height: 30)
            sizes.upsampling = upsampling
            try compare(level) { sizes.run($0) }
        }
    }

    @Test(arguments: allLevels)
    func norms(level: String) throws {
        var random = Random(1)
        let (x, weight) = (random.tensor(1100, 48), random.tensor(48))
        let (cosine, sine) = (random.tensor(1100, 8), random.tensor(1100, 8))
        let rotary = RotaryTable(cosine: cosine, sine: sine, pairsAreAdjacent: true)
        let y = Tensor(guarded: x.shape)
        try compare(level) {
            let norm = RowNorm(
                weight: weight,
                stored: .minusOne,
                epsilon: 1e-6,
                scale: weight,
                shift: weight
            )
            $0.rmsNorm(x, norm, into: y)
            return y
        }
        try compare(level) {
            $0.channelNorm(x, gamma: weight, silu: true, into: y)
            return y
        }
        try compare(level) {
            let y = x.guardedCopy()
            let headWeight = weight.rows(0..<16)
            let norm = HeadNorm(
                weight: headWeight,
                stored: .plain,
                epsilon: 1e-6,
                rotary: rotary
            )
            $0.headNorm(y, norm)
            return y
        }
        try compare(level) {
            let y = x.guardedCopy()
            $0.gatedAdd(y, x, gate: weight)
            return y
        }
    }

    @Test(arguments: allLevels)
    func activations(level: String) throws {
        var random = Random(2)
        let x = random.tensor(70_001)
        try compare(level) {
            let y = x.guardedCopy()
            $0.geluTanh(y)
            return y
        }
    }

    @Test(arguments: [0, 1, 2, 1000], [1, 2, 7])
    func parallelCallsEachIndexOnce(count: Int, threads: Int) {
        let calls = Tensor(zeros: [max(1, count)])
        let workers = Tensor(zeros: [max(1, count)])
        parallel(count, threads: threads) { index, worker in
            calls.floats[index] += 1
            workers.floats[index] = Float(worker)
        }
        #expect(calls.elements == [Float](repeating: count == 0 ? 0 : 1, count: max(1, count)))
        #expect(workers.elements.allSatisfy { $0 < Float(threads) })
    }
}
