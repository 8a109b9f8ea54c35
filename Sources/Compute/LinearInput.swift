import CKernels
package import Tensors

/// Rows that go into linear layers, and what happens to them first.
package struct LinearInput: Sendable {
    let rows: Tensor
    var norm: RowNorm?
    var gate: Tensor?

    /// The rows as they are: `[rows, k]`, float32 or bfloat16.
    package static func rows(_ rows: Tensor) -> LinearInput { LinearInput(rows: rows) }

    /// Rows that are normed first; float32.
    package static func normed(_ rows: Tensor, _ norm: RowNorm) -> LinearInput {
        LinearInput(rows: rows, norm: norm)
    }

    /// Rows that are multiplied by the sigmoid of `gate`, which is like them.
    package static func gated(_ rows: Tensor, by gate: Tensor) -> LinearInput {
        precondition(gate.shape == rows.shape && gate.elementType == rows.elementType)
        return LinearInput(rows: rows, gate: gate)
    }
}

/// How rows of activations are packed for a product.
struct RowPacking: Equatable {
    let arithmetic: Arithmetic
    /// Elements that are rotated together, as those of the weights are.
    let rotation: Int?
    let kernels: product_kernels

    /// Lanes that a row of k elements takes.
    func lanes(_ k: Int) -> Int { (k + kernels.group - 1) / kernels.group }

    static func == (a: RowPacking, b: RowPacking) -> Bool {
        a.arithmetic == b.arithmetic && a.rotation == b.rotation
    }
}

/// Some rows of activations, packed.
struct PackedRows {
    let packing: RowPacking
    /// The rows' places in the input.
    let rows: Range<Int>
    let k: Int
    /// Panels of rows; the last may be partly filled.
    let panels: Int
    let lanes: UnsafeMutablePointer<UInt32>
    /// Descriptions of the rows, for int8.
    let quantized: UnsafeMutablePointer<quantized_row>
}

extension Operators {
    /// Bytes that describe a row.
    private static let descriptionBytes = MemoryLayout<quantized_row>.stride

    /// Rows of `rows` that are packed at once, in whole panels, as evenly as possible.
    func rowsPackedAtOnce(_ rows: Int, _ packing: RowPacking, _ k: Int) -> Int {
        let panel = packing.kernels.row_panel
        let panelBytes = panel * (4 * packing.lanes(k) + Self.descriptionBytes)
        precondition(panelBytes <= Self.packedCapacity, "rows of \(k) elements are too long")
        let (panels, most) = ((rows + panel - 1) / panel, Self.packedCapacity / panelBytes)
        let chunks = max(1, (panels + most - 1) / most)
        return (panels + chunks - 1) / chunks * panel
    }

    /// Prepares and packs rows `range` of the input.
    func pack(_ input: LinearInput, _ range: Range<Int>, _ packing: RowPacking) -> PackedRows {
        let (k, panel) = (input.rows.rowCount, packing.kernels.row_panel)
        let panels = (range.count + panel - 1) / panel
        let packed = PackedRows(
            packing: packing,
            rows: range,
            k: k,
            panels: panels,
            lanes: packedMemory.assumingMemoryBound(to: UInt32.self),
            quantized: (packedMemory + 4 * packing.lanes(k) * panels * panel)
                .assumingMemoryBound(to: quantized_row.self)
        )
        parallelTasks(panels) { index, worker in
            let first = range.lowerBound + index * panel
            let rows = first..<min(first + panel, range.upperBound)
            packing.kernels.pack_rows(
                packed.lanes,
                index,
                panels,
                prepared(input, rows, packing.rotation, workspace(worker)),
                k,
                rows.count,
                k,
                packed.quantized + index * panel
            )
        }
        return packed
    }

    /// A panel of rows in float32, normed or gated and rotated: `[rows, k]`.
    private func prepared(
        _ input: LinearInput,
        _ rows: Range<Int>,
        _ rotation: Int?,
        _ workspace: Workspace
    ) -> UnsafePointer<Float> {
        let x = input.rows.rows(rows)
        let target = workspace.rows.0
        if let norm = input.norm {
            table.rms_norm(
                target,
                x.floats,
                norm.weight.floats,
                norm.scale?.floats,
                norm.shift?.floats,
                rows.count,
                x.rowCount,
                norm.stored.offset,
                norm.epsilon
            )
        } else if x.elementType == .float32, input.gate == nil, rotation == nil {
            return UnsafePointer(x.floats)
        } else {
            table.widen(target, x.address, x.kernelType, x.count)
        }
        if let gate = input.gate?.rows(rows) {
            table.widen(workspace.rows.1, gate.address, gate.kernelType, gate.count)
            table.sigmoid_multiply(target, workspace.rows.1, x.count)
        }
        if let rotation { table.rotate(target, x.count, rotation) }
        return UnsafePointer(target)
    }
}

extension Tensor {
    /// The kernels' name for the element type; traps where they do not compute with it.
    var kernelType: weight_type {
        switch elementType {
        case .float32: .float32
        case .float16: .float16
        case .bfloat16: .bfloat16
        case .float8E4M3: .float8_e4m3
        case .float8E5M2: .float8_e5m2
        case .int8: .int8
        default: preconditionFailure("\(elementType) is not computed with")
        }
    }
}
