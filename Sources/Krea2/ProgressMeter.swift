/// Turns finished blocks into progress by predicted work.
///
/// Used on the thread that generates.
final class ProgressMeter {
    private let workload: Workload
    /// Operations of the stages.
    private let encodingWork, latentWork, textWork, stepWork, decodingWork: Double
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
        encodingWork = workload.encoding.total
        latentWork = workload.latents.total
        textWork = workload.text.total
        stepWork = workload.step.total
        decodingWork = workload.decoding.total
        self.resolved = resolved
        self.report = report
    }

    /// Notes how much of the initial image is encoded.
    func advanceEncoding(to fraction: Double) {
        done = fraction * encodingWork
        stageFraction = fraction
        tell(.initialImage, image: 0, step: 0)
        stageFraction = 0
    }

    /// Notes how much of the references' latents is encoded.
    func advanceLatents(to fraction: Double) {
        done = encodingWork + fraction * latentWork
        stageFraction = fraction
        tell(.referenceLatents, image: 0, step: 0)
        stageFraction = 0
    }

    /// Notes a part of encoding all prompts.
    func advanceText(by part: Double) {
        done += part * textWork
        stageFraction += part
        tell(.textEncoder, image: 0, step: 0)
    }

    /// Notes a part of a step, counted from the first that is run.
    func advanceStep(by part: Double, image: Int, step: Int) {
        let start = firstWork + Double(image) * imageWork + Double(step) * stepWork
        done = min(max(done, start) + part * stepWork, start + stepWork)
        let stepFraction = (done - start) / stepWork
        // The last block ends the step; sums of parts may fall short of 1 by rounding.
        let finished = stepFraction > 1 - part / 2 ? step + 1 : step
        stageFraction = (Double(step) + stepFraction) / Double(resolved.stepsToRun)
        tell(.transformer, image: image, step: finished)
    }

    /// Notes how much of a picture is decoded.
    func advanceDecoding(to fraction: Double, image: Int) {
        let end = firstWork + Double(image + 1) * imageWork
        done = end - (1 - fraction) * decodingWork
        stageFraction = fraction
        tell(.autoencoder, image: image, step: resolved.stepsToRun)
    }

    /// What is done once, before the first step.
    private var firstWork: Double { encodingWork + latentWork + textWork }

    private var imageWork: Double { Double(resolved.stepsToRun) * stepWork + decodingWork }

    private func tell(_ stage: GenerationProgress.Stage, image: Int, step: Int) {
        let total = workload.total(steps: resolved.stepsToRun, images: resolved.imageCount)
        report(
            GenerationProgress(
                stage: stage,
                fraction: min(stageFraction, 1),
                step: step,
                steps: resolved.stepsToRun,
                image: image,
                imageCount: resolved.imageCount,
                overall: min(done / total, 1)
            )
        )
    }
}
