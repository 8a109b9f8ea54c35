package import Images

/// The size at which the autoencoder sees a reference whose latent stands in the transformer's
/// sequence.
///
/// Pictures keep their aspect ratio, but for the rounding down to multiples of 16, and are never
/// enlarged, but to reach 64 pixels on their shorter side.
package struct LatentSize: Sendable, Equatable {
    /// Sides that may be asked for; `side`² is the largest area.
    package static let sides = 192...1024

    /// Where nobody chooses another: a quarter of the tokens of 1024.
    package static let usualSide = 512

    /// Eight pixels of the autoencoder, times the transformer's patch of 2.
    private static let multiple = 16

    /// Shortest and longest side of a size.
    private static let range = 64...4096

    /// Pixels in a row: a multiple of 16, 64 to 4096.
    package let width: Int

    /// Rows: a multiple of 16, 64 to 4096.
    package let height: Int

    /// Finds the size for a picture.
    ///
    /// - Parameters:
    ///   - width: Pixels in a row.
    ///   - height: Rows.
    ///   - side: One of `sides`.
    ///   - limit: Sides that the size does not exceed, multiples of 16 from 64; nil for any.
    /// - Throws: `ImageError.tooSmall` for a side below `ReferenceSize.shortestSourceSide`.
    package init(
        width: Int,
        height: Int,
        side: Int,
        limit: (width: Int, height: Int)? = nil
    ) throws(ImageError) {
        precondition(Self.sides.contains(side), "side \(side), expected \(Self.sides)")
        let shortest = ReferenceSize.shortestSourceSide
        guard min(width, height) >= shortest else {
            throw .tooSmall(width: width, height: height, shortestSide: shortest)
        }
        let most = Self.range.upperBound
        let (widest, highest) = (min(limit?.width ?? most, most), min(limit?.height ?? most, most))
        let (columns, rows) = (Double(width), Double(height))
        let scale = min(
            1,
            Double(side) / (columns * rows).squareRoot(),
            Double(widest) / columns,
            Double(highest) / rows
        )
        let least = Self.range.lowerBound
        var size = (width: Self.below(columns * scale), height: Self.below(rows * scale))
        if min(size.width, size.height) < least {
            let longer = Self.below(
                min(
                    Double(least) * max(columns, rows) / min(columns, rows),
                    Double(side * side / least),
                    Double(columns > rows ? widest : highest)
                )
            )
            size = columns > rows ? (longer, least) : (least, longer)
        }
        (self.width, self.height) = (max(size.width, least), max(size.height, least))
    }

    /// The next multiple that is not larger, but for rounding.
    private static func below(_ length: Double) -> Int {
        Int(length / Double(multiple) + 1e-9) * multiple
    }
}
