import CKernels
package import Tensors

/// Rows that go into linear layers, and what happens to them first.
package struct LinearInput: Sendable {
    let rows: Tensor
    var norm: RowNorm?
    var layerNorm: LayerNorm?
    var gate: Tensor?

    /// The rows as they are: `[rows, k]`, float32 or bfloat16.
    package static func rows(_ rows: Tensor) -> LinearInput { LinearInput(rows: rows) }

    /// Rows that are normed first; float32.
    package static func normed(_ rows: Tensor, _ norm: RowNorm) -> LinearInput {
        LinearInput(rows: rows, norm: norm)
    }

    /// Rows whose every group of as many elements as the norm has is normed first; float32.
    package static func layerNormed(_ rows: Tensor, _ norm: LayerNorm) -> LinearInput {
        precondition(rows.rowCount.isMultiple(of: norm.weight.count))
        return LinearInput(rows: rows, layerNorm: norm)
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
    /// Factors of the elements, before they are rotated: `[k]`.
    let scale: Tensor?
    let kernels: product_kernels

    /// Lanes that a row of k elements takes.
    func lanes(_ k: Int) -> Int { (k + kernels.group - 1) / kernels.group }

    /// Rows scaled and rotated, in `target` unless they stay as they are.
    ///
    /// - Parameters:
    ///   - x: `[rows, k]`.
    ///   - rows: Their number.
    ///   - k: Their length.
    ///   - target: `[rows, k]`; may be x.
    ///   - table: The kernels.
    /// - Returns: x or the target.
    fileprivate func apply(
        to x: UnsafePointer<Float>,
        _ rows: Int,
        _ k: Int,
        into target: UnsafeMutablePointer<Float>,
        _ table: kernel_table
    ) -> UnsafePointer<Float> {
        guard scale != nil || rotation != nil else { return x }
        if x != UnsafePointer(target) { target.update(from: x, count: rows * k) }
        if let scale {
            for row in 0..<rows { table.multiply(target + row * k, scale.floats, k) }
        }
        if let rotation { table.rotate(target, rows * k, rotation) }
        return UnsafePointer(target)
    }

    static func == (a: RowPacking, b: RowPacking) -> Bool {
        a.arithmetic == b.arithmetic && a.rotation == b.rotation
            && a.scale?.storage === b.scale?.storage
    }
}

/// Some rows of activations, packed.
struct PackedRows {
    let packing: RowPacking
    /// The rows' places in the input, or in the output.
    var rows: Range<Int>
    let k: Int
    /// Panels of rows; the last may be partly filled.
    let panels: Int
    let lanes: UnsafeMutablePointer<UInt32>
    /// Descriptions of the rows, for int8.
    let quantized: UnsafeMutablePointer<quantized_row>?

    /// Packs panel number `index` from rows of k floats.
    func pack(_ index: Int, _ x: UnsafePointer<Float>, rows: Int) {
        let quantized = quantized.map { $0 + index * packing.kernels.row_panel }
        packing.kernels.pack_rows(lanes, index, panels, x, k, rows, k, quantized)
    }
}

extension Operators {
    /// Bytes that describe a row.
    private static let descriptionBytes = MemoryLayout<quantized_row>.stride

    /// Rows of `rows` that are packed at once, in whole panels, as evenly as possible.
    func rowsPackedAtOnce(
        _ rows: Int,
        _ packings: [RowPacking],
        _ k: Int,
        mostPanels: Int
    ) -> Int {
        let panel = packings[0].kernels.row_panel
        let panelBytes = packings.reduce(0) { $0 + panel * bytes($1, k) }
        precondition(panelBytes <= Self.packedCapacity, "rows of \(k) elements are too long")
        let panels = (rows + panel - 1) / panel
        let most = min(mostPanels, Self.packedCapacity / panelBytes)
        let chunks = max(1, (panels + most - 1) / most)
        return (panels + chunks - 1) / chunks * panel
    }

    /// Bytes that a packed row takes.
    private func bytes(_ packing: RowPacking, _ k: Int) -> Int {
        4 * packing.lanes(k) + (packing.arithmetic == .int8 ? Self.descriptionBytes : 0)
    }

    /// Prepares rows `range` of the input and packs them, once for each packing.
    func pack(_ input: LinearInput, _ range: Range<Int>, _ packings: [RowPacking]) -> [PackedRows] {
        let (k, panel) = (input.rows.rowCount, packings[0].kernels.row_panel)
        let panels = (range.count + panel - 1) / panel
        var memory = packedMemory
        let all = packings.map { packing in
            let descriptions = memory + 4 * packing.lanes(k) * panels * panel
            defer { memory += panels * panel * bytes(packing, k) }
            return PackedRows(
                packing: packing,
                rows: range,
                k: k,
                panels: panels,
                lanes: memory.assumingMemoryBound(to: UInt32.self),
                quantized: packing.arithmetic == .int8
                    ? descriptions.assumingMemoryBound(to: quantized_row.self) : nil
            )
        }
        parallelTasks(panels) { index, worker in
            let first = range.lowerBound + index * panel
            let rows = first..<min(first + panel, range.upperBound)
            let workspace = workspace(worker)
            let x = prepared(input, rows, workspace)
            for (place, packed) in all.enumerated() {
                // Only the last may use up the rows.
                let isLast = place == all.count - 1
                let target = isLast ? workspace.rows.0 : workspace.rows.1
                let own = packed.packing.apply(to: x, rows.count, k, into: target, table)
                packed.pack(index, own, rows: rows.count)
            }
        }
        return all
    }

    /// A panel of rows in float32, normed or gated: `[rows, k]`.
    func prepared(
        _ input: LinearInput,
        _ rows: Range<Int>,
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
        } else if let norm = input.layerNorm {
            norm.apply(target, x.floats, groups: x.count / norm.weight.count, table)
        } else if x.elementType == .float32, input.gate == nil {
            return UnsafePointer(x.floats)
        } else {
            table.widen(target, x.address, x.kernelType, x.count)
        }
        if let gate = input.gate?.rows(rows) {
            table.widen(workspace.rows.1, gate.address, gate.kernelType, gate.count)
            table.sigmoid_multiply(target, workspace.rows.1, x.count)
        }
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
