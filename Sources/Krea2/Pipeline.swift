import Checkpoints
import Compute
import Tensors
import Tokenization

/// How a pipeline computes.
public struct PipelineOptions: Sendable {
    /// Threads to compute with, 1 or more; pictures do not depend on it.
    public var threads: Int
    /// Which checkpoint it is; nil to go by the files.
    public var variant: Variant?

    /// Chooses options.
    ///
    /// - Parameters:
    ///   - threads: Threads to compute with.
    ///   - variant: Which checkpoint it is; nil to go by the files.
    public init(threads: Int = Engine.physicalCores, variant: Variant? = nil) {
        self.threads = threads
        self.variant = variant
    }
}

/// A model, ready to make pictures.
///
/// Opening it checks the headers of all files and every tensor's shape; weights are mapped, and read
/// when they are computed with. A pipeline makes one picture at a time, on the calling thread and
/// `threads − 1` others.
public final class Pipeline {
    /// What was found in the files.
    public let summary: ModelSummary

    private let options: PipelineOptions
    private let kernels: Kernels
    private let template: PromptTemplate
    private let encoderFiles: TextEncoderFiles
    private let encoder: TextEncoder
    private let transformerFiles: TransformerFiles
    private let transformer: Transformer
    private let autoencoderFiles: AutoencoderFiles
    private let shiftRule: ShiftRule

    /// Opens all parts of a model.
    ///
    /// - Parameters:
    ///   - files: Where the parts are.
    ///   - options: How to compute.
    /// - Throws: `.model` or `.tokenizer` for files that are missing, damaged or do not fit
    ///   together.
    public init(
        _ files: ModelFiles,
        options: PipelineOptions = PipelineOptions()
    ) throws(GenerationError) {
        guard options.threads > 0 else {
            throw .request("\(options.threads) threads, expected 1 or more")
        }
        self.options = options
        kernels = try Engine.kernels()
        do {
            let index = try ModelIndex(path: files.modelIndex)
            shiftRule = try ShiftRule(schedulerOf: files)
            transformerFiles = try TransformerFiles(path: files.transformer)
            transformer = try Transformer(transformerFiles)
            encoderFiles = try TextEncoderFiles(path: files.textEncoder)
            let taps =
                index.taps ?? (0..<transformer.config.taps).map { 2 + 3 * $0 }
            encoder = try TextEncoder(encoderFiles, taps: taps)
            autoencoderFiles = try AutoencoderFiles(path: files.autoencoder)
            try AutoencoderWeights.check(
                autoencoderFiles,
                Operators(kernels: kernels, threads: options.threads)
            )
            try Self.checkFit(encoder, transformer, autoencoderFiles.config, files)
            let tokenizer = try Tokenizer(path: files.tokenizer)
            template = try PromptTemplate(tokenizer)
            summary = ModelSummary(
                index,
                VariantChoice.decide(
                    override: options.variant,
                    index: index,
                    transformerPath: files.transformer
                ),
                parts: [
                    try ModelSummary.Part("text encoder", encoderFiles.whole),
                    try ModelSummary.Part("transformer", transformerFiles.checkpoint),
                    try ModelSummary.Part("autoencoder", autoencoderFiles.checkpoint),
                    try ModelSummary.Part(tokenizer),
                ]
            )
        } catch let error as CheckpointError {
            throw .model(error)
        } catch let error as TokenizerError {
            throw .tokenizer(error)
        } catch {
            throw .request("\(error)")
        }
    }

    /// Fails when parts that are sound themselves do not belong together.
    private static func checkFit(
        _ encoder: TextEncoder,
        _ transformer: Transformer,
        _ autoencoder: AutoencoderConfig,
        _ files: ModelFiles
    ) throws(CheckpointError) {
        let config = transformer.config
        let pairs = [
            ("taps", encoder.taps.count, config.taps, files.textEncoder),
            (
                "width of the text encoder", encoder.config.width, config.text.width,
                files.textEncoder
            ),
            (
                "latent channels", autoencoder.latentChannels, config.tokenWidth / 4,
                files.autoencoder
            ),
        ]
        for (name, found, expected, path) in pairs where found != expected {
            throw .damaged(
                path: path,
                tensor: nil,
                found: "\(name): \(found)",
                expected: "\(expected), which the transformer \(files.transformer) was made for"
            )
        }
    }
}

