import Krea2

/// How progress is shown on standard error.
enum ProgressStyle: String, CaseIterable, Sendable {
    /// A bar on a terminal, `plain` otherwise.
    case auto
    /// One line a step.
    case plain
    /// One JSON object a line.
    case json
    case none
}

/// Turns the engine's progress into lines, with the time passed and an estimate of the time left.
///
/// It holds no clock and writes nowhere: the caller passes the time and writes what comes back.
struct ProgressRenderer: Sendable {
    enum Form: Equatable, Sendable {
        /// Redraws one line of the given width.
        case bar(columns: Int)
        case plain
        case json
    }

    let form: Form
    /// When the work began.
    let start: Duration
    /// The bar is not redrawn more often than this.
    static let redrawInterval = Duration.milliseconds(100)
    /// Before this much of the work is done an estimate would be a guess.
    static let firstEstimate = 0.01

    private var lastLine: Position?
    private var lastDraw: Duration?

    /// Where a run stands, coarsely enough for one line each.
    private struct Position: Equatable {
        var stage: GenerationProgress.Stage
        var image: Int
        var step: Int
    }

    init(_ form: Form, start: Duration) {
        self.form = form
        self.start = start
    }

    /// What to write for an event; `nil` when nothing is due.
    mutating func text(for progress: GenerationProgress, at now: Duration) -> String? {
        let timing = Timing(elapsed: now - start, fraction: progress.overall)
        if case .bar(let columns) = form {
            if let lastDraw, now - lastDraw < Self.redrawInterval, progress.overall < 1 {
                return nil
            }
            lastDraw = now
            return "\r" + bar(progress, timing, columns: columns) + "\u{1B}[K"
        }
        let position = Position(
            stage: progress.stage,
            image: progress.image,
            step: progress.step
        )
        guard position != lastLine || (progress.overall >= 1 && lastDraw == nil) else { return nil }
        lastLine = position
        if progress.overall >= 1 { lastDraw = now }
        return form == .json ? jsonLine(progress, timing) : plainLine(progress, timing)
    }

    /// What to write when the work has ended, one way or the other: leaves the bar's line.
    mutating func ending() -> String? {
        guard case .bar = form, lastDraw != nil else { return nil }
        lastDraw = nil
        return "\n"
    }
}

extension ProgressRenderer {
    /// Time passed and time left.
    struct Timing: Equatable, Sendable {
        var elapsedSeconds: Double
        /// `nil` while there is too little to go by.
        var remainingSeconds: Double?

        init(elapsed: Duration, fraction: Double) {
            elapsedSeconds = elapsed / .seconds(1)
            remainingSeconds =
                fraction >= ProgressRenderer.firstEstimate
                ? elapsedSeconds * max(0, 1 - fraction) / fraction : nil
        }
    }

    /// `transformer, picture 1 of 2, step 3 of 8`.
    private func place(_ progress: GenerationProgress) -> String {
        let stage =
            switch progress.stage {
            case .references: "encoding, \(progress.step) of \(progress.steps.counted("picture"))"
            case .initialImage: "initial image"
            case .referenceLatents: "references"
            case .textEncoder: "text encoder"
            case .transformer: "step \(progress.step) of \(progress.steps)"
            case .autoencoder: "decoder"
            }
        return progress.imageCount > 1
            ? "picture \(progress.image + 1) of \(progress.imageCount), \(stage)" : stage
    }

    private func bar(_ progress: GenerationProgress, _ timing: Timing, columns: Int) -> String {
        let rest = timing.remainingSeconds.map { ", \(clock($0)) left" } ?? ""
        let time = clock(timing.elapsedSeconds)
        let tail = " \(percent(progress)) \(place(progress)), \(time)\(rest)"
        let width = min(30, columns - tail.count - 3)
        guard width >= 5 else { return String(tail.dropFirst().prefix(max(0, columns - 1))) }
        let done = Int(Double(width) * share(progress))
        return "[" + String(repeating: "#", count: done)
            + String(repeating: "-", count: width - done) + "]" + tail
    }

    private func plainLine(_ progress: GenerationProgress, _ timing: Timing) -> String {
        let rest = timing.remainingSeconds.map { ", about \(clock($0)) left" } ?? ""
        return "\(percent(progress)) \(place(progress)), "
            + "\(clock(timing.elapsedSeconds)) elapsed\(rest)\n"
    }

    private func jsonLine(_ progress: GenerationProgress, _ timing: Timing) -> String {
        JSONText.line(
            ProgressEvent(
                event: "progress",
                stage: progress.stage.rawValue,
                step: progress.step,
                steps: progress.steps,
                image: progress.image,
                images: progress.imageCount,
                fraction: progress.overall,
                elapsedSeconds: timing.elapsedSeconds,
                remainingSeconds: timing.remainingSeconds
            )
        ) + "\n"
    }

    private func percent(_ progress: GenerationProgress) -> String {
        let number = String(Int(share(progress) * 100))
        return String(repeating: " ", count: 3 - number.count) + number + " %"
    }

    /// Share of the work that is done, 0 … 1 whatever the event says.
    private func share(_ progress: GenerationProgress) -> Double {
        progress.overall.isNaN ? 0 : min(max(progress.overall, 0), 1)
    }
}

/// One line of `--progress json`.
private struct ProgressEvent: Encodable {
    let event: String
    let stage: String
    let step: Int
    let steps: Int
    let image: Int
    let images: Int
    /// Share of the whole run, 0 … 1; while references are encoded, which is before it, of that.
    let fraction: Double
    let elapsedSeconds: Double
    let remainingSeconds: Double?
}
