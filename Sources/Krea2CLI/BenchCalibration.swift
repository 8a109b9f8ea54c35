import Krea2

/// `krea2 bench calibrate`: measures this machine and keeps the result for `--plan`.
enum BenchCalibration {
    /// Measures for each number of threads.
    static func run(_ settings: BenchSettings, _ console: Console) throws(Failure) {
        Interruption.listen()
        let weights = try weights(settings, console)
        var reports: [CalibrationReport] = []
        for threads in settings.threads {
            let (calibration, path) = try StoredCalibration.measured(
                threads: threads,
                weights: weights,
                console,
                of: "bench"
            ) { if !settings.isQuiet { console.note("krea2: " + $0.escapingControls) } }
            reports.append(CalibrationReport(calibration, path: path))
            if Interruption.isRequested { throw Interruption.failure }
        }
        try print(reports, settings.format, console)
    }

    /// The files on the disk that is measured: those of the model that is named or, if there is one,
    /// of the first that is found.
    private static func weights(
        _ settings: BenchSettings,
        _ console: Console
    ) throws(Failure) -> String? {
        let discovery = ModelDiscovery(environment: console.environment, disk: .real)
        let model =
            settings.model == nil ? discovery.all().first : try discovery.resolve(settings.model)
        guard let model else { return nil }
        do throws(GenerationError) {
            return try BenchmarkModel(model.path, searchFolders: discovery.searchFolders)
                .transformerPath()
        } catch {
            // Nobody has named this model; what is wrong with it does not matter here.
            if settings.model == nil { return nil }
            throw Failure(error, of: "bench")
        }
    }

    private static func print(
        _ reports: [CalibrationReport],
        _ format: BenchFormat,
        _ console: Console
    ) throws(Failure) {
        switch format {
        case .json: try console.print(JSONText.pretty(reports))
        case .jsonLines: for report in reports { try console.print(JSONText.line(report)) }
        case .csv:
            try console.print("threads,what,rate,unit")
            for report in reports {
                for row in report.rows {
                    try console.print(csvLine(["\(report.threads)", row.what, row.rate, row.unit]))
                }
            }
        case .markdown:
            try console.print("krea2 \(Engine.version), \(reports[0].heading)\n")
            try console.print(markdownLine(["threads", "what", "rate"]) + "\n|---|---|---|")
            for report in reports {
                for row in report.rows {
                    let rate = "\(row.rate) \(row.unit)"
                    try console.print(markdownLine(["\(report.threads)", row.what, rate]))
                }
            }
        }
    }
}

/// A calibration as it is printed.
struct CalibrationReport: Encodable {
    let processor: String
    let kernels: String
    let threads: Int
    let speeds: [Speed]
    let memoryBytesPerSecond: Double
    let diskBytesPerSecond: Double?
    /// Where it is kept; nil where that is not possible.
    let path: String?

    struct Speed: Encodable {
        let kind: String
        let precision: String
        let operationsPerSecond: Double
    }

    init(_ calibration: Calibration, path: String?) {
        processor = calibration.key.processor
        kernels = calibration.key.kernels
        threads = calibration.key.threads
        speeds = calibration.speeds.map {
            Speed(
                kind: $0.kind.rawValue,
                precision: $0.precision.rawValue,
                operationsPerSecond: $0.operationsPerSecond
            )
        }
        memoryBytesPerSecond = calibration.memoryBytesPerSecond
        diskBytesPerSecond = calibration.diskBytesPerSecond
        self.path = path
    }

    var heading: String { "\(processor), kernels \(kernels)" }

    /// What people read.
    var rows: [(what: String, rate: String, unit: String)] {
        func giga(_ rate: Double) -> String { significant(rate / 1e9, digits: 4) }
        let disk = diskBytesPerSecond.map { [("disk", giga($0), "GB/s")] } ?? []
        return speeds.map {
            ("\($0.kind) \($0.precision)", giga($0.operationsPerSecond), "GFLOP/s")
        }
            + [("memory", giga(memoryBytesPerSecond), "GB/s")] + disk
    }
}
