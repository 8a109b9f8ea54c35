import Checkpoints
import Compute
import Tensors

/// The LoRAs of a run on their way to the linear layers, norms and tables.
///
/// Files of equal content are one, with the sum of their scales; those with scale 0 are left out.
/// The others are applied in the order of their digests, whatever the order in the request was.
final class LoRAActivation {
    /// A layer and everything that changes it.
    private struct Layer {
        let name: String
        /// How the layer's changes are stored: as its arithmetic takes them.
        let type: ElementType
        let isText: Bool
        var changes: [(use: Int, change: LayerChange)] = []

        var size: LinearUpdate.Size { LinearUpdate.Size(changes.map(\.change), storedAs: type) }
    }

    /// What reads and computes with different changes.
    enum Part: Equatable {
        /// What runs once for all steps, which no window keeps a LoRA from.
        case text
        /// A step that begins at this noise level.
        case step(sigma: Float)
    }

    private let uses: [LoRAUse]
    private var layers: [Layer]
    /// What is added to each vector.
    private var vectors: [[(use: Int, difference: Tensor)]]
    private let targets: LoRATargets
    private let transformer: Transformer
    /// What the operators and the transformer have at the moment.
    private var current: (isText: Bool, active: [Bool])?

    /// Collects the changes of each layer; reads no elements.
    ///
    /// - Parameters:
    ///   - uses: What a request wants.
    ///   - transformer: The model that the files were opened for.
    ///   - arithmetic: What the layers compute in.
    /// - Throws: `.request` for a scale that is no number, or a file for another model.
    init(
        _ uses: [LoRAUse],
        _ transformer: Transformer,
        _ arithmetic: RunArithmetic
    ) throws(GenerationError) {
        targets = LoRATargets(transformer.config)
        vectors = targets.vectors.map { _ in [] }
        for use in uses {
            guard use.scale.isFinite else {
                throw .request("LoRA scale \(use.scale), expected a number")
            }
            guard use.file.layers == targets.layers else {
                throw .request("\(use.file.path) was opened for another model")
            }
        }
        self.uses = Self.merged(uses)
        self.transformer = transformer
        layers = targets.layers.map { layer in
            let isText = layer.name.hasPrefix("txt")
            let isBlock = layer.name.hasPrefix("blocks.")
            let policy = isText ? arithmetic.textFusion : arithmetic.transformer
            // The layers around the blocks compute in float32.
            let type = isText || isBlock ? arithmetic.activations(policy) : .float32
            return Layer(name: layer.name, type: type, isText: isText)
        }
        for (index, use) in self.uses.enumerated() {
            for module in use.file.modules {
                let change = module.change(strength: use.scale)
                layers[module.layer].changes.append((index, change))
            }
            for vector in use.file.vectors {
                vectors[vector.vector].append((index, vector.difference))
            }
        }
        layers.removeAll(where: \.changes.isEmpty)
    }

    /// One use for each content and window, in a fixed order.
    private static func merged(_ uses: [LoRAUse]) -> [LoRAUse] {
        func key(_ use: LoRAUse) -> (String, Double, Double, Float) {
            // Scales, too, so that sums are always the same.
            (use.file.digest, use.window.lowerBound, use.window.upperBound, use.scale)
        }
        return uses.sorted { key($0) < key($1) }.reduce(into: [LoRAUse]()) { merged, use in
            if let old = merged.last, old.file.digest == use.file.digest, old.window == use.window {
                merged[merged.count - 1] = LoRAUse(
                    old.file,
                    scale: old.scale + use.scale,
                    window: old.window
                )
            } else {
                merged.append(use)
            }
        }.filter { $0.scale != 0 }
    }
}

// MARK: Memory

extension LoRAActivation {
    /// Bytes of the changes that are in memory at a time.
    var byteCount: Int {
        let sizes = layers.map { ($0.isText, $0.size.byteCount) }
        let text = sizes.reduce(0) { $0 + ($1.0 ? $1.1 : 0) }
        return max(text, sizes.reduce(0) { $0 + $1.1 } - text) + vectorByteCount
    }

