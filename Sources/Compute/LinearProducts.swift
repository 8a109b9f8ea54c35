import CKernels
import Tensors

/// A matrix of a layer, and what is added to its products.
struct UpdatedMatrix {
    let weight: WeightMatrix
    /// nil for nothing.
    let update: LinearUpdate?
    /// How rows are packed for it.
    let packing: RowPacking

    /// The matrix's part of what an update has for each output.
    func rows(_ ofAll: Tensor?) -> Tensor? {
        let first = firstRow
        return ofAll.map { $0.rows(first..<first + weight.rows) }
    }

    /// Output of the whole layer that comes first.
    var firstRow: Int { weight.origin?.firstRow ?? 0 }
}

/// Packed rows and the matrices that they are multiplied with.
struct MatrixProduct {
    let matrix: UpdatedMatrix
    let packed: PackedRows
    /// Multiplies the products with the matrix alone: `[outputs]`; nil for 1.
    let scale: Tensor?
    /// Added: `[outputs]`.
    let bias: Tensor?
    /// Products that are added.
    let terms: [Term]

    /// A product with the blocks of outputs of a whole layer, one after the other.
    struct Term {
        /// Rows for each block.
        let packed: [PackedRows]
        /// `[outputs of a block, k]`.
        let weight: WeightMatrix
        /// Output of the first block that is the layer's first.
        let firstRow: Int

        init(_ packed: [PackedRows], _ weight: WeightMatrix, firstRow: Int = 0) {
            (self.packed, self.weight, self.firstRow) = (packed, weight, firstRow)
        }
    }

    init(_ matrix: UpdatedMatrix, _ packed: PackedRows, _ terms: [Term] = []) {
        (self.matrix, self.packed, self.terms) = (matrix, packed, terms)
        scale = matrix.rows(matrix.update?.outputScale)
        bias = matrix.rows(matrix.update?.bias)
    }
}

extension Operators {
    /// A matrix with its update.
    func updated(_ weight: WeightMatrix) -> UpdatedMatrix {
        let (update, arithmetic) = (updates[weight], policy.arithmetic(for: weight))
        let packing = RowPacking(
            arithmetic: arithmetic,
            rotation: weight.rotation,
            scale: update?.inputScale,
            kernels: table.products(arithmetic)
        )
        return UpdatedMatrix(weight: weight, update: update, packing: packing)
    }

    /// How rows are packed for what is added: in floating point, however weights are stored.
    private var floatPacking: RowPacking {
        let arithmetic: Arithmetic = activations == .bfloat16 ? .bfloat16 : .float32
        return RowPacking(
            arithmetic: arithmetic,
            rotation: nil,
            scale: nil,
            kernels: table.products(arithmetic)
        )
    }

    /// All ways in which rows are packed for some matrices and what is added to them.
    func packings(for matrices: [UpdatedMatrix]) -> [RowPacking] {
        let hasTerms = matrices.contains { $0.update?.hasTerms ?? false }
        return ((hasTerms ? [floatPacking] : []) + matrices.map(\.packing))
            .reduce(into: []) { unique, next in
                if !unique.contains(next) { unique.append(next) }
            }
    }

    /// Panels of rows that there is scratch memory for; no limit where nothing is added.
    func panelsUpdatedAtOnce(_ matrices: [UpdatedMatrix]) -> Int {
        let sizes = matrices.compactMap { $0.update?.size }
        let rowBytes = sizes.reduce(0) { $0 + $1.rowByteCount }
        guard rowBytes > 0 else { return .max }
        let room =
            updates.scratchByteCount
            - Arena.alignment * sizes.reduce(0) { $0 + $1.bufferCount }
        let panels = room / (rowBytes * floatPacking.kernels.row_panel)
        precondition(panels > 0, "no room for the updates of \(matrices.count) matrices")
        return panels
    }

