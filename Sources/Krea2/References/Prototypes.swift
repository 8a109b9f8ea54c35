import Compute
import Tensors

/// The rows of several pictures, brought down to a few that stand for all.
///
/// Each picture counts as much as any other, and so does each row of a picture. Up to `most` rows
/// stay as they are. What stands before and after the pictures' own rows is the mean of all pictures.
struct Prototypes {
    let kinds: [ConditioningRows.Kind]
    /// How many rows each one stands for; the rows of pictures together for as many as there were.
    let multiplicities: [Float]
    /// `[rows, taps, width]`, bfloat16.
    let taps: Tensor

    /// Rows of pictures that stay at most.
    static let most = 256

    /// Brings rows down to a few.
    ///
    /// - Parameters:
    ///   - pictures: Of each picture, in the order that decides ties; all with the same rows around
    ///     the picture's own, at least one.
    ///   - projector: Weight of each tap in text fusion.
    ///   - most: Rows of pictures that stay at most.
    ///   - operators: The arithmetic, in float32.
    /// - Throws: `.request` when the pictures' rows do not fit together.
    init(
        _ pictures: [ConditioningRows],
        projector: [Float],
        most: Int = Prototypes.most,
        _ operators: Operators
    ) throws(GenerationError) {
        let board = try BoardRows(pictures, taps: projector.count)
        var clusters: RowClusters?
        if board.places.count > most {
            let x = board.directions(projector, operators)
            clusters = RowClusters(x, masses: board.masses, most: most, operators)
        }
        let count = clusters?.count ?? board.places.count
        let assignments = clusters?.assignments ?? Array(board.places.indices)
        var masses = [Double](repeating: 0, count: count)
        for (row, cluster) in assignments.enumerated() { masses[cluster] += board.masses[row] }

        let (before, after) = (board.before, board.after)
        kinds =
            before.map(\.kind) + [ConditioningRows.Kind](repeating: .image, count: count)
            + after.map(\.kind)
        let whole = Double(board.places.count)
        multiplicities =
            before.map { _ in 1 } + masses.map { Float($0 * whole) } + after.map { _ in 1 }
        let values = Tensor(zeros: [kinds.count] + board.rowShape)
        for (index, frame) in (before + after).enumerated() {
            let row = index < before.count ? index : count + index
            values.row(row).write(board.mean(ofRow: frame.index))
        }
        board.writeMeans(
            assignments,
            masses,
            into: values.rows(before.count..<before.count + count)
        )
        taps = try ConditioningRows(key: "moodboard", taps: values, kinds: kinds).rounded().taps
    }
}

/// All rows of some pictures.
private struct BoardRows {
    /// A row that is not the picture's own, and its place, from the end where the index is negative.
    typealias Frame = (index: Int, kind: ConditioningRows.Kind)

    /// Rows of pictures, picture by picture.
    let places: [(picture: Int, row: Int)]
    /// Part of the whole that each stands for; together 1.
    let masses: [Double]
    /// Rows before the pictures' own.
    let before: [Frame]
    /// Rows after them.
    let after: [Frame]

    private let pictures: [ConditioningRows]

    init(_ pictures: [ConditioningRows], taps: Int) throws(GenerationError) {
        guard let first = pictures.first else { throw .request("a moodboard without pictures") }
        var places: [(picture: Int, row: Int)] = []
        var masses: [Double] = []
        for (index, picture) in pictures.enumerated() {
            let rows = picture.kinds.indices.filter { picture.kinds[$0] == .image }
            let frames = Self.frames(picture)
            guard picture.taps.shape.dropFirst() == first.taps.shape.dropFirst(),
                picture.taps.shape[1] == taps, frames == Self.frames(first), !rows.isEmpty,
                !frames.joined().contains(.image)
            else { throw .request("the rows of the moodboard's pictures do not fit together") }
            places += rows.map { (index, $0) }
            masses += rows.map { _ in 1 / Double(pictures.count * rows.count) }
        }
        (self.places, self.masses, self.pictures) = (places, masses, pictures)
        let frames = Self.frames(first)
        before = frames[0].enumerated().map { ($0, $1) }
        after = frames[1].enumerated().map { ($0 - frames[1].count, $1) }
    }

