import CKernels
import Tensors
import Testing

@testable import Compute

/// The kernels stay inside packed arrays and workspaces of exactly the documented size.
struct WorkspaceTests {
    private func whole(_ count: Int, _ panel: Int) -> Int { (count + panel - 1) / panel * panel }

    @Test(
        arguments: allLevels.map { ($0, Arithmetic.float32) }
            + (["scalar"] + fastBfloat16Levels).map { ($0, .bfloat16) }
            + (["scalar"] + fastInt8Levels).map { ($0, .int8) }
    )
    func products(level: String, arithmetic: Arithmetic) throws {
        let kernels = try operators(level).table.products(arithmetic)
        var random = Random(1)
        for (rows, columns, k) in [(1, 1, 1), (13, 33, 300), (45, 256, 1031)] {
            let type = arithmetic == .int8 ? ElementType.int8 : .float16
            let (x, weight) = (random.tensor(rows, k), random.weight(columns, k, type))
            let lanes = (k + kernels.group - 1) / kernels.group
            let panels = whole(rows, kernels.row_panel) / kernels.row_panel
            let packed = Tensor(guarded: [panels * kernels.row_panel, lanes])
            let target = packed.address.assumingMemoryBound(to: UInt32.self)
            var quantized = [quantized_row](repeating: quantized_row(), count: rows)
            for panel in 0..<panels {
                let first = panel * kernels.row_panel
                let count = min(kernels.row_panel, rows - first)
                quantized.withUnsafeMutableBufferPointer {
                    let (start, x) = ($0.baseAddress.map { $0 + first }, x.floats + first * k)
                    kernels.pack_rows(target, panel, panels, x, k, count, k, start)
                }
            }
            let stride = whole(columns, kernels.column_panel)
            let sums = Tensor(guarded: [panels * kernels.row_panel, stride])
            let workspace = Tensor(guarded: [Int(lane_block), kernels.column_panel])
            var task = product_task(
                sums: sums.address,
                stride: stride,
                packed: target,
                panels: panels,
                first_panel: 0,
                end_panel: panels,
                w: UnsafeRawPointer(weight.address),
                w_type: weight.kernelType,
                w_stride: k,
                columns: columns,
                k: k,
                accumulate: false
            )
            withExtendedLifetime((x, packed, weight, sums, workspace)) {
                kernels.multiply(
                    &task,
                    workspace.address.assumingMemoryBound(to: UInt32.self)
                )
            }
            let expected = Tensor(guarded: [rows, columns])
            let policy: ArithmeticPolicy =
                switch arithmetic {
                case .float32: .float32
                case .bfloat16: .bfloat16
                case .int8: .int8
                }
            let operators = try operators(level, policy: policy)
            operators.linear(x, WeightMatrix(weight), into: expected)
            if arithmetic == .int8 {
                operators.table.dequantize(sums.address, stride, quantized, rows, columns)
            }
            for row in 0..<rows {
                let found = sums.row(row).elements.prefix(columns)
                #expect(Array(found) == expected.row(row).elements)
            }
        }
    }

    @Test(arguments: allLevels)
    func convolution(level: String) throws {
        let table = try operators(level).table
        var random = Random(2)
        let count = Int(convolution_pixels)
        let (image, kernel) = (random.tensor(2, count, 33), random.weight(5, 297, .float32))
        let bias = random.tensor(5)
        let packed = Tensor(guarded: [whole(5, table.products(.float32).column_panel), 297])
        table.pack_weights(packed.floats, kernel.floats, 5, 297)
        let y = Tensor(guarded: [count, 5])
        var task = convolution_task(
            y: y.floats,
            first_pixel: 0,
            count: count,
            source: UnsafePointer(image.floats),
            image: convolved_image(
                first_row: 0,
                row_count: 2,
                height: 2,
                width: count,
                channels: 33,
                upsampling: 1,
                stride: 1
            ),
            w: UnsafePointer(packed.floats),
            columns: 5,
            bias: UnsafePointer(bias.floats),
            accumulate: false
        )
        let workspace = Tensor(guarded: [count, Int(lane_block)])
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
            first_position: 0,
            log_sums: nil,
            key_logs: nil
        )
        withExtendedLifetime((query, key, workspace)) { table.attend(&task, workspace.floats) }
        expectIdentical(query, expected)
    }

    @Test(arguments: ["scalar"] + fastBfloat16Levels, [1, 9, 130])
    func attentionInBfloat16(level: String, headSize: Int) throws {
        let pairs = try #require(try operators(level).table.pairs).pointee
        var random = Random(4)
        let query = random.weight(pairs.queries, headSize, .bfloat16)
        let key = random.weight(300, headSize, .bfloat16)
        let bytes = Operators.packedByteCount(keys: 300, headSize: headSize)
        let packed = Tensor(guarded: [bytes / 4])
        let workspace = Tensor(
            guarded: [(3 * (headSize + 8) / 2 + Int(attention_keys)) * pairs.queries]
        )
        let keys = key.address.assumingMemoryBound(to: UInt16.self)
        let lanes = packed.address.assumingMemoryBound(to: UInt32.self)
        let rows = query.address.assumingMemoryBound(to: UInt16.self)
        withExtendedLifetime((query, key, packed, workspace)) {
            pairs.pack_keys(lanes, keys, keys, headSize, 300, headSize)
            var task = pair_attention_task(
                o: rows,
                o_stride: headSize,
                q: rows,
                q_stride: headSize,
                packed: lanes,
                queries: pairs.queries,
                keys: 300,
                head_size: headSize,
                scale: 1,
                causal: false,
                first_position: 0,
                log_sums: nil,
                key_logs: nil,
                exact: nil
            )
            pairs.attend(&task, workspace.floats)
        }
        #expect(query.exactElements.allSatisfy { abs($0) <= 1 })
    }

    @Test func operatorsReserveEnough() throws {
        for kernels in Kernels.allNames.compactMap(Kernels.init(named:)) {
            let table = kernels.table
            for arithmetic in Arithmetic.allCases where kernels.supports(arithmetic) {
                let products = table.products(arithmetic)
                #expect(products.row_panel <= 12 && products.column_panel <= 32)
            }
            #expect(Workspace.laneCount >= max(32, Int(convolution_pixels)) * Int(lane_block))
            let attention =
                (2 * Operators.largestHeadSize + Int(attention_keys)) * table.query_panel
            #expect(Workspace.laneCount >= attention)
            let grouped = 2 * (Operators.largestGroupedHead + 1)
            #expect(Workspace.sumCount >= grouped * table.query_panel)
            guard let pairs = table.pairs?.pointee else { continue }
            #expect(Workspace.sumCount >= grouped * pairs.queries)
            let depth = 3 * (Operators.largestHeadSize + 8) / 2 + Int(attention_keys)
            #expect(Workspace.laneCount >= depth * pairs.queries)
            let columns = whole(Operators.largestHeadSize, pairs.channel_panel)
            #expect(Workspace.sumCount >= (Int(convolution_pixels) + 8) * columns)
        }
    }
}
