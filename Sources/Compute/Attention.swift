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
    ///   - keyLogs: Logarithms of how often each key counts, added to the scores: `[keys]`, float32;
    ///     nil for once.
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
        keyLogs: Tensor? = nil,
        into output: Tensor,
        logSums: Tensor? = nil
    ) {
        let sizes = AttentionSizes(query, key, value, heads, keyValueHeads, mask, keyLogs)
        precondition(query.shape == output.shape && query.elementType == output.elementType)
        precondition(logSums.map { $0.count == heads * query.rows } ?? true)
        precondition(keyLogs.map { $0.count == key.rows } ?? true)
        if query.elementType == .bfloat16 {
            attendPairs(query, key, value, sizes, output, logSums)
        } else {
            attend(query, key, value, sizes, output, logSums)
        }
    }
}

/// What the parts of one attention share.
struct AttentionSizes {
    let heads: Int
    /// Query heads that share a key and value head.
    let groupSize: Int
    let headSize: Int
    let mask: AttentionMask
    /// `[keys]`; nil for zeros.
    let keyLogs: Tensor?

    /// Checks that the tensors fit together.
    init(
        _ query: Tensor,
        _ key: Tensor,
        _ value: Tensor,
        _ heads: Int,
        _ keyValueHeads: Int,
        _ mask: AttentionMask = .none,
        _ keyLogs: Tensor? = nil
    ) {
        let headSize = query.rowCount / heads
        precondition(query.rowCount == heads * headSize && key.shape == value.shape)
        precondition(key.rowCount == keyValueHeads * headSize)
        precondition(heads.isMultiple(of: keyValueHeads) && headSize <= Operators.largestHeadSize)
        (self.heads, self.headSize, self.mask) = (heads, headSize, mask)
        (groupSize, self.keyLogs) = (heads / keyValueHeads, keyLogs)
    }

    /// Key and value heads.
    var keyValueHeads: Int { heads / groupSize }

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
                log_sums: logSums.map { $0.floats + head * query.rows + first },
                key_logs: sizes.keyLogs.map { UnsafePointer($0.floats) }
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
    static func packedBlockLanes(_ headSize: Int) -> Int {
        let keys = Int(attention_keys) * ((headSize + 1) / 2)
        return keys + Int(attention_keys) / 2 * ((headSize + 7) / 8 * 8)
    }

    private func attendPairs(
        _ query: Tensor,
        _ key: Tensor,
        _ value: Tensor,
        _ sizes: AttentionSizes,
        _ output: Tensor,
        _ logSums: Tensor?
    ) {
        let segments = [0..<key.rows]
        packingHeads(key, value, segments, sizes) { heads, packed, pairs in
            attendPacked(query, packed, heads, sizes, pairs, output, logSums)
        }
    }

    /// Packs as many key and value heads at a time as fit into the memory for packed rows.
    ///
    /// - Parameters:
    ///   - key: `[keys, keyValueHeads · headSize]`, bfloat16.
    ///   - value: Like `key`.
    ///   - segments: The keys that are read together.
    ///   - sizes: Those of the attention.
    ///   - body: Receives some query heads, and the keys and values that they read.
    func packingHeads(
        _ key: Tensor,
        _ value: Tensor,
        _ segments: [Range<Int>],
        _ sizes: AttentionSizes,
        _ body: (_ heads: Range<Int>, _ packed: PackedKeys, _ pairs: pair_kernels) -> Void
    ) {
        guard let pairs = table.pairs?.pointee else {
            preconditionFailure("\(String(cString: table.name)) has no attention in bfloat16")
        }
        let packed = PackedKeys(
            segments,
            blockLanes: Self.packedBlockLanes(sizes.headSize),
            lanes: packedMemory.assumingMemoryBound(to: UInt32.self)
        )
        let headBytes = 4 * packed.headLanes
        precondition(headBytes <= packedByteCount, "keys \(segments) do not fit")
        let (groups, fitting) = (sizes.keyValueHeads, packedByteCount / max(1, headBytes))
        for first in stride(from: 0, to: groups, by: max(1, fitting)) {
            let heads = first..<min(first + max(1, fitting), groups)
            pack(key, value, heads, sizes.headSize, packed, pairs)
            let queries = heads.lowerBound * sizes.groupSize..<heads.upperBound * sizes.groupSize
            body(queries, packed, pairs)
        }
    }

    private func pack(
        _ key: Tensor,
        _ value: Tensor,
        _ heads: Range<Int>,
        _ headSize: Int,
        _ packed: PackedKeys,
        _ pairs: pair_kernels
    ) {
        let keys = key.address.assumingMemoryBound(to: UInt16.self)
        let values = value.address.assumingMemoryBound(to: UInt16.self)
        // A task packs some blocks of keys of one head.
        let chunks = packed.chunks
        parallelTasks(heads.count * chunks.count) { index, _ in
            let (head, chunk) = (index / chunks.count, chunks[index % chunks.count])
            let offset = chunk.keys.lowerBound * key.rowCount + (heads.lowerBound + head) * headSize
            pairs.pack_keys(
                packed.lanes + (head * packed.headLanes + chunk.lane),
                keys + offset,
                values + offset,
                key.rowCount,
                chunk.keys.count,
                headSize
            )
        }
    }

    private func attendPacked(
        _ query: Tensor,
        _ packed: PackedKeys,
        _ heads: Range<Int>,
        _ sizes: AttentionSizes,
        _ pairs: pair_kernels,
        _ output: Tensor,
        _ logSums: Tensor?
    ) {
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
                packed: UnsafePointer(packed.lanes + head / sizes.groupSize * packed.headLanes),
                queries: min(pairs.queries, query.rows - first),
                keys: packed.keyCount,
                head_size: sizes.headSize,
                scale: sizes.scale,
                causal: sizes.isCausal,
                first_position: sizes.position(first),
                log_sums: logSums.map {
                    $0.floats + (heads.lowerBound + head) * query.rows + first
                },
                key_logs: sizes.keyLogs.map { UnsafePointer($0.floats) },
                exact: nil
            )
            pairs.attend(&task, workspace(worker).floats)
        }
    }
}

/// Where the packed keys and values of some heads lie: head after head, each segment in whole blocks.
struct PackedKeys {
    /// Keys that are packed by one task, and the first lane that they take in their head.
    typealias Chunk = (keys: Range<Int>, lane: Int)

    /// Lanes that a head takes.
    let headLanes: Int
    let lanes: UnsafeMutablePointer<UInt32>
    let chunks: [Chunk]
    /// All keys.
    let keyCount: Int
    private let starts: [Range<Int>: Int]

    init(_ segments: [Range<Int>], blockLanes: Int, lanes: UnsafeMutablePointer<UInt32>) {
        let block = Int(attention_keys)
        var (chunks, starts, end): ([Chunk], [Range<Int>: Int], Int) = ([], [:], 0)
        for segment in segments {
            starts[segment] = end
            for first in stride(from: segment.lowerBound, to: segment.upperBound, by: 8 * block) {
                let keys = first..<min(first + 8 * block, segment.upperBound)
                chunks.append((keys, end))
                end += (keys.count + block - 1) / block * blockLanes
            }
        }
        (self.chunks, self.starts, headLanes, self.lanes) = (chunks, starts, end, lanes)
        keyCount = segments.reduce(0) { $0 + $1.count }
    }

    /// First lane of a segment in its head.
    func start(_ segment: Range<Int>) -> Int {
        guard let start = starts[segment] else { preconditionFailure("keys \(segment)") }
        return start
    }
}
