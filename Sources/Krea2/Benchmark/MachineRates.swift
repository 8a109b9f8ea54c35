import Checkpoints
import Compute
import Tensors

/// Measures how much of each kind of work this machine does in a second.
///
/// Each measurement takes about a twentieth of a second, as long as the kernels are not very slow.
final class MachineRates {
    private let kernels: Kernels
    private let threads: Int
    private let operators: Operators
    private let values = RandomValues()

    /// Time that one measurement takes, about.
    private static let duration = Duration.milliseconds(60)
    /// Time that one round of it takes, about.
    private static let roundDuration = Duration.milliseconds(15)
    private static let leastRounds = 3

    /// Prepares scratch memory.
    ///
    /// - Parameters:
    ///   - kernels: What is measured.
    ///   - threads: Threads to compute with, 1 or more.
    init(kernels: Kernels, threads: Int) {
        self.kernels = kernels
        self.threads = threads
        operators = Operators(
            kernels: kernels,
            threads: threads,
            packedBytes: Operators.packedByteCount(keys: Self.keys, headSize: Self.headSize)
        )
    }

    /// The arithmetics that kernels have for a kind of work.
    static func precisions(_ kind: ComputeWork.Kind, _ kernels: Kernels) -> [Precision] {
        let all: [Precision] =
            kind == .linear ? [.float32, .bfloat16, .int8] : [.float32, .bfloat16]
        return all.filter { kernels.supports($0.arithmetic) }
    }

    /// Multiplications and additions a second.
    func speed(_ kind: ComputeWork.Kind, _ precision: Precision) -> Double {
        let operators = Operators(sharing: operators, policy: precision.policy)
        switch kind {
        case .linear: return linear(operators, precision)
        case .attention: return attention(operators)
        case .convolution: return convolution(operators)
        }
    }

    /// The peak of an arithmetic: multiplications and additions a second in registers alone.
    func peak(_ precision: Precision) -> Double {
        let least = 8000
        return rate(from: least, to: least << 20) { rounds in
            operators.saturate(precision.arithmetic, rounds: rounds)
        }
    }

    /// Bytes that all threads together read from memory in a second.
    func memory() -> Double {
        // Larger than caches, and written before, since untouched pages are all the same one.
        let buffer = values.tensor([64 << 20])
        return rate(from: buffer.rows / 16, to: buffer.rows) { count in
            operators.isFinite(buffer.rows(0..<count)) ? Double(4 * count) : 0
        }
    }

    // MARK: Kinds of work

    private func linear(_ operators: Operators, _ precision: Precision) -> Double {
        // Wide enough for a tile each, should there be many threads.
        let (k, columns, most) = (2048, 1536 * min(8, max(1, threads / 8)), 960)
        let stored = values.matrix(columns, k, .bfloat16)
        let weight = precision == .int8 ? values.quantized(stored, operators) : stored
        let x = values.tensor([most, k]).stored(as: operators.activations, operators)
        let y = Tensor.empty([most, columns], operators.activations)
        return rate(from: 12, to: most) { rows in
            operators.linear(x.rows(0..<rows), weight, into: y.rows(0..<rows))
            return 2 * Double(rows * k * columns)
        }
    }

    private static let (keys, headSize) = (2048, 128)

    private func attention(_ operators: Operators) -> Double {
        let (heads, keyHeads, type) = (8, 2, operators.activations)
        let query = values.tensor([Self.keys, heads * Self.headSize]).stored(as: type, operators)
        let key = values.tensor([Self.keys, keyHeads * Self.headSize]).stored(as: type, operators)
        let output = Tensor.empty(query.shape, type)
        return rate(from: 8, to: Self.keys) { rows in
            operators.attention(
                query.rows(0..<rows),
                key,
                key,
                heads: heads,
                keyValueHeads: keyHeads,
                into: output.rows(0..<rows)
            )
            return 4 * Double(rows * Self.keys * heads * Self.headSize)
        }
    }

    private func convolution(_ operators: Operators) -> Double {
        let (channels, width, most) = (96, 128, 64)
        let weights = ConvolutionWeights(
            values.tensor([channels, 3, 3, channels], deviation: 0.03),
            bias: Tensor(zeros: [channels]),
            for: operators
        )
        let image = values.tensor([most + 2, width, channels])
            .stored(as: weights.inputType, operators)
        let output = Tensor.empty([most, width, channels], .float32)
        return rate(from: 1, to: most) { rows in
            operators.convolution(
                ImageRows(image, firstRow: 0, imageHeight: image.rows),
                weights,
                rows: 1..<rows + 1,
                into: output.rows(0..<rows)
            )
            return 2 * 9 * Double(channels * channels * width * rows)
        }
    }
}

// MARK: Rates

extension MachineRates {
    /// The median rate of some rounds.
    ///
    /// - Parameters:
    ///   - least: The smallest amount; the first round, for warming up, tells how much is right.
    ///   - most: The largest amount.
    ///   - body: Does an amount and returns how much work that was.
    /// - Returns: Work a second, above 0.
    private func rate(from least: Int, to most: Int, _ body: (Int) -> Double) -> Double {
        func measured(_ amount: Int) -> (work: Double, seconds: Double) {
            let start = ContinuousClock.now
            let work = body(amount)
            return (work, max((ContinuousClock.now - start) / .seconds(1), 1e-9))
        }
        _ = measured(least)
        let first = measured(least)
        // Where the smallest amount takes longer than all should, it has to do.
        guard first.seconds < Self.duration / .seconds(1) else { return first.work / first.seconds }
        let fitting = Double(least) * (Self.roundDuration / .seconds(1)) / first.seconds
        let amount = Int(min(max(fitting, Double(least)), Double(most)))

        let start = ContinuousClock.now
        var rates: [Double] = []
        while rates.count < Self.leastRounds || ContinuousClock.now - start < Self.duration {
            let round = measured(amount)
            rates.append(round.work / round.seconds)
        }
        return rates.sorted()[rates.count / 2]
    }
}

extension Precision {
    /// The arithmetic; that of automatic is float32.
    var arithmetic: Arithmetic {
        switch self {
        case .float32, .automatic: .float32
        case .bfloat16: .bfloat16
        case .int8: .int8
        }
    }

    /// All layers in this arithmetic.
    var policy: ArithmeticPolicy {
        switch self {
        case .float32, .automatic: .float32
        case .bfloat16: .bfloat16
        case .int8: .int8
        }
    }
}

extension Tensor {
    /// A new tensor with zeros for elements.
    static func empty(_ shape: [Int], _ type: ElementType) -> Tensor {
        Tensor(
            Storage(byteCount: shape.reduce(type.byteCount, *)),
            byteOffset: 0,
            shape: shape,
            elementType: type
        )
    }

    /// The same elements as activations are stored between layers: float32 or bfloat16.
    func stored(as type: ElementType, _ operators: Operators) -> Tensor {
        guard type == .bfloat16 else { return self }
        let copy = Tensor.empty(shape, type)
        operators.narrow(self, into: copy)
        return copy
    }
}
