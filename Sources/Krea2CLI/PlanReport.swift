import Krea2

/// What a run will take, for `--plan`.
struct PlanReport: Encodable {
    struct Weights: Encodable {
        let stage: String
        let byteCount: Int
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
    let programBytes: Int
    let weights: [Weights]
    let peakBytes: Int
    let diskBytes: Int
    let floatingPointOperations: Double
    /// What the linear layers reached when it was measured just now.
    let operationsPerSecond: Double
    let threads: Int
    /// Computing alone, at that speed.
    let seconds: Double
    let buffers: [Buffer]

    /// Collects the facts.
    ///
    /// - Parameters:
    ///   - plan: The engine's prediction.
    ///   - resolved: All effective values of the run.
    ///   - speed: Floating-point operations a second.
    ///   - threads: Threads that speed was measured with.
    init(_ plan: GenerationPlan, _ resolved: ResolvedRequest, speed: Double, threads: Int) {
        width = resolved.width
        height = resolved.height
        steps = resolved.steps
        images = resolved.imageCount
        arenaBytes = plan.arenaBytes
        residentWeightBytes = plan.residentWeightBytes
        programBytes = plan.programBytes
        weights = plan.weightBytes.map { Weights(stage: $0.stage, byteCount: $0.byteCount) }
        peakBytes = plan.peakBytes
        diskBytes = plan.diskBytes
        floatingPointOperations = plan.floatingPointOperations
        operationsPerSecond = speed
        self.threads = threads
        seconds = plan.floatingPointOperations / speed
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
        var lines = [
            "memory       \(byteText(peakBytes)): \(byteText(arenaBytes)) of activations, "
                + "\(byteText(residentWeightBytes)) of weights at a time, the program"
        ]
        lines += weights.map {
            "weights      \(byteText($0.byteCount)), \($0.stage)"
        }
        let teraOperations = (floatingPointOperations / 1e12).short
        let speed = (operationsPerSecond / 1e9).rounded().short
        return lines + [
            "disk reads   \(byteText(diskBytes)), less what is cached",
            "time         at least \(clock(seconds)): \(teraOperations) TFLOP at the \(speed) GFLOP/s "
                + "that float32 products reach here just now (threads \(threads))",
        ]
    }
}
