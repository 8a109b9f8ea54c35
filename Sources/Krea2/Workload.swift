/// Work of each stage, for plans and for the time that is left.
struct Workload {
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
        decoding: Double
    ) {
        let fusion =
            2 * Double(sizes.textTokens.reduce(0, +))
            * Self.weights(config.text)
            * Double(config.taps * config.layerwiseBlocks + config.refinerBlocks)
        text =
            Self.encoding(
                encoder,
                layers: layers,
                tokens: sizes.idCounts.reduce(0, +),
                arithmetic.textEncoderPrecision
            ) + ComputeWork(.linear, arithmetic.textFusionPrecision, fusion)
        step = sizes.textTokens.reduce(ComputeWork()) { sum, tokens in
            sum
                + Self.blocks(
                    config.block,
                    count: config.blocks,
                    rows: tokens + sizes.packing.tokens,
                    arithmetic
                )
        }
        self.decoding = ComputeWork(.convolution, arithmetic.autoencoderPrecision, decoding)
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

    /// Blocks of the transformer over the rows of one prompt.
    static func blocks(
        _ sizes: BlockSizes,
        count: Int,
        rows: Int,
        _ arithmetic: RunArithmetic
    ) -> ComputeWork {
        let rows = Double(rows)
        let linear = 2 * rows * weights(sizes)
        let attention = 4 * rows * rows * Double(sizes.width)
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
        text.total + Double(images) * (Double(steps) * step.total + decoding.total)
    }
}