    /// Bytes of a second set of norms and tables, where one of them changes.
    private var vectorByteCount: Int {
        guard vectors.contains(where: { !$0.isEmpty }) else { return 0 }
        return targets.vectors.reduce(0) { $0 + $1.shape.reduce(4, *) }
    }

    /// Bytes of scratch memory that layers need for them.
    var scratchByteCount: Int { LinearUpdates.scratchByteCount(layers.map(\.size)) }
}

// MARK: Run

extension LoRAActivation {
    /// Goes through the weights whose changes depend on them, those with magnitudes (DoRA), once.
    ///
    /// - Parameter operators: The kernels.
    /// - Throws: `.cancelled`, or `.model` when the files cannot be read.
    func readWeights(_ operators: Operators) throws(GenerationError) {
        let wanted = layers.indices.filter {
            layers[$0].changes.contains { $0.change.magnitude != nil }
        }
        guard !wanted.isEmpty else { return }
        let matrices = Dictionary(grouping: transformer.matrices) { $0.origin?.name ?? "" }
        let parts = wanted.map { matrices[layers[$0].name] ?? [] }
        let supply = try MatrixSupply(
            transformer.order(of: parts.flatMap(\.self)),
            operators: operators
        )
        for (index, parts) in zip(wanted, parts) {
            let places = layers[index].changes.indices.filter {
                layers[index].changes[$0].change.magnitude != nil
            }
            var lengths = places.map {
                ChangedLengths(layers[index].changes[$0].change, operators)
            }
            for matrix in parts {
                if operators.isCancelled() { throw .cancelled }
                let matrix = try supply.load(SingleMatrix(matrix: matrix)).matrix
                for place in lengths.indices { lengths[place].add(matrix) }
                supply.release()
            }
            for (place, lengths) in zip(places, lengths) {
                layers[index].changes[place].change.setFactors(by: lengths)
            }
        }
    }

    /// Gives operators and transformer the changes of a part of the run, unless they have them
    /// already.
    ///
    /// - Parameters:
    ///   - part: What comes next.
    ///   - operators: Replaced by others with the same scratch memory.
    ///   - transformer: Replaced by one with the same matrices.
    /// - Throws: `.cancelled`, or `.model` when a file is no longer the one that was opened.
    func apply(
        to part: Part,
        _ operators: inout Operators,
        _ transformer: inout Transformer
    ) throws(GenerationError) {
        let active = uses.map { use in
            if case .step(let sigma) = part { use.window.contains(Double(sigma)) } else { true }
        }
        let isText = part == .text
        if let current, current == (isText, active) { return }
        // Two sets of changes might not fit into memory.
        operators = Operators(sharing: operators, updates: .none)
        var updates: [String: LinearUpdate] = [:]
        for layer in layers where layer.isText == isText {
            let changes = layer.changes.filter { active[$0.use] }.map(\.change)
            guard !changes.isEmpty else { continue }
            if operators.isCancelled() { throw .cancelled }
            updates[layer.name] = LinearUpdate(changes, storedAs: layer.type, operators)
        }
        do {
            if vectorByteCount > 0 {
                transformer = try self.transformer.adding(differences(active))
            }
            for use in uses { try use.file.checkUnchanged() }
        } catch {
            throw .model(error)
        }
        operators = Operators(sharing: operators, updates: LinearUpdates(updates))
        current = (isText, active)
    }

    /// What active uses add to vectors, by their names.
    private func differences(_ active: [Bool]) -> [String: Tensor] {
        var sums: [String: Tensor] = [:]
        for (vector, changes) in zip(targets.vectors, vectors) {
            for (use, difference) in changes where active[use] {
                let sum = sums[vector.name] ?? Tensor(zeros: [difference.count])
                sum.add(difference, times: uses[use].scale)
                sums[vector.name] = sum
            }
        }
        return sums
    }
}
