import Compute
import Tensors

/// Makes the change of a layer of the tensors that a file has for it.
struct LoRAModuleBuilder {
    /// Highest rank that is read; no matrix of a released model has a higher one.
    static let mostRank = 8192

    private let module: LoRAReading.Module
    private let targets: LoRATargets
    private let settings: LoRASettings

    init(_ module: LoRAReading.Module, _ targets: LoRATargets, _ settings: LoRASettings) {
        (self.module, self.targets, self.settings) = (module, targets, settings)
    }

    private var tensors: [LoRAKey.Part: LoRATensor] { module.tensors }

    /// The changes of the module's layers, or of the vector that it stands for.
    ///
    /// - Throws: What is wrong with the tensors.
    func build() throws(LoRAProblem) -> (layers: [LoRAModule], vector: LoRAVector?) {
        for (part, tensor) in tensors.sorted(by: { $0.value.name < $1.value.name }) {
            try check(part, tensor)
        }
        switch module.target {
        case .layer(let index):
            let layer = targets.layers[index]
            return ([try whole(index, outputs: layer.outputs, inputs: layer.inputs)], nil)
        case .fused(let indices):
            return (try split(indices), nil)
        case .vector(let index):
            return ([], try vector(index))
        }
    }

    /// Fails for values that cannot be computed with.
    private func check(_ part: LoRAKey.Part, _ tensor: LoRATensor) throws(LoRAProblem) {
        let (values, type) = (tensor.values, tensor.values.elementType)
        if case .unsupported(let method) = part {
            throw .unsupported(key: tensor.name, method: method)
        }
        if part == .alpha {
            guard let number = values.number else {
                throw .misshapen(key: tensor.name, found: values.shape, expected: "one number")
            }
            guard number.isFinite else { throw .notFinite(key: tensor.name) }
            return
        }
        guard type.isComputable else { throw .mistyped(key: tensor.name, found: type.rawValue) }
        guard values.count > 0 else {
            throw .misshapen(key: tensor.name, found: values.shape, expected: "some elements")
        }
        guard values.isFinite else { throw .notFinite(key: tensor.name) }
    }

    /// The parts of a layer that has the outputs of several.
    private func split(_ indices: [Int]) throws(LoRAProblem) -> [LoRAModule] {
        let layers = indices.map { targets.layers[$0] }
        let outputs = layers.reduce(0) { $0 + $1.outputs }
        let all = try whole(indices[0], outputs: outputs, inputs: layers[0].inputs)
        var parts: [LoRAModule] = []
        var first = 0
        for (index, layer) in zip(indices, layers) {
            guard let part = all.part(layer: index, rows: first..<first + layer.outputs) else {
                throw .unsupported(
                    key: tensors[.magnitude]?.name ?? module.anyName,
                    method: "DoRA over the inputs of query, key and value as one layer"
                )
            }
            parts.append(part)
            first += layer.outputs
        }
        return parts
    }

    private func whole(_ layer: Int, outputs: Int, inputs: Int) throws(LoRAProblem) -> LoRAModule {
        let (change, rank) = try change(outputs, inputs)
        // Without factors there is no rank, and an alpha means nothing.
        let alpha = rank.flatMap { _ in
            settings.alpha(
                own: tensors[.alpha]?.values.number,
                module: module.name,
                isFlattened: module.isFlattened
            )
        }
        let scale = alpha.map { settings.scale(alpha: $0, rank: rank ?? 1) } ?? 1
        guard scale.isFinite else {
            throw .notFinite(key: (tensors[.alpha])?.name ?? module.anyName)
        }
        if change == nil, let alpha = tensors[.alpha], tensors.count == 1 {
            throw .alone(key: alpha.name, partner: "lora_A")
        }
        return LoRAModule(
            layer: layer,
            change: change,
            scale: scale,
            rank: rank,
            alpha: alpha,
            magnitude: try magnitude(change, outputs, inputs),
            bias: try bias(outputs)?.values,
            biasScale: tensors[.upBias] == nil ? 1 : scale
        )
    }

