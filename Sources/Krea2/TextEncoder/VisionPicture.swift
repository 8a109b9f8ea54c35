import Tensors

/// A picture in the size in which the vision tower sees it.
struct VisionPicture: Sendable, Equatable {
    let width: Int
    let height: Int
    /// Red, green and blue of each pixel, row by row, −1 … 1.
    let values: [Float]

    /// Most pixels of a picture, as in the reference's processor.
    static let mostPixels = 1 << 24

    /// Takes pixels that are normalised already.
    ///
    /// - Parameters:
    ///   - width: Pixels in a row.
    ///   - height: Rows.
    ///   - values: Red, green and blue of each pixel, row by row, −1 … 1.
    /// - Throws: `.request` when there are too many pixels, none, or not three values for each.
    init(width: Int, height: Int, values: [Float]) throws(GenerationError) {
        let (area, isTooLarge) = width.multipliedReportingOverflow(by: height)
        guard width > 0, height > 0, !isTooLarge, area <= Self.mostPixels else {
            throw .request(
                "a picture of \(width)×\(height) pixels for the text encoder, expected 1 to "
                    + "\(Self.mostPixels) pixels"
            )
        }
        guard values.count == 3 * area else {
            throw .request(
                "\(values.count) values for a picture of \(width)×\(height) pixels, expected "
                    + "\(3 * area)"
            )
        }
        (self.width, self.height, self.values) = (width, height, values)
    }

    /// Takes pixels of eight bits.
    ///
    /// - Parameters:
    ///   - width: Pixels in a row.
    ///   - height: Rows.
    ///   - rgb: Red, green and blue of each pixel, row by row.
    /// - Throws: As the other.
    init(width: Int, height: Int, rgb: [UInt8]) throws(GenerationError) {
        let levels = (0...255).map { (Float($0) / 255 - 0.5) / 0.5 }
        try self.init(width: width, height: height, values: rgb.map { levels[Int($0)] })
    }

    /// Its patches.
    ///
    /// - Parameter config: The vision tower's.
    /// - Returns: The grid.
    /// - Throws: `.request` unless both sides are whole tokens.
    func grid(_ config: VisionConfig) throws(GenerationError) -> VisionGrid {
        let unit = config.patch * config.merge
        guard width.isMultiple(of: unit), height.isMultiple(of: unit) else {
            throw .request(
                "a picture of \(width)×\(height) pixels for the text encoder, expected multiples "
                    + "of \(unit)"
            )
        }
        return VisionGrid(
            rows: height / config.patch,
            columns: width / config.patch,
            merge: config.merge
        )
    }

    /// Writes the patches in the grid's order.
    ///
    /// - Parameters:
    ///   - grid: The picture's own.
    ///   - patches: `[patches, 3 · side · side]`: channel, row, column.
    func write(_ grid: VisionGrid, into patches: Tensor) {
        let side = height / grid.rows
        let places = grid.places
        // A row of tokens at a time.
        let count = places.count / grid.tokenRows
        for start in stride(from: 0, to: places.count, by: count) {
            var chunk: [Float] = []
            chunk.reserveCapacity(count * patches.rowCount)
            for place in places[start..<start + count] {
                for channel in 0..<3 {
                    for row in place.row * side..<(place.row + 1) * side {
                        let first = (row * width + place.column * side) * 3 + channel
                        for column in 0..<side { chunk.append(values[first + 3 * column]) }
                    }
                }
            }
            patches.rows(start..<start + count).write(chunk)
        }
    }
}

/// How a picture is cut into patches, of which a square makes one token.
///
/// Patches are ordered token by token, row by row, and inside of a token row by row.
struct VisionGrid: Sendable, Equatable {
    /// Patches one above the other, whole tokens.
    let rows: Int
    /// Patches side by side, whole tokens.
    let columns: Int
    /// Patches along the side of a token.
    let merge: Int

    /// All patches.
    var patches: Int { rows * columns }
    /// Tokens one above the other.
    var tokenRows: Int { rows / merge }
    /// Tokens side by side.
    var tokenColumns: Int { columns / merge }
    /// All tokens.
    var tokens: Int { tokenRows * tokenColumns }

    /// Row and column of each patch, in order.
    var places: [(row: Int, column: Int)] {
        var places: [(row: Int, column: Int)] = []
        places.reserveCapacity(patches)
        for top in stride(from: 0, to: rows, by: merge) {
            for left in stride(from: 0, to: columns, by: merge) {
                for row in top..<top + merge {
                    for column in left..<left + merge { places.append((row, column)) }
                }
            }
        }
        return places
    }

    /// The entries of the position table that each patch takes, in order, and their weights.
    ///
    /// The grid's corners are the table's, and between entries it is linear. Source:
    /// `get_vision_interpolation_indices_and_weights` in transformers 5.23 `vision_utils.py`.
    ///
    /// - Parameter side: Rows and columns of the table.
    /// - Returns: Four entries for each patch, `row · side + column`.
    func tableTerms(side: Int) -> [[(id: Int, weight: Float)]] {
        func terms(_ index: Int, of count: Int) -> [(id: Int, weight: Float)] {
            let place = Float(index) * Float(side - 1) / Float(max(count - 1, 1))
            let floor = place.rounded(.down)
            let first = min(Int(floor), side - 1)
            let offset = place - floor
            return [(first, 1 - offset), (min(first + 1, side - 1), 1 - abs(offset - 1))]
        }
        let rowTerms = (0..<rows).map { terms($0, of: rows) }
        let columnTerms = (0..<columns).map { terms($0, of: columns) }
        return places.map { place in
            rowTerms[place.row].flatMap { row in
                columnTerms[place.column].map { column in
                    (id: row.id * side + column.id, weight: row.weight * column.weight)
                }
            }
        }
    }
}
