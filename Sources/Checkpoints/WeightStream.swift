import Glibc
package import Tensors

/// The matrices of a checkpoint in the order in which they are used, over and over.
///
/// A thread reads them ahead of their use, into memory of its own: the mapped files are not
/// touched, unless `CacheUse.inPlace` allows it. As many as the budget allows are read once and
/// stay; the others go through a ring buffer. Memory becomes resident as it is first used, and all
/// of it goes back with the stream and the last tensor taken from it.
///
/// For one consumer at a time. Sendable because everything that changes is in a monitor.
package final class WeightStream: Sendable {
    /// What happened so far.
    package struct Statistics: Sendable {
        /// Bytes read from the files.
        package let readByteCount: Int
        /// Time that `take(_:)` spent waiting.
        package let secondsWaited: Double
        /// Bytes in memory; never more than the budget.
        package let residentByteCount: Int
    }

    /// What stays and what is read again.
    package let plan: WeightPlan

    private let files: [Int: BlockReader]
    private let state: Monitor<WeightStreamState>
    private let thread: pthread_t

    /// Opens the files once more and starts to read.
    ///
    /// - Parameters:
    ///   - tensors: Views of the checkpoint's files in the order of use, which repeats; those of
    ///     other origin are handed out as they are.
    ///   - checkpoint: The files.
    ///   - budget: Bytes that may be resident, at least `WeightPlan.minimumByteCount`.
    ///   - held: Most bytes of consecutive tensors in use at a time: taken and not yet released.
    ///     Where a single tensor is larger, it is used alone.
    ///   - cache: What to do with the system's cache.
    /// - Throws: `.changed`, or why there is no file, unless the files are those that were mapped;
    ///   `.unreadable` when the system gives no thread.
    package init(
        _ tensors: [Tensor],
        of checkpoint: Checkpoint,
        budget: Int,
        held: Int,
        cache: CacheUse = .ifResident
    ) throws(CheckpointError) {
        plan = WeightPlan(tensors, of: checkpoint, budget: budget, held: held)
        let memory = Storage(byteCount: plan.ringByteCount + plan.pinnedByteCount)
        state = Monitor(WeightStreamState(plan, memory: memory))
        var files: [Int: BlockReader] = [:]
        for case let source? in plan.items.map(\.source) where files[source.file] == nil {
            let file = checkpoint.files[source.file]
            files[source.file] = try BlockReader(file, cache: cache)
        }
        self.files = files
        let reader = ReadingThread(files: files, memory: memory, state: state)
        thread = try reader.start(path: checkpoint.path)
    }

    /// Stops reading and waits for the thread's end, which a read in progress delays by a piece.
    deinit {
        state.change { $0.isStopped = true }
        pthread_join(thread, nil)
    }
}

// MARK: Use

extension WeightStream {
    /// The next tensor in order, with the bytes that the file had when it was mapped.
    ///
    /// Waits until they are there. Traps when another tensor is next, or when the tensors in use
    /// would take more than was said at first.
    ///
    /// - Parameter index: Position in the order.
    /// - Returns: A view to read until `release(_:)`; after that its elements change.
    /// - Throws: `.unreadable`, or what has become of the file, now and at each further call.
    package func take(_ index: Int) throws(CheckpointError) -> Tensor {
        var start: ContinuousClock.Instant?
        let result = state.wait { state in
            let result = state.take(index)
            if result == nil && start == nil { start = .now }
            if result != nil, let start { state.waited += .now - start }
            return result
        }
        return try result.get()
    }

    /// Gives back the oldest tensor in use; nobody may read it any more.
    ///
    /// - Parameter index: Position in the order; traps where another one is the oldest.
    package func release(_ index: Int) {
        state.change { $0.release(index) }
        let item = plan.items[index]
        guard let source = item.source, item.pinnedOffset == nil else { return }
        files[source.file]?.release(source.bytes)
    }

    /// Begins a round: gives back what is in use, and makes the first tensor the next one.
    ///
    /// Costs nothing where the last round was complete; otherwise what was read ahead is read
    /// again.
    package func restart() {
        state.change { $0.restart() }
    }

    /// What happened so far.
    package var statistics: Statistics {
        state.change {
            Statistics(
                readByteCount: $0.readByteCount,
                secondsWaited: $0.waited / .seconds(1),
                residentByteCount: $0.residentByteCount
            )
        }
    }
}

// MARK: Thread

/// The thread that reads ahead; it does not keep the stream alive.
private final class ReadingThread: Sendable {
    private let files: [Int: BlockReader]
    private let memory: Storage
    private let state: Monitor<WeightStreamState>

    init(files: [Int: BlockReader], memory: Storage, state: Monitor<WeightStreamState>) {
        self.files = files
        self.memory = memory
        self.state = state
    }

    /// Starts the thread, which has to be joined.
    func start(path: String) throws(CheckpointError) -> pthread_t {
        var thread = pthread_t()
        let context = Unmanaged.passRetained(self)
        let code = pthread_create(
            &thread,
            nil,
            { context in
                guard let context else { return nil }
                Unmanaged<ReadingThread>.fromOpaque(context).takeRetainedValue().run()
                return nil
            },
            context.toOpaque()
        )
        guard code == 0 else {
            context.release()
            let reason = "no thread to read it with: \(String(cString: strerror(code)))"
            throw .unreadable(path: path, reason: reason)
        }
        return thread
    }

    private func run() {
        while case .read(let job) = state.wait(until: { $0.nextStep() }) {
            do throws(CheckpointError) {
                if try isReadyInPlace(job) {
                    state.change { $0.finish(job, isInPlace: true) }
                } else if try read(job) {
                    state.change { $0.finish(job) }
                }
            } catch {
                state.change { $0.failure = error }
            }
        }
    }

    /// Whether a matrix is in the cache and is to be used there.
    private func isReadyInPlace(_ job: WeightStreamState.Job) throws(CheckpointError) -> Bool {
        guard !job.isPinned, let file = files[job.source.file] else { return false }
        return try file.mapsInPlace(job.source.bytes)
    }

    /// Reads a matrix; false when it was given up.
    private func read(_ job: WeightStreamState.Job) throws(CheckpointError) -> Bool {
        guard let file = files[job.source.file], let base = memory.bytes.baseAddress else {
            preconditionFailure("no file \(job.source.file) or no memory")
        }
        return try file.read(job.source.bytes, into: base + job.offset) { count in
            state.change {
                $0.readByteCount += count
                return $0.isWanted(job)
            }
        }
    }
}
