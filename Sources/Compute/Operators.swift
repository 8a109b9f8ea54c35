import CKernels
package import Tensors

/// The arithmetic of the networks on tensors.
///
/// Every operator writes into a destination that the caller gives and allocates nothing. Results do
/// not depend on the number of threads. An instance has scratch memory, so it serves one caller at a
/// time.
package final class Operators {
    /// The kernels in use.
    let table: kernel_table
    /// Threads the operators use.
    let threads: Int
    /// In what linear layers compute.
    package let policy: ArithmeticPolicy
    /// What is added to linear layers.
    let updates: LinearUpdates
    /// Whether to give up: operators then return early and leave their destinations unfinished.
    package let isCancelled: @Sendable () -> Bool

    /// Packed activations, shared by all workers; one for each worker's own blocks.
    private let packed: Storage
    private let workspaces: Storage
    /// Rows on their way through updates.
    let updateMemory: Storage

    /// Bytes of packed activations at once, unless one attention needs more for its keys.
    static let packedCapacity = 64 << 20
    /// Longest row that `linear` multiplies; at least 64 fit into the packed block.
    package static let longestRow = packedCapacity / 4 / 64
    /// Longest head that is normed in a linear layer.
    package static let largestNormedHead = Workspace.tileColumns
    /// Longest head that attention accepts.
    package static let largestHeadSize = 1024
    /// Longest head that attention with groups accepts.
    package static let largestGroupedHead = 256

    /// Prepares scratch memory, which becomes resident as it is used.
    ///
    /// - Parameters:
    ///   - kernels: Implementation of the kernels.
    ///   - threads: Threads to use, 1 or more.
    ///   - policy: In what linear layers compute, as far as the kernels can.
    ///   - packedBytes: At least what `packedByteCount(keys:headSize:)` says for every attention.
    ///   - isCancelled: Asked before each piece of work, from any thread.
    package init(
        kernels: Kernels = .best,
        threads: Int,
        policy: ArithmeticPolicy = .float32,
        packedBytes: Int = 0,
        isCancelled: @escaping @Sendable () -> Bool = { false }
    ) {
        precondition(threads > 0)
        self.isCancelled = isCancelled
        self.policy = policy.supported(by: kernels)
        table = kernels.table
        self.threads = threads
        packed = Storage(byteCount: max(Self.packedCapacity, packedBytes))
        workspaces = Storage(byteCount: threads * Workspace.byteCount)
        updates = .none
        updateMemory = Storage(byteCount: 0)
    }

    /// The same with another policy; both share their scratch memory.
    ///
    /// - Parameters:
    ///   - other: Not used at the same time.
    ///   - policy: In what linear layers compute, as far as the kernels can.
    package init(sharing other: Operators, policy: ArithmeticPolicy) {
        (table, threads, isCancelled) = (other.table, other.threads, other.isCancelled)
        (packed, workspaces) = (other.packed, other.workspaces)
        (updates, updateMemory) = (other.updates, other.updateMemory)
        self.policy = policy.supported(by: Kernels(other.table))
    }

    /// The same with other updates; both share their scratch memory.
    ///
    /// - Parameters:
    ///   - other: Not used at the same time.
    ///   - updates: What is added to linear layers.
    package init(sharing other: Operators, updates: LinearUpdates) {
        (table, threads, isCancelled) = (other.table, other.threads, other.isCancelled)
        (packed, workspaces, policy) = (other.packed, other.workspaces, other.policy)
        self.updates = updates
        updateMemory = Storage(byteCount: updates.scratchByteCount)
    }

    /// How activations between two layers are stored.
    package var activations: ElementType { policy.activations(on: Kernels(table)) }

    /// Bytes of scratch memory that an instance reserves.
    package static func scratchByteCount(threads: Int, packedBytes: Int = 0) -> Int {
        max(packedCapacity, packedBytes) + threads * Workspace.byteCount
    }

    /// Memory for packed activations: at least `packedCapacity` bytes.
    var packedMemory: UnsafeMutableRawPointer {
        guard let memory = packed.bytes.baseAddress else { preconditionFailure("no memory") }
        return memory
    }

    /// Bytes of that memory.
    var packedByteCount: Int { packed.bytes.count }

    func workspace(_ worker: Int) -> Workspace {
        Workspace(workspaces.bytes, worker: worker)
    }

    /// Calls `body` for each index below `count` in parallel, until cancelled.
    func parallelTasks(_ count: Int, _ body: (_ index: Int, _ worker: Int) -> Void) {
        parallel(count, threads: threads) { index, worker in
            if !isCancelled() { body(index, worker) }
        }
    }

    /// Runs `body` on consecutive ranges of `count` rows, in parallel, at least `grain` rows each.
    func parallelRows(_ count: Int, grain: Int, _ body: (Range<Int>) -> Void) {
        let length = max(grain, (count + 8 * threads - 1) / (8 * threads))
        parallelTasks((count + length - 1) / length) { index, _ in
            body(index * length..<min((index + 1) * length, count))
        }
    }

    /// Rows of `width` floats worth a task of their own.
    func grain(_ width: Int) -> Int { max(1, 16384 / max(1, width)) }
}

/// A worker's own memory.
struct Workspace {
    /// Rows of activations that are prepared before they are packed: `[rowPanel, k]`, twice.
    let rows: (UnsafeMutablePointer<Float>, UnsafeMutablePointer<Float>)
    /// Packed weights, and what else a kernel wants for itself.
    let lanes: UnsafeMutablePointer<UInt32>
    /// Sums of a tile, twice: `[tileRows, tileStride]`.
    let sums: (UnsafeMutablePointer<Float>, UnsafeMutablePointer<Float>)

    /// The same memory as `lanes`.
    var floats: UnsafeMutablePointer<Float> {
        UnsafeMutableRawPointer(lanes).assumingMemoryBound(to: Float.self)
    }

    /// Most rows and columns of a tile: its sums and a block of its rows stay in the second-level
    /// cache, and unpacking weights is worth it.
    static let (tileRows, tileColumns) = (528, 256)
    /// Floats from row to row of a tile: columns in whole panels, and some so that rows do not
    /// compete for the same sets of the cache.
    static let tileStride = tileColumns + 32 + 16

    private static let rowFloats = 12 * Operators.longestRow
    /// The sums of a tile, or of the pixels that a convolution takes at once.
    static let sumCount = max(
        (tileRows + 12) * tileStride,
        (Int(convolution_pixels) + 8) * (Operators.largestHeadSize + 48)
    )
    /// The most that attention wants; a panel of weights and a convolution's taps take less.
    static let laneCount = (2 * Operators.largestHeadSize + Int(attention_keys)) * 192
    static let byteCount = (4 * (2 * rowFloats + laneCount + 2 * sumCount) + 4095) / 4096 * 4096

    init(_ bytes: UnsafeMutableRawBufferPointer, worker: Int) {
        let start = worker * Self.byteCount
        let floats = UnsafeMutableRawBufferPointer(
            rebasing: bytes[start..<start + Self.byteCount]
        ).bindMemory(to: Float.self)
        guard let first = floats.baseAddress else { preconditionFailure("no workspace") }
        sums = (first, first + Self.sumCount)
        let rest = first + 2 * Self.sumCount
        rows = (rest, rest + Self.rowFloats)
        lanes = UnsafeMutableRawPointer(rest + 2 * Self.rowFloats)
            .assumingMemoryBound(to: UInt32.self)
    }
}
