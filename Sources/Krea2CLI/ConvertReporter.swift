import Krea2

/// What `krea2 convert` says on standard error while it works.
final class ConvertReporter {
    private enum Form {
        case bar, plain, json
    }

    private let console: Console
    private let isQuiet: Bool
    private let form: Form?
    private let begin: Duration
    /// Where this run began, if an earlier one has done a part.
    private var first: ConversionProgress?
    private var lastTenth = 0
    private var lastDraw: Duration?

    init(_ settings: ConvertSettings, _ console: Console) {
        self.console = console
        isQuiet = settings.isQuiet
        begin = console.now()
        form =
            switch settings.progress {
            case .none: nil
            case .auto where settings.isQuiet: nil
            case .auto: console.errorsAreTerminal ? .bar : .plain
            case .plain: .plain
            case .json: .json
            }
    }

    /// Says what is about to be done.
    func start(_ conversion: Conversion, path: String) {
        message(
            "\(conversion.part.rawValue): \(conversion.convertedCount) of \(conversion.tensorCount) "
                + "tensors to \(conversion.format.rawValue), \(byteText(conversion.sourceByteCount)) "
                + "to \(byteText(conversion.byteCount)), \(path)"
        )
        if conversion.part == .transformer, !path.lastComponent.lowercased().hasPrefix("krea") {
            message("Krea's licence asks that the names of files passed on start with Krea")
        }
    }

    /// Shows how far the work is.
    func progress(_ progress: ConversionProgress) {
        guard let first else {
            self.first = progress
            lastTenth = tenth(progress)
            if progress.finishedTensors > 0 {
                message(
                    "goes on behind \(progress.finishedTensors) of \(progress.tensors) tensors "
                        + "that an earlier run has written"
                )
            }
            return
        }
        let now = console.now()
        switch form {
        case nil: return
        case .bar:
            if let lastDraw, now - lastDraw < ProgressRenderer.redrawInterval,
                progress.fraction < 1
            {
                return
            }
            lastDraw = now
            console.writeErrors(Array("\r\(line(progress, since: first, now))\u{1B}[K".utf8))
        case .plain:
            guard tenth(progress) > lastTenth else { return }
            lastTenth = tenth(progress)
            console.note(line(progress, since: first, now))
        case .json:
            console.note(
                JSONText.line(
                    ConvertEvent(
                        tensor: progress.finishedTensors,
                        tensors: progress.tensors,
                        fraction: progress.fraction,
                        elapsedSeconds: (now - begin) / .seconds(1)
                    )
                )
            )
        }
    }

    /// Leaves the bar's line, if there is one.
    func endProgress() {
        guard lastDraw != nil else { return }
        lastDraw = nil
        console.writeErrors([UInt8(ascii: "\n")])
    }

    private func message(_ text: String) {
        guard !isQuiet else { return }
        if form == .json {
            console.note(JSONText.line(ConvertMessage(text: text)))
        } else {
            console.note("krea2: " + text.escapingControls)
        }
    }

    private func tenth(_ progress: ConversionProgress) -> Int { Int(progress.fraction * 10) }

    /// Such as ` 40 % 12 of 30 tensors, 0:20 elapsed, about 0:30 left`.
    private func line(
        _ progress: ConversionProgress,
        since first: ConversionProgress,
        _ now: Duration
    ) -> String {
        let seconds = (now - begin) / .seconds(1)
        let done = progress.finishedBytes - first.finishedBytes
        let rest = Double(progress.bytes - progress.finishedBytes) / Double(max(done, 1))
        let percent = String(Int(progress.fraction * 100))
        return String(repeating: " ", count: 3 - percent.count) + percent
            + " % \(progress.finishedTensors) of \(progress.tensors) tensors, "
            + "\(clock(seconds)) elapsed, about \(clock(seconds * rest)) left"
    }
}

/// One line of `--progress json`.
private struct ConvertEvent: Encodable {
    let event = "progress"
    let tensor: Int
    let tensors: Int
    /// Share of the file's bytes, 0 … 1.
    let fraction: Double
    let elapsedSeconds: Double
}

/// A message in `--progress json`.
private struct ConvertMessage: Encodable {
    let event = "message"
    let text: String
}
