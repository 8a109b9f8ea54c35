import Krea2

/// What a run will take, for `--plan`.
struct PlanReport: Encodable {
    struct Weights: Encodable {
        let stage: String
        let byteCount: Int
    }

    struct Stage: Encodable {
        let name: String
        let repetitions: Int
        let floatingPointOperations: Double
        let diskBytes: Int
        let seconds: Double
        /// Whether most of the time is spent waiting for the disk.
        let isDiskBound: Bool

        init(_ stage: GenerationPlan.Stage, _ calibration: Calibration) {
            let time = calibration.seconds(of: stage)
            name = stage.name
            repetitions = stage.repetitions
            floatingPointOperations = Double(stage.repetitions) * stage.work.total
            diskBytes = stage.diskBytes
            seconds = time.seconds
            isDiskBound = time.isDiskBound
        }

        /// Part of a line for people.
        var text: String {
            let times = repetitions == 1 ? "" : ", \(repetitions) times"
            let bound = isDiskBound ? ", waiting for the disk" : ""
            let teraOperations = (floatingPointOperations / 1e12).short
            return "\(secondsText(seconds)), \(name)\(times): \(teraOperations) TFLOP, "
                + "\(byteText(diskBytes)) from disk\(bound)"
        }
    }

    struct Buffer: Encodable {
        let stage: String
        let name: String
        let shape: [Int]
        let byteCount: Int
    }

    let width: Int
    let height: Int
    let steps: Int
    let images: Int
    let arenaBytes: Int
    let residentWeightBytes: Int
    let loraBytes: Int
    let programBytes: Int
    let weights: [Weights]
    let peakBytes: Int
    let diskBytes: Int
    let floatingPointOperations: Double
    let stages: [Stage]
    /// All stages, when nothing else runs.
    let seconds: Double
    let threads: Int
    let buffers: [Buffer]

    /// Collects the facts.
    ///
    /// - Parameters:
    ///   - plan: The engine's prediction.
    ///   - resolved: All effective values of the run.
    ///   - calibration: How fast the machine is with as many threads as the run has.
    init(_ plan: GenerationPlan, _ resolved: ResolvedRequest, _ calibration: Calibration) {
        width = resolved.width
        height = resolved.height
        steps = resolved.steps
        images = resolved.imageCount
        arenaBytes = plan.arenaBytes
        residentWeightBytes = plan.residentWeightBytes
        loraBytes = plan.loraBytes
        programBytes = plan.programBytes
        weights = plan.weightBytes.map { Weights(stage: $0.stage, byteCount: $0.byteCount) }
        peakBytes = plan.peakBytes
        diskBytes = plan.diskBytes
        floatingPointOperations = plan.floatingPointOperations
        stages = plan.stages.map { Stage($0, calibration) }
        seconds = stages.reduce(0) { $0 + $1.seconds }
        threads = calibration.key.threads
        buffers = plan.buffers.map {
            Buffer(stage: $0.stage, name: $0.name, shape: $0.shape, byteCount: $0.byteCount)
        }
    }

    /// Several lines for people.
    var text: String {
        (["size         \(width)x\(height), steps \(steps), images \(images)"] + summary
            + ["", "buffers of the activations:"]
            + buffers.map { "  \($0.stage), \($0.name) \($0.shape): \(byteText($0.byteCount))" })
            .joined(separator: "\n")
    }

    /// Memory, disk and time, one line each.
    var summary: [String] {
        let loras = loraBytes > 0 ? "\(byteText(loraBytes)) of LoRAs, " : ""
        var lines = [
            "memory       \(byteText(peakBytes)): \(byteText(arenaBytes)) of activations, "
                + "\(byteText(residentWeightBytes)) of weights at a time, \(loras)the program"
        ]
        lines += weights.map {
            "weights      \(byteText($0.byteCount)), \($0.stage)"
        }
        lines += stages.map { "time         \($0.text)" }
        return lines + [
            "disk reads   \(byteText(diskBytes)) in all",
            "time         \(secondsText(seconds)) in all, when nothing else runs (threads \(threads))",
        ]
    }
}
