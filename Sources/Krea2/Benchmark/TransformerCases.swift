import Compute
import Tensors

extension BenchmarkSet {
    /// The first block of the transformer with random activations; its weights are in memory.
    ///
    /// - Parameters:
    ///   - models: Their transformers are used.
    ///   - scope: Sizes, text tokens, arithmetics and threads.
    ///   - isCancelled: Asked many times a second, from several threads.
    /// - Returns: One set.
    /// - Throws: `.request` when the environment names unknown kernels.
    public static func block(
        _ models: [BenchmarkModel],
        _ scope: BenchmarkScope,
        isCancelled: @escaping @Sendable () -> Bool
    ) throws(GenerationError) -> [BenchmarkSet] {
        try set(.block, "one block", models, scope, isCancelled) {
            trials throws(GenerationError) in try trials.blockCases()
        }
    }

    /// One evaluation of the transformer with random inputs, after a first one that reads, and if
    /// need be quantises, the weights that stay in memory.
    ///
    /// - Parameters:
    ///   - models: Their transformers are used.
    ///   - scope: Sizes, text tokens, arithmetics, threads and memory.
    ///   - isCancelled: Asked many times a second, from several threads.
    /// - Returns: One set.
    /// - Throws: `.request` when the environment names unknown kernels.
    public static func evaluation(
        _ models: [BenchmarkModel],
        _ scope: BenchmarkScope,
        isCancelled: @escaping @Sendable () -> Bool
    ) throws(GenerationError) -> [BenchmarkSet] {
        try set(.dit, "all blocks", models, scope, isCancelled) { $0.evaluationCases() }
    }

    /// One set with the cases of all models.
    private static func set(
        _ group: BenchmarkGroup,
        _ name: String,
        _ models: [BenchmarkModel],
        _ scope: BenchmarkScope,
        _ isCancelled: @escaping @Sendable () -> Bool,
        _ cases: @escaping (TransformerTrials) throws(GenerationError) -> [BenchmarkCase]
    ) throws(GenerationError) -> [BenchmarkSet] {
        let kernels = try Engine.kernels()
        return [
            BenchmarkSet(group, name) { () throws(GenerationError) in
                var all: [BenchmarkCase] = []
                for model in models {
                    let transformer = try model.transformer()
                    all += try cases(TransformerTrials(transformer, scope, kernels, isCancelled))
                }
                return all
            }
        ]
    }
}

/// Makes cases of a transformer.
private struct TransformerTrials {
    private let transformer: Transformer
    private let scope: BenchmarkScope
    private let variants: [TransformerVariant]
    private let isCancelled: @Sendable () -> Bool
    private let values = RandomValues()

    init(
        _ transformer: Transformer,
        _ scope: BenchmarkScope,
        _ kernels: Kernels,
        _ isCancelled: @escaping @Sendable () -> Bool
    ) {
        self.transformer = transformer
        self.scope = scope
        self.isCancelled = isCancelled
        let wishes = scope.precisions.isEmpty ? [.automatic] : scope.precisions
        // What the machine lacks, or the file has already, comes to the same as another wish.
        let arithmetics = wishes.map {
            RunArithmetic(
                $0,
                textEncoder: [],
                textFusion: [],
                blocks: transformer.blockMatrices,
                kernels: kernels
            )
        }.reduce(into: [RunArithmetic]()) { unique, next in
            if !unique.contains(where: { $0.transformer == next.transformer }) {
                unique.append(next)
            }
        }
        var variants: [TransformerVariant] = []
        for threads in scope.threads {
            let operators = Operators(
                kernels: kernels,
                threads: threads,
                packedBytes: scope.packedBytes(headSize: transformer.config.headSize),
                isCancelled: isCancelled
            )
            for size in scope.sizes {
                for tokens in scope.tokens {
                    for arithmetic in arithmetics {
                        let own = Operators(sharing: operators, policy: arithmetic.transformer)
                        variants += scope.loraRanks.flatMap { rank in
                            scope.references.map { references in
                                TransformerVariant(
                                    picture: size,
                                    textTokens: tokens,
                                    loraRank: rank,
                                    references: references,
                                    arithmetic: arithmetic,
                                    threads: threads,
                                    operators: own
                                )
                            }
                        }
                    }
                }
            }
        }
        self.variants = variants
    }

    private func work(_ variant: TransformerVariant, blocks: Int) -> ComputeWork {
        Workload.blocks(
            transformer.config.block,
            count: blocks,
            rows: variant.textTokens + variant.picture.tokens,
            groups: (0..<variant.references.count).map { _ in variant.references.rows },
            variant.arithmetic
        )
    }

