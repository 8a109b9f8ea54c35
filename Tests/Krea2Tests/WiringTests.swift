import Compute
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// Reference pictures in the transformer's sequence: against the reference, and identities.
struct WiringTests {
    /// Largest relative error against the reference; observed: 3.4e-6.
    private static let limit = 1e-5
    /// Between ways to compute the same in float32; observed: 3e-7.
    private static let sameLimit = 1.2e-6
    private static let precisions = [Precision.float32, .bfloat16, .int8]

    @Test func hasCases() { #expect(WiringCase.all.count == 9) }

    @Test(arguments: WiringCase.all)
    func agreesWithTheReference(_ parity: WiringCase) throws {
        let fixture = try parity.dump
        let outcome = try Outcome(parity.pipeline(), parity.request)
        for name in fixture.names where !name.hasSuffix("rgb") && !name.hasPrefix("ids") {
            let error = try relativeError(outcome.floats(name), fixture.floats(name))
            #expect(error < Self.limit, "\(name): \(error)")
        }
        let steps = outcome.tensors.keys.filter { $0.hasSuffix(".cond") }
        #expect(steps.count == parity.steps)
    }

    // MARK: Identities

    /// A case by name.
    private func wiringCase(_ name: String) throws -> WiringCase {
        try #require(WiringCase.all.first { $0.name == name })
    }

    /// The first velocity of a case, changed.
    private func velocity(
        _ name: String,
        _ change: (inout WiredReferences) -> Void
    ) throws -> [Float] {
        let parity = try wiringCase(name)
        var request = try parity.request
        request.steps = 1
        var wired = try #require(request.wired)
        change(&wired)
        request.wired = wired
        return try Outcome(parity.pipeline(), request).floats("step0.cond")
    }

    @Test(arguments: precisions, ["index-two", "frame-two"])
    func noneIsTextToImage(_ precision: Precision, _ name: String) throws {
        let parity = try wiringCase(name)
        let pipeline = try parity.pipeline(precision)
        var request = try parity.request
        request.wired = nil
        let base = try Outcome(pipeline, request)
        let plan = try pipeline.plan(request)
        let references = try #require(try parity.request.wired)
        for wiring in ReferenceWiring.allCases {
            request.wired = WiredReferences(wiring, [])
            #expect(try Outcome(pipeline, request).differences(from: base).isEmpty)
            request.wired?.pictures = references.pictures
            for index in references.pictures.indices { request.wired?.pictures[index].strength = 0 }
            #expect(try Outcome(pipeline, request).differences(from: base).isEmpty)
            let same = try pipeline.plan(request)
            #expect(same.peakBytes == plan.peakBytes)
            #expect(same.floatingPointOperations == plan.floatingPointOperations)
        }
    }

    /// The others move up.
    @Test func strengthZeroIsRemoved() throws {
        let without = try velocity("index-long") { $0.pictures.remove(at: 0) }
        let removed = try velocity("index-long") { $0.pictures[0].strength = 0 }
        #expect(removed == without)
        #expect(try velocity("index-long") { _ in } != without)
        let swapped = try velocity("index-long") { $0.pictures.reverse() }
        #expect(try swapped != velocity("index-long") { _ in })
    }

    @Test(arguments: precisions, ["index-two", "frame-two", "index-one-beside"])
    func neitherMemoryNorThreadsChangeABit(_ precision: Precision, _ name: String) throws {
        let parity = try wiringCase(name)
        let request = try parity.request
        let free = try Outcome(parity.pipeline(precision, threads: 1), request)
        let error = #expect(throws: GenerationError.self) {
            try Outcome(parity.pipeline(precision, memory: 1), request)
        }
        let words = try #require(error).description.split(separator: " ")
        let needed = try #require(words.dropLast().last.flatMap { Int($0) })
        let least = try parity.pipeline(precision, memory: needed << 20)
        #expect(try Outcome(least, request).differences(from: free).isEmpty)
    }

    /// At strength 1 the rule for references beside the sequence is the sequence itself.
    @Test(arguments: ["index-one", "frame-one"])
    func strengthOneIsTheSequence(_ name: String) throws {
        let within = try velocity(name) { _ in }
        let beside = try velocity(name) { $0.pictures[0].strength = Float(1).nextUp }
        let error = relativeError(beside, within)
        #expect(error < Self.sameLimit && error > 0, "\(error)")
    }

