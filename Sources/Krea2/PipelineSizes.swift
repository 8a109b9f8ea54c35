import Checkpoints
import Tokenization

// What a run computes and holds, known before it begins.
extension Pipeline {
    /// What the stages compute and read: matrices of the text stage once, and of the transformer in
    /// each step those that do not stay in memory.
    func stages(
        _ resolved: ResolvedRequest,
        _ workload: Workload,
        _ matrices: MatrixSupply.Plan,
        towerBytes: Int
    ) -> [GenerationPlan.Stage] {
        let fusion = transformer.textFusion.order(
            arithmetic.textFusion,
            transformerFiles.checkpoint
        )
        let text = encoder.order(arithmetic.textEncoder).byteCount + fusion.byteCount + towerBytes
        func stage(
            _ name: String,
            _ repetitions: Int,
            _ work: ComputeWork,
            _ bytes: Int,
            repeating: Int = 0
        ) -> GenerationPlan.Stage {
            GenerationPlan.Stage(
                name: name,
                repetitions: repetitions,
                work: work,
                weightBytes: bytes,
                firstReadBytes: bytes,
                repeatedReadBytes: repeating
            )
        }
        let (images, decoder) = (resolved.imageCount, autoencoderFiles.checkpoint.byteCount)
        let encodings = [("initial image", workload.encoding), ("references", workload.latents)]
        return encodings.filter { $0.1.total > 0 }.map { stage($0.0, 1, $0.1, decoder) } + [
            stage("text encoder", 1, workload.text, text),
            stage(
                "transformer",
                resolved.stepsToRun * images,
                workload.step,
                matrices.order.byteCount,
                repeating: matrices.repeatedByteCount
            ),
            stage("autoencoder", images, workload.decoding, decoder, repeating: decoder),
        ]
    }

    func groups(_ request: GenerationRequest) throws(GenerationError) -> GroupSet {
        try GroupSet(request.groups, request.groupMode, transformer.config)
    }

    /// Sizes of a run; fails where it needs an encoder that the files lack.
    func runSizes(
        _ resolved: ResolvedRequest,
        _ request: GenerationRequest,
        _ groups: GroupSet
    ) throws(GenerationError) -> RunSizes {
        let wired = try wiredRun(resolved, request)
        if request.initialImage != nil || wired != nil { try checkLatentEncoder() }
        let unit = GenerationRequest.sideMultiple
        let idCounts = wired?.outlines.map(\.ids.count) ?? resolved.prompts.map(\.ids.count)
        return RunSizes(
            idCounts: idCounts,
            textTokens: idCounts.map { $0 - PromptTemplate.sliceStart },
            packing: LatentPacking(
                channels: transformer.config.tokenWidth / 4,
                gridHeight: resolved.height / unit,
                gridWidth: resolved.width / unit
            ),
            groups: groups.sizes(Schedule(steps: resolved.steps, shift: resolved.shift)),
            groupMode: groups.mode,
            hasInitialImage: request.initialImage != nil,
            wired: wired
        )
    }

    /// The pictures that stand in the transformer's sequence; nil for none.
    private func wiredRun(
        _ resolved: ResolvedRequest,
        _ request: GenerationRequest
    ) throws(GenerationError) -> WiredRun? {
        guard let wired = request.wired, wired.pictures.contains(where: { $0.strength != 0 }) else {
            return nil
        }
        guard request.groupMode == .attention || wired.pictures.allSatisfy({ $0.strength == 1 })
        else {
            throw .request(
                "the mode exact takes references of strength 1 where they stand in the sequence"
            )
        }
        let texts = [request.prompt, request.negativePrompt ?? ""]
        return try WiredRun(
            wired,
            Array(texts.prefix(resolved.prompts.count)),
            channels: transformer.config.tokenWidth / 4,
            pictureEncoder()
        )
    }

    func workload(_ sizes: RunSizes) -> Workload {
        func operations(_ part: AutoencoderPart, _ packing: LatentPacking) -> Double {
            autoencoderFiles.config.floatingPointOperations(
                part,
                latentHeight: 2 * packing.gridHeight,
                latentWidth: 2 * packing.gridWidth
            )
        }
        let seen = sizes.wired.map { wired in
            wired.outlines.flatMap(\.patches).reduce(ComputeWork()) {
                $0 + Workload.vision(wired.encoder.config, patches: $1, arithmetic)
            }
        }
        return Workload(
            sizes,
            arithmetic,
            encoder: encoder.config,
            layers: encoder.taps.last ?? 0,
            transformer: transformer.config,
            vision: seen ?? ComputeWork(),
            encoding: sizes.hasInitialImage ? operations(.encoder, sizes.packing) : nil,
            latents: sizes.latents.map { operations(.encoder, $0) },
            decoding: operations(.decoder, sizes.packing)
        )
    }
}
