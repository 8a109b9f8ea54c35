import Foundation
import TestSupport
import Tensors
import Testing

@testable import Compute

private let levels = ["scalar"] + fastBfloat16Levels

extension Tensor {
    /// A guarded copy in bfloat16.
    fileprivate func narrowed(_ operators: Operators) -> Tensor {
        let copy = Tensor(guarded: shape, elementType: .bfloat16)
        operators.narrow(self, into: copy)
        return copy
    }

    /// The elements in float32, whatever they are stored in.
    fileprivate var widened: Tensor { Tensor(guarded: exactElements.map { Float($0) }, count) }
}

/// Attention in bfloat16.
struct PairAttentionTests {
    /// Weights are rounded to 8 bits, and so is the result; observed at most 0.0031.
    static let limit = 0.006

    private func run(_ sizes: AttentionCase, _ operators: Operators) -> [Float] {
        let (query, key, value) = sizes.inputs()
        let output = Tensor(guarded: query.shape, elementType: .bfloat16)
        sizes.run(
            operators,
            query.narrowed(operators),
            key.narrowed(operators),
            value.narrowed(operators),
            into: output
        )
        return output.widened.elements
    }

    /// The same in float32, of the rounded inputs.
    private func exact(_ sizes: AttentionCase, _ operators: Operators) -> [Float] {
        let (query, key, value) = sizes.inputs()
        func rounded(_ x: Tensor) -> Tensor { x.narrowed(operators).widened.reshaped(x.shape) }
        let output = Tensor(guarded: query.shape)
        sizes.run(operators, rounded(query), rounded(key), rounded(value), into: output)
        return output.elements
    }

    @Test(arguments: levels)
    func agreesWithFloat32(level: String) throws {
        let operators = try operators(level, policy: .bfloat16)
        var cases = AttentionCase.sweep.filter { $0.headSize != 48 }
        // More queries than one task takes.
        cases.append(AttentionCase(headSize: 16, queries: 400, keys: 130))
        cases.append(AttentionCase(headSize: 16, queries: 400, keys: 400, firstPosition: 0))
        for sizes in cases where level != "scalar" || sizes.headSize < 20 {
            let found = run(sizes, operators)
            expectClose(found, exact(sizes, operators), limit: Self.limit, "\(sizes)")
        }
    }

    @Test(arguments: levels)
    func acceptsTheQueriesAsOutput(level: String) throws {
        let operators = try operators(level, policy: .bfloat16)
        let sizes = AttentionCase(headSize: 18, queries: 100, keys: 140)
        let (query, key, value) = sizes.inputs()
        let inPlace = query.narrowed(operators)
        let (keys, values) = (key.narrowed(operators), value.narrowed(operators))
        sizes.run(operators, inPlace, keys, values, into: inPlace)
        #expect(inPlace.widened.elements == run(sizes, operators))
    }

    @Test(arguments: levels)
    func extremeScoresVanishOrWin(level: String) throws {
        let operators = try operators(level, policy: .bfloat16)
        for position in [nil, 130] {
            var sizes = AttentionCase(headSize: 16, queries: 25, keys: 200, range: 60)
            sizes.firstPosition = position
            expectClose(run(sizes, operators), exact(sizes, operators), limit: Self.limit)
        }
        for score in [Float(-80), 80, -1e6] {
            let query = Tensor(guarded: [Float](repeating: score, count: 16), 1, 16)
            let key = Tensor(guarded: [Float](repeating: 0.25, count: 150 * 16), 150, 16)
            let output = Tensor(guarded: [1, 16], elementType: .bfloat16)
            let keys = key.narrowed(operators)
            operators.attention(
                query.narrowed(operators),
                keys,
                keys,
                heads: 1,
                keyValueHeads: 1,
                into: output
            )
            #expect(output.exactElements.allSatisfy { $0 == 0.25 })
        }
    }

