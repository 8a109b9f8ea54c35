import CKernels
package import Tensors

/// Which keys a query reads.
package enum AttentionMask: Sendable {
    /// All of them.
    case none
    /// Keys at the query's own position and before; query i is at `firstPosition` + i.
    case causal(firstPosition: Int)
}

extension Operators {
    /// Softmax attention with grouped heads, streamed over the keys.
    ///
    /// Query head j reads key and value head `j · keyValueHeads / heads`. Scores are scaled by
    /// 1/√headSize.
    ///
    /// - Parameters:
    ///   - query: `[queries, heads · headSize]`.
    ///   - key: `[keys, keyValueHeads · headSize]`.
    ///   - value: Like `key`.
    ///   - heads: Query heads, a multiple of `keyValueHeads`.
    ///   - keyValueHeads: Key and value heads.
    ///   - mask: Which keys a query reads.
    ///   - output: Like `query`, and may be `query`.
    package func attention(
        _ query: Tensor,
        _ key: Tensor,
        _ value: Tensor,
        heads: Int,
        keyValueHeads: Int,
        mask: AttentionMask = .none,
        into output: Tensor
    ) {
        let headSize = query.rowCount / heads
        precondition(query.rowCount == heads * headSize && query.shape == output.shape)
        precondition(key.rowCount == keyValueHeads * headSize && key.shape == value.shape)
        precondition(heads.isMultiple(of: keyValueHeads) && headSize <= Self.largestHeadSize)

        let panel = table.query_panel
        let panels = (query.rows + panel - 1) / panel
        parallelTasks(heads * panels) { index, worker in
            let (head, first) = (index / panels, index % panels * panel)
            let offset = first * query.rowCount + head * headSize
            let group = head / (heads / keyValueHeads) * headSize
            var task = attention_task(
                o: output.floats + offset,
                o_stride: query.rowCount,
                q: UnsafePointer(query.floats + offset),
                q_stride: query.rowCount,
                k: UnsafePointer(key.floats + group),
                v: UnsafePointer(value.floats + group),
                kv_stride: key.rowCount,
                queries: min(panel, query.rows - first),
                keys: key.rows,
                head_size: headSize,
                scale: 1 / Float(headSize).squareRoot(),
                causal: false,
                first_position: 0
            )
            if case .causal(let position) = mask {
                task.causal = true
                task.first_position = position + first
            }
            table.attend(&task, workspace(worker))
        }
    }
}
