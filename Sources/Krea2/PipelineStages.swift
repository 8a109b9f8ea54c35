import Checkpoints
import Compute
import Tensors

// The stages of a run, in order.
extension Pipeline {
    /// Fails when the files lack the autoencoder's encoder, or it is not as expected.
    func checkLatentEncoder() throws(GenerationError) {
        let operators = Operators(kernels: arithmetic.kernels, threads: 1)
        do {
            try LatentEncoderWeights.check(autoencoderFiles, operators)
        } catch {
            throw .model(error)
        }
    }

    /// The initial image to its latent.
    ///
    /// The encoder's weights are in memory only here.
    func encode(_ image: InitialImage, _ run: Run) throws(GenerationError) {
        guard let scratch = run.memory.latentEncoder else {
            preconditionFailure("no memory for the initial image")
        }
        let (encoder, operators) = try latentEncoder(run)
        try encoder.encode(
            image.rgb,
            scratch,
            operators: operators,
            progress: { run.meter.advanceEncoding(to: $0) }
        )
        let (latent, mask) = (scratch.latent, image.latentMask)
        run.dump?.add("init.latents", latent)
        if let mask {
            let shape = Array(latent.shape.dropFirst())
            run.dump?.add("init.mask", mask.map { $0 ? 1 : 0 }, shape: shape)
        }
        run.initial = InitialLatent(latent.elements, mask: mask, run.sizes.packing)
    }

    /// The autoencoder's encoder, and what it computes with.
    func latentEncoder(_ run: Run) throws(GenerationError) -> (LatentEncoder, Operators) {
        let operators = Operators(sharing: run.operators, policy: arithmetic.autoencoder)
        do {
            return (try LatentEncoder(autoencoderFiles, operators: operators), operators)
        } catch {
            throw .model(error)
        }
    }

    /// Prompts to taps.
    func encode(
        _ ids: [[Int32]],
        _ run: Run,
        _ messages: (String) -> Void
    ) throws(GenerationError) {
        if let kept = keptTaps(ids) {
            for (taps, kept) in zip(run.memory.taps, kept) { taps.copy(from: kept) }
            run.meter.advanceText(by: 1)
        } else {
            let layers = Double(encoder.taps.last ?? 0)
            let watch = encoder.watch { run.meter.advanceText(by: 1 / layers) }
            let operators = Operators(sharing: run.operators, policy: arithmetic.textEncoder)
            let order = encoder.order(arithmetic.textEncoder)
            try encoder.forward(
                ids.map { TokenSequence($0) },
                supply: MatrixSupply(order, operators: operators),
                scratch: run.memory.encoder,
                operators: operators,
                watch: watch,
                into: run.memory.taps
            )
            for (taps, ids) in zip(run.memory.taps, ids) { keep(taps, of: ids, messages) }
        }
        dump(ids, run)
    }

    /// Keeps the ids and taps of all prompts.
    func dump(_ ids: [[Int32]], _ run: Run) {
        for (name, (ids, taps)) in zip(Self.promptNames, zip(ids, run.memory.taps)) {
            run.dump?.add("ids.\(name)", ids)
            run.dump?.add("taps.\(name)", taps)
        }
    }

    /// What dumps call the prompt and the negative one.
    private static let promptNames = ["pos", "neg"]

    /// The taps of all prompts from the cache; nil where one of them is not there.
    private func keptTaps(_ ids: [[Int32]]) -> [Tensor]? {
        var all: [Tensor] = []
        for ids in ids {
            guard let taps = keptTaps(of: ids) else { return nil }
            all.append(taps)
        }
        return all
    }

    /// Taps to text tokens of the transformer.
    func fuse(_ run: Run) throws(GenerationError) {
        let operators = Operators(sharing: run.operators, policy: arithmetic.textFusion)
        let order = transformer.textFusion.order(
            arithmetic.textFusion,
            transformerFiles.checkpoint
        )
        let supply = try MatrixSupply(order, operators: operators)
        let watch = Watch(stage: "text fusion", checkpoint: transformerFiles.checkpoint) {}
        for (index, text) in run.memory.texts.enumerated() {
            let scratch = run.memory.fusions[index]
            try run.transformer.textFusion.forward(
                scratch,
                supply: supply,
                operators: operators,
                watch: watch,
                into: text
            )
            let name = Self.promptNames[index]
            run.dump?.add("text.\(name).fused", scratch.fused)
            run.dump?.add("text.\(name).in", text)
            run.sizes.wired?.sort(text, ofPrompt: index)
        }
        for (index, member) in run.groups.members.enumerated() {
            try fuse(member, index, supply, operators, run)
        }
    }

