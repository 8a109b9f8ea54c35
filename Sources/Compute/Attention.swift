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
    ///   - query: `[queries, heads · headSize]`; float32, or bfloat16 where the kernels have it.
    ///   - key: `[keys, keyValueHeads · headSize]`, of the same type.
    ///   - value: Like `key`.
    ///   - heads: Query heads, a multiple of `keyValueHeads`.
    ///   - keyValueHeads: Key and value heads.
    ///   - mask: Which keys a query reads.
    ///   - output: Like `query`, and may be `query`.
    ///   - logSums: Receives the logarithm of each row's sum of exponentials: `[heads, queries]`,
    ///     float32; nil for none.
    package func attention(
        _ query: Tensor,
        _ key: Tensor,
        _ value: Tensor,
        heads: Int,
        keyValueHeads: Int,
        mask: AttentionMask = .none,
        into output: Tensor,
        logSums: Tensor? = nil
    ) {
        let headSize = query.rowCount / heads
        precondition(query.rowCount == heads * headSize && query.shape == output.shape)
        precondition(key.rowCount == keyValueHeads * headSize && key.shape == value.shape)
        precondition(heads.isMultiple(of: keyValueHeads) && headSize <= Self.largestHeadSize)
        precondition(logSums.map { $0.count == heads * query.rows } ?? true)
        let sizes = AttentionSizes(
            heads: heads,
            groupSize: heads / keyValueHeads,
            headSize: headSize,
            mask: mask
        )
        if query.elementType == .bfloat16 {
            attendPairs(query, key, value, sizes, output, logSums)
        } else {
            attend(query, key, value, sizes, output, logSums)
        }
    }
}

/// What the parts of one attention share.
private struct AttentionSizes {
    let heads: Int
    /// Query heads that share a key and value head.
    let groupSize: Int
    let headSize: Int
    let mask: AttentionMask

    /// Factor of the scores.
    var scale: Float { 1 / Float(headSize).squareRoot() }

    var isCausal: Bool { if case .causal = mask { true } else { false } }

    /// Position of query `index`, if that matters.
    func position(_ index: Int) -> Int {
        if case .causal(let first) = mask { first + index } else { 0 }
    }
}

// MARK: In float32

extension Operators {
    private func attend(
        _ query: Tensor,
        _ key: Tensor,
        _ value: Tensor,
        _ sizes: AttentionSizes,
        _ output: Tensor,
        _ logSums: Tensor?
    ) {
        let panel = table.query_panel
        let panels = (query.rows + panel - 1) / panel
        parallelTasks(sizes.heads * panels) { index, worker in
            let (head, first) = (index / panels, index % panels * panel)
            let offset = first * query.rowCount + head * sizes.headSize
            let group = head / sizes.groupSize * sizes.headSize
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
                head_size: sizes.headSize,
                scale: sizes.scale,
                causal: sizes.isCausal,
                first_position: sizes.position(first),
                log_sums: logSums.map { $0.floats + head * query.rows + first }
            )
            table.attend(&task, workspace(worker).floats)
        }
    }
}

// MARK: In bfloat16

extension Operators {
    /// Bytes that the packed keys and values of one head take.
    package static func packedByteCount(keys: Int, headSize: Int) -> Int {
        let block = Int(attention_keys)
        return (keys + block - 1) / block * 4 * packedBlockLanes(headSize)
    }

    /// Lanes of a block of keys and values.
    private static func packedBlockLanes(_ headSize: Int) -> Int {
        let keys = Int(attention_keys) * ((headSize + 1) / 2)
        return keys + Int(attention_keys) / 2 * ((headSize + 7) / 8 * 8)
    }

    /// As many key and value heads at a time as fit into the memory for packed rows.
    private func attendPairs(
        _ query: Tensor,
        _ key: Tensor,
        _ value: Tensor,
        _ sizes: AttentionSizes,
        _ output: Tensor,
        _ logSums: Tensor?
    ) {
        guard let pairs = table.pairs?.pointee else {
            preconditionFailure("\(String(cString: table.name)) has no attention in bfloat16")
        }
        let headBytes = Self.packedByteCount(keys: key.rows, headSize: sizes.headSize)
        precondition(headBytes <= packedByteCount, "\(key.rows) keys do not fit")
        let (groups, fitting) = (sizes.heads / sizes.groupSize, packedByteCount / max(1, headBytes))
        for first in stride(from: 0, to: groups, by: max(1, fitting)) {
            let heads = first..<min(first + max(1, fitting), groups)
            pack(key, value, heads, sizes.headSize, pairs)
            let queries = heads.lowerBound * sizes.groupSize..<heads.upperBound * sizes.groupSize
            attendPacked(query, keys: key.rows, queries, sizes, pairs, output, logSums)
        }
    }

    private func pack(
        _ key: Tensor,
        _ value: Tensor,
        _ heads: Range<Int>,
        _ headSize: Int,
        _ pairs: pair_kernels
    ) {
        let keys = key.address.assumingMemoryBound(to: UInt16.self)
        let values = value.address.assumingMemoryBound(to: UInt16.self)
        // A task packs some blocks of keys of one head.
        let (block, lanes) = (Int(attention_keys), Self.packedBlockLanes(headSize))
        let blocks = (key.rows + block - 1) / block
        let chunks = (blocks + 7) / 8
        let packed = packedMemory.assumingMemoryBound(to: UInt32.self)
        parallelTasks(heads.count * chunks) { index, _ in
            let (head, chunk) = (index / chunks, index % chunks * 8)
            let first = chunk * block
            let offset = first * key.rowCount + (heads.lowerBound + head) * headSize
            pairs.pack_keys(
                packed + (head * blocks + chunk) * lanes,
                keys + offset,
                values + offset,
                key.rowCount,
                min(8 * block, key.rows - first),
                headSize
            )
        }
    }

    private func attendPacked(
        _ query: Tensor,
        keys: Int,
        _ heads: Range<Int>,
        _ sizes: AttentionSizes,
        _ pairs: pair_kernels,
        _ output: Tensor,
        _ logSums: Tensor?
    ) {
        let headLanes =
            Self.packedByteCount(keys: keys, headSize: sizes.headSize) / 4
        let packed = packedMemory.assumingMemoryBound(to: UInt32.self)
        let (source, target) = (
            query.address.assumingMemoryBound(to: UInt16.self),
            output.address.assumingMemoryBound(to: UInt16.self)
        )
        let panels = (query.rows + pairs.queries - 1) / pairs.queries
        parallelTasks(heads.count * panels) { index, worker in
            let (head, first) = (index / panels, index % panels * pairs.queries)
            let column = (heads.lowerBound + head) * sizes.headSize
            let offset = first * query.rowCount + column
            var task = pair_attention_task(
                o: target + offset,
                o_stride: query.rowCount,
                q: UnsafePointer(source + offset),
                q_stride: query.rowCount,
                packed: UnsafePointer(packed + head / sizes.groupSize * headLanes),
                queries: min(pairs.queries, query.rows - first),
                keys: keys,
                head_size: sizes.headSize,
                scale: sizes.scale,
                causal: sizes.isCausal,
                first_position: sizes.position(first),
                log_sums: logSums.map {
                    $0.floats + (heads.lowerBound + head) * query.rows + first
                }
            )
            pairs.attend(&task, workspace(worker).floats)
        }
    }
}
