/// What a benchmark times.
public enum BenchmarkGroup: String, Sendable, CaseIterable {
    /// Products of the matrices of a transformer's block.
    case gemm
    /// Attention of the transformer.
    case attention
    /// One block of the transformer, with its weights in memory.
    case block
    /// The text encoder, its weights read.
    case te
    /// One evaluation of the transformer.
    case dit
    /// The decoder of the autoencoder.
    case vae
    /// Opening files and reading weights.
    case load
    /// A whole picture.
    case e2e
}

/// Something that is timed again and again: a row of the table.
public struct BenchmarkCase {
    /// What it belongs to.
    public let group: BenchmarkGroup
    /// What is done.
    public let subject: String
    /// Its sizes.
    public let shape: String
    /// How weights are stored, such as "BF16"; nil where there are none.
    public let weights: String?
    /// Arithmetic; nil where nothing is computed.
    public let precision: Precision?
    /// Threads to compute with.
    public let threads: Int
    /// What one repetition computes.
    public let work: ComputeWork
    /// Bytes of weights that one repetition goes through; 0 where that does not matter.
    public let weightBytes: Int
    /// Whether later repetitions gain by one that is not counted.
    let warmsUp: Bool
    /// One repetition; what it prepares is not timed.
    let body: () throws(GenerationError) -> BenchmarkSample

    init(
        _ group: BenchmarkGroup,
        _ subject: String,
        shape: String,
        weights: String? = nil,
        precision: Precision?,
        threads: Int,
        work: ComputeWork = ComputeWork(),
        weightBytes: Int = 0,
        warmsUp: Bool = true,
        body: @escaping () throws(GenerationError) -> BenchmarkSample
    ) {
        self.group = group
        self.subject = subject
        self.shape = shape
        self.weights = weights
        self.precision = precision
        self.threads = threads
        self.work = work
        self.weightBytes = weightBytes
        self.warmsUp = warmsUp
        self.body = body
    }
}

/// Cases whose repetitions alternate; they are made when it is their turn.
public struct BenchmarkSet {
    /// What they belong to.
    public let group: BenchmarkGroup
    /// What they have in common, for people.
    public let title: String
    /// Makes the cases and what they work on.
    let cases: () throws(GenerationError) -> [BenchmarkCase]

    init(
        _ group: BenchmarkGroup,
        _ title: String,
        cases: @escaping () throws(GenerationError) -> [BenchmarkCase]
    ) {
        self.group = group
        self.title = title
        self.cases = cases
    }
}

/// What one repetition took.
struct BenchmarkSample {
    let seconds: Double
    /// Bytes read from files; nil where the system does not count them.
    let readBytes: Int?

    /// Does something and measures it.
    static func measure(
        _ body: () throws(GenerationError) -> Void
    ) throws(GenerationError) -> BenchmarkSample {
        let before = ProcessCounters.Reads()
        let start = ContinuousClock.now
        try body()
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        let read = before.flatMap { before in
            ProcessCounters.Reads().map { $0.bytes(since: before) }
        }
        return BenchmarkSample(seconds: seconds, readBytes: read)
    }
}

/// All repetitions of a case.
public struct BenchmarkResult {
    /// What was timed.
    public let benchmark: BenchmarkCase
    /// Level of the kernels.
    public let kernels: String
    /// Seconds of each repetition, in order of time.
    public let seconds: [Double]
    /// Bytes read from files, the most of all repetitions; nil where the system does not count.
    public let readBytes: Int?
    /// Most bytes in memory at a time; nil where the system does not tell.
    public let peakMemoryBytes: Int?
    /// Multiplications and additions a second that instructions of the arithmetics in use reach on
    /// as many threads, measured between the repetitions.
    public let peaks: [Precision: Double]
    /// Bytes that as many threads read from memory in a second; nil where weights do not matter.
    public let memoryBytesPerSecond: Double?

    /// Collects what was measured.
    public init(
        _ benchmark: BenchmarkCase,
        kernels: String,
        seconds: [Double],
        readBytes: Int?,
        peakMemoryBytes: Int?,
        peaks: [Precision: Double],
        memoryBytesPerSecond: Double?
    ) {
        self.benchmark = benchmark
        self.kernels = kernels
        self.seconds = seconds
        self.readBytes = readBytes
        self.peakMemoryBytes = peakMemoryBytes
        self.peaks = peaks
        self.memoryBytesPerSecond = memoryBytesPerSecond
    }

    /// Seconds of the middle repetition.
    public var medianSeconds: Double { seconds.median }

    /// Multiplications and additions a second; nil where nothing is computed.
    public var operationsPerSecond: Double? {
        benchmark.work.total > 0 ? benchmark.work.total / medianSeconds : nil
    }

    /// Share of the peak, 0 to 1: of the time that the operations take at the peaks of their
    /// arithmetics.
    public var shareOfPeak: Double? {
        guard benchmark.work.total > 0 else { return nil }
        let least = benchmark.work.parts.reduce(0) {
            $0 + $1.operations / (peaks[$1.precision] ?? .nan)
        }
        return least.isFinite ? least / medianSeconds : nil
    }

    /// Bytes of weights a second; nil where they do not matter.
    public var weightBytesPerSecond: Double? {
        benchmark.weightBytes > 0 ? Double(benchmark.weightBytes) / medianSeconds : nil
    }

    /// Share of what memory gives, 0 to 1.
    public var shareOfMemory: Double? {
        weightBytesPerSecond.flatMap { rate in memoryBytesPerSecond.map { rate / $0 } }
    }
}

extension [Double] {
    /// The middle value, or the mean of the two in the middle; NaN where there is none.
    var median: Double {
        let sorted = sorted()
        guard let last = sorted.indices.last else { return .nan }
        return (sorted[last / 2] + sorted[(last + 1) / 2]) / 2
    }
}

/// Such as "1 block" or "28 blocks".
func counted(_ count: Int, _ thing: String) -> String {
    "\(count) \(thing)\(count == 1 ? "" : "s")"
}
