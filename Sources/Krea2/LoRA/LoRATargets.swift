/// What a LoRA can change of a transformer, its linear layers above all, under every name that files
/// use.
///
/// Names are looked up as a whole and never split: `layerwise_blocks` has an underscore of its own.
struct LoRATargets: Sendable {
    /// A linear layer.
    struct Layer: Sendable, Equatable {
        /// Official name of its weight without `.weight`: `blocks.0.attn.wq`.
        let name: String
        let outputs: Int
        let inputs: Int
    }

    /// The weight of a norm, or a table of modulations.
    struct Vector: Sendable, Equatable {
        /// Official name: `blocks.0.prenorm.scale`.
        let name: String
        let shape: [Int]
    }

    /// What a name stands for.
    enum Target: Sendable, Hashable {
        /// A layer, by its index in `layers`.
        case layer(Int)
        /// Query, key and value as one layer, their outputs in this order.
        case fused([Int])
        /// A vector, by its index in `vectors`.
        case vector(Int)
    }

    /// All layers, those of blocks last; 264 in the released models.
    let layers: [Layer]
    /// All vectors but biases, which belong to their layers.
    let vectors: [Vector]
    /// Width of the residual stream.
    let width: Int
    private let dotted: [String: Target]
    private let flattened: [String: Target]

    /// Lists the layers of a transformer.
    init(_ config: TransformerConfig) {
        let (width, textWidth) = (config.width, config.text.width)
        self.width = width
        var layers = [
            Layer(name: "first", outputs: width, inputs: config.tokenWidth),
            Layer(name: "tmlp.0", outputs: width, inputs: config.timeWidth),
            Layer(name: "tmlp.2", outputs: width, inputs: width),
            Layer(name: "tproj.1", outputs: 6 * width, inputs: width),
            Layer(name: "txtfusion.projector", outputs: 1, inputs: config.taps),
            Layer(name: "txtmlp.1", outputs: width, inputs: textWidth),
            Layer(name: "txtmlp.3", outputs: width, inputs: width),
            Layer(name: "last.linear", outputs: config.tokenWidth, inputs: width),
        ]
        let blocks =
            (0..<config.layerwiseBlocks).map {
                ("txtfusion.layerwise_blocks.\($0)", config.text)
            }
            + (0..<config.refinerBlocks).map { ("txtfusion.refiner_blocks.\($0)", config.text) }
            + (0..<config.blocks).map { ("blocks.\($0)", config.block) }
        var vectors = [
            Vector(name: "txtmlp.0.scale", shape: [textWidth]),
            Vector(name: "last.norm.scale", shape: [width]),
            Vector(name: "last.modulation.lin", shape: [2, width]),
        ]
        var fused: [(String, Target)] = []
        for (block, sizes) in blocks {
            vectors += Self.vectors(block, sizes)
            let attention = layers.count
            layers += Self.layers(block, sizes)
            let name = TransformerNames.diffusers.stored("\(block).") + "attn.to_qkv"
            fused.append((name, .fused([attention, attention + 1, attention + 2])))
        }
        vectors += (0..<config.blocks).map {
            Vector(name: "blocks.\($0).mod.lin", shape: [6, width])
        }
        (self.layers, self.vectors) = (layers, vectors)

        var dotted = Dictionary(uniqueKeysWithValues: fused)
        for (index, layer) in layers.enumerated() {
            dotted[layer.name] = .layer(index)
            dotted[Self.diffusersName(layer.name + ".weight")] = .layer(index)
        }
        for (index, vector) in vectors.enumerated() {
            for name in [vector.name, TransformerNames.diffusers.stored(vector.name)] {
                dotted[name] = .vector(index)
                dotted[Self.withoutEnd(name)] = .vector(index)
            }
        }
        self.dotted = dotted
        flattened = Dictionary(
            uniqueKeysWithValues: dotted.map { (Self.flat($0.key), $0.value) }
        )
    }

    /// The layers of one block, query, key and value first.
    private static func layers(_ block: String, _ sizes: BlockSizes) -> [Layer] {
        let (width, hidden) = (sizes.width, sizes.feedForwardWidth)
        return [
            Layer(name: "\(block).attn.wq", outputs: width, inputs: width),
            Layer(name: "\(block).attn.wk", outputs: sizes.keyValueWidth, inputs: width),
            Layer(name: "\(block).attn.wv", outputs: sizes.keyValueWidth, inputs: width),
            Layer(name: "\(block).attn.gate", outputs: width, inputs: width),
            Layer(name: "\(block).attn.wo", outputs: width, inputs: width),
            Layer(name: "\(block).mlp.gate", outputs: hidden, inputs: width),
            Layer(name: "\(block).mlp.up", outputs: hidden, inputs: width),
            Layer(name: "\(block).mlp.down", outputs: width, inputs: hidden),
        ]
    }

    /// The vectors that all kinds of blocks have.
    private static func vectors(_ block: String, _ sizes: BlockSizes) -> [Vector] {
        [
            Vector(name: "\(block).prenorm.scale", shape: [sizes.width]),
            Vector(name: "\(block).postnorm.scale", shape: [sizes.width]),
            Vector(name: "\(block).attn.qknorm.qnorm.scale", shape: [sizes.headSize]),
            Vector(name: "\(block).attn.qknorm.knorm.scale", shape: [sizes.headSize]),
        ]
    }

    private static func diffusersName(_ weight: String) -> String {
        withoutEnd(TransformerNames.diffusers.stored(weight))
    }

    /// A name without what most parameters are called inside of their modules.
    private static func withoutEnd(_ name: String) -> String {
        let end = [".weight", ".scale"].first(where: name.hasSuffix) ?? ""
        return String(name.dropLast(end.count))
    }

    private static func flat(_ name: String) -> String {
        String(name.map { $0 == "." ? "_" : $0 })
    }

    /// What the module of a key stands for, nil when it is unknown.
    ///
    /// In flattened names underscores at the end are passed over.
    func target(_ key: LoRAKey) -> Target? {
        var name = key.module
        guard key.naming == .flattened else { return dotted[String(name)] }
        while name.hasSuffix("_") { name = name.dropLast() }
        return flattened[String(name)]
    }

    /// Inputs of a target.
    func inputs(_ target: Target) -> Int? {
        switch target {
        case .layer(let index): layers[index].inputs
        case .fused(let indices): indices.first.map { layers[$0].inputs }
        case .vector: nil
        }
    }

    /// The known name that is most like a key's: it shares the longest beginning and end.
    func nearest(_ key: LoRAKey) -> String? {
        let letters = Array(key.module.utf8.prefix(200))
        func likeness(_ known: String) -> Int {
            let other = Array(known.utf8)
            let shared = zip(letters, other).prefix { $0 == $1 }.count
            return shared + zip(letters.reversed(), other.reversed()).prefix { $0 == $1 }.count
        }
        let names = (key.naming == .flattened ? flattened : dotted).keys
        let best = names.map { (likeness($0), $0) }.max { ($0.0, $1.1) < ($1.0, $0.1) }
        return best.flatMap { $0.0 >= 4 ? $0.1 : nil }
    }
}
