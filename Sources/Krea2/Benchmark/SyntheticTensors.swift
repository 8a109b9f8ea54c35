import Tensors

/// Sizes of a model of random weights.
public struct SyntheticSizes: Sendable, Equatable {
    /// Blocks of the transformer.
    public var blocks: Int
    /// Layers of the text encoder.
    public var layers: Int
    let headSize, heads, keyValueHeads, feedForwardWidth, timeWidth: Int
    let textWidth, textHeads, textKeyValueHeads, textHeadSize, textFeedForwardWidth: Int
    let fusionHeads, fusionFeedForwardWidth: Int
    let vocabulary: Int
    let visionBlocks, visionWidth, visionFeedForwardWidth, visionTableSide: Int
    let autoencoderWidth: Int

    /// Those of the released models, but for the number of blocks and layers.
    public static let full = SyntheticSizes(
        blocks: 28,
        layers: 36,
        headSize: 128,
        heads: 48,
        keyValueHeads: 12,
        feedForwardWidth: 16384,
        timeWidth: 256,
        textWidth: 2560,
        textHeads: 32,
        textKeyValueHeads: 8,
        textHeadSize: 128,
        textFeedForwardWidth: 9728,
        fusionHeads: 20,
        fusionFeedForwardWidth: 6912,
        vocabulary: 151_936,
        visionBlocks: 24,
        visionWidth: 1024,
        visionFeedForwardWidth: 4096,
        visionTableSide: 48,
        autoencoderWidth: 96
    )

    /// A few megabytes, to try commands with.
    public static let tiny = SyntheticSizes(
        blocks: 2,
        layers: 3,
        headSize: 64,
        heads: 4,
        keyValueHeads: 1,
        feedForwardWidth: 512,
        timeWidth: 64,
        textWidth: 64,
        textHeads: 4,
        textKeyValueHeads: 2,
        textHeadSize: 32,
        textFeedForwardWidth: 128,
        fusionHeads: 4,
        fusionFeedForwardWidth: 128,
        vocabulary: 512,
        visionBlocks: 4,
        visionWidth: 64,
        visionFeedForwardWidth: 128,
        visionTableSide: 4,
        autoencoderWidth: 8
    )

    /// Layers of the text encoder that are tapped: those of the released models, or as many of the
    /// layers there are as the transformer's text fusion would take.
    var taps: [Int] {
        let (released, count) = ((0..<12).map { 2 + 3 * $0 }, min(12, layers))
        if let last = released.last, layers >= last { return released }
        return (1...max(1, count)).map { $0 * layers / max(1, count) }
    }
}

/// One tensor of a model of random weights.
struct SyntheticTensor {
    let name: String
    let shape: [Int]
    var mean: Float = 0
    let deviation: Float
    /// Whether it is stored in the type of its file's matrices; else in float32.
    var isNarrow = false

    /// A weight that keeps the variance of its input.
    static func weight(
        _ name: String,
        _ outputs: Int,
        _ inputs: Int,
        isNarrow: Bool = false
    ) -> SyntheticTensor {
        SyntheticTensor(
            name: name + ".weight",
            shape: [outputs, inputs],
            deviation: 1 / Float(inputs).squareRoot(),
            isNarrow: isNarrow
        )
    }

    /// A weight and a bias.
    static func layer(_ name: String, _ outputs: Int, _ inputs: Int) -> [SyntheticTensor] {
        [
            weight(name, outputs, inputs),
            SyntheticTensor(name: name + ".bias", shape: [outputs], deviation: 0.1),
        ]
    }
}

// MARK: Transformer

extension SyntheticSizes {
    /// The transformer under its official names; norms are stored minus one.
    func transformer() -> [SyntheticTensor] {
        let width = headSize * heads
        let block = BlockSizes(
            width: width,
            heads: heads,
            keyValueHeads: keyValueHeads,
            headSize: headSize,
            feedForwardWidth: feedForwardWidth
        )
        let fusion = BlockSizes(
            width: textWidth,
            heads: fusionHeads,
            keyValueHeads: fusionHeads,
            headSize: textWidth / fusionHeads,
            feedForwardWidth: fusionFeedForwardWidth
        )
        var tensors =
            SyntheticTensor.layer("first", width, 64)
            + SyntheticTensor.layer("tmlp.0", width, timeWidth)
            + SyntheticTensor.layer("tmlp.2", width, width)
            + SyntheticTensor.layer("tproj.1", 6 * width, width)
            + [norm("txtmlp.0.scale", textWidth)]
            + SyntheticTensor.layer("txtmlp.1", width, textWidth)
            + SyntheticTensor.layer("txtmlp.3", width, width)
            + [.weight("txtfusion.projector", 1, taps.count)]
        for kind in ["layerwise_blocks", "refiner_blocks"] {
            for index in 0..<2 { tensors += self.block("txtfusion.\(kind).\(index)", fusion) }
        }
        for index in 0..<blocks {
            tensors.append(
                SyntheticTensor(name: "blocks.\(index).mod.lin", shape: [6 * width], deviation: 0.3)
            )
            tensors += self.block("blocks.\(index)", block)
        }
        tensors += [
            norm("last.norm.scale", width),
            SyntheticTensor(name: "last.modulation.lin", shape: [2, width], deviation: 0.3),
        ]
        return tensors + SyntheticTensor.layer("last.linear", 64, width)
    }

