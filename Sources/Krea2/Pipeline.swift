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
    /// Arithmetic of the linear layers.
    public var precision: Precision
    /// Most bytes of memory to use; nil for what the machine can spare.
    ///
    /// Weights that do not fit are read from disk again in each step, which changes no picture.
    public var memoryByteCount: Int?
    /// Where encoded pictures and prompts are kept for the next run; nil for nowhere.
    public var cache: EncodingCache?

    /// Chooses options.
    ///
    /// - Parameters:
    ///   - threads: Threads to compute with.
    ///   - variant: Which checkpoint it is; nil to go by the files.
    ///   - precision: Arithmetic of the linear layers.
    ///   - memoryByteCount: Most bytes of memory to use; nil for what the machine can spare.
    ///   - cache: Where encoded pictures and prompts are kept for the next run; nil for nowhere.
    public init(
        threads: Int = Engine.defaultThreads,
        variant: Variant? = nil,
        precision: Precision = .automatic,
        memoryByteCount: Int? = nil,
        cache: EncodingCache? = nil
    ) {
        self.threads = threads
        self.variant = variant
        self.precision = precision
        self.memoryByteCount = memoryByteCount
        self.cache = cache
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

    let options: PipelineOptions
    let arithmetic: RunArithmetic
    let kernels: Kernels
    let template: PromptTemplate
    let encoderFiles: TextEncoderFiles
    let encoder: TextEncoder
    let transformerFiles: TransformerFiles
    let transformer: Transformer
    let autoencoderFiles: AutoencoderFiles
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
            arithmetic = RunArithmetic(
                options.precision,
                textEncoder: encoder.order(.float32).groups.flatMap { $0 },
                textFusion: transformer.textFusion.order(.float32, transformerFiles.checkpoint)
                    .groups.flatMap { $0 },
                blocks: transformer.blockMatrices,
                kernels: kernels
            )
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
        let isTurbo = summary.variant == .turbo
        let steps = request.steps ?? summary.recommendedSteps
        let guidance = request.guidance ?? summary.recommendedGuidance
        let texts = [request.prompt] + (guidance > 0 ? [request.negativePrompt ?? ""] : [])
        return ResolvedRequest(
            variant: summary.variant,
            steps: steps,
            skippedSteps: try request.initialImage?.firstStep(of: steps) ?? 0,
            guidance: guidance,
            shift: request.shift
                ?? (isTurbo ? Schedule.turboShift : shiftRule.shift(imageTokens: tokens)),
            width: request.width,
            height: request.height,
            seed: request.seed,
            imageCount: request.imageCount,
            precision: arithmetic.effective,
            prompts: texts.map(template.encode)
        )
    }

    /// Predicts memory, disk reads and work; reads no weights.
    ///
    /// - Parameters:
    ///   - request: What is wanted.
    ///   - pictures: What is encoded before the run, unless it is in the cache.
    /// - Returns: The prediction.
    /// - Throws: `.request` when a value is out of range.
    public func plan(
        _ request: GenerationRequest,
        encoding pictures: [ReferencePicture] = []
    ) throws(GenerationError) -> GenerationPlan {
        let resolved = try resolve(request)
        let groups = try groups(request)
        let sizes = try runSizes(resolved, request, groups)
        let loras = try LoRAActivation(request.loras, transformer, arithmetic)
        let encoding = try encodingPlan(pictures)
        let memory = try memoryPlan(sizes, loras, groups, encoding: encoding?.byteCount ?? 0)
        let weights = zip(["text encoder", "transformer", "autoencoder"], summary.parts)
        return GenerationPlan(
            stages: (encoding.map { [$0.stage] } ?? [])
                + stages(
                    resolved,
                    workload(sizes),
                    memory.transformer,
                    towerBytes: sizes.wired?.encoder.towerByteCount ?? 0
                ),
            buffers: memory.buffers.map {
                GenerationPlan.Buffer(
                    stage: $0.stage,
                    name: $0.buffer.name,
                    shape: $0.buffer.shape,
                    byteCount: $0.buffer.byteCount
                )
            },
            arenaBytes: memory.arena + memory.scratch,
            weightBytes: weights.map { ($0, $1.byteCount) },
            residentWeightBytes: max(
                memory.weights,
                autoencoderFiles.byteCount(of: .decoder)
            ),
            loraBytes: memory.loras,
            programBytes: memory.program
        )
    }
}

// MARK: Run

