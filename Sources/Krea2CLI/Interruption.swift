import Glibc
import Synchronization

/// The signal that asked the process to stop, or 0.
private let receivedSignal = Atomic<Int32>(0)

/// Stopping on SIGINT and SIGTERM: the first one sets a flag, the second one kills.
///
/// A plain handler is used rather than a dispatch source: it needs no thread to run on, so it works
/// while every core computes, and all that it does is one lock-free store, which is allowed in a
/// signal handler. The kernel restores the default action as it delivers the first signal
/// (`SA_RESETHAND`), which is what makes the second one final.
enum Interruption {
    /// Starts listening; before this call both signals end the process at once.
    static func listen() {
        // The first access to a global may run its initialiser, which must not happen in the handler.
        receivedSignal.store(0, ordering: .relaxed)
        for signal in [SIGINT, SIGTERM] {
            var action = sigaction()
            unsafe action.__sigaction_handler.sa_handler = { signal in
                receivedSignal.store(signal, ordering: .relaxed)
            }
            action.sa_flags = CInt(bitPattern: UInt32(SA_RESETHAND)) | SA_RESTART
            _ = unsafe sigaction(signal, &action, nil)
        }
        // A parent that starts processes from a dispatch queue hands its blocked signals down.
        var signals = sigset_t()
        _ = unsafe sigemptyset(&signals)
        _ = unsafe sigaddset(&signals, SIGINT)
        _ = unsafe sigaddset(&signals, SIGTERM)
        _ = unsafe pthread_sigmask(SIG_UNBLOCK, &signals, nil)
    }

    /// Whether a signal has arrived; cheap, callable from any thread.
    static var isRequested: Bool { receivedSignal.load(ordering: .relaxed) != 0 }

    /// What the process says and returns once it has stopped.
    static var failure: Failure {
        receivedSignal.load(ordering: .relaxed) == SIGTERM
            ? Failure(.terminated, "stopped by SIGTERM")
            : Failure(.interrupted, "stopped by SIGINT")
    }
}
