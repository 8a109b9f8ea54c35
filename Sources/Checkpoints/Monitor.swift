import Glibc

/// A value that threads use one at a time, and for whose changes they can wait.
///
/// Sendable because the value is only touched by whoever holds the mutex.
final class Monitor<Value: Sendable>: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var value: Value

    init(_ value: Value) {
        self.value = value
        mutex.initialize(to: pthread_mutex_t())
        changed.initialize(to: pthread_cond_t())
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(changed, nil)
    }

    deinit {
        pthread_cond_destroy(changed)
        pthread_mutex_destroy(mutex)
        changed.deallocate()
        mutex.deallocate()
    }

    /// Calls `body` once and wakes all who wait.
    func change<Result>(_ body: (inout Value) -> Result) -> Result {
        wait { .some(body(&$0)) }
    }

    /// Calls `body` now and after each change until it gives a result; then wakes all who wait.
    ///
    /// - Parameter body: Changes nothing that others wait for unless it gives a result.
    /// - Returns: The result.
    func wait<Result>(until body: (inout Value) -> Result?) -> Result {
        pthread_mutex_lock(mutex)
        defer {
            pthread_cond_broadcast(changed)
            pthread_mutex_unlock(mutex)
        }
        while true {
            if let result = body(&value) { return result }
            pthread_cond_wait(changed, mutex)
        }
    }
}
