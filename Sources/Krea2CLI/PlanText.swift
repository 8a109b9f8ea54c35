import Krea2

extension Generate {
    /// What `--plan` prints: memory by stage, disk reads and work.
    static func planText(
        _ plan: GenerationPlan,
        _ resolved: ResolvedRequest,
        isJSON: Bool
    ) -> String {
        if isJSON { return JSONText.pretty(PlanReport(plan, resolved)) }
        var lines = [
            "size \(resolved.width)x\(resolved.height), steps \(resolved.steps), "
                + "images \(resolved.imageCount)",
            "activations   \(byteText(plan.arenaBytes)), one arena for all stages",
        ]
        lines += plan.weightBytes.map { "weights       \(byteText($0.byteCount)), \($0.stage)" }
        let teraOperations = Float(plan.floatingPointOperations / 1e12)
        lines += [
            "disk reads    \(byteText(plan.diskBytes))",
            "work          \(teraOperations.short) TFLOP; \(timeText(plan)) on a machine that "
                + "sustains 100 GFLOP/s",
            "",
            "buffers:",
        ]
        lines += plan.buffers.map { buffer in
            "  \(buffer.stage) \(buffer.name) \(buffer.shape): \(byteText(buffer.byteCount))"
        }
        return lines.joined(separator: "\n")
    }

    private static func timeText(_ plan: GenerationPlan) -> String {
        clock(plan.floatingPointOperations / 1e11)
    }
}

/// `--plan --json`.
private struct PlanReport: Encodable {
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
    let weights: [Weights]
    let diskBytes: Int
    let floatingPointOperations: Double
    let buffers: [Buffer]

    init(_ plan: GenerationPlan, _ resolved: ResolvedRequest) {
        width = resolved.width
        height = resolved.height
        steps = resolved.steps
        images = resolved.imageCount
        arenaBytes = plan.arenaBytes
        weights = plan.weightBytes.map { Weights(stage: $0.stage, byteCount: $0.byteCount) }
        diskBytes = plan.diskBytes
        floatingPointOperations = plan.floatingPointOperations
        buffers = plan.buffers.map {
            Buffer(stage: $0.stage, name: $0.name, shape: $0.shape, byteCount: $0.byteCount)
        }
    }
}