    /// Taps and width of a row.
    var rowShape: [Int] { Array(pictures[0].taps.shape.dropFirst()) }

    /// Kinds of the rows before and after the picture's own, which stand together.
    private static func frames(_ picture: ConditioningRows) -> [[ConditioningRows.Kind]] {
        let kinds = picture.kinds
        let first = kinds.firstIndex(of: .image) ?? kinds.endIndex
        let end = kinds[first...].firstIndex { $0 != .image } ?? kinds.endIndex
        return [Array(kinds[..<first]), Array(kinds[end...])]
    }
}

// MARK: Directions

extension BoardRows {
    /// What tells rows apart: the sum of the taps, each by its size on the board and its weight in
    /// text fusion, brought to length 1.
    ///
    /// - Parameters:
    ///   - projector: Weight of each tap.
    ///   - operators: The arithmetic.
    /// - Returns: `[rows of pictures, width]`; zeros where the sum is zero.
    func directions(_ projector: [Float], _ operators: Operators) -> Tensor {
        let sizes = tapSizes()
        let factors = zip(projector, sizes).map { $1 > 0 ? $0 / Float($1) : 0 }
        let weight = WeightMatrix(Tensor(factors, shape: [1, factors.count]))
        let width = rowShape[1]
        let directions = Tensor(zeros: [places.count, width])
        var sums = Tensor(zeros: [0, width])
        for (index, place) in places.enumerated() {
            if index == 0 || places[index - 1].picture != place.picture {
                let values = converted(pictures[place.picture].taps)
                sums = Tensor(zeros: [values.rows, width])
                operators.weightedSum(values, weight: weight, into: sums)
            }
            let sum = sums.row(place.row).elements
            let length = sum.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
            if length > 0 { directions.row(index).write(sum.map { Float(Double($0) / length) }) }
        }
        return directions
    }

    /// Root mean square of each tap over all rows of pictures.
    private func tapSizes() -> [Double] {
        let (taps, width) = (rowShape[0], rowShape[1])
        var squares = [Double](repeating: 0, count: taps)
        forEachRow { _, values in
            for tap in 0..<taps {
                var sum = 0.0
                for i in tap * width..<(tap + 1) * width {
                    sum += Double(values[i]) * Double(values[i])
                }
                squares[tap] += sum
            }
        }
        return squares.map { ($0 / Double(places.count * width)).squareRoot() }
    }

    /// Calls `body` with each row's index among the places and its values, in order.
    private func forEachRow(_ body: (_ index: Int, _ values: [Float]) -> Void) {
        var values: Tensor?
        for (index, place) in places.enumerated() {
            if index == 0 || places[index - 1].picture != place.picture { values = nil }
            let picture = values ?? converted(pictures[place.picture].taps)
            values = picture
            body(index, picture.row(place.row).elements)
        }
    }
}

// MARK: Means

extension BoardRows {
    /// Mean of a row around the pictures.
    ///
    /// - Parameter index: Its place, from the end where it is negative.
    /// - Returns: `[taps · width]`.
    func mean(ofRow index: Int) -> [Float] {
        var sums = [Double](repeating: 0, count: rowShape.reduce(1, *))
        for picture in pictures {
            let row = index < 0 ? picture.kinds.count + index : index
            let values = converted(picture.taps.row(row)).elements
            for (i, value) in values.enumerated() { sums[i] += Double(value) }
        }
        return sums.map { Float($0 / Double(pictures.count)) }
    }

    /// Writes the weighted mean of each cluster's rows.
    ///
    /// - Parameters:
    ///   - assignments: The cluster of each row.
    ///   - masses: Of each cluster.
    ///   - means: `[clusters, taps, width]`, float32.
    func writeMeans(_ assignments: [Int], _ masses: [Double], into means: Tensor) {
        let size = means.rowCount
        var sums = [Double](repeating: 0, count: means.count)
        forEachRow { index, values in
            let (first, mass) = (assignments[index] * size, self.masses[index])
            for (i, value) in values.enumerated() { sums[first + i] += mass * Double(value) }
        }
        for (cluster, mass) in masses.enumerated() {
            let sum = sums[cluster * size..<(cluster + 1) * size]
            means.row(cluster).write(sum.map { Float($0 / mass) })
        }
    }
}
