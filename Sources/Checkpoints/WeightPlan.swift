package import Tensors

/// Which of a model's matrices stay in memory, and which are read again in every round.
///
/// One round uses all of them in order; rounds repeat. What is read again goes through a ring
/// buffer, which holds the matrices in use and at least the next one.
package struct WeightPlan: Sendable {
    /// A stretch of a file.
    struct Source: Sendable {
        /// Index of the file in the checkpoint.
        let file: Int
        let bytes: Range<Int>
    }

    /// One matrix of the order.
    struct Item: Sendable {
        /// The matrix as it was given.
        let tensor: Tensor
        /// Where its elements are to be read; nil where they are in memory anyway.
        let source: Source?
        /// Where it stays, in bytes from the start of the stream's memory; nil for the ring.
        fileprivate(set) var pinnedOffset: Int?

        /// Bytes that are read for it, and that it takes in memory.
        var blockByteCount: Int { source.map { BlockReader.blocks(of: $0.bytes).count } ?? 0 }
    }

    let items: [Item]
    /// Most bytes of consecutive matrices in use at a time.
    let held: Int
    /// Bytes of the ring buffer; 0 where everything stays.
    package let ringByteCount: Int
    /// Bytes of the matrices that are read once and stay.
    package let pinnedByteCount: Int
    /// Bytes that every round reads; the first one reads the pinned ones too.
    package let streamedByteCount: Int
    /// Bytes of matrices that are in memory without a stream, as the file has them misaligned.
    package let copiedByteCount: Int

    /// Most bytes that are resident.
    package var residentByteCount: Int { ringByteCount + pinnedByteCount + copiedByteCount }

    /// Decides for each matrix; traps when the budget is less than `minimumByteCount`.
    ///
    /// - Parameters:
    ///   - tensors: Views of the checkpoint's files in the order of use; those of other origin
    ///     stay where they are.
    ///   - checkpoint: The files.
    ///   - budget: Bytes that may be resident.
    ///   - held: Most bytes of consecutive matrices in use at a time; where a single one is
    ///     larger, that one.
    package init(_ tensors: [Tensor], of checkpoint: Checkpoint, budget: Int, held: Int) {
        let demand = Demand(tensors, of: checkpoint, held: held)
        let least = demand.minimumByteCount
        precondition(budget >= least, "\(budget) bytes for weights, expected at least \(least)")

        let isEverythingPinned = budget - demand.copied >= demand.all
        let ring = isEverythingPinned ? 0 : demand.ring
        // The same share of each stretch of the order stays, which leaves as much time to read the
        // rest everywhere.
        let room = budget - demand.copied - ring
        let share = isEverythingPinned ? 1 : Double(room) / Double(demand.all)
        var items = demand.items
        var passed = 0
        var pinned = 0
        for index in items.indices where items[index].source != nil {
            let byteCount = items[index].blockByteCount
            passed += byteCount
            guard Double(pinned + byteCount) <= share * Double(passed) else { continue }
            items[index].pinnedOffset = ring + pinned
            pinned += byteCount
        }

        self.items = items
        self.held = held
        ringByteCount = ring
        pinnedByteCount = pinned
        streamedByteCount = demand.all - pinned
        copiedByteCount = demand.copied
    }

    /// The smallest budget: what the ring needs, or all matrices where that is less.
    ///
    /// - Parameters:
    ///   - tensors: As for `init`.
    ///   - checkpoint: As for `init`.
    ///   - held: As for `init`.
    /// - Returns: Bytes.
    package static func minimumByteCount(
        _ tensors: [Tensor],
        of checkpoint: Checkpoint,
        held: Int
    ) -> Int {
        Demand(tensors, of: checkpoint, held: held).minimumByteCount
    }
}

/// What a plan has to provide for, in bytes.
private struct Demand {
    let items: [WeightPlan.Item]
    /// Matrices that are in memory anyway.
    let copied: Int
    /// The others.
    let all: Int
    /// A ring buffer, if nothing is pinned.
    let ring: Int

    var minimumByteCount: Int { copied + min(all, ring) }

    init(_ tensors: [Tensor], of checkpoint: Checkpoint, held: Int) {
        items = tensors.map { tensor in
            let sources = checkpoint.files.indices.lazy.compactMap { file in
                checkpoint.files[file].range(of: tensor).map {
                    WeightPlan.Source(file: file, bytes: $0)
                }
            }
            let source = tensor.byteCount == 0 ? nil : sources.first
            return WeightPlan.Item(tensor: tensor, source: source)
        }
        copied = items.reduce(0) { $0 + ($1.source == nil ? $1.tensor.byteCount : 0) }
        all = items.reduce(0) { $0 + $1.blockByteCount }
        ring = Self.ringByteCount(items, held: held)
    }

    /// Room for the matrices in use and the next one, wherever they are in the order, and for what
    /// stays free at the ring's end because the next matrix does not fit there.
    private static func ringByteCount(_ items: [WeightPlan.Item], held: Int) -> Int {
        var most = 0
        // The longest run of matrices from `start` that may be in use together.
        var count = 0
        var byteCount = 0
        var blockByteCount = 0
        for start in items.indices {
            while count < items.count {
                let item = items[(start + count) % items.count]
                guard count == 0 || byteCount + item.tensor.byteCount <= held else { break }
                count += 1
                byteCount += item.tensor.byteCount
                blockByteCount += item.blockByteCount
            }
            let next = items[(start + count) % items.count]
            most = max(most, blockByteCount + next.blockByteCount)
            count -= 1
            byteCount -= items[start].tensor.byteCount
            blockByteCount -= items[start].blockByteCount
        }
        return most + (items.map(\.blockByteCount).max() ?? 0)
    }
}