// MARK: Before a run

extension Pipeline {
    /// Fills in the checkpoint's recommendations.
    ///
    /// - Parameter request: What is wanted.
    /// - Returns: All effective values.
    /// - Throws: `.request` when a value is out of range.
    public func resolve(_ request: GenerationRequest) throws(GenerationError) -> ResolvedRequest {
        try request.validate()
        let tokens = request.width * request.height / 256
        let prompt = template.encode(request.prompt)
        let isTurbo = summary.variant == .turbo
        return ResolvedRequest(
            variant: summary.variant,
            steps: request.steps ?? summary.recommendedSteps,
            guidance: request.guidance ?? summary.recommendedGuidance,
            shift: request.shift
                ?? (isTurbo ? Schedule.turboShift : shiftRule.shift(imageTokens: tokens)),
            width: request.width,
            height: request.height,
            seed: request.seed,
            imageCount: request.imageCount,
            promptTokens: prompt.ids.count - PromptTemplate.sliceStart,
            truncatedTokens: prompt.truncatedTokens
        )
    }

    /// Predicts memory, disk reads and work; reads no weights.
    ///
    /// - Parameter request: What is wanted.
    /// - Returns: The prediction.
    /// - Throws: `.request` when a value is out of range.
    public func plan(_ request: GenerationRequest) throws(GenerationError) -> GenerationPlan {
        let resolved = try resolve(request)
        let sizes = runSizes(resolved, ids(request, resolved))
        var arena = Arena.measuring()
        let memory = memory(sizes, &arena)
        let weights = zip(["text encoder", "transformer", "autoencoder"], summary.parts)
        let workload = workload(sizes)
        return GenerationPlan(
            buffers: memory.plan.map {
                GenerationPlan.Buffer(
                    stage: $0.stage,
                    name: $0.buffer.name,
                    shape: $0.buffer.shape,
                    byteCount: $0.buffer.byteCount
                )
            },
            arenaBytes: arena.byteCount + Operators.scratchByteCount(threads: options.threads),
            weightBytes: weights.map { ($0, $1.byteCount) },
            diskBytes: weights.reduce(0) { $0 + $1.1.byteCount },
            floatingPointOperations: workload.total(
                steps: resolved.steps,
                images: resolved.imageCount
            )
        )
    }

    /// Token ids of the prompt, and of the negative prompt where there is guidance.
    private func ids(_ request: GenerationRequest, _ resolved: ResolvedRequest) -> [[Int32]] {
        let prompts =
            [request.prompt] + (resolved.guidance > 0 ? [request.negativePrompt ?? ""] : [])
        return prompts.map { template.encode($0).ids }
    }

    private func runSizes(_ resolved: ResolvedRequest, _ ids: [[Int32]]) -> RunSizes {
        let unit = GenerationRequest.sideMultiple
        return RunSizes(
            idCounts: ids.map(\.count),
            textTokens: ids.map { $0.count - PromptTemplate.sliceStart },
            packing: LatentPacking(
                channels: transformer.config.tokenWidth / 4,
                gridHeight: resolved.height / unit,
                gridWidth: resolved.width / unit
            )
        )
    }

    private func memory(_ sizes: RunSizes, _ arena: inout Arena) -> RunMemory {
        RunMemory(
            sizes,
            encoder: encoder.config,
            transformer: transformer.config,
            autoencoder: autoencoderFiles.config,
            &arena
        )
    }

    private func workload(_ sizes: RunSizes) -> Workload {
        let packing = sizes.packing
        return Workload(
            sizes,
            encoder: encoder.config,
            layers: encoder.taps.last ?? 0,
            transformer: transformer.config,
            decoding: autoencoderFiles.config.floatingPointOperations(
                latentHeight: 2 * packing.gridHeight,
                latentWidth: 2 * packing.gridWidth
            )
        )
    }
}

