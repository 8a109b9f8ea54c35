import CKernels
import Tensors
import Testing

@testable import Compute

/// The kernels stay inside packed arrays and workspaces of exactly the documented size.
struct WorkspaceTests {
    private func panels(_ count: Int, _ panel: Int) -> Int { (count + panel - 1) / panel }

    @Test(arguments: allLevels)
    func linear(level: String) throws {
        let table = try operators(level).table
        var random = Random(1)
        for (rows, columns, k) in [(1, 1, 1), (13, 33, 300), (45, Int(linear_columns), 257)] {
            let (x, weight) = (random.tensor(rows, k), random.weight(columns, k, .float16))
            let panels = panels(rows, table.row_panel)
            let packed = Tensor(guarded: [panels * table.row_panel, k])
            table.pack_rows(packed.floats, x.floats, k, rows, k, panels, 0, panels)
            let y = Tensor(guarded: [rows, columns])
            var task = linear_task(
                y: y.floats,
                y_stride: columns,
                packed: UnsafePointer(packed.floats),
                panels: panels,
                first_panel: 0,
                end_panel: panels,
                rows: rows,
                w: UnsafeRawPointer(weight.address),
                w_type: .float16,
                w_stride: k,
                columns: columns,
                k: k,
                bias: nil,
                accumulate: false
            )
            let workspace = Tensor(guarded: [Int(linear_columns), table.k_block])
            withExtendedLifetime((packed, weight, y, workspace)) {
                table.linear(&task, workspace.floats)
            }
            let expected = Tensor(guarded: y.shape)
            try operators(level).linear(x, weight, into: expected)
            expectIdentical(y, expected)
        }
    }

    @Test(arguments: allLevels)
    func convolution(level: String) throws {
        let table = try operators(level).table
        var random = Random(2)
        let count = Int(convolution_pixels)
        let (image, kernel) = (random.tensor(2, count, 33), random.weight(5, 297, .float32))
        let bias = random.tensor(5)
        let columns = panels(5, table.column_panel) * table.column_panel
        let packed = Tensor(guarded: [columns, 297])
        table.pack_weights(packed.floats, kernel.address, .float32, 297, 5, 297)
        let y = Tensor(guarded: [count, 5])
        var task = convolution_task(
            y: y.floats,
            first_pixel: 0,
            count: count,
            source: UnsafePointer(image.floats),
            first_row: 0,
            row_count: 2,
            height: 2,
            width: count,
            channels: 33,
            upsampling: 1,
            w: UnsafePointer(packed.floats),
            columns: 5,
            bias: UnsafePointer(bias.floats),
            accumulate: false
        )
        let workspace = Tensor(guarded: [count, table.k_block])
        withExtendedLifetime((image, packed, bias, y, workspace)) {
            table.convolve(&task, workspace.floats)
        }
        let operators = try operators(level)
        let expected = Tensor(guarded: [1, count, 5])
        operators.convolution(
            ImageRows(image, firstRow: 0, imageHeight: 2),
            ConvolutionWeights(kernel.reshaped(5, 3, 3, 33), bias: bias, for: operators),
            rows: 0..<1,
            into: expected
        )
        expectIdentical(y, expected)
    }

    @Test(arguments: allLevels, [1, 9, 130])
    func attention(level: String, headSize: Int) throws {
        let table = try operators(level).table
        var random = Random(3)
        let queries = table.query_panel
        let (query, key) = (random.tensor(queries, headSize), random.tensor(300, headSize))
        let expected = Tensor(guarded: query.shape)
        let operators = try operators(level)
        operators.attention(query, key, key, heads: 1, keyValueHeads: 1, into: expected)
        let workspace = Tensor(guarded: [2 * headSize + Int(attention_keys), queries])
        var task = attention_task(
            o: query.floats,
            o_stride: headSize,
            q: UnsafePointer(query.floats),
            q_stride: headSize,
            k: UnsafePointer(key.floats),
            v: UnsafePointer(key.floats),
            kv_stride: headSize,
            queries: queries,
            keys: 300,
            head_size: headSize,
            scale: 1 / Float(headSize).squareRoot(),
            causal: false,
            first_position: 0
        )
        withExtendedLifetime((query, key, workspace)) { table.attend(&task, workspace.floats) }
        expectIdentical(query, expected)
    }

    @Test(arguments: allLevels)
    func operatorsReserveEnough(level: String) throws {
        let table = try operators(level).table
        let needed = [
            Int(linear_columns) * table.k_block, Int(convolution_pixels) * table.k_block,
            (2 * Operators.largestHeadSize + Int(attention_keys)) * table.query_panel,
        ]
        let bytes = Operators.scratchByteCount(threads: 1) - 4 * Operators.packedCapacity
        #expect(bytes >= 4 * (needed.max() ?? 0))
        #expect(Int(linear_columns).isMultiple(of: table.column_panel))
        #expect(Int(convolution_pixels).isMultiple(of: table.row_panel))
    }
}