    /// Prepares the products of some rows with the matrices of all layers.
    ///
    /// - Parameters:
    ///   - matrices: One or two for each layer.
    ///   - packed: Rows `range` of the input, in each packing.
    ///   - input: All rows.
    ///   - range: The rows that are packed.
    /// - Returns: Products of each layer's matrices; they are valid until the next call.
    func products(
        _ matrices: [[UpdatedMatrix]],
        _ packed: [PackedRows],
        _ input: LinearInput,
        _ range: Range<Int>
    ) -> [[MatrixProduct]] {
        func rows(_ packing: RowPacking) -> PackedRows {
            guard let found = packed.first(where: { $0.packing == packing }) else {
                preconditionFailure("rows are not packed for \(packing.arithmetic)")
            }
            return found
        }
        var memory = Arena(updateMemory)
        // First all products with first factors at once.
        let hidden = matrices.map { $0.map { hiddenRows($0, range.count, &memory) } }
        let layers = hidden.joined().compactMap(\.self)
        if !layers.isEmpty {
            var floats = rows(floatPacking)
            floats.rows = 0..<range.count
            multiply(layers.map { [MatrixProduct(updated($0.weight), floats)] }, layers)
        }
        return zip(matrices, hidden).map { matrices, hidden in
            zip(matrices, hidden).map { matrix, hidden in
                var terms: [MatrixProduct.Term] = []
                if let hidden, let up = matrix.update?.up {
                    terms.append(Term([pack(hidden.output, &memory)], up))
                }
                for block in matrix.update?.blocks ?? [] {
                    let packed =
                        block.left.map {
                            pack(input, range, mixedBy: $0, block.right.columns, &memory)
                        } ?? [rows(floatPacking)]
                    terms.append(Term(packed, block.right, firstRow: block.firstRow))
                }
                return MatrixProduct(matrix, rows(matrix.packing), terms)
            }
        }
    }

    private typealias Term = MatrixProduct.Term

    /// The layer that multiplies with the first factor of an update.
    private func hiddenRows(
        _ matrix: UpdatedMatrix,
        _ count: Int,
        _ memory: inout Arena
    ) -> LinearLayer? {
        matrix.update?.down.map { down in
            LinearLayer(down, into: memory.tensor("rows times first factors", count, down.rows))
        }
    }

    /// Packs rows as they are: `[rows, k]`, float32.
    private func pack(_ x: Tensor, _ memory: inout Arena) -> PackedRows {
        let packed = emptyRows(x.rows, x.rowCount, 1, &memory)[0]
        let panel = packed.packing.kernels.row_panel
        parallelTasks(packed.panels) { index, _ in
            let rows = x.rows(index * panel..<min((index + 1) * panel, x.rows))
            packed.pack(index, rows.floats, rows: rows.rows)
        }
        return packed
    }

    /// Packs what a matrix makes of the parts of each row: row i of it makes Σ left[i, j] part j.
    ///
    /// - Returns: For each row of the matrix, rows `range` of the input, `[range.count, k]`.
    private func pack(
        _ input: LinearInput,
        _ range: Range<Int>,
        mixedBy left: Tensor,
        _ k: Int,
        _ memory: inout Arena
    ) -> [PackedRows] {
        let all = emptyRows(range.count, k, left.rows, &memory)
        let (panel, parts) = (floatPacking.kernels.row_panel, left.rowCount)
        parallelTasks(all[0].panels) { index, worker in
            let first = range.lowerBound + index * panel
            let rows = first..<min(first + panel, range.upperBound)
            let workspace = workspace(worker)
            let x = prepared(input, rows, workspace)
            let mixed = workspace.rows.1
            for (i, packed) in all.enumerated() {
                mixed.update(repeating: 0, count: rows.count * k)
                for row in 0..<rows.count {
                    let (target, source) = (mixed + row * k, x + row * parts * k)
                    for j in 0..<parts {
                        let factor = left.floats[i * parts + j]
                        for m in 0..<k { target[m] += factor * source[j * k + m] }
                    }
                }
                packed.pack(index, mixed, rows: rows.count)
            }
        }
        return all
    }

    /// Memory for packed rows, several times.
    private func emptyRows(
        _ rows: Int,
        _ k: Int,
        _ count: Int,
        _ memory: inout Arena
    ) -> [PackedRows] {
        let packing = floatPacking
        let panel = packing.kernels.row_panel
        let panels = (rows + panel - 1) / panel
        let lanes = memory.tensor("packed rows", count, panels * panel, packing.lanes(k))
        return (0..<count).map {
            PackedRows(
                packing: packing,
                rows: 0..<rows,
                k: k,
                panels: panels,
                lanes: lanes.row($0).address.assumingMemoryBound(to: UInt32.self),
                quantized: nil
            )
        }
    }
}
