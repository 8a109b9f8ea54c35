/// Multiplications and additions of each stage, for plans and for the time that is left.
struct Workload {
    /// Text encoder and text fusion, once per prompt.
    let text: Double
    /// One step of one picture, all prompts.
    let step: Double
    /// Decoding one picture.
    let decoding: Double

    /// Counts them from the sizes alone.
    init(
        _ sizes: RunSizes,
        encoder: TextEncoderConfig,
        layers: Int,
        transformer config: TransformerConfig,
        decoding: Double
    ) {
        let keyWidth = 2 * encoder.keyValueHeads * encoder.headSize
        let queryWidth = 2 * encoder.heads * encoder.headSize
        let layer = encoder.width * (queryWidth + keyWidth + 3 * encoder.feedForwardWidth)
        let fusion =
            Self.weights(config.text)
            * Double(config.taps * config.layerwiseBlocks + config.refinerBlocks)
        let encoding = Double(sizes.idCounts.reduce(0, +)) * Double(layer * layers)
        text = 2 * (encoding + Double(sizes.textTokens.reduce(0, +)) * fusion)

        step = sizes.textTokens.reduce(0) { sum, tokens in
            let rows = Double(tokens + sizes.packing.tokens)
            let linear = 2 * rows * Self.weights(config.block)
            return sum + Double(config.blocks) * (linear + 4 * rows * rows * Double(config.width))
        }
        self.decoding = decoding
    }

    /// Elements of a block's matrices.
    private static func weights(_ sizes: BlockSizes) -> Double {
        let attention = sizes.width * (3 * sizes.width + 2 * sizes.keyValueWidth)
        return Double(attention + 3 * sizes.width * sizes.feedForwardWidth)
    }

    /// All of a run.
    func total(steps: Int, images: Int) -> Double {
        text + Double(images) * (Double(steps) * step + decoding)
    }
}
