import Tensors

/// How far the reader and the consumer of a weight stream are.
///
/// Uses of matrices are numbered from 0 through all rounds: use `u` is of matrix `u % count`.
struct WeightStreamState: Sendable {
    /// A matrix to read.
    struct Job: Sendable {
        let source: WeightPlan.Source
        /// Where to, in bytes from the start of the stream's memory.
        let offset: Int
        /// Its place in the order.
        fileprivate let index: Int
        /// Whether it stays in memory.
        let isPinned: Bool
        /// How often the consumer had started again by then.
        fileprivate let restarts: Int
    }

    /// What the reader does next.
    enum Step: Sendable {
        case read(Job)
        case end
    }

    /// Whether the reader is to end.
    var isStopped = false
    /// Why the reader ended before its time.
    var failure: CheckpointError?
    /// Bytes read so far.
    var readByteCount = 0
    /// Time the consumer has spent waiting.
    var waited = Duration.zero

    let plan: WeightPlan
    private let memory: Storage
    private var ring: RingBuffer
    /// Which matrices are in memory to stay.
    private var isThere: [Bool]
    private var missingPins: Int
    private var pinnedByteCount = 0

    private var nextRead = 0
    private var nextTake = 0
    private var nextRelease = 0
    /// Places in the ring of what is read or being read and not yet taken, oldest first; nil for
    /// what is used where the file is mapped.
    private var offsets: [Int?] = []
    private var heldByteCount = 0
    private var restarts = 0

    /// Nothing is read yet.
    init(_ plan: WeightPlan, memory: Storage) {
        self.plan = plan
        self.memory = memory
        ring = RingBuffer(byteCount: plan.ringByteCount)
        isThere = plan.items.map { $0.source == nil }
        missingPins = plan.items.count { $0.pinnedOffset != nil }
    }

    /// Bytes of the stream's memory in use so far, and of copies outside it.
    var residentByteCount: Int {
        pinnedByteCount + ring.touchedByteCount + plan.copiedByteCount
    }
}

// MARK: Reader

extension WeightStreamState {
    /// What to do next, nil while there is no room for it.
    mutating func nextStep() -> Step? {
        let isDone = missingPins == 0 && plan.streamedByteCount == 0
        guard !isStopped, failure == nil, !isDone else { return .end }
        while isThere[nextRead % isThere.count] { nextRead += 1 }
        let index = nextRead % isThere.count
        let item = plan.items[index]
        guard let source = item.source, let offset = item.pinnedOffset ?? reserve(item) else {
            return nil
        }
        return .read(
            Job(
                source: source,
                offset: offset,
                index: index,
                isPinned: item.pinnedOffset != nil,
                restarts: restarts
            )
        )
    }

    private mutating func reserve(_ item: WeightPlan.Item) -> Int? {
        guard let offset = ring.reserve(item.blockByteCount) else { return nil }
        offsets.append(offset)
        return offset
    }

    /// Whether it is still of use: what is to stay is, even when the consumer starts again.
    func isWanted(_ job: Job) -> Bool {
        !isStopped && (job.isPinned || job.restarts == restarts)
    }

    /// Notes that a matrix is read, or can be used where the file is mapped.
    mutating func finish(_ job: Job, isInPlace: Bool = false) {
        if job.isPinned {
            isThere[job.index] = true
            missingPins -= 1
            pinnedByteCount += plan.items[job.index].blockByteCount
        } else if job.restarts == restarts {
            if isInPlace { offsets[offsets.count - 1] = nil }
            nextRead += 1
        }
    }
}

// MARK: Consumer

extension WeightStreamState {
    /// The next matrix, or why there is none; nil until that is known.
    mutating func take(_ index: Int) -> Result<Tensor, CheckpointError>? {
        precondition(index == nextTake % isThere.count, "matrix \(index) is not the next one")
        let item = plan.items[index]
        let byteCount = heldByteCount + item.tensor.byteCount
        precondition(
            byteCount <= plan.held || nextRelease == nextTake,
            "\(byteCount) bytes in use, expected at most \(plan.held)"
        )
        guard isThere[index] || nextRead > nextTake else { return failure.map { .failure($0) } }
        nextTake += 1
        heldByteCount = byteCount
        guard let bytes = item.source?.bytes else { return .success(item.tensor) }
        guard let start = item.pinnedOffset ?? offsets.removeFirst() else {
            return .success(item.tensor)
        }
        return .success(
            Tensor(
                memory,
                byteOffset: start + bytes.lowerBound % BlockReader.blockByteCount,
                shape: item.tensor.shape,
                elementType: item.tensor.elementType
            )
        )
    }

    /// Gives back the oldest matrix in use.
    mutating func release(_ index: Int) {
        precondition(
            nextRelease < nextTake && index == nextRelease % isThere.count,
            "matrix \(index) is not the oldest in use"
        )
        let item = plan.items[index]
        nextRelease += 1
        heldByteCount -= item.tensor.byteCount
        if item.source != nil && item.pinnedOffset == nil { ring.freeOldest() }
    }

    /// Gives back everything in use and makes the first matrix the next one.
    mutating func restart() {
        while nextRelease < nextTake { release(nextRelease % isThere.count) }
        // Between rounds it is the next one already, and what is read ahead is right.
        guard nextTake > 0, !nextTake.isMultiple(of: isThere.count) else { return }
        ring.freeAll()
        offsets = []
        nextRead = 0
        nextTake = 0
        nextRelease = 0
        restarts += 1
    }
}