    private func block(_ name: String, _ sizes: BlockSizes) -> [SyntheticTensor] {
        let (width, keyWidth) = (sizes.width, sizes.keyValueWidth)
        func matrix(_ part: String, _ outputs: Int, _ inputs: Int) -> SyntheticTensor {
            .weight("\(name).\(part)", outputs, inputs, isNarrow: true)
        }
        return [
            norm("\(name).prenorm.scale", width), norm("\(name).postnorm.scale", width),
            norm("\(name).attn.qknorm.qnorm.scale", sizes.headSize),
            norm("\(name).attn.qknorm.knorm.scale", sizes.headSize),
            matrix("attn.wq", width, width), matrix("attn.wk", keyWidth, width),
            matrix("attn.wv", keyWidth, width), matrix("attn.gate", width, width),
            matrix("attn.wo", width, width), matrix("mlp.gate", sizes.feedForwardWidth, width),
            matrix("mlp.up", sizes.feedForwardWidth, width),
            matrix("mlp.down", width, sizes.feedForwardWidth),
        ]
    }

    private func norm(_ name: String, _ width: Int, mean: Float = 0) -> SyntheticTensor {
        SyntheticTensor(name: name, shape: [width], mean: mean, deviation: 0.1)
    }
}

// MARK: Text encoder

extension SyntheticSizes {
    /// Qwen3-VL as far as it is used.
    func textEncoder() -> [SyntheticTensor] { language() + vision() }

    private func language() -> [SyntheticTensor] {
        let language = "model.language_model"
        let (query, key) = (textHeadSize * textHeads, textHeadSize * textKeyValueHeads)
        var tensors = [
            SyntheticTensor(
                name: "\(language).embed_tokens.weight",
                shape: [vocabulary, textWidth],
                deviation: 0.5,
                isNarrow: true
            )
        ]
        for index in 0..<layers {
            let name = "\(language).layers.\(index)"
            func matrix(_ part: String, _ outputs: Int, _ inputs: Int) -> SyntheticTensor {
                .weight("\(name).\(part)", outputs, inputs, isNarrow: true)
            }
            tensors += [
                norm("\(name).input_layernorm.weight", textWidth, mean: 1),
                matrix("self_attn.q_proj", query, textWidth),
                matrix("self_attn.k_proj", key, textWidth),
                matrix("self_attn.v_proj", key, textWidth),
                matrix("self_attn.o_proj", textWidth, query),
                norm("\(name).self_attn.q_norm.weight", textHeadSize, mean: 1),
                norm("\(name).self_attn.k_norm.weight", textHeadSize, mean: 1),
                norm("\(name).post_attention_layernorm.weight", textWidth, mean: 1),
                matrix("mlp.gate_proj", textFeedForwardWidth, textWidth),
                matrix("mlp.up_proj", textFeedForwardWidth, textWidth),
                matrix("mlp.down_proj", textWidth, textFeedForwardWidth),
            ]
        }
        return tensors
    }
}

