import CKernels
import Tensors

/// Some columns of one layer, for some panels of rows.
private struct Tile {
    let layer: Int
    let panels: Range<Int>
    let columns: Range<Int>
}

extension Operators {
    /// Multiplies packed rows with the weights of all layers, tile by tile.
    ///
    /// - Parameters:
    ///   - products: One or two for each layer, of the same rows.
    ///   - layers: What becomes of them.
    func multiply(_ products: [[MatrixProduct]], _ layers: [LinearLayer]) {
        let packed = products[0][0].packed
        let tiles = tiles(packed, layers)
        parallelTasks(tiles.count) { index, worker in
            let tile = tiles[index]
            let (layer, workspace) = (layers[tile.layer], workspace(worker))
            let panel = packed.packing.kernels.row_panel
            let first = packed.rows.lowerBound + tile.panels.lowerBound * panel
            let end = min(packed.rows.upperBound, first + tile.panels.count * panel)
            let block = TileBlock(
                rows: first..<end,
                columns: tile.columns,
                sums: workspace.sums.0,
                other: workspace.sums.1
            )
            if case .sum(let y) = layer.result { block.load(y) }
            for (index, product) in products[tile.layer].enumerated() {
                let target = index == 0 ? block : block.second
                compute(product, tile.panels, target, adding: layer.addsToSums, workspace)
            }
            finish(layer, block)
        }
    }

    /// Tiles of all layers: large ones, but several for each thread.
    private func tiles(_ packed: PackedRows, _ layers: [LinearLayer]) -> [Tile] {
        let panel = packed.packing.kernels.row_panel
        let most = Workspace.tileRows / panel
        let columns = layers.reduce(0) { $0 + $1.weight.rows }
        let wanted = 8 * threads
        var groups = (packed.panels + most - 1) / most
        // Weights are unpacked once for each group of rows, so few rows stay together.
        while groups * (columns / Workspace.tileColumns) < wanted,
            packed.panels / (2 * groups) >= 32
        {
            groups *= 2
        }
        let groupPanels = (packed.panels + groups - 1) / groups
        let share = (columns * groups + wanted - 1) / wanted
        return layers.enumerated().flatMap { index, layer in
            let width = layer.tileColumns(share: share)
            return stride(from: 0, to: layer.weight.rows, by: width).flatMap { column in
                stride(from: 0, to: packed.panels, by: groupPanels).map { first in
                    Tile(
                        layer: index,
                        panels: first..<min(first + groupPanels, packed.panels),
                        columns: column..<min(column + width, layer.weight.rows)
                    )
                }
            }
        }
    }

    /// One tile of x wᵀ and what is added to it, as float32 in `block.sums`.
    private func compute(
        _ product: MatrixProduct,
        _ panels: Range<Int>,
        _ block: TileBlock,
        adding: Bool,
        _ workspace: Workspace
    ) {
        let (packed, weight, columns) = (product.packed, product.matrix.weight, block.columns)
        multiply(packed, panels, weight, columns, block.sums, adding: adding, workspace)
        if let quantized = packed.quantized {
            table.dequantize(
                block.sums,
                Workspace.tileStride,
                quantized + (block.rows.lowerBound - packed.rows.lowerBound),
                block.rows.count,
                columns.count
            )
        }
        if let scale = weight.scale { block.scale(by: scale, table) }
        if let scale = product.scale { block.scale(by: scale, table) }
        for term in product.terms {
            // The matrix may be a part of a layer's, and the layer a part of a term.
            let start = term.firstRow + product.matrix.firstRow + columns.lowerBound
            let (height, end) = (term.weight.rows, start + columns.count)
            var row = start
            while row < end {
                let index = row / height
                let rows = row - index * height..<min(end - index * height, height)
                let sums = block.sums + (row - start)
                let packed = term.packed[index]
                multiply(packed, panels, term.weight, rows, sums, adding: true, workspace)
                row += rows.count
            }
        }
        if let bias = product.bias { block.add(bias, table) }
    }

    /// sums = x wᵀ, or +=, for some panels of x and some rows of w.
    private func multiply(
        _ packed: PackedRows,
        _ panels: Range<Int>,
        _ weight: WeightMatrix,
        _ rows: Range<Int>,
        _ sums: UnsafeMutablePointer<Float>,
        adding: Bool,
        _ workspace: Workspace
    ) {
        let elements = weight.elements
        let row = elements.rowCount * elements.elementType.byteCount
        var task = product_task(
            sums: UnsafeMutableRawPointer(sums),
            stride: Workspace.tileStride,
            packed: UnsafePointer(packed.lanes),
            panels: packed.panels,
            first_panel: panels.lowerBound,
            end_panel: panels.upperBound,
            w: UnsafeRawPointer(elements.address + rows.lowerBound * row),
            w_type: elements.kernelType,
            w_stride: elements.rowCount,
            columns: rows.count,
            k: packed.k,
            accumulate: adding
        )
        packed.packing.kernels.multiply(&task, workspace.lanes)
    }

