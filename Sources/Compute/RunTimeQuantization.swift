import CKernels
package import Tensors

extension Operators {
    /// Elements that are rotated together where weights are quantised: at most 256.
    ///
    /// - Parameter columns: Elements in a row.
    /// - Returns: The largest power of 4 that divides them; nil where 4 does not.
    package static func rotation(columns: Int) -> Int? {
        [256, 64, 16, 4].first { columns.isMultiple(of: $0) }
    }

    /// Rotates and quantises the rows of a matrix, each by its largest element.
    ///
    /// Source: ComfyUI's `int8_tensorwise` with `convrot`, with a scale for each row.
    ///
    /// - Parameters:
    ///   - matrix: `[rows, columns]`, of a floating-point type.
    ///   - elements: `[rows, columns]`, int8.
    ///   - scale: `[rows]`.
    /// - Returns: The quantised matrix, made of `elements` and `scale`.
    package func quantize(
        _ matrix: WeightMatrix,
        into elements: Tensor,
        scale: Tensor
    ) -> WeightMatrix {
        let (rows, columns) = (matrix.rows, matrix.columns)
        precondition(elements.shape == [rows, columns] && elements.elementType == .int8)
        precondition(scale.count == rows)
        let rotation = Self.rotation(columns: columns)
        let target = elements.address.assumingMemoryBound(to: Int8.self)
        let grain = grain(columns)
        parallelTasks((rows + grain - 1) / grain) { index, worker in
            let row = workspace(worker).rows.0
            for index in index * grain..<min((index + 1) * grain, rows) {
                let source = matrix.elements.row(index)
                table.widen(row, source.address, source.kernelType, columns)
                if let rotation = matrix.rotation { table.rotate(row, columns, rotation) }
                if let rotation { table.rotate(row, columns, rotation) }
                let factor = matrix.scale.map { $0.floats[$0.count == 1 ? 0 : index] } ?? 1
                scale.floats[index] =
                    factor * table.quantize(target + index * columns, row, columns)
            }
        }
        return WeightMatrix(elements, scale: scale, rotation: rotation, origin: matrix.origin)
    }
}