    @Test(arguments: levels)
    func spreadsNaN(level: String) throws {
        let operators = try operators(level, policy: .bfloat16)
        let sizes = AttentionCase(headSize: 9, queries: 50, keys: 140)
        for (row, element) in [(0, 0), (24, 4), (49, 8)] {
            let (query, key, value) = sizes.inputs()
            query.floats[row * 36 + 9 + element] = .nan
            let output = Tensor(guarded: query.shape, elementType: .bfloat16)
            let (keys, values) = (key.narrowed(operators), value.narrowed(operators))
            sizes.run(operators, query.narrowed(operators), keys, values, into: output)
            let spoiled = output.exactElements.map(\.isNaN)
            #expect(spoiled == (0..<1800).map { $0 / 36 == row && $0 % 36 / 9 == 1 })
        }
        for (row, element) in [(0, 0), (127, 8), (139, 0)] {
            let (query, key, value) = sizes.inputs()
            key.floats[row * 18 + 9 + element] = .nan
            let output = Tensor(guarded: query.shape, elementType: .bfloat16)
            let (queries, values) = (query.narrowed(operators), value.narrowed(operators))
            sizes.run(operators, queries, key.narrowed(operators), values, into: output)
            let spoiled = output.exactElements.map(\.isNaN)
            #expect(spoiled == (0..<1800).map { $0 % 36 >= 18 })
        }
    }

    /// Heads one by one, as when not all fit into the memory for packed keys.
    @Test(arguments: levels)
    func manyKeysAreTakenHeadByHead(level: String) throws {
        let all = try operators(level, policy: .bfloat16)
        let sizes = AttentionCase(headSize: 128, queries: 3, keys: 100_000)
        let found = run(sizes, all)
        expectClose(found, exact(sizes, all), limit: 0.02)
    }

    @Test(arguments: ["scalar", "generic", "avx2", "avx512", "avx512bf16"], [false, true])
    func logarithmsOfSumsAreRight(level: String, isNarrow: Bool) throws {
        let operators = try operators(level, policy: isNarrow ? .bfloat16 : .float32)
        guard !isNarrow || operators.activations == .bfloat16 else { return }
        for sizes in [
            AttentionCase(headSize: 16, queries: 400, keys: 130, range: 5),
            AttentionCase(headSize: 9, queries: 50, keys: 300, firstPosition: 7),
        ] {
            var (query, key, value) = sizes.inputs()
            if isNarrow {
                query = query.narrowed(operators)
                key = key.narrowed(operators)
                value = value.narrowed(operators)
            }
            let sums = Tensor(guarded: [sizes.heads, sizes.queries])
            let output = Tensor(guarded: query.shape, elementType: query.elementType)
            operators.attention(
                query,
                key,
                value,
                heads: sizes.heads,
                keyValueHeads: sizes.keyValueHeads,
                mask: sizes.mask,
                into: output,
                logSums: sums
            )
            let (q, k) = (query.exactElements, key.exactElements)
            let width = sizes.headSize
            for head in 0..<sizes.heads {
                for row in stride(from: 0, to: sizes.queries, by: 7) {
                    let visible = sizes.firstPosition.map { min(sizes.keys, $0 + row + 1) }
                    let own = row * query.rowCount + head * width
                    let group = head * sizes.keyValueHeads / sizes.heads * width
                    let total = (0..<(visible ?? sizes.keys)).reduce(0.0) { total, j in
                        let score = (0..<width).reduce(0.0) {
                            $0 + q[own + $1] * k[j * key.rowCount + group + $1]
                        }
                        return total + exp(score / Double(width).squareRoot())
                    }
                    let found = Double(sums.floats[head * sizes.queries + row])
                    #expect(abs(found - log(total)) < 2e-5, "head \(head), row \(row)")
                }
            }
        }
    }
}

/// Convolutions in bfloat16.
struct PairConvolutionTests {
    /// Sums in another order, of products that are exact; observed at most 2.2e-7.
    static let limit = 1e-6