    /// Text and references of a variant, seen in all blocks and, if it is timed alone, after each.
    private func branch(_ variant: TransformerVariant, velocity: Tensor) -> TransformerBranch {
        let (config, count) = (transformer.config, variant.references.count)
        let weight = (variant.references.isNegative ? -1 : 1) / Float(max(1, count))
        let weights = [Float](repeating: weight, count: config.blocks + 1)
        return TransformerBranch(
            text: values.tensor([variant.textTokens, config.width]),
            velocity: velocity,
            groups: (0..<count).map { _ in
                BranchGroup(
                    rows: values.tensor([variant.references.rows, config.width]),
                    keyLogs: nil,
                    logMass: 0,
                    family: .references,
                    weights: weights
                )
            }
        )
    }

    /// A variant's operators with a random LoRA for some matrices, each the whole of a layer.
    private func operators(_ variant: TransformerVariant, _ matrices: [WeightMatrix]) -> Operators {
        guard variant.loraRank > 0 else { return variant.operators }
        var updates: [String: LinearUpdate] = [:]
        for matrix in matrices {
            let (rank, type) = (variant.loraRank, variant.factorType)
            let down = values.tensor([rank, matrix.columns], type, deviation: 0.01)
            let up = values.tensor([matrix.rows, rank], type, deviation: 0.01)
            let change = LayerChange(
                difference: .lowRank(down: down, up: up),
                scale: 1,
                strength: 1
            )
            updates[matrix.origin?.name ?? ""] =
                LinearUpdate([change], storedAs: type, variant.operators)
        }
        return Operators(sharing: variant.operators, updates: LinearUpdates(updates))
    }

    // MARK: One block

    func blockCases() throws(GenerationError) -> [BenchmarkCase] {
        // All cases compute in the same memory.
        let byteCount = variants.map { variant in
            var arena = Arena.measuring()
            _ = variant.scratch(transformer.config, &arena)
            return arena.byteCount
        }.max()
        let memory = Storage(byteCount: byteCount ?? 0)
        var supplies: [(isQuantizing: Bool, supply: MatrixSupply)] = []
        var cases: [BenchmarkCase] = []
        for variant in variants {
            let order = transformer.order(ofBlock: 0, variant.arithmetic.transformer)
            let isQuantizing = order.heldQuantized > 0
            if !supplies.contains(where: { $0.isQuantizing == isQuantizing }) {
                let budget = order.minimumByteCount + order.keptByteCount
                let plan = MatrixSupply.Plan(order: order, budget: budget)
                let supply = try MatrixSupply(plan, operators: variant.operators)
                supplies.append((isQuantizing, supply))
            }
            for pair in supplies where pair.isQuantizing == isQuantizing {
                cases.append(blockCase(variant, order, pair.supply, memory))
            }
        }
        return cases
    }

    private func blockCase(
        _ variant: TransformerVariant,
        _ order: MatrixSupply.Order,
        _ supply: MatrixSupply,
        _ memory: Storage
    ) -> BenchmarkCase {
        var arena = Arena(memory)
        let scratch = variant.scratch(transformer.config, &arena)
        let x = scratch.residual
        let start = values.tensor(x.shape)
        let modulation = values.tensor(scratch.times[0].projection.shape, deviation: 0.1)
        let branch = branch(variant, velocity: x)
        let placed = TransformerRows([branch], imageTokens: variant.picture.tokens)
        let rows = placed.block(0, wantsText: true, rotary: variant.rotary(transformer))
        let operators = operators(variant, transformer.blocks[0].matrixGroups.flatMap(\.self))
        return BenchmarkCase(
            .block,
            "block 0 of \(transformer.config.blocks)\(variant.additions)",
            shape: variant.shape,
            weights: transformer.blockStorage,
            precision: variant.arithmetic.effective,
            threads: variant.threads,
            work: work(variant, blocks: 1),
            weightBytes: order.keptByteCount
        ) { () throws(GenerationError) in
            x.copy(from: start)
            scratch.times[0].projection.copy(from: modulation)
            return try BenchmarkSample.measure { () throws(GenerationError) in
                try transformer.forward(
                    transformer.blocks[0],
                    x,
                    rows,
                    supply,
                    scratch,
                    operators
                )
            }
        }
    }

    // MARK: All blocks

    func evaluationCases() -> [BenchmarkCase] {
        variants.map { variant in
            let order = transformer.order(variant.arithmetic.transformer)
            return BenchmarkCase(
                .dit,
                counted(transformer.config.blocks, "block") + variant.additions,
                shape: variant.shape,
                weights: transformer.blockStorage,
                precision: variant.arithmetic.effective,
                threads: variant.threads,
                work: work(variant, blocks: transformer.config.blocks),
                weightBytes: order.keptByteCount,
                warmsUp: false
            ) { () throws(GenerationError) in try evaluate(variant, order) }
        }
    }

