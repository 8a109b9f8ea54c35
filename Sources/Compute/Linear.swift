import CKernels
package import Tensors

extension Operators {
    /// y = x wᵀ + bias, or y += x wᵀ + bias: the one place where activations meet weight matrices.
    ///
    /// Weights are widened to float32 block by block while they are packed for the kernel; no
    /// float32 copy of a matrix ever exists. Sums run over k in the same order for every thread
    /// count.
    ///
    /// - Parameters:
    ///   - x: `[rows, k]`, float32.
    ///   - weight: `[columns, k]`, float32, float16 or bfloat16.
    ///   - bias: `[columns]`, float32.
    ///   - y: `[rows, columns]`, float32; must not overlap x.
    ///   - adding: Whether to add to y instead of overwriting it.
    package func linear(
        _ x: Tensor,
        _ weight: Tensor,
        bias: Tensor? = nil,
        into y: Tensor,
        adding: Bool = false
    ) {
        let (rows, k, columns) = (x.rows, x.rowCount, weight.rows)
        precondition(weight.rowCount == k, "x \(x.shape), weight \(weight.shape)")
        precondition(
            y.rows == rows && y.rowCount == columns,
            "y \(y.shape), weight \(weight.shape)"
        )
        precondition(bias.map { $0.count == columns } ?? true, "bias, weight \(weight.shape)")

        let panel = table.row_panel
        let chunk = max(1, Self.packedCapacity / (k * panel)) * panel
        precondition(k * panel <= Self.packedCapacity, "rows of \(k) elements are too long to pack")
        for first in stride(from: 0, to: rows, by: chunk) {
            let range = first..<min(first + chunk, rows)
            pack(x.rows(range))
            multiplyPacked(range.count, weight, bias, into: y.rows(range), adding: adding)
        }
    }

    private func pack(_ x: Tensor) {
        let (rows, k, panel) = (x.rows, x.rowCount, table.row_panel)
        let panels = (rows + panel - 1) / panel
        parallelRows(panels, grain: grain(k * panel)) { range in
            table.pack_rows(
                packedRows,
                x.floats,
                k,
                rows,
                k,
                panels,
                range.lowerBound,
                range.upperBound
            )
        }
    }

    /// Multiplies the packed rows by blocks of columns; with few columns, in groups of rows too.
    private func multiplyPacked(
        _ rows: Int,
        _ weight: Tensor,
        _ bias: Tensor?,
        into y: Tensor,
        adding: Bool
    ) {
        let (columns, k) = (weight.rows, weight.rowCount)
        let panels = (rows + table.row_panel - 1) / table.row_panel
        let block = columnBlock(columns)
        let columnBlocks = (columns + block - 1) / block
        let wantedGroups = max(1, 8 * threads / columnBlocks)
        let groupPanels = max(32, (panels + wantedGroups - 1) / wantedGroups)
        let groups = (panels + groupPanels - 1) / groupPanels
        let type = weight.kernelType

        parallelTasks(columnBlocks * groups) { index, worker in
            let column = index % columnBlocks * block
            let panel = index / columnBlocks * groupPanels
            var task = linear_task(
                y: y.floats + column,
                y_stride: columns,
                packed: packedRows,
                panels: panels,
                first_panel: panel,
                end_panel: min(panel + groupPanels, panels),
                rows: rows,
                w: UnsafeRawPointer(weight.address + column * k * weight.elementType.byteCount),
                w_type: type,
                w_stride: k,
                columns: min(block, columns - column),
                k: k,
                bias: bias.map { UnsafePointer($0.floats + column) },
                accumulate: adding
            )
            table.linear(&task, workspace(worker))
        }
    }

    /// Columns of one task: as many as the kernel takes, or fewer so that every thread has several.
    private func columnBlock(_ columns: Int) -> Int {
        let panel = table.column_panel
        let share = (columns + 8 * threads - 1) / (8 * threads)
        let rounded = (share + panel - 1) / panel * panel
        return min(linear_columns, max(rounded, 4 * panel))
    }
}

extension Tensor {
    /// The kernels' name for the element type; traps where they do not compute with it.
    var kernelType: weight_type {
        switch elementType {
        case .float32: .float32
        case .float16: .float16
        case .bfloat16: .bfloat16
        default: preconditionFailure("\(elementType) is not computed with")
        }
    }
}