extension Pipeline {
    /// Makes pictures and hands over each as soon as it is finished.
    ///
    /// - Parameters:
    ///   - request: What is wanted.
    ///   - messages: Receives remarks for the user, such as that a prompt was cut.
    ///   - progress: Called after every block of every network.
    ///   - isCancelled: Asked many times a second, from several threads.
    ///   - dump: Receives intermediate tensors; nil for none.
    ///   - onImage: Receives the pictures in order of their seeds; what it throws ends the run.
    /// - Throws: `.generation` with `.request` for values out of range, `.notFinite` with the place,
    ///   `.cancelled`, or `.model` when files change meanwhile; `.receiver` with what `onImage`
    ///   throws. Pictures handed over before are good.
    public func generate<ReceiverError: Error>(
        _ request: GenerationRequest,
        messages: (String) -> Void = { _ in },
        progress: (GenerationProgress) -> Void = { _ in },
        isCancelled: @escaping @Sendable () -> Bool = { false },
        dump: Dump? = nil,
        onImage: (GeneratedImage) throws(ReceiverError) -> Void
    ) throws(RunError<ReceiverError>) {
        try withoutActuallyEscaping(progress) { progress throws(RunError<ReceiverError>) in
            let run: Run
            do throws(GenerationError) {
                run = try start(request, messages, progress, isCancelled, dump)
            } catch {
                throw .generation(error)
            }
            for index in 0..<run.resolved.imageCount {
                let image: GeneratedImage
                do throws(GenerationError) {
                    image = try decode(denoise(index, run), index, run)
                } catch {
                    throw .generation(error)
                }
                do throws(ReceiverError) {
                    try onImage(image)
                } catch {
                    throw .receiver(error)
                }
            }
        }
    }

    /// Makes pictures and returns all of them at the end.
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
        var images: [GeneratedImage] = []
        do {
            try generate(
                request,
                messages: messages,
                progress: progress,
                isCancelled: isCancelled,
                dump: dump
            ) { images.append($0) }
        } catch {
            switch error {
            case .generation(let error): throw error
            }
        }
        return images
    }

    /// Everything before the first picture: memory and the prompts' text.
    private func start(
        _ request: GenerationRequest,
        _ messages: (String) -> Void,
        _ progress: @escaping (GenerationProgress) -> Void,
        _ isCancelled: @escaping @Sendable () -> Bool,
        _ dump: Dump?
    ) throws(GenerationError) -> Run {
        let resolved = try resolve(request)
        report(resolved, messages)
        try encoder.checkVocabulary(resolved.prompts.flatMap(\.ids))

        let groups = try groups(request)
        let sizes = try runSizes(resolved, request, groups)
        let loras = try LoRAActivation(request.loras, transformer, arithmetic)
        let plan = try memoryPlan(sizes, loras, groups)
        var arena = Arena(Storage(byteCount: plan.arena))
        let operators = Operators(
            kernels: kernels,
            threads: options.threads,
            policy: arithmetic.transformer,
            packedBytes: plan.packed,
            isCancelled: isCancelled
        )
        let run = Run(
            resolved: resolved,
            sizes: sizes,
            memory: memory(sizes, &arena),
            operators: operators,
            transformer: transformer,
            loras: loras,
            groups: groups,
            meter: ProgressMeter(workload(sizes), resolved, progress),
            dump: dump
        )
        if let image = request.initialImage { try encode(image, run) }
        if let wired = sizes.wired { try encodeLatents(wired, run) }
        try loras.readWeights(operators)
        try run.prepare(.text)
        if let wired = sizes.wired {
            try encode(wired, run)
        } else {
            try encode(resolved.prompts.map(\.ids), run, messages)
        }
        try fuse(run)
        run.matrices = try MatrixSupply(plan.transformer, operators: operators)
        return run
    }

    /// What one run shares between its stages.
    final class Run {
        let resolved: ResolvedRequest
        let sizes: RunSizes
        let memory: RunMemory
        /// With the LoRAs of the part that is running, as is the transformer.
        private(set) var operators: Operators
        private(set) var transformer: Transformer
        private let loras: LoRAActivation
        let groups: GroupSet
        let meter: ProgressMeter
        let dump: Dump?
        /// What to begin with, once it is encoded; nil for pure noise.
        var initial: InitialLatent?
        /// The transformer's matrices, once the prompts are encoded.
        var matrices: MatrixSupply?

        func supply() -> MatrixSupply {
            guard let matrices else { preconditionFailure("the prompts are not encoded") }
            return matrices
        }

        /// Gives the operators what a part of the run computes with.
        func prepare(_ part: LoRAActivation.Part) throws(GenerationError) {
            try loras.apply(to: part, &operators, &transformer)
        }

        init(
            resolved: ResolvedRequest,
            sizes: RunSizes,
            memory: RunMemory,
            operators: Operators,
            transformer: Transformer,
            loras: LoRAActivation,
            groups: GroupSet,
            meter: ProgressMeter,
            dump: Dump?
        ) {
            self.resolved = resolved
            self.sizes = sizes
            self.memory = memory
            (self.operators, self.transformer) = (operators, transformer)
            (self.loras, self.groups) = (loras, groups)
            self.meter = meter
            self.dump = dump
        }
    }

    private func report(_ resolved: ResolvedRequest, _ messages: (String) -> Void) {
        let limit = PromptTemplate.conditioningLimit - PromptTemplate.suffixTokenCount
        for (name, prompt) in zip(["prompt", "negative prompt"], resolved.prompts)
        where prompt.truncatedTokens > 0 {
            messages(
                "\(name): the last \(prompt.truncatedTokens) tokens are dropped, \(limit) fit"
            )
        }
    }
}