    /// Two evaluations, the second of which is timed.
    ///
    /// Each repetition starts anew, so that cases do not share the memory.
    private func evaluate(
        _ variant: TransformerVariant,
        _ order: MatrixSupply.Order
    ) throws(GenerationError) -> BenchmarkSample {
        let config = transformer.config
        var measuring = Arena.measuring()
        _ = variant.buffers(config, &measuring)
        let operators = operators(variant, transformer.blockMatrices)
        let factors = transformer.blockMatrices.reduce(0) {
            $0 + variant.loraRank * ($1.rows + $1.columns) * variant.factorType.byteCount
        }
        let budget = try scope.weightBudget(
            order,
            otherBytes: measuring.byteCount + factors,
            headSize: config.headSize,
            variant
        )
        var arena = Arena(Storage(byteCount: measuring.byteCount))
        let buffers = variant.buffers(config, &arena)
        buffers.image.copy(from: values.tensor(buffers.image.shape))
        let rotary = variant.rotary(transformer)
        let branch = branch(variant, velocity: buffers.velocity)
        let supply = try MatrixSupply(
            MatrixSupply.Plan(order: order, budget: budget),
            operators: variant.operators
        )
        let watch = Watch(stage: "transformer", checkpoint: order.checkpoint) {}
        func evaluate() throws(GenerationError) {
            try transformer.forward(
                buffers.image,
                [branch],
                rotary: rotary,
                time: 0.5,
                supply: supply,
                scratch: buffers.scratch,
                operators: operators,
                watch: watch
            )
        }
        try evaluate()
        return try BenchmarkSample.measure(evaluate)
    }
}

/// One way to run a transformer.
private struct TransformerVariant {
    let picture: BenchmarkPicture
    let textTokens: Int
    let loraRank: Int
    let references: BenchmarkReferences
    let arithmetic: RunArithmetic
    let threads: Int
    let operators: Operators

    /// Text and image tokens, and those of references.
    var rows: Int { textTokens + picture.tokens + references.tokens }

    /// What is said of the LoRA and the references.
    var additions: String {
        let lora = loraRank > 0 ? ", LoRA of rank \(loraRank)" : ""
        guard references.tokens > 0 else { return lora }
        let sign = references.isNegative ? "negative " : ""
        let counted = counted(references.count, sign + "reference")
        return lora + ", \(counted) of \(references.rows) rows"
    }

    /// How the factors of the LoRA are stored.
    var factorType: ElementType { arithmetic.activations(arithmetic.transformer) }

    var shape: String { "\(picture.text), \(rows) tokens" }

    func scratch(_ config: TransformerConfig, _ arena: inout Arena) -> TransformerScratch {
        TransformerScratch(
            config,
            textTokens: [textTokens],
            imageTokens: picture.tokens,
            groupTokens: references.tokens,
            arithmetic.activations(arithmetic.transformer),
            &arena
        )
    }

    /// All that an evaluation writes into.
    func buffers(
        _ config: TransformerConfig,
        _ arena: inout Arena
    ) -> (image: Tensor, velocity: Tensor, scratch: TransformerScratch) {
        (
            arena.tensor("image tokens", picture.tokens, config.tokenWidth),
            arena.tensor("velocity", picture.tokens, config.tokenWidth),
            scratch(config, &arena)
        )
    }

    func rotary(_ transformer: Transformer) -> RotaryTable {
        let own = transformer.rotaryTable(
            textTokens: textTokens,
            gridHeight: picture.height / GenerationRequest.sideMultiple,
            gridWidth: picture.width / GenerationRequest.sideMultiple
        )
        guard references.tokens > 0 else { return own }
        let others = transformer.rotaryTable(
            textTokens: references.tokens,
            gridHeight: 0,
            gridWidth: 0
        )
        return RotaryTable(joining: [own, others])
    }
}

extension BenchmarkScope {
    /// Bytes that attention packs at most.
    fileprivate func packedBytes(headSize: Int) -> Int {
        let rows = (sizes.map(\.tokens).max() ?? 0) + (tokens.max() ?? 0)
        return references.map { references in
            let groups = (0..<references.count).map { _ in references.rows }
            return Operators.packedByteCount(keys: [rows] + groups, headSize: headSize)
        }.max() ?? 0
    }

    /// Bytes for weights within the limit of memory.
    ///
    /// - Throws: `.request` when the limit is too low.
    fileprivate func weightBudget(
        _ order: MatrixSupply.Order,
        otherBytes: Int,
        headSize: Int,
        _ variant: TransformerVariant
    ) throws(GenerationError) -> Int {
        let fixed =
            otherBytes + MemoryPlan.programByteCount
            + Operators.scratchByteCount(
                threads: variant.threads,
                packedBytes: packedBytes(headSize: headSize)
            )
        let least = order.minimumByteCount
        if let memoryByteCount, fixed + least > memoryByteCount {
            let mebibytes = (fixed + least + (1 << 20) - 1) >> 20
            throw .request(
                "a memory limit of \(memoryByteCount >> 20) MiB: \(variant.shape) needs at least "
                    + "\(mebibytes) MiB"
            )
        }
        let ceiling = memoryByteCount ?? Engine.availableMemory / 5 * 4
        return max(least, ceiling - fixed)
    }
}