    /// Taps of a group to rows of the transformer, each part alone; no prompt takes part.
    private func fuse(
        _ member: GroupSet.Member,
        _ index: Int,
        _ supply: MatrixSupply,
        _ operators: Operators,
        _ run: Run
    ) throws(GenerationError) {
        let name = "reference \(oneLine(member.group.rows.key)), text fusion"
        let injected = member.injectedRows
        for (part, memory) in zip(member.group.rows.parts, run.memory.groupFusions[index]) {
            member.copyTaps(of: part, to: memory.scratch.taps)
            try run.transformer.textFusion.forward(
                memory.scratch,
                supply: supply,
                operators: operators,
                watch: Watch(stage: name, checkpoint: transformerFiles.checkpoint) {},
                keyLogs: member.keyLogs(of: Array(part)),
                into: memory.rows
            )
            for (place, row) in injected.enumerated() where part.contains(row) {
                let fused = memory.rows.row(row - part.lowerBound)
                run.memory.groups[index].row(place).copy(from: fused)
            }
        }
        run.dump?.add("group\(index).in", run.memory.groups[index])
    }

    /// Noise to latent: `[channels, h, w]`.
    func denoise(_ image: Int, _ run: Run) throws(GenerationError) -> [Float] {
        let packing = run.sizes.packing
        let shape = packing.latentShape
        let noise = Noise.normal(
            count: shape.reduce(1, *),
            seed: run.resolved.seed + UInt64(image)
        )
        let schedule = Schedule(steps: run.resolved.steps, shift: run.resolved.shift)
        let branches = StepBranches(transformer, run)
        run.dump?.addImage("noise", noise, shape: shape)
        if image == 0 {
            run.dump?.add("sigmas", schedule.sigmas, shape: [schedule.sigmas.count])
        }

        let packedNoise = packing.pack(noise)
        let first = run.resolved.skippedSteps
        var tokens =
            run.initial?.mixed(with: packedNoise, sigma: schedule.sigmas[first]) ?? packedNoise
        for step in schedule.times.indices.dropFirst(first) {
            try run.prepare(.step(sigma: schedule.sigmas[step]))
            run.memory.image.write(tokens)
            let place = StepPlace(
                image: image,
                step: step,
                sigma: schedule.sigmas[step],
                time: schedule.times[step]
            )
            try velocities(place, branches, run)
            let velocity = guided(step, run)
            let difference = schedule.sigmas[step + 1] - schedule.sigmas[step]
            for i in tokens.indices { tokens[i] += difference * velocity[i] }
            run.initial?.restore(&tokens, noise: packedNoise, sigma: schedule.sigmas[step + 1])
            run.dump?.addImage("step\(step).latents", tokens, shape: run.memory.image.shape)
        }
        let latent = packing.unpack(tokens)
        run.dump?.addImage("latents", latent, shape: shape)
        return latent
    }

    /// The velocities of a step: with the prompt and its groups, and with the negative prompt.
    private func velocities(
        _ place: StepPlace,
        _ branches: StepBranches,
        _ run: Run
    ) throws(GenerationError) {
        let prompts = run.memory.velocities.count
        switch run.groups.mode {
        case .attention:
            let active = run.groups.active(sigma: place.sigma)
            let evaluation = Evaluation(place: place, groups: active, prompts: prompts)
            try evaluate(evaluation, branches, run)
        case .exact:
            let terms = run.groups.terms(sigma: place.sigma)
            var evaluation = Evaluation(place: place, groups: [], prompts: prompts)
            evaluation.count = 1 + terms.count
            try evaluate(evaluation, branches, run)
            let alone = run.memory.velocities[0].elements
            var velocity = alone
            // The negative prompt has no groups.
            (evaluation.prompts, evaluation.isFirst) = (1, false)
            for term in terms {
                evaluation.groups = [term.active]
                try evaluate(evaluation, branches, run)
                let other = run.memory.velocities[0].elements
                for i in velocity.indices {
                    velocity[i] += term.strength * (other[i] - alone[i])
                }
            }
            run.memory.velocities[0].write(velocity)
        }
    }

    /// One evaluation of the transformer.
    private func evaluate(
        _ evaluation: Evaluation,
        _ rows: StepBranches,
        _ run: Run
    ) throws(GenerationError) {
        let groups = evaluation.groups.map { active in
            let member = run.groups.members[active.member]
            return BranchGroup(
                rows: run.memory.groups[active.member],
                keyLogs: member.keyLogs(of: member.injectedRows),
                logMass: member.logMass,
                family: member.group.family,
                weights: active.weights
            )
        }
        let branches = rows.branches(evaluation.prompts, groups)
        let place = evaluation.place
        let parts = Double(evaluation.count * (transformer.config.blocks + branches.count))
        let watch = Watch(
            stage: "transformer, step \(place.step + 1)",
            checkpoint: transformerFiles.checkpoint
        ) {
            run.meter.advanceStep(
                by: 1 / parts,
                image: place.image,
                step: place.step - run.resolved.skippedSteps
            )
        }
        let isDumped =
            place.step == run.resolved.skippedSteps && place.image == 0 && evaluation.isFirst
        let dump = isDumped ? run.dump : nil
        try run.transformer.forward(
            run.memory.image,
            branches,
            rotary: rows.rotary(branches),
            time: place.time,
            supply: run.supply(),
            scratch: run.memory.transformer,
            operators: run.operators,
            watch: watch,
            observe: dump.map { dump in { dump.add("step\(place.step).block\($0)", $1) } }
        )
    }

