import Dispatch
import Synchronization

/// Calls `body` once for each index below `count`, on up to `threads` threads at once.
///
/// Indices are handed out one by one, so a slow core takes fewer of them. `body` must not depend
/// on which thread runs it; it must write only what belongs to its index, or to its worker.
///
/// - Parameters:
///   - count: Number of calls.
///   - threads: Most threads to use, 1 or more.
///   - body: Receives the index and the number of the worker, below `threads`.
func parallel(_ count: Int, threads: Int, _ body: (_ index: Int, _ worker: Int) -> Void) {
    let workers = min(threads, count)
    guard workers > 1 else {
        for index in 0..<count { body(index, 0) }
        return
    }
    withoutActuallyEscaping(body) { body in
        // The closure is only shared while this function waits for all calls to return.
        nonisolated(unsafe) let body = body
        let next = Atomic(0)
        DispatchQueue.concurrentPerform(iterations: workers) { worker in
            while true {
                let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard index < count else { break }
                body(index, worker)
            }
        }
    }
}
