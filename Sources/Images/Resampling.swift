internal import Glibc

/// How pixels are weighted where a picture changes its size.
public enum ResamplingFilter: String, Sendable, CaseIterable {
    /// Equal weights over the area of the new pixel.
    case box
    /// A triangle.
    case bilinear
    /// The cubic with a = −0.5, over two pixels to each side.
    case bicubic
    /// A windowed sinc over three pixels to each side.
    case lanczos

    /// Where the weights end, in pixels.
    fileprivate var support: Double {
        switch self {
        case .box: 0.5
        case .bilinear: 1
        case .bicubic: 2
        case .lanczos: 3
        }
    }

    /// The weight at a distance in pixels, not normalised.
    fileprivate func weight(at distance: Double) -> Double {
        let x = abs(distance)
        switch self {
        case .box: return distance > -0.5 && distance <= 0.5 ? 1 : 0
        case .bilinear: return max(0, 1 - x)
        case .bicubic where x < 1: return (1.5 * x - 2.5) * x * x + 1
        case .bicubic where x < 2: return (((x - 5) * x + 8) * x - 4) * -0.5
        case .lanczos where x < 3: return Self.sinc(x) * Self.sinc(x / 3)
        case .bicubic, .lanczos: return 0
        }
    }

    private static func sinc(_ x: Double) -> Double {
        x == 0 ? 1 : sin(x * .pi) / (x * .pi)
    }
}

/// The weights along one axis.
private struct ResamplingWeights {
    /// Bits after the binary point of a weight, so that a sum of products fits 32 bits.
    static let fractionBits = 22

    /// For each new position, the first old one.
    private(set) var starts: [Int] = []
    /// For each new position, and once more, where its weights start in `values`.
    private(set) var places = [0]
    /// The weights in units of 2^−22.
    private(set) var values: [Int] = []

    /// Computes the weights.
    ///
    /// - Parameters:
    ///   - oldCount: Positions there are.
    ///   - newCount: Positions wanted.
    ///   - filter: The filter, which is stretched where there are fewer.
    init(from oldCount: Int, to newCount: Int, _ filter: ResamplingFilter) {
        let scale = Double(oldCount) / Double(newCount)
        let stretch = max(scale, 1)
        let support = filter.support * stretch
        for position in 0..<newCount {
            let center = (Double(position) + 0.5) * scale
            let start = max(0, Int(center - support + 0.5))
            let end = min(oldCount, Int(center + support + 0.5))
            let weights = (start..<end).map {
                filter.weight(at: (Double($0) - center + 0.5) * (1 / stretch))
            }
            let sum = weights.reduce(0, +)
            starts.append(start)
            values += weights.map { weight in
                let scaled = (sum == 0 ? weight : weight / sum) * Double(1 << Self.fractionBits)
                return Int(scaled + (scaled < 0 ? -0.5 : 0.5))
            }
            places.append(values.count)
        }
    }
}

extension PixelImage {
    /// The picture in another size, bit for bit as PIL's `Image.resize` makes it.
    ///
    /// First each row, then each column, with weights of 22 binary places and a rounding to 8 bits
    /// after either; an axis whose length stays is left alone. Where the picture shrinks, the filter
    /// covers all its pixels (antialiasing). Columns come first where that takes away more than
    /// twice as many rows as there are columns to lose, as since Pillow 13; before it they never
    /// did.
    ///
    /// This is what the image processors of transformers do with `bicubic` where they use PIL. With
    /// torchvision they round weights to 16 bits and differ by a few values in some pixels.
    ///
    /// Source: the documentation of Pillow 13, "Filters", its pull requests 1933 and 9549, and its
    /// results.
    ///
    /// - Parameters:
    ///   - width: Pixels in a row, 1 … `largestSide`.
    ///   - height: Rows, 1 … `largestSide`.
    ///   - filter: How pixels are weighted.
    /// - Returns: The new picture; no channel depends on another.
    /// - Throws: `ImageError.invalidPixels` for a size that no picture may have.
    public func resized(
        width: Int,
        height: Int,
        filter: ResamplingFilter = .bicubic
    ) throws(ImageError) -> PixelImage {
        guard Self.isPossible(width: width, height: height) else {
            throw .invalidPixels(width: width, height: height, byteCount: 0)
        }
        let lostRows = self.height - height
        let columnsComeFirst = lostRows > 0 && lostRows > 2 * (self.width - width)
        let columns = ResamplingWeights(from: self.height, to: height, filter)
        var pixels = rgb
        if columnsComeFirst {
            pixels = Self.resampledColumns(pixels, rowLength: self.width * 3, columns)
        }
        if width != self.width {
            let rows = ResamplingWeights(from: self.width, to: width, filter)
            pixels = Self.resampledRows(pixels, width: self.width, rows)
        }
        if !columnsComeFirst && height != self.height {
            pixels = Self.resampledColumns(pixels, rowLength: width * 3, columns)
        }
        return try PixelImage(width: width, height: height, rgb: pixels)
    }

    /// Resamples each row.
    ///
    /// Written out for three channels and with the index counted by hand, since this is where the
    /// time goes for large pictures.
    private static func resampledRows(
        _ pixels: [UInt8],
        width: Int,
        _ weights: ResamplingWeights
    ) -> [UInt8] {
        let (starts, places, values) = (weights.starts, weights.places, weights.values)
        let height = pixels.count / (3 * width)
        var result: [UInt8] = []
        result.reserveCapacity(height * starts.count * 3)
        for row in 0..<height {
            for column in 0..<starts.count {
                var (red, green, blue) = (half, half, half)
                var index = (row * width + starts[column]) * 3
                for place in places[column]..<places[column + 1] {
                    let weight = values[place]
                    red &+= Int(pixels[index]) &* weight
                    green &+= Int(pixels[index + 1]) &* weight
                    blue &+= Int(pixels[index + 2]) &* weight
                    index += 3
                }
                result.append(rounded(red))
                result.append(rounded(green))
                result.append(rounded(blue))
            }
        }
        return result
    }

    /// Resamples each column.
    private static func resampledColumns(
        _ pixels: [UInt8],
        rowLength: Int,
        _ weights: ResamplingWeights
    ) -> [UInt8] {
        let values = weights.values
        var result: [UInt8] = []
        result.reserveCapacity(weights.starts.count * rowLength)
        var sums = [Int](repeating: 0, count: rowLength)
        for row in 0..<weights.starts.count {
            for index in 0..<rowLength { sums[index] = half }
            var start = weights.starts[row] * rowLength
            for place in weights.places[row]..<weights.places[row + 1] {
                let weight = values[place]
                for index in 0..<rowLength {
                    sums[index] &+= Int(pixels[start + index]) &* weight
                }
                start += rowLength
            }
            for sum in sums { result.append(rounded(sum)) }
        }
        return result
    }

    /// One half, for rounding.
    private static let half = 1 << (ResamplingWeights.fractionBits - 1)

    /// A sum of products as a pixel's value.
    private static func rounded(_ sum: Int) -> UInt8 {
        UInt8(clamping: sum >> ResamplingWeights.fractionBits)
    }
}