    /// The case in bfloat16, and in float32 on the rounded image and kernel.
    private func run(
        _ sizes: ConvolutionCase,
        _ operators: Operators,
        _ result: ConvolutionResult
    ) -> (found: Tensor, exact: Tensor) {
        let arrays = sizes.arrays()
        let exact = Operators(sharing: operators, policy: .float32)
        func convolve(_ operators: Operators, _ image: Tensor, _ kernel: Tensor) -> Tensor {
            let output = arrays.output.guardedCopy()
            operators.convolution(
                ImageRows(image, firstRow: 0, imageHeight: sizes.height),
                ConvolutionWeights(kernel, bias: arrays.bias, for: operators),
                upsampling: sizes.upsampling,
                stride: sizes.stride,
                rows: 0..<sizes.outputShape[0],
                into: output,
                result
            )
            return output
        }
        let image = arrays.image.narrowed(operators)
        let kernel = arrays.kernel.narrowed(operators).widened.reshaped(arrays.kernel.shape)
        return (
            convolve(operators, image, kernel),
            convolve(exact, image.widened.reshaped(image.shape), kernel)
        )
    }

    @Test(arguments: levels)
    func agreesWithFloat32(level: String) throws {
        let operators = try operators(level, policy: .bfloat16)
        for sizes in ConvolutionCase.sweep where sizes.inputs % 2 == 0 {
            let (found, exact) = run(sizes, operators, sizes.adding ? .sum : .pixels)
            expectClose(found.elements, exact.elements, limit: Self.limit, "\(sizes)")
        }
        for outputs in [48, 49, 100] {
            let sizes = ConvolutionCase(inputs: 10, outputs: outputs, width: 30, height: 20)
            let (found, exact) = run(sizes, operators, .pixels)
            expectClose(found.elements, exact.elements, limit: Self.limit, "\(sizes)")
        }
    }

    @Test(arguments: levels + ["avx2", "avx512"])
    func normsOnTheWay(level: String) throws {
        for policy in [ArithmeticPolicy.float32, .bfloat16] {
            let operators = try operators(level, policy: policy)
            let sizes = ConvolutionCase(inputs: 6, outputs: 33, width: 31, height: 9)
            let arrays = sizes.arrays()
            let weights = ConvolutionWeights(arrays.kernel, bias: arrays.bias, for: operators)
            let isNarrow = weights.inputType == .bfloat16
            let image = isNarrow ? arrays.image.narrowed(operators) : arrays.image
            var random = Random(3)
            let gamma = random.tensor(33)
            func convolve(_ result: ConvolutionResult, into output: Tensor) -> Tensor {
                operators.convolution(
                    ImageRows(image, firstRow: 0, imageHeight: 9),
                    weights,
                    rows: 0..<9,
                    into: output,
                    result
                )
                return output
            }
            let plain = convolve(.pixels, into: Tensor(guarded: arrays.output.shape))
            let expected = Tensor(
                guarded: plain.shape,
                elementType: isNarrow ? .bfloat16 : .float32
            )
            operators.channelNorm(plain, gamma: gamma, silu: true, into: expected)
            let normed = Tensor(guarded: plain.shape, elementType: expected.elementType)
            _ = convolve(.normed(gamma: gamma), into: normed)
            #expect(normed.exactElements == expected.exactElements)
        }
    }

    @Test func oddChannelsAreReadInFloat32() throws {
        let operators = try operators("scalar", policy: .bfloat16)
        #expect(operators.pixelType(channels: 4) == .bfloat16)
        #expect(operators.pixelType(channels: 3) == .float32)
        #expect(try self.operators("avx2").pixelType(channels: 4) == .float32)
    }

    private func operators(
        _ level: String,
        policy: ArithmeticPolicy = .bfloat16
    ) throws -> Operators {
        try ComputeTests.operators(level, policy: policy)
    }
}