// MARK: Run

extension Pipeline {
    /// Makes pictures.
    ///
    /// - Parameters:
    ///   - request: What is wanted.
    ///   - messages: Receives remarks for the user, such as that a prompt was cut.
    ///   - progress: Called after every block of every network.
    ///   - isCancelled: Asked many times a second, from several threads.
    ///   - dump: Receives intermediate tensors; nil for none.
    /// - Returns: The pictures in order of their seeds.
    /// - Throws: `.request` for values out of range, `.notFinite` with the place, `.cancelled`, and
    ///   `.model` when files change meanwhile.
    public func generate(
        _ request: GenerationRequest,
        messages: (String) -> Void = { _ in },
        progress: (GenerationProgress) -> Void = { _ in },
        isCancelled: @escaping @Sendable () -> Bool = { false },
        dump: Dump? = nil
    ) throws(GenerationError) -> [GeneratedImage] {
        let resolved = try resolve(request)
        let ids = ids(request, resolved)
        report(request, resolved, messages)
        try checkVocabulary(ids)

        let sizes = runSizes(resolved, ids)
        var measure = Arena.measuring()
        _ = memory(sizes, &measure)
        var arena = Arena(Storage(byteCount: measure.byteCount))
        let memory = memory(sizes, &arena)
        let operators = Operators(
            kernels: kernels,
            threads: options.threads,
            isCancelled: isCancelled
        )
        return try withoutActuallyEscaping(progress) { progress throws(GenerationError) in
            let run = Run(
                resolved: resolved,
                sizes: sizes,
                memory: memory,
                operators: operators,
                meter: ProgressMeter(workload(sizes), resolved, progress),
                dump: dump
            )
            try encode(ids, run)
            var images: [GeneratedImage] = []
            for image in 0..<resolved.imageCount {
                let latent = try denoise(image, run)
                images.append(try decode(latent, image, run))
            }
            return images
        }
    }

    /// What one run shares between its stages.
    private struct Run {
        let resolved: ResolvedRequest
        let sizes: RunSizes
        let memory: RunMemory
        let operators: Operators
        let meter: ProgressMeter
        let dump: Dump?
    }

    private func report(
        _ request: GenerationRequest,
        _ resolved: ResolvedRequest,
        _ messages: (String) -> Void
    ) {
        let limit = PromptTemplate.conditioningLimit - PromptTemplate.suffixTokenCount
        var prompts = [("prompt", resolved.truncatedTokens)]
        if resolved.guidance > 0 {
            let negative = template.encode(request.negativePrompt ?? "")
            prompts.append(("negative prompt", negative.truncatedTokens))
        }
        for (name, dropped) in prompts where dropped > 0 {
            messages("\(name): the last \(dropped) tokens are dropped, \(limit) fit")
        }
    }

    private func checkVocabulary(_ ids: [[Int32]]) throws(GenerationError) {
        let largest = ids.joined().max() ?? 0
        guard largest < encoder.config.vocabulary else {
            throw .model(
                .damaged(
                    path: encoderFiles.whole.path,
                    tensor: nil,
                    found: "embeddings of \(encoder.config.vocabulary) tokens",
                    expected:
                        "more than \(largest), a token of the prompt; the tokenizer is another"
                )
            )
        }
    }

