internal import Images

/// What is done to a reference so that the vision tower sees its style and less of its content.
///
/// All of it is done at the size of `ReferenceSize`.
package enum Treatment: String, Sendable, CaseIterable {
    /// Nothing.
    case untreated = "none"
    /// A box blur of 5 pixels.
    case soft
    /// The colours and roughly where they are: mean colours of at most 10 × 10 cells, bilinear up
    /// again, with 15 % of the picture's mean colour, and a box blur of 9 pixels.
    case palette
    /// The same texture and colours without objects and layout: tiles of 64 × 64 pixels, two by two
    /// rows of the language model, change places.
    ///
    /// What the sides leave over makes narrower tiles, which change places among themselves.
    case tiles

    /// Treats a picture.
    ///
    /// - Parameters:
    ///   - image: The picture, at the size the vision tower sees.
    ///   - seed: Decides the order of `tiles`.
    /// - Returns: A picture of the same size.
    /// - Throws: Never, for sides of 64 pixels or more.
    func applied(to image: PixelImage, seed: UInt64) throws(ImageError) -> PixelImage {
        switch self {
        case .untreated: return image
        case .soft: return try image.boxBlurred(radius: 2)
        case .palette: return try image.washed().boxBlurred(radius: 4)
        case .tiles: return try image.shuffled(seed: seed)
        }
    }
}

extension PixelImage {
    /// Cells along the longer side of a wash.
    private static var cellCount: Int { 10 }

    /// Mean colours of few cells, smooth, with 15 % of the mean of all.
    fileprivate func washed() throws(ImageError) -> PixelImage {
        let (longer, shorter) = (max(width, height), min(width, height))
        let cells = max(1, (Self.cellCount * shorter + longer / 2) / longer)
        let small = try resized(
            width: width >= height ? Self.cellCount : cells,
            height: width >= height ? cells : Self.cellCount,
            filter: .box
        )
        let smooth = try small.resized(width: width, height: height, filter: .bilinear)

        var sums = [0, 0, 0]
        for index in rgb.indices { sums[index % 3] += Int(rgb[index]) }
        let pixelCount = width * height
        let blended = smooth.rgb.indices.map { index in
            let value = 85 * Int(smooth.rgb[index]) * pixelCount + 15 * sums[index % 3]
            return UInt8((value + 50 * pixelCount) / (100 * pixelCount))
        }
        return try PixelImage(width: width, height: height, rgb: blended)
    }
}

extension PixelImage {
    /// The mean of `2 · radius + 1` pixels along rows, rounded, and then along columns.
    ///
    /// Beyond an edge its pixel goes on. Bit for bit as PIL's `ImageFilter.BoxBlur`.
    func boxBlurred(radius: Int) throws(ImageError) -> PixelImage {
        let rowLength = width * 3
        var pixels = rgb
        for row in 0..<height {
            for channel in 0..<3 {
                let start = row * rowLength + channel
                Self.blur(&pixels, start: start, step: 3, count: width, radius: radius)
            }
        }
        for start in 0..<rowLength {
            Self.blur(&pixels, start: start, step: rowLength, count: height, radius: radius)
        }
        return try PixelImage(width: width, height: height, rgb: pixels)
    }

    /// Blurs one line of values.
    private static func blur(
        _ pixels: inout [UInt8],
        start: Int,
        step: Int,
        count: Int,
        radius: Int
    ) {
        let line = (0..<count).map { Int(pixels[start + $0 * step]) }
        let window = 2 * radius + 1
        var sum = (-radius...radius).reduce(0) { $0 + line[min(max($1, 0), count - 1)] }
        for index in 0..<count {
            pixels[start + index * step] = UInt8((sum + radius) / window)
            sum += line[min(index + radius + 1, count - 1)] - line[max(index - radius, 0)]
        }
    }
}
