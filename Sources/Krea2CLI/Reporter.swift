import Krea2

/// What commands that compute say on standard error while they work.
///
/// With `--progress json` every line is a JSON object, messages and settings included.
final class Reporter {
    private let console: Console
    private let isQuiet: Bool
    private let isJSON: Bool
    private var renderer: ProgressRenderer?

    init(_ style: ProgressStyle, isQuiet: Bool, _ console: Console) {
        self.console = console
        self.isQuiet = isQuiet
        isJSON = style == .json
        let form: ProgressRenderer.Form? =
            switch style {
            case .auto where isQuiet: nil
            case .auto where console.errorsAreTerminal: .bar(columns: console.columns())
            case .auto, .plain: .plain
            case .json: .json
            case .none: nil
            }
        renderer = form.map { ProgressRenderer($0, start: console.now()) }
    }

    /// One line for people.
    func message(_ text: String) {
        guard !isQuiet else { return }
        endProgress()
        if isJSON {
            console.note(JSONText.line(MessageEvent(text: text)))
        } else {
            console.note("krea2: " + text.escapingControls)
        }
    }

    /// Echoes every effective value once.
    ///
    /// - Parameters:
    ///   - resolved: All values of the run.
    ///   - summary: The model's files, listed with `--verbose`.
    ///   - plan: Predicted memory and time, given with `--verbose`.
    ///   - threads: Threads computed with.
    func start(
        _ resolved: ResolvedRequest,
        _ summary: ModelSummary,
        plan: PlanReport?,
        threads: Int
    ) {
        let settings = EffectiveSettings(resolved, summary, threads: threads)
        endProgress()
        if !isQuiet {
            if isJSON {
                console.note(JSONText.line(settings))
            } else {
                console.note("krea2: " + settings.line)
            }
        }
        if let plan {
            for part in summary.parts {
                let tensors =
                    "\(part.tensorCount) tensors of \(part.elementTypes.joined(separator: " "))"
                message(
                    "\(part.name): \(part.path)" + (part.tensorCount > 0 ? ", \(tensors)" : "")
                )
            }
            for line in plan.summary { message(line) }
        }
        restart()
    }

    /// Counts time from now on.
    func restart() {
        renderer = renderer.map { ProgressRenderer($0.form, start: console.now()) }
    }

    /// Shows how far the work is.
    func progress(_ progress: GenerationProgress) {
        guard let text = renderer?.text(for: progress, at: console.now()) else { return }
        console.writeErrors(Array(text.utf8))
    }

    /// Leaves the bar's line, if there is one.
    func endProgress() {
        guard let text = renderer?.ending() else { return }
        console.writeErrors(Array(text.utf8))
    }

    /// Prints the line of a picture that is written; the picture on standard output has none.
    ///
    /// - Parameters:
    ///   - image: The picture.
    ///   - path: Where it is.
    ///   - seconds: How long it took.
    ///   - isJSON: Whether it is to be JSON.
    /// - Throws: Exit code 73 when the line cannot be written.
    func result(
        _ image: GeneratedImage,
        path: String,
        seconds: Double,
        isJSON: Bool
    ) throws(Failure) {
        guard path != "-" else { return }
        endProgress()
        guard isJSON else { return try console.print(path) }
        let result = PictureResult(
            path: path,
            seed: image.seed,
            width: image.width,
            height: image.height,
            seconds: seconds
        )
        try console.print(JSONText.line(result))
    }
}

/// A message in `--progress json`.
private struct MessageEvent: Encodable {
    let event = "message"
    let text: String
}

/// One line of `--json`.
private struct PictureResult: Encodable {
    let path: String
    let seed: UInt64
    let width: Int
    let height: Int
    /// Wall time since the run began or the picture before was finished.
    let seconds: Double
}

/// Every value that decides what the picture looks like, after all defaults.
struct EffectiveSettings: Encodable {
    let event = "settings"
    let variant: String
    let variantSource: String
    let width: Int
    let height: Int
    let steps: Int
    /// The last of the steps.
    let stepsToRun: Int
    let cfg: Float
    let cfgScale: Float
    let mu: Double
    let seed: UInt64
    let images: Int
    let precision: String
    let kernels: String
    let threads: Int

    init(_ resolved: ResolvedRequest, _ summary: ModelSummary, threads: Int) {
        variant = resolved.variant.rawValue
        variantSource = summary.variantSource
        width = resolved.width
        height = resolved.height
        steps = resolved.steps
        stepsToRun = resolved.stepsToRun
        cfg = resolved.guidance
        cfgScale = resolved.guidance + 1
        mu = resolved.shift
        seed = resolved.seed
        images = resolved.imageCount
        precision = resolved.precision.rawValue
        kernels = Engine.kernelLevel
        self.threads = threads
    }

    /// The values in one line.
    var line: String {
        [
            "variant \(variant) (\(variantSource))",
            "size \(width)x\(height)",
            "steps \(steps)" + (stepsToRun < steps ? " (the last \(stepsToRun))" : ""),
            "cfg \(cfg.short) (cfg-scale \(cfgScale.short))",
            "mu \(mu.short)",
            "seed \(seed)",
            "images \(images)",
            "precision \(precision)",
            "kernels \(kernels)",
            "threads \(threads)",
        ].joined(separator: ", ")
    }
}
