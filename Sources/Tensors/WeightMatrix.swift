/// The weights of a linear layer as a file stores them.
///
/// Element i of row n stands for `elements[n, i] · scale[n]`; where `rotation` is G, each group of
/// G values of a row is then multiplied by the Hadamard matrix H_G, which is its own inverse.
///
/// Source: ComfyUI's quantised files (`comfy_quant`: `float8_e4m3fn`, `float8_e5m2`,
/// `int8_tensorwise`, `convrot`).
package struct WeightMatrix: Sendable {
    /// `[rows, columns]` = `[outputs, inputs]`: float32, float16, bfloat16, float8 or int8.
    package let elements: Tensor
    /// Float32: `[1]`, or `[rows]` with a factor for each row; nil stands for 1.
    package let scale: Tensor?
    /// Values of a row that are rotated together: a power of 4 that divides the columns; nil for
    /// no rotation.
    package let rotation: Int?
    /// Where it comes from; nil for matrices of no checkpoint.
    package var origin: Origin?

    /// What names the rows of a matrix.
    package struct Origin: Sendable, Equatable {
        /// The checkpoint's name of the whole matrix, without `.weight`, as the model calls it.
        package let name: String
        /// Its row that comes first.
        package let firstRow: Int

        package init(name: String, firstRow: Int = 0) {
            (self.name, self.firstRow) = (name, firstRow)
        }
    }

    /// Combines the parts; traps where they do not fit.
    package init(
        _ elements: Tensor,
        scale: Tensor? = nil,
        rotation: Int? = nil,
        origin: Origin? = nil
    ) {
        precondition(elements.shape.count == 2, "\(elements.shape)")
        precondition(scale.map { $0.count == 1 || $0.count == elements.rows } ?? true)
        precondition(rotation.map { $0 > 1 && elements.rowCount.isMultiple(of: $0) } ?? true)
        self.elements = elements
        self.scale = scale
        self.rotation = rotation
        self.origin = origin
    }

    /// Outputs of the layer.
    package var rows: Int { elements.rows }
    /// Inputs of the layer.
    package var columns: Int { elements.rowCount }

    /// The same with its elements elsewhere in memory.
    package func replacing(_ elements: Tensor) -> WeightMatrix {
        WeightMatrix(elements, scale: scale, rotation: rotation, origin: origin)
    }
}