    /// Does with a tile what the layer is for.
    private func finish(_ layer: LinearLayer, _ block: TileBlock) {
        if let bias = layer.bias { block.add(bias, table) }
        switch layer.result {
        case .rows(let y), .sum(let y):
            block.store(y, table)
        case .residual(let x, let gate):
            let factors = gate.map { UnsafePointer($0.floats + block.columns.lowerBound) }
            for row in block.indices {
                table.gated_add(
                    block.place(row, in: x),
                    block.row(row),
                    factors,
                    1,
                    block.columns.count
                )
            }
        case .heads(let y, let norm):
            norm.apply(
                block.sums,
                stride: Workspace.tileStride,
                rows: block.rows,
                columns: block.columns,
                table
            )
            block.store(y, table)
        case .activated(let y, let activation):
            for row in block.indices {
                switch activation {
                case .geluTanh: table.gelu_tanh(block.row(row), block.columns.count)
                case .gelu: table.gelu(block.row(row), block.columns.count)
                }
            }
            block.store(y, table)
        case .siluProduct(let y, _):
            for row in block.indices {
                table.silu_multiply(block.row(row), block.otherRow(row), block.columns.count)
            }
            block.store(y, table)
        }
    }
}

extension LinearLayer {
    /// Whether products are added to what the tile holds already.
    var addsToSums: Bool {
        if case .sum = result { true } else { false }
    }

    /// Columns of a tile: about `share`, whole heads if there are heads.
    fileprivate func tileColumns(share: Int) -> Int {
        let most = Workspace.tileColumns
        let wanted = min(most, max(64, (share + 31) / 32 * 32))
        guard case .heads(_, let norm) = result else { return wanted }
        precondition(norm.headSize <= most, "heads of \(norm.headSize)")
        return max(1, wanted / norm.headSize) * norm.headSize
    }
}

/// The sums of a tile: rows and columns of the layer's output.
private struct TileBlock {
    /// Rows of the output.
    let rows: Range<Int>
    let columns: Range<Int>
    /// `[rows, tileStride]`.
    let sums: UnsafeMutablePointer<Float>
    /// The same for the second of two products.
    let other: UnsafeMutablePointer<Float>

    /// The block of the second of two products.
    var second: TileBlock { TileBlock(rows: rows, columns: columns, sums: other, other: sums) }

    var indices: Range<Int> { 0..<rows.count }

    func row(_ index: Int) -> UnsafeMutablePointer<Float> { sums + index * Workspace.tileStride }

    func otherRow(_ index: Int) -> UnsafeMutablePointer<Float> {
        other + index * Workspace.tileStride
    }

    /// Where a row of the tile lies in the output.
    func place(_ index: Int, in y: Tensor) -> UnsafeMutablePointer<Float> {
        y.floats + (rows.lowerBound + index) * y.rowCount + columns.lowerBound
    }

    func load(_ y: Tensor) {
        for index in indices { row(index).update(from: place(index, in: y), count: columns.count) }
    }

    func store(_ y: Tensor, _ table: kernel_table) {
        guard y.elementType == .bfloat16 else {
            for index in indices {
                place(index, in: y).update(from: row(index), count: columns.count)
            }
            return
        }
        let halves = y.address.assumingMemoryBound(to: UInt16.self)
        for index in indices {
            let offset = (rows.lowerBound + index) * y.rowCount + columns.lowerBound
            table.narrow(halves + offset, row(index), columns.count)
        }
    }

    /// Adds a bias: `[outputs]`.
    func add(_ bias: Tensor, _ table: kernel_table) {
        for index in indices {
            table.gated_add(row(index), bias.floats + columns.lowerBound, nil, 1, columns.count)
        }
    }

    /// Multiplies by the scale of each output, or of all.
    func scale(by scale: Tensor, _ table: kernel_table) {
        withUnsafeTemporaryAllocation(of: Float.self, capacity: columns.count) { factors in
            for column in columns {
                factors[column - columns.lowerBound] = scale.floats[scale.count == 1 ? 0 : column]
            }
            guard let first = factors.baseAddress else { return }
            for index in indices { table.multiply(row(index), first, columns.count) }
        }
    }
}
