import Compute
import Krea2

/// Times the blocks of a model of the real width, and OpenBLAS on the matrices of a block with as
/// many rows.
///
/// A block is everything the engine does in it: reading the mapped weights, norms, modulation, rotary
/// embedding, attention, the feed-forward network and the checks behind it. Its operations are
/// counted by the plan.
func compareBlocks(_ model: String, side: Int, options: Options) throws {
    let request = GenerationRequest(
        prompt: "a fox walking in the snow",
        width: side,
        height: side,
        steps: 3
    )
    let pipeline = try Pipeline(
        try ModelFiles.locate(model),
        options: PipelineOptions(threads: options.threads, precision: .float32)
    )
    // Progress comes after each block and once more at the end of a step.
    var events: [ContinuousClock.Instant] = []
    _ = try pipeline.generate(
        request,
        progress: { if $0.stage == .transformer { events.append(.now) } }
    )
    let eventsPerStep = events.count / 3
    let blocks = eventsPerStep - 1
    guard blocks > 1 else { fail("\(model) has one block, two or more are needed") }
    let seconds = (eventsPerStep..<events.count).filter {
        (1..<blocks).contains($0 % eventsPerStep)
    }
    .map { (events[$0] - events[$0 - 1]) / .seconds(1) }.sorted()
    let median = seconds[seconds.count / 2]
    let operations = try operationsOfAStep(pipeline, request) / Double(blocks)

    let rows = try pipeline.resolve(request).promptTokens + side * side / 256
    let (total, theirs) = openBLASBlock(rows, options.repetitions)
    print("a block at \(side)x\(side), \(rows) tokens, \(median.text(0, digits: 3)) s")
    report("  all of it", [operations / median, total / theirs])
}

/// Operations and median seconds of OpenBLAS for the linear layers of a block.
private func openBLASBlock(_ rows: Int, _ repetitions: Int) -> (operations: Double, seconds: Double)
{
    BlockMatrices.all.reduce(into: (0, 0)) { sum, matrices in
        let count = Double(matrices.names.count)
        sum.0 += count * matrices.operations(rows)
        sum.1 += count * openBLASSeconds(matrices, rows, repetitions)
    }
}

/// Operations that one more step adds to the plan.
private func operationsOfAStep(
    _ pipeline: Pipeline,
    _ request: GenerationRequest
) throws -> Double {
    var more = request
    more.steps = (request.steps ?? 1) + 1
    return try pipeline.plan(more).floatingPointOperations
        - pipeline.plan(request).floatingPointOperations
}
