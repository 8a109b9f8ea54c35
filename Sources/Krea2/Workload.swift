import Tensors

/// Work of each stage, for plans and for the time that is left.
struct Workload {
    /// Encoding the initial image; nothing without one.
    let encoding: ComputeWork
    /// Encoding the latents of references; nothing without any.
    let latents: ComputeWork
    /// Text encoder and text fusion, all prompts.
    let text: ComputeWork
    /// One step of one picture, all prompts.
    let step: ComputeWork
    /// Decoding one picture.
    let decoding: ComputeWork

    /// Counts it from the sizes alone.
    init(
        _ sizes: RunSizes,
        _ arithmetic: RunArithmetic,
        encoder: TextEncoderConfig,
        layers: Int,
        transformer config: TransformerConfig,
        vision: ComputeWork,
        encoding: Double?,
        latents: [Double],
        decoding: Double
    ) {
        let fusedTokens =
            (sizes.textTokens + sizes.groups.flatMap(\.fusedTokens)).reduce(0, +)
        let fusion =
            2 * Double(fusedTokens)
            * Self.weights(config.text)
            * Double(config.taps * config.layerwiseBlocks + config.refinerBlocks)
        text =
            Self.encoding(
                encoder,
                layers: layers,
                tokens: sizes.idCounts.reduce(0, +),
                arithmetic.textEncoderPrecision
            ) + ComputeWork(.linear, arithmetic.textFusionPrecision, fusion) + vision
        func blocks(_ textTokens: Int, _ groups: [Int] = []) -> ComputeWork {
            Self.blocks(
                config.block,
                count: config.blocks,
                rows: textTokens + sizes.packing.tokens + sizes.latentTokens,
                groups: groups,
                arithmetic
            )
        }
        let alone = sizes.textTokens.reduce(ComputeWork()) { $0 + blocks($1) }
        let prompt = sizes.textTokens.first ?? 0
        step = sizes.groups.reduce(alone) { sum, group in
            let one =
                sizes.groupMode == .exact
                ? blocks(prompt, [group.tokens])
                : Self.group(
                    config.block,
                    count: config.blocks,
                    rows: prompt + sizes.packing.tokens + sizes.latentTokens,
                    group: group.tokens,
                    arithmetic
                )
            return sum + group.evaluations * one
        }
        func convolutions(_ operations: Double) -> ComputeWork {
            ComputeWork(.convolution, arithmetic.autoencoderPrecision, operations)
        }
        self.encoding = encoding.map(convolutions) ?? ComputeWork()
        self.latents = latents.reduce(ComputeWork()) { $0 + convolutions($1) }
        self.decoding = convolutions(decoding)
    }

    /// Some layers of the text encoder; their attention is small and left out.
    static func encoding(
        _ config: TextEncoderConfig,
        layers: Int,
        tokens: Int,
        _ precision: Precision
    ) -> ComputeWork {
        let keyWidth = 2 * config.keyValueHeads * config.headSize
        let queryWidth = 2 * config.heads * config.headSize
        let layer = config.width * (queryWidth + keyWidth + 3 * config.feedForwardWidth)
        return ComputeWork(.linear, precision, 2 * Double(tokens) * Double(layer * layers))
    }

    /// The vision tower on one picture.
    static func vision(
        _ config: VisionConfig,
        patches: Int,
        _ arithmetic: RunArithmetic
    ) -> ComputeWork {
        let (rows, width) = (Double(patches), Double(config.width))
        let block = width * (4 * width + 2 * Double(config.feedForwardWidth))
        let merged = Double(config.mergedWidth)
        let merger = merged * (merged + Double(config.outputWidth))
        let tokens = rows / Double(config.merge * config.merge)
        let linear =
            2 * rows * (Double(config.patchWidth) * width + Double(config.blocks) * block)
            + 2 * tokens * merger * Double(config.deepstackBlocks.count + 1)
        let isRounded = arithmetic.activations(arithmetic.textEncoder) == .bfloat16
        return ComputeWork(.linear, arithmetic.textEncoderPrecision, linear)
            + ComputeWork(
                .attention,
                isRounded ? .bfloat16 : .float32,
                4 * rows * rows * width * Double(config.blocks)
            )
    }

    /// Blocks of the transformer over the rows of one prompt, and groups beside it.
    ///
    /// - Parameters:
    ///   - sizes: Those of a block.
    ///   - count: Blocks.
    ///   - rows: Text and image rows.
    ///   - groups: Rows of each group.
    ///   - arithmetic: That of the blocks.
    /// - Returns: The work.
    static func blocks(
        _ sizes: BlockSizes,
        count: Int,
        rows: Int,
        groups: [Int] = [],
        _ arithmetic: RunArithmetic
    ) -> ComputeWork {
        let pairs = Double(rows) * Double(rows)
        return groups.reduce(work(sizes, count, rows: rows, pairs: pairs, arithmetic)) {
            $0 + group(sizes, count: count, rows: rows, group: $1, arithmetic)
        }
    }

    /// What a group adds, which all rows see and which sees itself and all rows.
    private static func group(
        _ sizes: BlockSizes,
        count: Int,
        rows: Int,
        group: Int,
        _ arithmetic: RunArithmetic
    ) -> ComputeWork {
        let pairs = Double(group) * Double(2 * rows + group)
        return work(sizes, count, rows: group, pairs: pairs, arithmetic)
    }

    /// Linear layers of some rows, and attention of some pairs of query and key.
    private static func work(
        _ sizes: BlockSizes,
        _ count: Int,
        rows: Int,
        pairs: Double,
        _ arithmetic: RunArithmetic
    ) -> ComputeWork {
        let linear = 2 * Double(rows) * weights(sizes)
        let attention = 4 * pairs * Double(sizes.width)
        return Double(count)
            * (ComputeWork(.linear, arithmetic.effective, linear)
                + ComputeWork(.attention, arithmetic.attentionPrecision, attention))
    }

    /// Elements of a block's matrices.
    private static func weights(_ sizes: BlockSizes) -> Double {
        let attention = sizes.width * (3 * sizes.width + 2 * sizes.keyValueWidth)
        return Double(attention + 3 * sizes.width * sizes.feedForwardWidth)
    }

    /// Operations of a run.
    func total(steps: Int, images: Int) -> Double {
        encoding.total + latents.total + text.total
            + Double(images) * (Double(steps) * step.total + decoding.total)
    }
}