    /// The velocity to follow: conditional, or led away from the unconditional one.
    private func guided(_ step: Int, _ run: Run) -> [Float] {
        let shape = run.memory.image.shape
        var velocity = run.memory.velocities[0].elements
        run.dump?.addImage("step\(step).cond", velocity, shape: shape)
        if run.memory.velocities.count > 1 {
            let other = run.memory.velocities[1].elements
            run.dump?.addImage("step\(step).uncond", other, shape: shape)
            // Guidance 0 is off: the conditional velocity plus g times its lead.
            for i in velocity.indices {
                velocity[i] += run.resolved.guidance * (velocity[i] - other[i])
            }
        }
        run.dump?.addImage("step\(step).velocity", velocity, shape: shape)
        return velocity
    }

    /// Latent to pixels.
    ///
    /// The weights are converted anew for each picture, which takes far less time than decoding,
    /// so that they are not in memory while the transformer runs.
    func decode(
        _ latent: [Float],
        _ image: Int,
        _ run: Run
    ) throws(GenerationError) -> GeneratedImage {
        let (width, height) = (run.resolved.width, run.resolved.height)
        let shape = run.sizes.packing.latentShape
        var rgb = [UInt8](repeating: 0, count: 3 * width * height)
        let planes = run.dump.map { _ in Tensor(zeros: [3, height, width]) }
        let operators = Operators(sharing: run.operators, policy: arithmetic.autoencoder)
        let autoencoder: Autoencoder
        do {
            autoencoder = try Autoencoder(autoencoderFiles, operators: operators)
        } catch {
            throw .model(error)
        }
        try autoencoder.decode(
            Tensor(latent, shape: shape),
            run.memory.autoencoder,
            operators: operators,
            progress: { run.meter.advanceDecoding(to: $0, image: image) },
            onRows: { rows in
                rows.copy(toBytes: &rgb)
                if let planes { rows.copy(toPlanes: planes) }
            }
        )
        if let dump = run.dump, let planes {
            let input = run.memory.autoencoder.latent
            dump.addImage("vae.in", input.elements, shape: input.shape)
            dump.addImage("vae.out", planes.elements, shape: planes.shape)
            dump.addPixels(rgb, shape: [height, width, 3])
        }
        return GeneratedImage(
            width: width,
            height: height,
            rgb: rgb,
            seed: run.resolved.seed + UInt64(image)
        )
    }
}

/// What the transformer sees in all steps of a picture.
private struct StepBranches {
    /// The prompts with the pictures of their sequences.
    private let prompts: [TransformerBranch]
    /// Angles of each prompt's text and of the image.
    private let tables: [RotaryTable]
    /// Angles of text, as many as a group has rows.
    private let still: RotaryTable

    init(_ transformer: Transformer, _ run: Pipeline.Run) {
        let (sizes, memory) = (run.sizes, run.memory)
        let latents = sizes.wired?.latents(memory.latents, beside: sizes.packing, transformer)
        prompts = zip(memory.texts, memory.velocities).enumerated().map { index, tensors in
            let (text, velocity) = tensors
            return sizes.wired?.branch(
                ofPrompt: index,
                text,
                velocity: velocity,
                latents ?? [],
                blocks: transformer.config.blocks
            ) ?? TransformerBranch(text: text, velocity: velocity)
        }
        tables = prompts.map {
            transformer.rotaryTable(
                textTokens: $0.text.rows,
                gridHeight: sizes.packing.gridHeight,
                gridWidth: sizes.packing.gridWidth
            )
        }
        let rows = (prompts[0].groups.map(\.rows) + memory.groups).map(\.rows)
        still = transformer.rotaryTable(RotaryPosition.text(tokens: rows.max() ?? 1))
    }

    /// The first prompts, with groups beside the very first.
    func branches(_ count: Int, _ groups: [BranchGroup]) -> [TransformerBranch] {
        var branches = Array(prompts.prefix(count))
        branches[0].groups += groups
        return branches
    }

    /// Angles of all rows in the order in which `TransformerRows` places them.
    func rotary(_ branches: [TransformerBranch]) -> RotaryTable {
        let sequences = zip(tables, branches).flatMap { [$0] + $1.latents.map(\.rotary) }
        let groups = branches.flatMap(\.groups).flatMap { group in
            [still.rows(0..<group.rows.rows)] + (group.latent.map { [$0.rotary] } ?? [])
        }
        return RotaryTable(joining: sequences + groups)
    }
}

/// A step of a picture.
private struct StepPlace {
    let image: Int
    let step: Int
    /// Noise level at which the step begins, and what the network is told of it.
    let sigma: Float
    let time: Float
}

/// One of the evaluations of a step.
private struct Evaluation {
    let place: StepPlace
    /// What the prompt's rows see beside each other.
    var groups: [GroupSet.Active]
    /// 1, or 2 with the negative prompt.
    var prompts: Int
    /// Evaluations of the step.
    var count = 1
    /// Whether it is the first of them.
    var isFirst = true
}
