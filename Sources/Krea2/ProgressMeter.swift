/// Turns finished blocks into progress by predicted work.
///
/// Used on the thread that generates.
final class ProgressMeter {
    private let workload: Workload
    /// Operations of the stages.
    private let textWork, stepWork, decodingWork: Double
    private let resolved: ResolvedRequest
    private let report: (GenerationProgress) -> Void
    /// Work that is finished.
    private var done = 0.0
    private var stageFraction = 0.0

    init(
        _ workload: Workload,
        _ resolved: ResolvedRequest,
        _ report: @escaping (GenerationProgress) -> Void
    ) {
        self.workload = workload
        textWork = workload.text.total
        stepWork = workload.step.total
        decodingWork = workload.decoding.total
        self.resolved = resolved
        self.report = report
    }

    /// Notes a part of encoding all prompts.
    func advanceText(by part: Double) {
        done += part * textWork
        stageFraction += part
        tell(.textEncoder, image: 0, step: 0)
    }

    /// Notes a part of a step.
    func advanceStep(by part: Double, image: Int, step: Int) {
        let start = textWork + Double(image) * imageWork + Double(step) * stepWork
        done = min(max(done, start) + part * stepWork, start + stepWork)
        let stepFraction = (done - start) / stepWork
        // The last block ends the step; sums of parts may fall short of 1 by rounding.
        let finished = stepFraction > 1 - part / 2 ? step + 1 : step
        stageFraction = (Double(step) + stepFraction) / Double(resolved.steps)
        tell(.transformer, image: image, step: finished)
    }

    /// Notes how much of a picture is decoded.
    func advanceDecoding(to fraction: Double, image: Int) {
        let end = textWork + Double(image + 1) * imageWork
        done = end - (1 - fraction) * decodingWork
        stageFraction = fraction
        tell(.autoencoder, image: image, step: resolved.steps)
    }

    private var imageWork: Double { Double(resolved.steps) * stepWork + decodingWork }

    private func tell(_ stage: GenerationProgress.Stage, image: Int, step: Int) {
        let total = workload.total(steps: resolved.steps, images: resolved.imageCount)
        report(
            GenerationProgress(
                stage: stage,
                fraction: min(stageFraction, 1),
                step: step,
                steps: resolved.steps,
                image: image,
                imageCount: resolved.imageCount,
                overall: min(done / total, 1)
            )
        )
    }
}
