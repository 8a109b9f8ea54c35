import Compute
import Tensors

/// The longest row that the operators multiply.
let longestLinearRow = Operators.longestRow

extension BenchmarkSet {
    /// Products with random matrices, a set for each matrix.
    ///
    /// - Parameter scope: Matrices, their storage, rows, arithmetics and threads.
    /// - Returns: The sets.
    /// - Throws: `.request` when the environment names unknown kernels.
    public static func gemm(_ scope: BenchmarkScope) throws(GenerationError) -> [BenchmarkSet] {
        let trials = OperatorTrials(scope, kernels: try Engine.kernels())
        return scope.matrices.map { matrix in
            let title = "\(matrix.name), \(matrix.inputs) to \(matrix.outputs)"
            return BenchmarkSet(.gemm, title) { () throws(GenerationError) in trials.gemm(matrix) }
        }
    }

    /// Attention of a released transformer: 48 heads on 12, 128 elements each.
    ///
    /// - Parameter scope: Sizes, text tokens, arithmetics and threads.
    /// - Returns: One set.
    /// - Throws: `.request` when the environment names unknown kernels.
    public static func attention(_ scope: BenchmarkScope) throws(GenerationError) -> [BenchmarkSet]
    {
        let trials = OperatorTrials(scope, kernels: try Engine.kernels())
        return [
            BenchmarkSet(.attention, "random heads") { () throws(GenerationError) in
                trials.attention()
            }
        ]
    }
}

/// Makes cases of single operators on random tensors.
private struct OperatorTrials {
    let scope: BenchmarkScope
    let kernels: Kernels
    let values = RandomValues()

    init(_ scope: BenchmarkScope, kernels: Kernels) {
        self.scope = scope
        self.kernels = kernels
    }

    /// The wanted arithmetics, or what the engine takes where the kernels lack one, each once.
    private func precisions(_ kind: ComputeWork.Kind) -> [Precision] {
        let all = MachineRates.precisions(kind, kernels)
        guard !scope.precisions.isEmpty else { return all }
        let found = scope.precisions.map { precision in
            // Released files have bfloat16.
            let wish = precision == .automatic ? .bfloat16 : precision.policy
            let policy = wish.supported(by: kernels)
            if kind == .linear { return Precision(policy.floats) }
            return policy.activations(on: kernels) == .bfloat16 ? .bfloat16 : .float32
        }
        return all.filter(found.contains)
    }

    // MARK: Products

    func gemm(_ matrix: BenchmarkMatrix) -> [BenchmarkCase] {
        let (most, precisions) = (scope.rows.max() ?? 1, precisions(.linear))
        let x = values.tensor([most, matrix.inputs])
        return scope.weights.flatMap { storage in
            let stored = values.matrix(matrix.outputs, matrix.inputs, storage.elementType)
            return precisions.flatMap { precision in
                gemm(matrix, x, stored, storage, precision)
            }
        }
    }

    /// The cases of one weight in one arithmetic.
    private func gemm(
        _ matrix: BenchmarkMatrix,
        _ x: Tensor,
        _ stored: WeightMatrix,
        _ storage: BenchmarkWeights,
        _ precision: Precision
    ) -> [BenchmarkCase] {
        let all = scope.threads.map {
            Operators(kernels: kernels, threads: $0, policy: precision.policy)
        }
        guard let first = all.first else { return [] }
        // As between the layers of a network.
        let input = x.stored(as: first.activations, first)
        let output = Tensor.empty([x.rows, matrix.outputs], first.activations)
        let isQuantized = precision == .int8
        let weight = isQuantized ? values.quantized(stored, first) : stored
        return scope.threads.indices.flatMap { index in
            scope.rows.map { rows in
                BenchmarkCase(
                    .gemm,
                    matrix.name,
                    shape: "\(rows)x\(matrix.inputs)x\(matrix.outputs)",
                    weights: weight.elements.elementType.rawValue,
                    precision: precision,
                    threads: scope.threads[index],
                    work: ComputeWork(
                        .linear,
                        precision,
                        2 * Double(rows) * Double(matrix.inputs * matrix.outputs)
                    ),
                    weightBytes: weight.elements.byteCount
                ) { () throws(GenerationError) in
                    try BenchmarkSample.measure { () throws(GenerationError) in
                        all[index].linear(input.rows(0..<rows), weight, into: output.rows(0..<rows))
                    }
                }
            }
        }
    }

    // MARK: Attention

    private static let (heads, keyValueHeads, headSize) = (48, 12, 128)

    func attention() -> [BenchmarkCase] {
        scope.sizes.flatMap { size in
            scope.tokens.flatMap { tokens in
                precisions(.attention).flatMap { attention(size, textTokens: tokens, $0) }
            }
        }
    }

    private func attention(
        _ size: BenchmarkPicture,
        textTokens: Int,
        _ precision: Precision
    ) -> [BenchmarkCase] {
        let rows = size.tokens + textTokens
        let all = scope.threads.map {
            Operators(
                kernels: kernels,
                threads: $0,
                policy: precision.policy,
                packedBytes: Operators.packedByteCount(keys: rows, headSize: Self.headSize)
            )
        }
        guard let first = all.first else { return [] }
        let width = Self.heads * Self.headSize
        let query = values.tensor([rows, width]).stored(as: first.activations, first)
        let key = values.tensor([rows, Self.keyValueHeads * Self.headSize])
            .stored(as: first.activations, first)
        let output = Tensor.empty(query.shape, first.activations)
        return scope.threads.indices.map { index in
            BenchmarkCase(
                .attention,
                "\(Self.heads) heads on \(Self.keyValueHeads), \(Self.headSize) elements",
                shape: "\(size.text), \(rows) tokens",
                precision: precision,
                threads: scope.threads[index],
                work: ComputeWork(
                    .attention,
                    precision,
                    4 * Double(rows) * Double(rows) * Double(width)
                )
            ) { () throws(GenerationError) in
                try BenchmarkSample.measure { () throws(GenerationError) in
                    all[index].attention(
                        query,
                        key,
                        key,
                        heads: Self.heads,
                        keyValueHeads: Self.keyValueHeads,
                        into: output
                    )
                }
            }
        }
    }
}

extension Precision {
    /// The precision that an arithmetic is called by.
    init(_ arithmetic: Arithmetic) {
        switch arithmetic {
        case .float32: self = .float32
        case .bfloat16: self = .bfloat16
        case .int8: self = .int8
        }
    }
}
