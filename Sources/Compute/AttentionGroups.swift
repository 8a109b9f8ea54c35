import CKernels
package import Tensors

/// Keys that some queries see beside a base, and how strongly.
package struct AttentionGroup: Sendable {
    /// Rows of the keys and values.
    let keys: Range<Int>
    /// Factor of what the group does to attention over the base; finite.
    let weight: Float
    /// Logarithm of what the group's exponentials are multiplied by.
    let logMass: Float
    /// Logarithms of how often each key counts beside that: `[keys]`, float32; nil for once.
    let keyLogs: Tensor?

    /// Combines the parts.
    package init(keys: Range<Int>, weight: Float, logMass: Float = 0, keyLogs: Tensor? = nil) {
        precondition(keyLogs.map { $0.count == keys.count } ?? true)
        (self.keys, self.weight) = (keys, weight)
        (self.logMass, self.keyLogs) = (logMass, keyLogs)
    }
}

/// Groups whose effects on a query are limited together.
package struct AttentionFamily: Sendable {
    /// What weights multiply. With o attention over the base, oᵢ over a group, rᵢ the quotient of
    /// their sums of exponentials, and fᵢ = rᵢ / (1 + rᵢ):
    package enum Rule: Sendable {
        /// Displacements: o + min(1, C / A) Σ wᵢ fᵢ (oᵢ − o) with A = Σ |wᵢ| fᵢ, R = Σ |wᵢ| rᵢ and
        /// C = R / (1 + R).
        ///
        /// It is linear in the weights, and additive, up to Σ |wᵢ| = 1, and never moves by more than
        /// one whole displacement. One group of weight 1 is as if its keys were in the base.
        case displacement
        /// Masses: o + Σ wᵢ rᵢ (oᵢ − o) / (1 + R), which for positive weights is a softmax with
        /// log wᵢ added to the scores of group i.
        case mass
    }

    let rule: Rule
    let groups: [AttentionGroup]

    /// Combines the parts; sums run in the order of the groups.
    package init(_ groups: [AttentionGroup], rule: Rule = .displacement) {
        (self.rule, self.groups) = (rule, groups)
    }
}

/// Consecutive queries that see the same.
package struct AttentionSpan: Sendable {
    /// Rows of the queries.
    package let queries: Range<Int>
    /// What they see beside the base; families do not limit each other.
    package let families: [AttentionFamily]
    /// Logarithms of how often each key of the base counts for them: `[keys]`, float32; nil for
    /// once.
    package let keyLogs: Tensor?

    /// Combines the parts.
    package init(
        _ queries: Range<Int>,
        families: [AttentionFamily] = [],
        keyLogs: Tensor? = nil
    ) {
        (self.queries, self.families, self.keyLogs) = (queries, families, keyLogs)
    }
}

extension Operators {
    /// Softmax attention with grouped heads over a base, and over groups of keys with weights.
    ///
    /// Keys and values are streamed as in `attention(_:_:_:heads:keyValueHeads:)`, those of each group
    /// after those of the base; what comes of them is combined in float32.
    ///
    /// - Parameters:
    ///   - query: `[rows, heads · headSize]`; float32, or bfloat16 where the kernels have it. Heads
    ///     have at most `largestGroupedHead` elements.
    ///   - key: `[keys, keyValueHeads · headSize]`, of the same type.
    ///   - value: Like `key`.
    ///   - heads: Query heads, a multiple of `keyValueHeads`.
    ///   - keyValueHeads: Key and value heads.
    ///   - base: Keys that all queries see; not empty.
    ///   - spans: The queries; those in none of them are left out.
    ///   - output: Like `query`, and may be `query`.
    package func attention(
        _ query: Tensor,
        _ key: Tensor,
        _ value: Tensor,
        heads: Int,
        keyValueHeads: Int,
        base: Range<Int>,
        spans: [AttentionSpan],
        into output: Tensor
    ) {
        let sizes = AttentionSizes(query, key, value, heads, keyValueHeads)
        precondition(query.shape == output.shape && query.elementType == output.elementType)
        precondition(sizes.headSize <= Self.largestGroupedHead && !base.isEmpty)
        precondition(spans.allSatisfy { $0.keyLogs.map { $0.count == base.count } ?? true })
        if query.elementType == .bfloat16 {
            attendPairs(query, key, value, base, spans, sizes, output)
        } else {
            attend(query, key, value, base, spans, sizes, output)
        }
    }