    private func vector(_ index: Int) throws(LoRAProblem) -> LoRAVector {
        let shape = targets.vectors[index].shape
        guard let tensor = tensors[.difference], tensors.count == 1 else {
            let other = tensors.first { $0.key != .difference }?.value.name ?? module.anyName
            throw .unsupported(key: other, method: "more than a difference of a norm or a table")
        }
        let found = Array(tensor.values.shape.drop { $0 == 1 })
        guard found == shape || found == [shape.reduce(1, *)] else {
            throw .misshapen(key: tensor.name, found: tensor.values.shape, expected: "\(shape)")
        }
        return LoRAVector(vector: index, difference: tensor.values)
    }

    // MARK: Changes

    /// The change and the rank of its factors.
    private func change(
        _ outputs: Int,
        _ inputs: Int
    ) throws(LoRAProblem) -> (WeightDifference?, rank: Int?) {
        var found: [(WeightDifference, Int?)] = []
        if tensors[.down] != nil || tensors[.up] != nil {
            let (down, up) = try pair(.down, "lora_A", .up, "lora_B")
            let matrices = try product(up, down, rows: outputs, columns: inputs)
            let change = WeightDifference.lowRank(down: matrices.right, up: matrices.left)
            found.append((change, matrices.rank))
        }
        if let change = try hadamard(outputs, inputs) { found.append(change) }
        if let change = try kronecker(outputs, inputs) { found.append(change) }
        if let tensor = tensors[.difference] {
            found.append((.difference(try matrix(tensor, rows: outputs, columns: inputs)), nil))
        }
        guard found.count < 2 else {
            throw .unsupported(key: module.anyName, method: "more than one change of a layer")
        }
        return found.first ?? (nil, nil)
    }

    private func hadamard(
        _ outputs: Int,
        _ inputs: Int
    ) throws(LoRAProblem) -> (WeightDifference, Int?)? {
        let parts: [LoRAKey.Part] = [.hadamard1A, .hadamard1B, .hadamard2A, .hadamard2B]
        guard parts.contains(where: { tensors[$0] != nil }) else { return nil }
        let (a, b) = try pair(.hadamard1A, "hada_w1_a", .hadamard1B, "hada_w1_b")
        let (c, d) = try pair(.hadamard2A, "hada_w2_a", .hadamard2B, "hada_w2_b")
        let first = try product(a, b, rows: outputs, columns: inputs)
        let second = try product(c, d, rows: outputs, columns: inputs)
        let change = WeightDifference.hadamard(
            a: first.left,
            b: first.right,
            c: second.left,
            d: second.right
        )
        return (change, first.rank)
    }

    private func kronecker(
        _ outputs: Int,
        _ inputs: Int
    ) throws(LoRAProblem) -> (WeightDifference, Int?)? {
        let left = try factor(.kronecker1, .kronecker1A, .kronecker1B, "lokr_w1")
        let right = try factor(.kronecker2, .kronecker2A, .kronecker2B, "lokr_w2")
        guard left != nil || right != nil else { return nil }
        guard let left else { throw .alone(key: module.anyName, partner: "lokr_w1") }
        guard let right else { throw .alone(key: module.anyName, partner: "lokr_w2") }
        let (first, second) = (left.factor.shape, right.factor.shape)
        let shape = zip(first, second).map { $0.multipliedReportingOverflow(by: $1) }
        guard shape.allSatisfy({ !$0.overflow }), shape.map(\.partialValue) == [outputs, inputs]
        else {
            throw .misshapen(
                key: module.anyName,
                found: first + second,
                expected: "factors of [\(outputs), \(inputs)]"
            )
        }
        // Where both are whole, an alpha means nothing; some files have a huge one.
        return (.kronecker(left.factor, right.factor, rows: 0..<outputs), right.rank ?? left.rank)
    }

