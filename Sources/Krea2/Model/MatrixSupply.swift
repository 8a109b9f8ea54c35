import Checkpoints
import Compute
import Tensors

/// Hands a network its matrices in the order of their use, round after round.
///
/// They are read ahead of their use and dropped after it, or stay as far as there is memory. Where
/// the arithmetic is int8 and the file is not, they are quantised on the way; what is quantised
/// stays in memory before anything else does.
final class MatrixSupply {
    /// Matrices in the order of their use, in groups that are in use together.
    struct Order {
        let groups: [[WeightMatrix]]
        let checkpoint: Checkpoint
        let policy: ArithmeticPolicy

        /// Those that need quantising.
        func isQuantized(_ matrix: WeightMatrix) -> Bool { policy.quantizes(matrix) }

        /// Bytes of all matrices as the file has them.
        var byteCount: Int { groups.joined().reduce(0) { $0 + $1.elements.byteCount } }

        /// Most bytes that a group takes as the file has it.
        var held: Int {
            groups.map { $0.reduce(0) { $0 + $1.elements.byteCount } }.max() ?? 0
        }

        /// Most bytes that a group takes once it is quantised.
        var heldQuantized: Int {
            groups.map { $0.reduce(0) { $0 + quantizedByteCount($1) } }.max() ?? 0
        }

        /// Bytes of a matrix after quantising; 0 where the stream's are used.
        func quantizedByteCount(_ matrix: WeightMatrix) -> Int {
            isQuantized(matrix) ? matrix.quantizedByteCount : 0
        }

        /// The least memory it works with.
        var minimumByteCount: Int {
            WeightPlan.minimumByteCount(
                groups.flatMap { $0.map(\.elements) },
                of: checkpoint,
                held: held
            ) + heldQuantized
        }

        /// Bytes of all matrices as they stay in memory.
        var keptByteCount: Int {
            groups.joined().reduce(0) {
                $0 + (isQuantized($1) ? quantizedByteCount($1) : $1.elements.byteCount)
            }
        }
    }

    /// How much memory an order gets.
    struct Plan {
        let order: Order
        /// Bytes for the matrices, at least `order.minimumByteCount`.
        let budget: Int

        /// Bytes in memory at most, about.
        var residentByteCount: Int {
            min(budget, max(order.keptByteCount, order.minimumByteCount))
        }

        /// Bytes that each round but the first reads again, about.
        var repeatedByteCount: Int {
            let kept = order.keptByteCount
            guard budget < kept, kept > 0 else { return 0 }
            let room = Double(max(0, budget - order.minimumByteCount))
            return Int(Double(order.byteCount) * (1 - room / Double(kept)))
        }
    }

    private let order: Order
    private let operators: Operators
    private var stream: WeightStream?
    /// Places of the matrices in the stream; nil for those that stay quantised.
    private var places: [[Int?]]
    private var nextGroup = 0
    /// Places in use, oldest first.
    private var taken: [Int] = []

    /// Quantised matrices that stay, by group and place in it.
    private var kept: [[WeightMatrix?]]
    private var room: Int
    private let budget: Int
    /// Quantised matrices of the group in use that do not stay.
    private let passing: Storage

    /// Starts to read.
    ///
    /// - Parameters:
    ///   - plan: The matrices and their memory.
    ///   - operators: What quantises.
    ///   - cache: What to do with the system's cache.
    /// - Throws: `.model` when the files are not those that were opened.
    init(
        _ plan: Plan,
        operators: Operators,
        cache: CacheUse = .ifResident
    ) throws(GenerationError) {
        let (order, budget) = (plan.order, plan.budget)
        self.order = order
        self.operators = operators
        self.budget = budget
        kept = order.groups.map { $0.map { _ in nil } }
        places = []
        passing = Storage(byteCount: order.heldQuantized)
        let isQuantizing = order.heldQuantized > 0
        room = isQuantizing ? budget - order.minimumByteCount : 0
        try open(
            budget: isQuantizing ? order.minimumByteCount - order.heldQuantized : budget,
            cache: cache
        )
    }

