import CKernels
import Tensors

/// The arithmetic of the networks on float32 tensors.
///
/// Every operator writes into a destination that the caller gives and allocates nothing. Results do
/// not depend on the number of threads. An instance has scratch memory, so it serves one caller at a
/// time.
package final class Operators {
    /// The kernels in use.
    let table: kernel_table
    /// Threads the operators use.
    let threads: Int
    /// Whether to give up: operators then return early and leave their destinations unfinished.
    package let isCancelled: @Sendable () -> Bool

    /// Packed activations, shared by all workers; one for each worker's own blocks.
    private let packed: Storage
    private let workspaces: Storage

    /// Floats of the largest block of activations that is packed at once: 64 MB.
    static let packedCapacity = 1 << 24
    /// Longest row that `linear` multiplies; at least 64 fit into the packed block.
    package static let longestRow = packedCapacity / 64
    /// Longest head that attention accepts.
    package static let largestHeadSize = 1024

    /// Prepares scratch memory, which becomes resident as it is used.
    ///
    /// - Parameters:
    ///   - kernels: Implementation of the kernels.
    ///   - threads: Threads to use, 1 or more.
    ///   - isCancelled: Asked before each piece of work, from any thread.
    package init(
        kernels: Kernels = .best,
        threads: Int,
        isCancelled: @escaping @Sendable () -> Bool = { false }
    ) {
        precondition(threads > 0)
        self.isCancelled = isCancelled
        table = kernels.table
        self.threads = threads
        packed = Storage(byteCount: 4 * Self.packedCapacity)
        workspaces = Storage(byteCount: 4 * threads * Self.workspaceCapacity)
    }

    /// Floats a worker's kernels need at most.
    private static var workspaceCapacity: Int {
        let attention = (2 * largestHeadSize + attention_keys) * 48
        return max(attention, linear_columns * 256)
    }

    /// Bytes of scratch memory that an instance reserves.
    package static func scratchByteCount(threads: Int) -> Int {
        4 * (packedCapacity + threads * workspaceCapacity)
    }

    var packedRows: UnsafeMutablePointer<Float> {
        Tensor(packed, byteOffset: 0, shape: [Self.packedCapacity], elementType: .float32).floats
    }

    func workspace(_ worker: Int) -> UnsafeMutablePointer<Float> {
        Tensor(
            workspaces,
            byteOffset: 4 * worker * Self.workspaceCapacity,
            shape: [Self.workspaceCapacity],
            elementType: .float32
        ).floats
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