    private func factor(
        _ whole: LoRAKey.Part,
        _ first: LoRAKey.Part,
        _ second: LoRAKey.Part,
        _ name: String
    ) throws(LoRAProblem) -> (factor: WeightDifference.Factor, rank: Int?)? {
        let hasProduct = tensors[first] != nil || tensors[second] != nil
        if let tensor = tensors[whole] {
            if hasProduct {
                let other = tensors[first] ?? tensors[second]
                throw .repeated(key: tensor.name, other: other?.name ?? name)
            }
            return (.full(try matrix(tensor)), nil)
        }
        guard hasProduct else { return nil }
        let (a, b) = try pair(first, name + "_a", second, name + "_b")
        let matrices = try product(a, b)
        return (.product(matrices.left, matrices.right), matrices.rank)
    }

    // MARK: Other parts

    private func bias(_ outputs: Int) throws(LoRAProblem) -> LoRATensor? {
        if let one = tensors[.biasDifference], let other = tensors[.upBias] {
            throw .repeated(key: one.name, other: other.name)
        }
        if let bias = tensors[.upBias], tensors[.up] == nil {
            throw .alone(key: bias.name, partner: "lora_B")
        }
        guard let bias = tensors[.biasDifference] ?? tensors[.upBias] else { return nil }
        guard bias.values.shape == [outputs] else {
            throw .misshapen(key: bias.name, found: bias.values.shape, expected: "[\(outputs)]")
        }
        return bias
    }

    private func magnitude(
        _ change: WeightDifference?,
        _ outputs: Int,
        _ inputs: Int
    ) throws(LoRAProblem) -> LayerChange.Magnitude? {
        guard let tensor = tensors[.magnitude] else { return nil }
        guard change != nil else { throw .alone(key: tensor.name, partner: "lora_A") }
        switch tensor.values.shape {
        case [outputs], [outputs, 1]: return .rows(tensor.values.reshaped(outputs))
        case [1, inputs]: return .columns(tensor.values.reshaped(inputs))
        default:
            throw .misshapen(
                key: tensor.name,
                found: tensor.values.shape,
                expected: "[\(outputs)], [\(outputs), 1] or [1, \(inputs)]"
            )
        }
    }

    /// Two tensors that belong together.
    private func pair(
        _ first: LoRAKey.Part,
        _ firstName: String,
        _ second: LoRAKey.Part,
        _ secondName: String
    ) throws(LoRAProblem) -> (LoRATensor, LoRATensor) {
        guard let a = tensors[first] else {
            throw .alone(key: tensors[second]?.name ?? module.anyName, partner: firstName)
        }
        guard let b = tensors[second] else { throw .alone(key: a.name, partner: secondName) }
        return (a, b)
    }

    /// Two matrices that fit to be multiplied, and their inner size.
    private func product(
        _ left: LoRATensor,
        _ right: LoRATensor,
        rows: Int? = nil,
        columns: Int? = nil
    ) throws(LoRAProblem) -> (left: Tensor, right: Tensor, rank: Int) {
        let second = try matrix(right, columns: columns)
        let rank = second.shape[0]
        guard rank <= Self.mostRank else {
            throw .misshapen(
                key: right.name,
                found: second.shape,
                expected: "a rank of at most \(Self.mostRank)"
            )
        }
        return (try matrix(left, rows: rows, columns: rank), second, rank)
    }

    /// A tensor as a matrix; ones at the end of its shape, as 1×1 convolutions have, are dropped.
    private func matrix(
        _ tensor: LoRATensor,
        rows: Int? = nil,
        columns: Int? = nil
    ) throws(LoRAProblem) -> Tensor {
        let shape = tensor.values.shape
        let isMatrix = shape.count >= 2 && shape.dropFirst(2).allSatisfy { $0 == 1 }
        guard isMatrix, rows.map({ $0 == shape[0] }) ?? true,
            columns.map({ $0 == shape[1] }) ?? true
        else {
            let sides = [rows, columns].map { $0.map(String.init) ?? "any" }
            throw .misshapen(
                key: tensor.name,
                found: shape,
                expected: "[\(sides.joined(separator: ", "))]"
            )
        }
        return tensor.values.reshaped(shape[0], shape[1])
    }
}