    @Test func strengthsAreMonotone() throws {
        let base = try velocity("index-one") { $0.pictures[0].strength = 0.01 }
        var last = 0.0
        for strength in [Float(0.1), 0.3, 0.6, 0.9] {
            let found = try velocity("index-one") { $0.pictures[0].strength = strength }
            let distance = relativeError(found, base)
            #expect(distance > last)
            last = distance
        }
    }

    @Test func boostGrowsTheirShare() throws {
        let one = try velocity("frame-one") { _ in }
        let distances = try [Float(1), 1.2, 1.5, 2].map { boost in
            relativeError(try velocity("frame-one") { $0.boost = boost }, one)
        }
        #expect(distances[0] == 0 && distances == distances.sorted() && distances[1] > 1e-4)
    }

    // MARK: Rows

    /// Latents have a time of their own where they are still, and only they.
    @Test func timesFollowTheLatents() throws {
        let text = Tensor(zeros: [3, 8])
        func latent(_ tokens: Int, isStill: Bool) -> LatentRows {
            let angles = Tensor(zeros: [tokens, 4])
            return LatentRows(
                tokens: Tensor(zeros: [tokens, 4]),
                rotary: RotaryTable(cosine: angles, sine: angles, pairsAreAdjacent: true),
                isStill: isStill,
                logBoost: 0
            )
        }
        func times(isStill: Bool) -> [TimedRows] {
            let (first, second) = (latent(2, isStill: isStill), latent(5, isStill: isStill))
            var branch = TransformerBranch(text: text, velocity: text, latents: [first])
            branch.groups = [
                BranchGroup(
                    rows: text,
                    latent: second,
                    keyLogs: nil,
                    logMass: 0,
                    family: .references,
                    weights: [1]
                )
            ]
            let rows = TransformerRows([branch, branch], imageTokens: 4)
            #expect(rows.count == 2 * (3 + 4 + 2) + 2 * (3 + 5) && rows.hasStillRows == isStill)
            return rows.block(0, wantsText: true, rotary: first.rotary).times
        }
        #expect(times(isStill: false) == [TimedRows(rows: 0..<34, time: 0)])
        let ranges = [0..<7, 7..<9, 9..<16, 16..<18, 18..<21, 21..<26, 26..<29, 29..<34]
        #expect(
            times(isStill: true)
                == ranges.enumerated().map { TimedRows(rows: $1, time: $0 % 2) }
        )
    }

    @Test func framesAreCentred() {
        func packing(_ height: Int, _ width: Int) -> LatentPacking {
            LatentPacking(channels: 16, gridHeight: height, gridWidth: width)
        }
        func ends(_ wiring: ReferenceWiring) -> [RotaryPosition] {
            let all = wiring.positions(1, packing(3, 2), beside: packing(4, 6))
            return [all[0], all[5]]
        }
        #expect(
            ends(.indexT0) == [
                RotaryPosition(frame: 2), RotaryPosition(frame: 2, row: 2, column: 1),
            ]
        )
        #expect(
            ends(.frameT) == [
                RotaryPosition(frame: 2, row: 0.5, column: 2),
                RotaryPosition(frame: 2, row: 2.5, column: 3),
            ]
        )
    }

    // MARK: LoRAs, plans, errors

    /// A LoRA that changes the text stage alone works with references, too.
    @Test func textLoRAsApply() throws {
        let parity = try wiringCase("index-one")
        let pipeline = try parity.pipeline()
        let targets = LoRATargets(pipeline.transformer.config)
        let layer = try #require(targets.layers.first { $0.name == "txtfusion.projector" })
        var random = SeededGenerator(seed: 3)
        var lora = LoRAFixture()
        let name = "diffusion_model.\(layer.name)"
        lora.add("\(name).lora_A.weight", 2, layer.inputs, random: &random)
        lora.add("\(name).lora_B.weight", layer.outputs, 2, random: &random)
        let folder = try TemporaryFolder()
        let file = try pipeline.openLoRA(path: lora.write(to: folder))
        var request = try parity.request
        let base = try Outcome(pipeline, request)
        request.loras = [LoRAUse(file)]
        let changed = try Outcome(pipeline, request)
        #expect(try changed.floats("taps.pos") == base.floats("taps.pos"))
        #expect(try changed.floats("text.pos.fused") != base.floats("text.pos.fused"))
        #expect(try changed.floats("step0.cond") != base.floats("step0.cond"))
    }

    @Test func lorasFadeOutWithReferences() {
        #expect(WiredReferences.loraFactor(strengths: []) == 0)
        #expect(WiredReferences.loraFactor(strengths: [0, 0.05, -0.125]) == 0.5)
        #expect(WiredReferences.loraFactor(strengths: [-0.25, 0]) == 1)
        #expect(WiredReferences.loraFactor(strengths: [2]) == 1)
    }

    @Test func plansCountRows() throws {
        let parity = try wiringCase("index-long")
        let pipeline = try parity.pipeline()
        var request = try parity.request
        let with = try pipeline.plan(request)
        #expect(
            with.stages.map(\.name) == ["references", "text encoder", "transformer", "autoencoder"]
        )
        let latents = with.buffers.filter { $0.name == "reference latent" }
        #expect(latents.map(\.shape) == [[35, 64], [36, 64]])
        func residual(_ plan: GenerationPlan) -> Int {
            let own = plan.buffers.filter { $0.stage == "transformer" && $0.name == "residual" }
            return own.first?.shape[0] ?? 0
        }
        request.wired?.pictures[0].strength = 0.5
        let beside = try pipeline.plan(request)
        #expect(residual(beside) == residual(with))
        request.wired = nil
        let without = try pipeline.plan(request)
        // "Picture 1: ", tokens and two marks around them, of both; the prompt's line feeds part
        // from the template's.
        #expect(residual(with) > residual(without) + 35 + 36 + 6 + 3 + 4)
        for (more, less) in zip(with.stages.dropFirst().prefix(2), without.stages) {
            #expect(more.name == less.name && more.work.total > less.work.total)
        }
    }

    @Test func progressEndsAtOne() throws {
        let parity = try wiringCase("index-one-beside")
        var (last, stages): (Double, [GenerationProgress.Stage]) = (0, [])
        _ = try parity.pipeline().generate(
            parity.request,
            progress: { progress in
                #expect(progress.overall >= last - 1e-9)
                last = progress.overall
                if stages.last != progress.stage { stages.append(progress.stage) }
            }
        )
        #expect(abs(last - 1) < 1e-6)
        #expect(stages == [.referenceLatents, .textEncoder, .transformer, .autoencoder])
    }

    @Test func whatDoesNotFitIsRefused() throws {
        let parity = try wiringCase("index-one")
        let pipeline = try parity.pipeline()
        func refuses(
            _ reason: String,
            _ change: (inout WiredReferences) -> Void,
            mode: ConditioningGroup.Mode = .attention
        ) throws {
            var request = try parity.request
            request.groupMode = mode
            var wired = try #require(request.wired)
            change(&wired)
            request.wired = wired
            let error = #expect(throws: GenerationError.self) { try pipeline.plan(request) }
            #expect(error?.description == reason && error?.category == .request)
        }
        try refuses("reference boost 0.0, expected 0.01 to 100", { $0.boost = 0 })
        try refuses("reference boost nan, expected 0.01 to 100", { $0.boost = .nan })
        try refuses("a reference boost needs the wiring frame_t", { $0.boost = 2 })
        try refuses(
            "11 references, expected at most 10",
            { $0.pictures = [WiredReferences.Picture](repeating: $0.pictures[0], count: 11) }
        )
        try refuses(
            "reference 1: 112x72 pixels, expected multiples of 16 from 64 to 4096 and at most "
                + "1048576 pixels",
            { $0.pictures[0].height = 72 }
        )
        try refuses(
            "reference 1: 4096x4096 pixels, expected multiples of 16 from 64 to 4096 and at most "
                + "1048576 pixels",
            { ($0.pictures[0].width, $0.pictures[0].height) = (4096, 4096) }
        )
        try refuses(
            "reference 1: 26880 bytes, expected 32256",
            { $0.pictures[0].height = 96 }
        )
        try refuses(
            "reference 1: strength inf, expected −100 to 100",
            { $0.pictures[0].strength = .infinity }
        )
        try refuses(
            "the mode exact takes references of strength 1 where they stand in the sequence",
            { $0.pictures[0].strength = 0.5 },
            mode: .exact
        )
        let seen = ReferencePicture(
            source: .init(content: "a", treatment: "none", side: 384),
            width: 40,
            height: 64,
            rgb: [UInt8](repeating: 0, count: 3 * 40 * 64)
        )
        try refuses(
            "a picture of 40×64 pixels for the text encoder, expected multiples of 32",
            { $0.pictures[0].seen = seen }
        )
    }
}