    /// Prompts to text tokens of the transformer.
    private func encode(_ ids: [[Int32]], _ run: Run) throws(GenerationError) {
        let names = ["pos", "neg"]
        let blocks = Double(encoder.taps.last ?? 0)
        let watch = Watch(stage: "text encoder", checkpoint: encoderFiles.checkpoint) {
            run.meter.advanceText(by: 1 / (blocks * Double(ids.count)))
        }
        for (index, ids) in ids.enumerated() {
            let taps = run.memory.taps[index]
            try encoder.forward(
                ids,
                scratch: run.memory.encoders[index],
                operators: run.operators,
                watch: watch,
                into: taps
            )
            run.dump?.add("ids.\(names[index])", ids)
            run.dump?.add("taps.\(names[index])", taps)
        }
        for index in ids.indices {
            let (scratch, text) = (run.memory.fusions[index], run.memory.texts[index])
            let watch = Watch(stage: "text fusion", checkpoint: transformerFiles.checkpoint) {}
            try transformer.textFusion.forward(
                scratch,
                operators: run.operators,
                watch: watch,
                into: text
            )
            run.dump?.add("text.\(names[index]).fused", scratch.fused)
            run.dump?.add("text.\(names[index]).in", text)
        }
    }

    /// Noise to latent: `[channels, h, w]`.
    private func denoise(_ image: Int, _ run: Run) throws(GenerationError) -> [Float] {
        let packing = run.sizes.packing
        let shape = packing.latentShape
        let noise = Noise.normal(
            count: shape.reduce(1, *),
            seed: run.resolved.seed + UInt64(image)
        )
        let schedule = Schedule(steps: run.resolved.steps, shift: run.resolved.shift)
        let rotaries = run.sizes.textTokens.map {
            transformer.rotaryTable(
                textTokens: $0,
                gridHeight: packing.gridHeight,
                gridWidth: packing.gridWidth
            )
        }
        run.dump?.addImage("noise", noise, shape: shape)
        if image == 0 {
            run.dump?.add("sigmas", schedule.sigmas, shape: [schedule.sigmas.count])
        }

        var tokens = packing.pack(noise)
        for step in schedule.times.indices {
            run.memory.image.write(tokens)
            for branch in rotaries.indices {
                try velocity(branch, step, image, schedule.times[step], rotaries[branch], run)
            }
            let velocity = guided(step, run)
            let difference = schedule.sigmas[step + 1] - schedule.sigmas[step]
            for i in tokens.indices { tokens[i] += difference * velocity[i] }
            run.dump?.addImage("step\(step).latents", tokens, shape: run.memory.image.shape)
        }
        let latent = packing.unpack(tokens)
        run.dump?.addImage("latents", latent, shape: shape)
        return latent
    }

    /// One evaluation of the transformer, with the prompt (0) or the negative one (1).
    private func velocity(
        _ branch: Int,
        _ step: Int,
        _ image: Int,
        _ time: Float,
        _ rotary: RotaryTable,
        _ run: Run
    ) throws(GenerationError) {
        let branches = run.memory.velocities.count
        let parts = Double((transformer.config.blocks + 1) * branches)
        let watch = Watch(
            stage: "transformer, step \(step + 1)",
            checkpoint: transformerFiles.checkpoint
        ) {
            run.meter.advanceStep(by: 1 / parts, image: image, step: step)
        }
        let blockDump = branch == 0 && step == 0 && image == 0 ? run.dump : nil
        try transformer.forward(
            run.memory.image,
            text: run.memory.texts[branch],
            time: time,
            rotary: rotary,
            scratch: run.memory.transformer,
            operators: run.operators,
            watch: watch,
            observe: { blockDump?.add("step0.block\($0)", $1) },
            into: run.memory.velocities[branch]
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
    private func decode(
        _ latent: [Float],
        _ image: Int,
        _ run: Run
    ) throws(GenerationError) -> GeneratedImage {
        let (width, height) = (run.resolved.width, run.resolved.height)
        let shape = run.sizes.packing.latentShape
        var rgb = [UInt8](repeating: 0, count: 3 * width * height)
        let planes = run.dump.map { _ in Tensor(zeros: [3, height, width]) }
        let autoencoder: Autoencoder
        do {
            autoencoder = try Autoencoder(autoencoderFiles, operators: run.operators)
        } catch {
            throw .model(error)
        }
        try autoencoder.decode(
            Tensor(latent, shape: shape),
            run.memory.autoencoder,
            operators: run.operators,
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
