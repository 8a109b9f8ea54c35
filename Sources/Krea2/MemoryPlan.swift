import Compute
import Tensors

/// What a run takes of memory.
struct MemoryPlan {
    /// Buffers of the activations with their stages.
    let buffers: [(stage: String, buffer: Arena.Buffer)]
    /// Bytes of the arena they are cut from.
    let arena: Int
    /// Bytes of the operators' scratch memory, and of what one attention packs in it.
    let scratch: Int
    let packed: Int
    /// Bytes of the LoRAs, and of scratch memory for them.
    let loras: Int
    /// Bytes that the program and small tensors take, the taps of references, and pictures.
    let program: Int
    /// Bytes of matrices at a time, the largest of all stages.
    let weights: Int
    let transformer: MatrixSupply.Plan

    /// Bytes that the program and small tensors take, about.
    static let programByteCount = 48 << 20
}

extension Pipeline {
    /// Divides the memory there is between activations and weights.
    ///
    /// - Parameters:
    ///   - sizes: What the run makes.
    ///   - loras: What it applies.
    ///   - groups: What it puts beside the prompt.
    ///   - encoding: Bytes that encoding pictures takes before all of that.
    /// - Returns: The division; weights get at least what they need.
    /// - Throws: `.request` when that is more than the caller allows.
    func memoryPlan(
        _ sizes: RunSizes,
        _ loras: LoRAActivation,
        _ groups: GroupSet,
        encoding: Int = 0
    ) throws(GenerationError) -> MemoryPlan {
        var arena = Arena.measuring()
        let buffers = memory(sizes, &arena).plan
        let packed = packedByteCount(sizes)
        let scratch = Operators.scratchByteCount(threads: options.threads, packedBytes: packed)
        let loras = loras.byteCount + loras.scratchByteCount
        // The decoder's weights join those of the transformer, which stay for the next picture.
        let program =
            MemoryPlan.programByteCount + groups.byteCount + (sizes.wired?.pictureByteCount ?? 0)
        let fixed =
            arena.byteCount + scratch + loras + program
            + autoencoderFiles.byteCount(of: .decoder)

        let order = transformer.order(arithmetic.transformer)
        let isEncoding = sizes.hasInitialImage || sizes.wired != nil
        let earlier = max(
            isEncoding ? autoencoderFiles.byteCount(of: .encoder) : 0,
            try sizes.wired?.byteCount(transformer.config, arithmetic) ?? 0,
            encoder.order(arithmetic.textEncoder).minimumByteCount,
            transformer.textFusion.order(arithmetic.textFusion, transformerFiles.checkpoint)
                .minimumByteCount
        )
        let least = max(order.minimumByteCount, earlier)
        let ceiling = options.memoryByteCount ?? Engine.availableMemory / 5 * 4
        let needed = max(fixed + least, program + encoding)
        if let limit = options.memoryByteCount, needed > limit {
            let mebibytes = (needed + (1 << 20) - 1) >> 20
            throw .request(
                "a memory limit of \(limit >> 20) MiB: this run needs at least \(mebibytes) MiB"
            )
        }
        let plan = MatrixSupply.Plan(
            order: order,
            budget: max(order.minimumByteCount, ceiling - fixed)
        )
        return MemoryPlan(
            buffers: buffers,
            arena: arena.byteCount,
            scratch: scratch,
            packed: packed,
            loras: loras,
            program: program,
            weights: max(earlier, plan.residentByteCount),
            transformer: plan
        )
    }

    /// All buffers of a run, cut from `arena`.
    func memory(_ sizes: RunSizes, _ arena: inout Arena) -> RunMemory {
        RunMemory(
            sizes,
            arithmetic,
            encoder: encoder.config,
            transformer: transformer.config,
            autoencoder: autoencoderFiles.config,
            &arena
        )
    }

    /// Bytes that the keys and values of one head take where attention packs them.
    private func packedByteCount(_ sizes: RunSizes) -> Int {
        let decoder = autoencoderFiles.config
        // At most: pictures beside the sequence are counted in it, too.
        let rows = (sizes.textTokens.max() ?? 0) + sizes.packing.tokens + sizes.latentTokens
        let beside = sizes.wired?.sizes.filter { $0.rowsBeside > 0 } ?? []
        return max(
            Operators.packedByteCount(
                keys: [rows] + sizes.groups.map(\.tokens)
                    + beside.map { $0.packing.tokens + $0.rowsBeside },
                headSize: transformer.config.headSize
            ),
            Operators.packedByteCount(
                keys: 4 * sizes.packing.tokens,
                headSize: decoder.middleChannels
            )
        )
    }
}
