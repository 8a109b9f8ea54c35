package import Images

/// The size at which the vision tower sees a reference.
///
/// That of Qwen's image processors, without a smallest area: sides are rounded to multiples of 32,
/// halves to even; a picture that then has more than side² pixels keeps its aspect ratio and is cut
/// down to the next multiples below. Pictures are never enlarged, but for the rounding and to reach
/// 64 pixels on their shorter side. One that would come out narrower gets 64 pixels there and what
/// its aspect ratio, or else the area, allows on the longer side.
///
/// Source: `smart_resize` of transformers 5.23, `image_processing_pil_qwen2_vl.py`.
package struct ReferenceSize: Sendable, Equatable {
    /// Sides that may be asked for; `side`² is the largest area.
    package static let sides = 192...768

    /// Shortest side of a picture that can be a reference.
    package static let shortestSourceSide = 28

    /// A patch of the vision tower, times the patches it merges.
    private static let multiple = 32

    /// Shortest side of a size.
    private static let shortestSide = 64

    /// Pixels in a row: a multiple of 32, 64 or more.
    package let width: Int

    /// Rows: a multiple of 32, 64 or more.
    package let height: Int

    /// Finds the size for a picture.
    ///
    /// - Parameters:
    ///   - image: The picture.
    ///   - side: One of `sides`.
    /// - Throws: `ImageError.tooSmall` for a side below `shortestSourceSide`.
    package init(_ image: PixelImage, side: Int) throws(ImageError) {
        try self.init(width: image.width, height: image.height, side: side)
    }

    /// Finds the size for a picture of these sides.
    init(width: Int, height: Int, side: Int) throws(ImageError) {
        precondition(Self.sides.contains(side), "side \(side), expected \(Self.sides)")
        guard min(width, height) >= Self.shortestSourceSide else {
            throw .tooSmall(width: width, height: height, shortestSide: Self.shortestSourceSide)
        }
        let area = side * side
        var columns = Self.nearest(Double(width))
        var rows = Self.nearest(Double(height))
        if columns * rows > area {
            let shrinking = (Double(width * height) / Double(area)).squareRoot()
            columns = Self.below(Double(width) / shrinking)
            rows = Self.below(Double(height) / shrinking)
        }
        if min(columns, rows) < Self.shortestSide {
            let aspect = Double(max(width, height)) / Double(min(width, height))
            let longest = Self.below(Double(area / Self.shortestSide))
            let longer = min(Self.nearest(Double(Self.shortestSide) * aspect), longest)
            columns = width > height ? longer : Self.shortestSide
            rows = width > height ? Self.shortestSide : longer
        }
        self.width = columns
        self.height = rows
    }

    /// Finds the size for a picture by its longer side: it is cut down to one, if it is longer, and
    /// the other in proportion.
    ///
    /// - Parameters:
    ///   - image: The picture.
    ///   - longest: A multiple of 32.
    /// - Throws: `ImageError.tooSmall` for a side below `shortestSourceSide`.
    package init(_ image: PixelImage, longest: Int) throws(ImageError) {
        let (width, height) = (image.width, image.height)
        guard min(width, height) >= Self.shortestSourceSide else {
            throw .tooSmall(width: width, height: height, shortestSide: Self.shortestSourceSide)
        }
        let scale = min(1, Double(longest) / Double(max(width, height)))
        self.width = max(Self.nearest(Double(width) * scale), Self.shortestSide)
        self.height = max(Self.nearest(Double(height) * scale), Self.shortestSide)
    }

    /// The nearest multiple; halves go to the even one.
    private static func nearest(_ length: Double) -> Int {
        Int((length / Double(multiple)).rounded(.toNearestOrEven)) * multiple
    }

    /// The next multiple that is not larger.
    private static func below(_ length: Double) -> Int {
        Int(length / Double(multiple)) * multiple
    }
}