    /// Bytes that the packed keys and values of one head take, where a base and some groups are
    /// packed.
    ///
    /// - Parameters:
    ///   - keys: Keys of the base and of each group.
    ///   - headSize: Elements of a head.
    /// - Returns: The bytes.
    package static func packedByteCount(keys: [Int], headSize: Int) -> Int {
        keys.reduce(0) { $0 + packedByteCount(keys: $1, headSize: headSize) }
    }

    private func attend(
        _ query: Tensor,
        _ key: Tensor,
        _ value: Tensor,
        _ base: Range<Int>,
        _ spans: [AttentionSpan],
        _ sizes: AttentionSizes,
        _ output: Tensor
    ) {
        let panels = QueryPanel.panels(of: spans, table.query_panel)
        parallelTasks(sizes.heads * panels.count) { index, worker in
            let (head, panel) = (index / panels.count, panels[index % panels.count])
            let offset = panel.queries.lowerBound * query.rowCount + head * sizes.headSize
            let column = head / sizes.groupSize * sizes.headSize
            let workspace = workspace(worker)
            let result = combine(panel, base, sizes, workspace) { keys, keyLogs, o, logSums in
                let first = keys.lowerBound * key.rowCount + column
                var task = attention_task(
                    o: o,
                    o_stride: sizes.headSize,
                    q: UnsafePointer(query.floats + offset),
                    q_stride: query.rowCount,
                    k: UnsafePointer(key.floats + first),
                    v: UnsafePointer(value.floats + first),
                    kv_stride: key.rowCount,
                    queries: panel.queries.count,
                    keys: keys.count,
                    head_size: sizes.headSize,
                    scale: sizes.scale,
                    causal: false,
                    first_position: 0,
                    log_sums: logSums,
                    key_logs: keyLogs.map { UnsafePointer($0.floats) }
                )
                table.attend(&task, workspace.floats)
            }
            for row in 0..<panel.queries.count {
                (output.floats + offset + row * query.rowCount)
                    .update(from: result + row * sizes.headSize, count: sizes.headSize)
            }
        }
    }

    private func attendPairs(
        _ query: Tensor,
        _ key: Tensor,
        _ value: Tensor,
        _ base: Range<Int>,
        _ spans: [AttentionSpan],
        _ sizes: AttentionSizes,
        _ output: Tensor
    ) {
        let groups = Set(spans.flatMap { $0.families.flatMap { $0.groups.map(\.keys) } })
        let segments = [base] + groups.subtracting([base]).sorted { $0.lowerBound < $1.lowerBound }
        let source = query.address.assumingMemoryBound(to: UInt16.self)
        let target = output.address.assumingMemoryBound(to: UInt16.self)
        packingHeads(key, value, segments, sizes) { heads, packed, pairs in
            let panels = QueryPanel.panels(of: spans, pairs.queries)
            parallelTasks(heads.count * panels.count) { index, worker in
                let (head, panel) = (index / panels.count, panels[index % panels.count])
                let column = (heads.lowerBound + head) * sizes.headSize
                let offset = panel.queries.lowerBound * query.rowCount + column
                let lanes = packed.lanes + head / sizes.groupSize * packed.headLanes
                let workspace = workspace(worker)
                let result = combine(panel, base, sizes, workspace) { keys, keyLogs, o, logSums in
                    var task = pair_attention_task(
                        o: target + offset,
                        o_stride: query.rowCount,
                        q: UnsafePointer(source + offset),
                        q_stride: query.rowCount,
                        packed: UnsafePointer(lanes + packed.start(keys)),
                        queries: panel.queries.count,
                        keys: keys.count,
                        head_size: sizes.headSize,
                        scale: sizes.scale,
                        causal: false,
                        first_position: 0,
                        log_sums: logSums,
                        key_logs: keyLogs.map { UnsafePointer($0.floats) },
                        exact: o
                    )
                    pairs.attend(&task, workspace.floats)
                }
                for row in 0..<panel.queries.count {
                    let values = result + row * sizes.headSize
                    table.narrow(target + offset + row * query.rowCount, values, sizes.headSize)
                }
            }
        }
    }

