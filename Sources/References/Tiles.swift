internal import Images

/// A rectangle of a picture.
private struct Tile {
    /// Longest side.
    static let side = 64

    let left: Int
    let top: Int
    let width: Int
    let height: Int

    /// All tiles of a picture, row by row; the last of a row or column may be narrower.
    static func all(width: Int, height: Int) -> [Tile] {
        stride(from: 0, to: height, by: side).flatMap { top in
            stride(from: 0, to: width, by: side).map { left in
                Tile(
                    left: left,
                    top: top,
                    width: min(side, width - left),
                    height: min(side, height - top)
                )
            }
        }
    }
}

/// SplitMix64, whose numbers are the same everywhere.
///
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
private struct SplitMix {
    var state: UInt64

    /// A number in 0 ..< `bound`.
    mutating func next(below bound: Int) -> Int {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = (state ^ state >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return Int((value ^ value >> 31).multipliedFullWidth(by: UInt64(bound)).high)
    }
}

extension PixelImage {
    /// The picture with its tiles in another order, by Fisher and Yates.
    ///
    /// Tiles change places with others of their size: whole ones first, then those of the last
    /// row, then those of the last column.
    func shuffled(seed: UInt64) throws(ImageError) -> PixelImage {
        let tiles = Tile.all(width: width, height: height)
        var random = SplitMix(state: seed)
        var pixels = rgb
        for (isWide, isHigh) in [(true, true), (true, false), (false, true), (false, false)] {
            let group = tiles.filter {
                ($0.width == Tile.side) == isWide && ($0.height == Tile.side) == isHigh
            }
            var order = Array(group.indices)
            for last in group.indices.dropFirst().reversed() {
                order.swapAt(last, random.next(below: last + 1))
            }
            for (place, source) in zip(group, order) {
                copy(group[source], to: place, of: &pixels)
            }
        }
        return try PixelImage(width: width, height: height, rgb: pixels)
    }

    /// Copies a tile of this picture to a place of the same size.
    private func copy(_ source: Tile, to place: Tile, of pixels: inout [UInt8]) {
        for row in 0..<source.height {
            let from = ((source.top + row) * width + source.left) * 3
            let to = ((place.top + row) * width + place.left) * 3
            for offset in 0..<source.width * 3 { pixels[to + offset] = rgb[from + offset] }
        }
    }
}
