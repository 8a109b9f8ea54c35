import Compute

/// Times cases in turn.
public struct Benchmark {
    /// How often each case is repeated.
    public let repetitions: Int
    private let kernels: Kernels
    private let isCancelled: @Sendable () -> Bool

    /// Prepares a run.
    ///
    /// - Parameters:
    ///   - repetitions: How often each case is repeated, 1 or more.
    ///   - isCancelled: Asked after each repetition.
    /// - Throws: `.request` when the environment names unknown kernels.
    public init(
        repetitions: Int,
        isCancelled: @escaping @Sendable () -> Bool = { false }
    ) throws(GenerationError) {
        precondition(repetitions > 0)
        self.repetitions = repetitions
        self.isCancelled = isCancelled
        kernels = try Engine.kernels()
    }

    /// Times the cases of a set.
    ///
    /// Round after round, each case is repeated once, so that whatever else the machine does
    /// disturbs all alike. The peaks they are compared with are measured in each round, too.
    ///
    /// - Parameters:
    ///   - set: The cases.
    ///   - progress: Told what comes next: the round, from 1, and the case; round 0 warms up.
    /// - Returns: The results, in the order of the cases.
    /// - Throws: `.cancelled`, and what the cases throw.
    public func run(
        _ set: BenchmarkSet,
        progress: (_ round: Int, BenchmarkCase) -> Void = { _, _ in }
    ) throws(GenerationError) -> [BenchmarkResult] {
        let cases = try set.cases()
        var measured = cases.map { _ in Measured() }
        let yardsticks = Set(cases.map(\.threads)).sorted().map { Yardstick(kernels, $0, cases) }
        for round in 0...repetitions {
            if round > 0 {
                for yardstick in yardsticks { yardstick.measure() }
            }
            for (index, item) in cases.enumerated() where round > 0 || item.warmsUp {
                progress(round, item)
                ProcessCounters.resetPeakMemory()
                let sample = try item.body()
                if isCancelled() { throw .cancelled }
                if round > 0 { measured[index].add(sample, ProcessCounters.peakMemoryBytes) }
            }
        }
        return zip(cases, measured).map { item, measured in
            let yardstick = yardsticks.first { $0.threads == item.threads }
            return BenchmarkResult(
                item,
                kernels: kernels.name,
                seconds: measured.seconds,
                readBytes: measured.readBytes,
                peakMemoryBytes: measured.peakMemoryBytes,
                peaks: yardstick?.peaks ?? [:],
                memoryBytesPerSecond: item.weightBytes > 0 ? yardstick?.memory : nil
            )
        }
    }

    /// What is known of a case so far.
    private struct Measured {
        var seconds: [Double] = []
        var readBytes: Int?
        var peakMemoryBytes: Int?

        mutating func add(_ sample: BenchmarkSample, _ peak: Int?) {
            seconds.append(sample.seconds)
            readBytes = [readBytes, sample.readBytes].compactMap(\.self).max()
            peakMemoryBytes = [peakMemoryBytes, peak].compactMap(\.self).max()
        }
    }
}

/// What this machine could do at most on a number of threads, as the cases need it.
private final class Yardstick {
    let threads: Int
    private let rates: MachineRates
    private let needsMemory: Bool
    private var peakSamples: [Precision: [Double]]
    private var memorySamples: [Double] = []

    init(_ kernels: Kernels, _ threads: Int, _ cases: [BenchmarkCase]) {
        self.threads = threads
        rates = MachineRates(kernels: kernels, threads: threads)
        let cases = cases.filter { $0.threads == threads }
        needsMemory = cases.contains { $0.weightBytes > 0 }
        let precisions = Set(cases.flatMap { $0.work.parts.map(\.precision) })
        peakSamples = Dictionary(uniqueKeysWithValues: precisions.map { ($0, []) })
    }

    func measure() {
        for precision in peakSamples.keys.sorted(by: { $0.rawValue < $1.rawValue }) {
            peakSamples[precision]?.append(rates.peak(precision))
        }
        if needsMemory { memorySamples.append(rates.memory()) }
    }

    var peaks: [Precision: Double] { peakSamples.mapValues(\.median) }
    var memory: Double? { memorySamples.isEmpty ? nil : memorySamples.median }
}
