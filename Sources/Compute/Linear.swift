import CKernels
package import Tensors

/// What is done with each element of a layer's result.
package enum Activation: Sendable {
    /// The tanh form of GELU.
    case geluTanh
    /// The exact form of GELU.
    case gelu
}

/// One linear layer: x wᵀ + bias, and what becomes of it.
package struct LinearLayer: Sendable {
    /// What becomes of the products.
    enum Result: Sendable {
        /// Replace the rows of a tensor: `[rows, outputs]`, float32 or bfloat16.
        case rows(Tensor)
        /// Are added to the rows of a tensor; float32.
        case sum(Tensor)
        /// Are multiplied by a gate `[outputs]`, if there is one, and added; float32.
        case residual(Tensor, gate: Tensor?)
        /// Become heads, normed and rotated: `[rows, heads · headSize]`, float32 or bfloat16.
        case heads(Tensor, HeadNorm)
        /// Replace the rows of a tensor, after an activation: float32 or bfloat16.
        case activated(Tensor, Activation)
        /// Are multiplied, after silu, by the products with another matrix.
        case siluProduct(Tensor, WeightMatrix)
    }

    let weight: WeightMatrix
    var bias: Tensor?
    let result: Result

    /// Writes the products, plus a bias `[outputs]`, into `y`: `[rows, outputs]`.
    package init(_ weight: WeightMatrix, bias: Tensor? = nil, into y: Tensor) {
        self.init(weight, bias, .rows(y))
    }

    /// Writes an activation of the products, plus a bias `[outputs]`, into `y`.
    package init(
        _ weight: WeightMatrix,
        bias: Tensor?,
        activation: Activation,
        into y: Tensor
    ) {
        self.init(weight, bias, .activated(y, activation))
    }

    /// Adds the products, plus a bias `[outputs]`, to the rows of `x`; a gate `[outputs]` multiplies
    /// them first.
    package init(
        _ weight: WeightMatrix,
        bias: Tensor? = nil,
        addingTo x: Tensor,
        gate: Tensor? = nil
    ) {
        precondition(gate.map { $0.count == weight.rows } ?? true)
        self.init(weight, bias, .residual(x, gate: gate))
    }

    /// Norms and rotates each head of the products, plus a bias `[outputs]`, and writes them into
    /// `y`.
    package init(
        _ weight: WeightMatrix,
        bias: Tensor? = nil,
        heads norm: HeadNorm,
        into y: Tensor
    ) {
        precondition(weight.rows.isMultiple(of: norm.headSize), "heads of \(norm.headSize)")
        self.init(weight, bias, .heads(y, norm))
    }

    /// Writes silu(x gateᵀ) ⊙ (x upᵀ) into `y`.
    package init(gate: WeightMatrix, up: WeightMatrix, into y: Tensor) {
        precondition(gate.rows == up.rows && gate.columns == up.columns)
        self.init(gate, nil, .siluProduct(y, up))
    }

    init(_ weight: WeightMatrix, _ bias: Tensor?, _ result: Result) {
        precondition(bias.map { $0.count == weight.rows } ?? true)
        self.weight = weight
        self.bias = bias
        self.result = result
    }

    /// Its matrix, or both.
    var weights: [WeightMatrix] {
        if case .siluProduct(_, let up) = result { [weight, up] } else { [weight] }
    }

    var output: Tensor {
        switch result {
        case .rows(let y), .sum(let y), .residual(let y, _), .heads(let y, _),
            .activated(let y, _), .siluProduct(let y, _):
            y
        }
    }
}

extension Operators {
    /// Linear layers that read the same rows: the one place where activations meet weights.
    ///
    /// Rows are prepared and packed once for all layers that multiply in the same arithmetic;
    /// weights are unpacked block by block inside the kernel, so no copy of a matrix ever exists. A
    /// tile of the products is finished while it is in the cache, updates of the layer included.
    /// Sums run over k in the same order for every number of threads.
    ///
    /// - Parameters:
    ///   - input: The rows: `[rows, k]`.
    ///   - layers: Layers with `k` inputs. What they write must not overlap the input, but for
    ///     layers whose every row depends on that row of the input alone: none of ours.
    package func linear(_ input: LinearInput, _ layers: [LinearLayer]) {
        let (rows, k) = (input.rows.rows, input.rows.rowCount)
        for layer in layers {
            let shape = layer.weight.elements.shape
            precondition(layer.weight.columns == k, "\(k) inputs, weight \(shape)")
            precondition(
                layer.output.rows == rows && layer.output.rowCount == layer.weight.rows,
                "output \(layer.output.shape), weight \(shape)"
            )
        }
        let matrices = layers.map { layer in
            precondition(!layer.addsToSums || updates[layer.weight] == nil, "sums have no updates")
            return layer.weights.map(updated)
        }
        // Layers whose activations are packed in the same way share them.
        let packings = packings(for: matrices.flatMap(\.self))
        let most = panelsUpdatedAtOnce(matrices.flatMap(\.self))
        let chunk = rowsPackedAtOnce(rows, packings, k, mostPanels: most)
        for start in stride(from: 0, to: rows, by: chunk) {
            let range = start..<min(start + chunk, rows)
            let packed = pack(input, range, packings)
            multiply(products(matrices, packed, input, range), layers)
        }
    }

    /// y = x wᵀ + bias, or y += x wᵀ + bias.
    ///
    /// - Parameters:
    ///   - x: `[rows, k]`, float32 or bfloat16.
    ///   - weight: `[columns, k]`.
    ///   - bias: `[columns]`, float32.
    ///   - y: `[rows, columns]`; must not overlap x.
    ///   - adding: Whether to add to y, which is float32 then, instead of overwriting it.
    package func linear(
        _ x: Tensor,
        _ weight: WeightMatrix,
        bias: Tensor? = nil,
        into y: Tensor,
        adding: Bool = false
    ) {
        linear(.rows(x), [LinearLayer(weight, bias, adding ? .sum(y) : .rows(y))])
    }
}
