import Compute
import Tensors

/// What a LoRA file does to one linear layer; tensors are as the file stores them.
struct LoRAModule: Sendable {
    /// Index of the layer in `LoRATargets.layers`.
    let layer: Int
    /// The change of the weight, before `scale`; nil where only the bias changes.
    let change: WeightDifference?
    /// alpha / rank, or alpha / √rank; 1 where the file has no alpha.
    let scale: Float
    /// Rank of the factors; nil where there are none.
    let rank: Int?
    /// nil where the file has none that counts.
    let alpha: Double?
    /// The lengths that the rows or columns of the changed weight are given (DoRA).
    let magnitude: LayerChange.Magnitude?
    /// Added to the bias, `[outputs]`, before `biasScale`.
    let bias: Tensor?
    let biasScale: Float
}

/// What a LoRA file adds to a norm's weight or a table of modulations.
struct LoRAVector: Sendable {
    /// Index of the vector in `LoRATargets.vectors`.
    let vector: Int
    /// As the file stores it.
    let difference: Tensor
}

extension LoRAModule {
    /// The part of a change of several layers at once that belongs to one of them.
    ///
    /// - Parameters:
    ///   - layer: Index of the layer.
    ///   - rows: Its outputs among those of all.
    /// - Returns: nil where columns are given lengths, which the layers have in common.
    func part(layer: Int, rows: Range<Int>) -> LoRAModule? {
        let part: WeightDifference? =
            switch change {
            case .lowRank(let down, let up): .lowRank(down: down, up: up.rows(rows))
            case .hadamard(let a, let b, let c, let d):
                .hadamard(a: a.rows(rows), b: b, c: c.rows(rows), d: d)
            case .kronecker(let first, let second, _): .kronecker(first, second, rows: rows)
            case .difference(let matrix): .difference(matrix.rows(rows))
            case nil: nil
            }
        let lengths: LayerChange.Magnitude?
        switch magnitude {
        case .rows(let lengthsOfAll): lengths = .rows(lengthsOfAll.rows(rows))
        case .columns: return nil
        case nil: lengths = nil
        }
        return LoRAModule(
            layer: layer,
            change: part,
            scale: scale,
            rank: rank,
            alpha: alpha,
            magnitude: lengths,
            bias: bias?.rows(rows),
            biasScale: biasScale
        )
    }

    /// What a use of the file with this strength does to the layer.
    func change(strength: Float) -> LayerChange {
        LayerChange(
            difference: change,
            scale: scale,
            strength: strength,
            magnitude: magnitude,
            bias: bias,
            biasScale: biasScale
        )
    }

    /// The square of the change's Frobenius norm, without what lengths make of it; infinite where
    /// it is too large for float32.
    func squaredNorm(_ operators: Operators) -> Double {
        guard let change, scale != 0 else { return 0 }
        let square = change.squaredNorm(operators)
        return square.isNaN ? .infinity : square * Double(scale) * Double(scale)
    }
}

extension LoRAVector {
    /// The square of the difference's length.
    var squaredNorm: Double {
        converted(difference).elements.reduce(0) { $0 + Double($1) * Double($1) }
    }
}