    /// Attention of a panel of queries of one head.
    ///
    /// - Parameters:
    ///   - panel: The queries and what they see.
    ///   - base: Keys that all of them see.
    ///   - sizes: Those of the attention.
    ///   - workspace: Memory of the worker.
    ///   - attend: Attends over some keys alone: `[queries, headSize]`, and `[queries]` logarithms of
    ///     sums of exponentials.
    /// - Returns: `[queries, headSize]`, in the workspace.
    private func combine(
        _ panel: QueryPanel,
        _ base: Range<Int>,
        _ sizes: AttentionSizes,
        _ workspace: Workspace,
        _ attend: (
            _ keys: Range<Int>,
            _ keyLogs: Tensor?,
            _ o: UnsafeMutablePointer<Float>,
            _ logSums: UnsafeMutablePointer<Float>
        ) -> Void
    ) -> UnsafePointer<Float> {
        let (queries, count) = (panel.queries.count, panel.queries.count * sizes.headSize)
        let buffers = GroupBuffers(workspace, count, queries)
        attend(base, panel.keyLogs, buffers.base, buffers.baseLogSums)
        buffers.result.update(from: buffers.base, count: count)
        for family in panel.families {
            buffers.displacements.update(repeating: 0, count: count)
            buffers.shares.update(repeating: 0, count: queries)
            buffers.odds.update(repeating: 0, count: queries)
            for group in family.groups {
                attend(group.keys, group.keyLogs, buffers.group, buffers.groupLogSums)
                var task = displacement_task(
                    displacements: buffers.displacements,
                    shares: buffers.shares,
                    odds: buffers.odds,
                    base: UnsafePointer(buffers.base),
                    base_log_sums: UnsafePointer(buffers.baseLogSums),
                    group: UnsafePointer(buffers.group),
                    group_log_sums: UnsafePointer(buffers.groupLogSums),
                    queries: queries,
                    head_size: sizes.headSize,
                    weight: group.weight,
                    log_mass: group.logMass,
                    by_mass: family.rule == .mass
                )
                table.displace(&task)
            }
            table.add_displacements(
                buffers.result,
                buffers.displacements,
                buffers.shares,
                buffers.odds,
                queries,
                sizes.headSize,
                family.rule == .mass
            )
        }
        return UnsafePointer(buffers.result)
    }
}

/// Queries of a span that are computed together.
private struct QueryPanel {
    let queries: Range<Int>
    let families: [AttentionFamily]
    let keyLogs: Tensor?

    /// All queries, at most `size` at a time.
    static func panels(of spans: [AttentionSpan], _ size: Int) -> [QueryPanel] {
        spans.flatMap { span in
            let (first, end) = (span.queries.lowerBound, span.queries.upperBound)
            return stride(from: first, to: end, by: size).map {
                QueryPanel(
                    queries: $0..<min($0 + size, end),
                    families: span.families,
                    keyLogs: span.keyLogs
                )
            }
        }
    }
}

/// Buffers of a panel, in the memory for the sums of tiles.
private struct GroupBuffers {
    let base, result, group, displacements: UnsafeMutablePointer<Float>
    let baseLogSums, groupLogSums, shares, odds: UnsafeMutablePointer<Float>

    /// Each of the first four has `count` floats, of the others `queries`.
    init(_ workspace: Workspace, _ count: Int, _ queries: Int) {
        precondition(2 * (count + queries) <= Workspace.sumCount, "\(queries) queries")
        (base, result) = (workspace.sums.0, workspace.sums.0 + count)
        (baseLogSums, groupLogSums) = (result + count, result + count + queries)
        (group, displacements) = (workspace.sums.1, workspace.sums.1 + count)
        (shares, odds) = (displacements + count, displacements + count + queries)
    }
}
