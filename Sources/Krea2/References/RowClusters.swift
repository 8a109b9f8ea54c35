import Compute
import Tensors

/// Rows that point in about the same direction, put together.
///
/// Starts from the row closest to the mean and, again and again, the one farthest from all that were
/// taken; then a few rounds of Lloyd's algorithm. Ties go to the lower index; nothing is drawn.
struct RowClusters {
    /// The cluster of each row, from 0; each has a row.
    let assignments: [Int]
    /// Number of clusters.
    let count: Int

    /// Squared distance of unit vectors that are taken for the same; sums in float32 are not exact.
    private static let sameDistance: Float = 1e-5
    private static let rounds = 3

    /// Puts rows into clusters.
    ///
    /// - Parameters:
    ///   - x: `[rows, width]`, float32, each of length 1 or 0; at least one.
    ///   - masses: Weight of each row, above 0.
    ///   - most: Most clusters, above 0.
    ///   - operators: The arithmetic, in float32.
    init(_ x: Tensor, masses: [Double], most: Int, _ operators: Operators) {
        let rows = RowDistances(x, operators)
        let seeds = Self.seeds(rows, masses, most)
        let centroids = Tensor(zeros: [seeds.count, x.rowCount])
        for (cluster, seed) in seeds.enumerated() { centroids.row(cluster).copy(from: x.row(seed)) }
        var assignments: [Int] = []
        for _ in 0..<Self.rounds {
            assignments = rows.nearest(centroids)
            Self.moveToMeans(centroids, x, masses, assignments)
        }
        // Clusters that lost all their rows are passed over.
        let used = Set(assignments).sorted()
        let numbers = Dictionary(uniqueKeysWithValues: zip(used, used.indices))
        self.assignments = assignments.map { numbers[$0] ?? 0 }
        count = used.count
    }

    /// The rows to start from.
    private static func seeds(_ rows: RowDistances, _ masses: [Double], _ most: Int) -> [Int] {
        var mean = [Double](repeating: 0, count: rows.x.rowCount)
        for row in 0..<rows.x.rows {
            for (column, value) in rows.x.row(row).elements.enumerated() {
                mean[column] += masses[row] * Double(value)
            }
        }
        let total = masses.reduce(0, +)
        let center = Tensor(mean.map { Float($0 / total) }, shape: [1, mean.count])
        let first = rows.distances(to: center).indexOfSmallest
        var seeds = [first]
        var distances = [Float](repeating: .infinity, count: rows.x.rows)
        while seeds.count < most, let newest = seeds.last {
            let other = rows.distances(to: rows.x.rows(newest..<newest + 1))
            for row in distances.indices { distances[row] = min(distances[row], other[row]) }
            let farthest = distances.indexOfLargest
            guard distances[farthest] > sameDistance else { break }
            seeds.append(farthest)
        }
        return seeds
    }

    /// Replaces each centroid by the weighted mean of its rows; one without rows stays.
    private static func moveToMeans(
        _ centroids: Tensor,
        _ x: Tensor,
        _ masses: [Double],
        _ assignments: [Int]
    ) {
        let width = x.rowCount
        var sums = [Double](repeating: 0, count: centroids.count)
        var total = [Double](repeating: 0, count: centroids.rows)
        for (row, cluster) in assignments.enumerated() {
            total[cluster] += masses[row]
            for (column, value) in x.row(row).elements.enumerated() {
                sums[cluster * width + column] += masses[row] * Double(value)
            }
        }
        for (cluster, mass) in total.enumerated() where mass > 0 {
            let sum = sums[cluster * width..<(cluster + 1) * width]
            centroids.row(cluster).write(sum.map { Float($0 / mass) })
        }
    }
}

/// Squared distances from rows, by products of matrices.
private struct RowDistances {
    /// `[rows, width]`.
    let x: Tensor
    /// Squared length of each row.
    private let squares: [Float]
    private let operators: Operators

    init(_ x: Tensor, _ operators: Operators) {
        (self.x, self.operators) = (x, operators)
        squares = Self.squares(x)
    }

    /// Squared distances of all rows to a point: `[1, width]`.
    func distances(to point: Tensor) -> [Float] {
        let square = Self.squares(point)[0]
        return zip(squares, products(point)).map { $0 + square - 2 * $1 }
    }

    /// The nearest point to each row, the first of equally near ones.
    ///
    /// - Parameter points: `[points, width]`.
    /// - Returns: An index of a point for each row.
    func nearest(_ points: Tensor) -> [Int] {
        let products = products(points)
        var best = [Float](repeating: .infinity, count: x.rows)
        var nearest = [Int](repeating: 0, count: x.rows)
        for (point, square) in Self.squares(points).enumerated() {
            let first = point * x.rows
            for row in 0..<x.rows {
                // The row's own length is the same for all points.
                let distance = square - 2 * products[first + row]
                if distance < best[row] { (best[row], nearest[row]) = (distance, point) }
            }
        }
        return nearest
    }

    /// Products of each point with each row: `[points, rows]`.
    private func products(_ points: Tensor) -> [Float] {
        let products = Tensor(zeros: [points.rows, x.rows])
        operators.linear(points, WeightMatrix(x), into: products)
        return products.elements
    }

    private static func squares(_ x: Tensor) -> [Float] {
        (0..<x.rows).map { row in
            Float(x.row(row).elements.reduce(0.0) { $0 + Double($1) * Double($1) })
        }
    }
}

extension [Float] {
    /// Index of the first of the smallest.
    fileprivate var indexOfSmallest: Int {
        indices.reduce(startIndex) { self[$1] < self[$0] ? $1 : $0 }
    }

    /// Index of the first of the largest.
    fileprivate var indexOfLargest: Int {
        indices.reduce(startIndex) { self[$1] > self[$0] ? $1 : $0 }
    }
}
