import Checkpoints
import Compute
import Tensors

// The stages of a run, in order.
extension Pipeline {
    /// Prompts to text tokens of the transformer.
    func encode(_ ids: [[Int32]], _ run: Run) throws(GenerationError) {
        let names = ["pos", "neg"]
        let layers = Double(encoder.taps.last ?? 0)
        let watch = Watch(stage: "text encoder", checkpoint: encoderFiles.checkpoint) {
            run.meter.advanceText(by: 1 / layers)
        }
        let operators = Operators(sharing: run.operators, policy: arithmetic.textEncoder)
        let order = encoder.order(arithmetic.textEncoder)
        try encoder.forward(
            ids,
            supply: MatrixSupply(order, operators: operators),
            scratch: run.memory.encoder,
            operators: operators,
            watch: watch,
            into: run.memory.taps
        )
        for (index, ids) in ids.enumerated() {
            run.dump?.add("ids.\(names[index])", ids)
            run.dump?.add("taps.\(names[index])", run.memory.taps[index])
        }
        try fuse(names, run)
    }

    /// Taps to text tokens.
    private func fuse(_ names: [String], _ run: Run) throws(GenerationError) {
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
            run.dump?.add("text.\(names[index]).fused", scratch.fused)
            run.dump?.add("text.\(names[index]).in", text)
        }
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
        let rotary = RotaryTable(
            joining: run.memory.texts.map {
                transformer.rotaryTable(
                    textTokens: $0.rows,
                    gridHeight: packing.gridHeight,
                    gridWidth: packing.gridWidth
                )
            }
        )
        run.dump?.addImage("noise", noise, shape: shape)
        if image == 0 {
            run.dump?.add("sigmas", schedule.sigmas, shape: [schedule.sigmas.count])
        }

        var tokens = packing.pack(noise)
        for step in schedule.times.indices {
            try run.prepare(.step(sigma: schedule.sigmas[step]))
            run.memory.image.write(tokens)
            try velocities(rotary, step, image, schedule.times[step], run)
            let velocity = guided(step, run)
            let difference = schedule.sigmas[step + 1] - schedule.sigmas[step]
            for i in tokens.indices { tokens[i] += difference * velocity[i] }
            run.dump?.addImage("step\(step).latents", tokens, shape: run.memory.image.shape)
        }
        let latent = packing.unpack(tokens)
        run.dump?.addImage("latents", latent, shape: shape)
        return latent
    }

    /// One evaluation of the transformer, with all prompts.
    private func velocities(
        _ rotary: RotaryTable,
        _ step: Int,
        _ image: Int,
        _ time: Float,
        _ run: Run
    ) throws(GenerationError) {
        let branches = zip(run.memory.texts, run.memory.velocities).map {
            TransformerBranch(text: $0, velocity: $1)
        }
        let parts = Double(transformer.config.blocks + branches.count)
        let watch = Watch(
            stage: "transformer, step \(step + 1)",
            checkpoint: transformerFiles.checkpoint
        ) {
            run.meter.advanceStep(by: 1 / parts, image: image, step: step)
        }
        let dump = step == 0 && image == 0 ? run.dump : nil
        try run.transformer.forward(
            run.memory.image,
            branches,
            rotary: rotary,
            time: time,
            supply: run.supply(),
            scratch: run.memory.transformer,
            operators: run.operators,
            watch: watch,
            observe: dump.map { dump in { dump.add("step0.block\($0)", $1) } }
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