    /// Opens a stream of everything that is not kept.
    private func open(budget: Int, cache: CacheUse = .ifResident) throws(GenerationError) {
        var tensors: [Tensor] = []
        places = zip(order.groups, kept).map { group, kept in
            zip(group, kept).map { matrix, kept in
                guard kept == nil else { return nil }
                tensors.append(matrix.elements)
                return tensors.count - 1
            }
        }
        stream = nil
        guard !tensors.isEmpty else { return }
        do throws(CheckpointError) {
            stream = try WeightStream(
                tensors,
                of: order.checkpoint,
                budget: budget,
                held: order.held,
                cache: cache
            )
        } catch {
            throw .model(error)
        }
    }

    /// Starts to read with the least memory, for an order that is used once.
    convenience init(_ order: Order, operators: Operators) throws(GenerationError) {
        let plan = Plan(order: order, budget: order.minimumByteCount)
        try self.init(plan, operators: operators, cache: .inPlace)
    }

    /// The next group in order with its matrices in memory, until `release` is called.
    ///
    /// - Parameter group: What the order says is next.
    /// - Returns: The same layers.
    /// - Throws: `.model` when the files cannot be read or have changed.
    func load<Group: MatrixGroup>(_ group: Group) throws(GenerationError) -> Group {
        if nextGroup == 0 { try beginRound() }
        defer { nextGroup = (nextGroup + 1) % order.groups.count }
        var offset = 0
        var loaded: [WeightMatrix] = []
        for (index, matrix) in order.groups[nextGroup].enumerated() {
            if let matrix = kept[nextGroup][index] {
                loaded.append(matrix)
            } else if let place = places[nextGroup][index] {
                let elements = try take(place)
                let read = matrix.replacing(elements)
                loaded.append(order.isQuantized(matrix) ? quantized(read, index, &offset) : read)
            }
        }
        return group.replacing(loaded)
    }

    /// Gives back the group that was loaded last.
    func release() {
        for place in taken { stream?.release(place) }
        taken = []
    }

    private func take(_ place: Int) throws(GenerationError) -> Tensor {
        guard let stream else { preconditionFailure("no stream") }
        do throws(CheckpointError) {
            let tensor = try stream.take(place)
            taken.append(place)
            return tensor
        } catch {
            throw .model(error)
        }
    }

    /// After the first round, reads only what is not kept.
    private func beginRound() throws(GenerationError) {
        let bytes = kept.joined().reduce(0) { $0 + ($1?.quantizedByteCount ?? 0) }
        guard bytes > 0, places.joined().contains(where: { $0 != nil }) else { return }
        let isFirst = places.joined().allSatisfy { $0 != nil }
        guard isFirst else { return }
        try open(budget: budget - bytes - order.heldQuantized)
    }

    /// Quantises a matrix of the group in use, to memory that stays if there is room.
    private func quantized(_ matrix: WeightMatrix, _ index: Int, _ offset: inout Int)
        -> WeightMatrix
    {
        let byteCount = matrix.quantizedByteCount
        let stays = byteCount <= room
        let storage = stays ? Storage(byteCount: byteCount) : passing
        let start = stays ? 0 : offset
        let scale = Tensor(storage, byteOffset: start, shape: [matrix.rows], elementType: .float32)
        let elements = Tensor(
            storage,
            byteOffset: start + 4 * matrix.rows,
            shape: [matrix.rows, matrix.columns],
            elementType: .int8
        )
        let result = operators.quantize(matrix, into: elements, scale: scale)
        if stays {
            room -= byteCount
            kept[nextGroup][index] = result
        } else {
            offset += byteCount
        }
        return result
    }
}

extension WeightMatrix {
    /// Bytes of the scales and the elements once they are quantised; whole floats, as scales follow.
    fileprivate var quantizedByteCount: Int { 4 * rows + (rows * columns + 3) / 4 * 4 }
}