extension SyntheticSizes {
    private func vision() -> [SyntheticTensor] {
        let (tower, width, merged) = ("model.visual", visionWidth, 4 * visionWidth)
        func norm(_ name: String, _ width: Int) -> [SyntheticTensor] {
            [
                self.norm("\(name).weight", width, mean: 1),
                self.norm("\(name).bias", width),
            ]
        }
        func layer(_ name: String, _ outputs: Int, _ inputs: Int) -> [SyntheticTensor] {
            let bias = SyntheticTensor(name: name + ".bias", shape: [outputs], deviation: 0.1)
            return [.weight(name, outputs, inputs, isNarrow: true), bias]
        }
        func merger(_ name: String, normed: Int) -> [SyntheticTensor] {
            norm("\(name).norm", normed) + layer("\(name).linear_fc1", merged, merged)
                + layer("\(name).linear_fc2", textWidth, merged)
        }
        let kernel = [width, 3, 2, 16, 16]
        var tensors = [
            SyntheticTensor(
                name: "\(tower).patch_embed.proj.weight",
                shape: kernel,
                deviation: 1 / Float(kernel.dropFirst().reduce(1, *)).squareRoot(),
                isNarrow: true
            ),
            SyntheticTensor(name: "\(tower).patch_embed.proj.bias", shape: [width], deviation: 0.1),
            SyntheticTensor(
                name: "\(tower).pos_embed.weight",
                shape: [visionTableSide * visionTableSide, width],
                deviation: 0.5,
                isNarrow: true
            ),
        ]
        for index in 0..<visionBlocks {
            let name = "\(tower).blocks.\(index)"
            tensors += norm("\(name).norm1", width) + norm("\(name).norm2", width)
            tensors += layer("\(name).attn.qkv", 3 * width, width)
            tensors += layer("\(name).attn.proj", width, width)
            tensors += layer("\(name).mlp.linear_fc1", visionFeedForwardWidth, width)
            tensors += layer("\(name).mlp.linear_fc2", width, visionFeedForwardWidth)
        }
        tensors += merger("\(tower).merger", normed: width)
        for index in 0..<3 {
            tensors += merger("\(tower).deepstack_merger_list.\(index)", normed: merged)
        }
        return tensors
    }
}

// MARK: Autoencoder

extension SyntheticSizes {
    /// The decoder under diffusers' names; channels are 1, 2, 4, 4 times the width.
    func autoencoder() -> [SyntheticTensor] {
        let (one, two, four) = (autoencoderWidth, 2 * autoencoderWidth, 4 * autoencoderWidth)
        let middle = "decoder.mid_block"
        var tensors =
            convolution("post_quant_conv", 16, 16, 1, 1, 1)
            + convolution("decoder.conv_in", four, 16, 3, 3, 3)
            + residual("\(middle).resnets.0", four, four)
            + [gamma("\(middle).attentions.0.norm", four, 1, 1)]
            + convolution("\(middle).attentions.0.to_qkv", 3 * four, four, 1, 1)
            + convolution("\(middle).attentions.0.proj", four, four, 1, 1)
            + residual("\(middle).resnets.1", four, four)
        let stages = [(four, four), (two, four), (two, two), (one, one)]
        for (stage, (first, outputs)) in stages.enumerated() {
            let name = "decoder.up_blocks.\(stage)"
            for index in 0..<3 {
                let inputs = index == 0 ? first : outputs
                tensors += residual("\(name).resnets.\(index)", inputs, outputs)
            }
            if stage < 3 {
                let upsampler = "\(name).upsamplers.0.resample.1"
                tensors += convolution(upsampler, outputs / 2, outputs, 3, 3)
            }
        }
        tensors.append(gamma("decoder.norm_out", one, 1, 1, 1))
        return tensors + convolution("decoder.conv_out", 3, one, 3, 3, 3)
    }

    private func gamma(_ name: String, _ shape: Int...) -> SyntheticTensor {
        SyntheticTensor(
            name: name + ".gamma",
            shape: shape,
            mean: 1,
            deviation: 0.1,
            isNarrow: true
        )
    }

    private func convolution(_ name: String, _ shape: Int...) -> [SyntheticTensor] {
        // A single picture meets the last of three slices in time only.
        let inputs = shape.dropFirst().reduce(1, *) / (shape.count == 5 ? shape[2] : 1)
        return [
            SyntheticTensor(
                name: name + ".weight",
                shape: shape,
                deviation: 1 / Float(inputs).squareRoot(),
                isNarrow: true
            ),
            SyntheticTensor(
                name: name + ".bias",
                shape: [shape[0]],
                deviation: 0.1,
                isNarrow: true
            ),
        ]
    }

    private func residual(_ name: String, _ inputs: Int, _ outputs: Int) -> [SyntheticTensor] {
        let shortcut =
            inputs == outputs
            ? [] : convolution("\(name).conv_shortcut", outputs, inputs, 1, 1, 1)
        return [gamma("\(name).norm1", inputs, 1, 1, 1)]
            + convolution("\(name).conv1", outputs, inputs, 3, 3, 3)
            + [gamma("\(name).norm2", outputs, 1, 1, 1)]
            + convolution("\(name).conv2", outputs, outputs, 3, 3, 3) + shortcut
    }
}
