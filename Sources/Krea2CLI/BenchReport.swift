import Glibc
import Krea2

/// One row of `krea2 bench`.
struct BenchRow: Encodable, Equatable {
    let group: String
    let subject: String
    let shape: String
    /// How weights are stored.
    let weights: String?
    let precision: String?
    let threads: Int
    let repetitions: Int
    let medianSeconds: Double
    let minSeconds: Double
    let maxSeconds: Double
    let gigaflops: Double?
    /// What instructions reach.
    let peakGigaflops: Double?
    let percentOfPeak: Double?
    /// Weights that are gone through.
    let gigabytesPerSecond: Double?
    let memoryGigabytesPerSecond: Double?
    let percentOfMemory: Double?
    let readBytes: Int?
    let peakMemoryBytes: Int?
    let kernels: String
    let processor: String
    let version: String
    /// Of each repetition, in order of time.
    let seconds: [Double]

    init(_ result: BenchmarkResult, processor: String? = Engine.processor) {
        let item = result.benchmark
        group = item.group.rawValue
        (subject, shape, weights) = (item.subject, item.shape, item.weights)
        precision = item.precision?.rawValue
        threads = item.threads
        repetitions = result.seconds.count
        medianSeconds = result.medianSeconds
        minSeconds = result.seconds.min() ?? .nan
        maxSeconds = result.seconds.max() ?? .nan
        gigaflops = result.operationsPerSecond.map { $0 / 1e9 }
        percentOfPeak = result.shareOfPeak.map { 100 * $0 }
        if let gigaflops, let share = result.shareOfPeak, share > 0 {
            peakGigaflops = gigaflops / share
        } else {
            peakGigaflops = nil
        }
        gigabytesPerSecond = result.weightBytesPerSecond.map { $0 / 1e9 }
        memoryGigabytesPerSecond = result.memoryBytesPerSecond.map { $0 / 1e9 }
        percentOfMemory = result.shareOfMemory.map { 100 * $0 }
        readBytes = result.readBytes
        peakMemoryBytes = result.peakMemoryBytes
        kernels = result.kernels
        self.processor = processor ?? "unknown"
        version = Engine.version
        seconds = result.seconds
    }

    /// Names of the columns for spreadsheets, in order; those of JSON, too.
    static let csvNames = [
        "group", "subject", "shape", "weights", "precision", "threads", "repetitions",
        "medianSeconds", "minSeconds", "maxSeconds", "gigaflops", "peakGigaflops", "percentOfPeak",
        "gigabytesPerSecond", "memoryGigabytesPerSecond", "percentOfMemory", "readBytes",
        "peakMemoryBytes", "kernels", "processor", "version",
    ]

    /// The values under those names, empty where there is none.
    var csvValues: [String] {
        func number(_ value: Double?) -> String { value.map { significant($0, digits: 6) } ?? "" }
        func count(_ value: Int?) -> String { value.map(String.init) ?? "" }
        return [
            group, subject, shape, weights ?? "", precision ?? "", "\(threads)", "\(repetitions)",
            number(medianSeconds), number(minSeconds), number(maxSeconds), number(gigaflops),
            number(peakGigaflops), number(percentOfPeak), number(gigabytesPerSecond),
            number(memoryGigabytesPerSecond), number(percentOfMemory), count(readBytes),
            count(peakMemoryBytes), kernels, processor, version,
        ]
    }

    /// Heads of the columns for people.
    static let heads = [
        "group", "what", "shape", "weights", "precision", "threads", "n", "median s", "min s",
        "max s", "GFLOP/s", "peak", "%", "GB/s", "memory", "%", "read", "peak memory",
    ]

    /// The cells under those heads.
    var cells: [String] {
        func number(_ value: Double?) -> String { value.map { significant($0, digits: 4) } ?? "" }
        func percent(_ value: Double?) -> String { value.map { significant($0, digits: 3) } ?? "" }
        func bytes(_ value: Int?) -> String { value.map(byteText) ?? "" }
        return [
            group, subject, shape, weights ?? "", precision ?? "", "\(threads)", "\(repetitions)",
            number(medianSeconds), number(minSeconds), number(maxSeconds), number(gigaflops),
            number(peakGigaflops), percent(percentOfPeak), number(gigabytesPerSecond),
            number(memoryGigabytesPerSecond), percent(percentOfMemory), bytes(readBytes),
            bytes(peakMemoryBytes),
        ]
    }
}

/// Writes rows to standard output as they come, or all at the end for JSON.
struct BenchWriter {
    private let format: BenchFormat
    private let console: Console
    private var rows: [BenchRow] = []

    init(_ format: BenchFormat, _ console: Console) {
        self.format = format
        self.console = console
    }

    /// Writes a row, and the head before the first one.
    mutating func write(_ row: BenchRow) throws(Failure) {
        if rows.isEmpty {
            for line in head(row) { try console.print(line) }
        }
        rows.append(row)
        switch format {
        case .markdown: try console.print(markdownLine(row.cells))
        case .csv: try console.print(csvLine(row.csvValues))
        case .jsonLines: try console.print(JSONText.line(row))
        case .json: break
        }
    }

    /// Writes what waits for the last row.
    func finish() throws(Failure) {
        if format == .json { try console.print(JSONText.pretty(rows)) }
    }

    private func head(_ row: BenchRow) -> [String] {
        switch format {
        case .markdown:
            [
                "krea2 \(row.version), \(row.processor), kernels \(row.kernels)", "",
                markdownLine(BenchRow.heads),
                "|" + String(repeating: "---|", count: BenchRow.heads.count),
            ]
        case .csv: [csvLine(BenchRow.csvNames)]
        case .json, .jsonLines: []
        }
    }
}

/// A row of a Markdown table.
func markdownLine(_ cells: [String]) -> String {
    "|" + cells.map { $0.isEmpty ? " |" : " \($0) |" }.joined()
}

/// A line of comma-separated values, quoted where need be.
func csvLine(_ values: [String]) -> String {
    values.map { value in
        let isPlain = !value.contains { $0 == "," || $0 == "\"" || $0.isNewline }
        return isPlain
            ? value
            : "\""
                + value.split(separator: "\"", omittingEmptySubsequences: false)
                .joined(separator: "\"\"") + "\""
    }.joined(separator: ",")
}

/// A number with some significant digits, all of those before the point, and no exponent.
///
/// - Parameters:
///   - value: Any number; what is not finite is written in words.
///   - digits: Significant digits, 1 to 9.
/// - Returns: Such as `0.001234`, `12.34`, `123400`.
func significant(_ value: Double, digits: Int) -> String {
    guard value.isFinite, value.magnitude < 1e15 else { return "\(value)" }
    guard value != 0 else { return "0" }
    let decimals = min(12, max(0, digits - 1 - Int(log10(value.magnitude).rounded(.down))))
    guard decimals > 0 else { return String(Int(value.rounded())) }
    let scale = pow(10, Double(decimals))
    let scaled = (value.magnitude * scale).rounded()
    // Rounding may have added a digit: 9.9996 is 10.00.
    let whole = Int(scaled / scale)
    let rest = String(Int(scaled - Double(whole) * scale))
    let padding = String(repeating: "0", count: max(0, decimals - rest.count))
    return (value < 0 ? "-" : "") + "\(whole).\(padding)\(rest)"
}
