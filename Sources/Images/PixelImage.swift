/// A picture in memory: 8-bit sRGB, without alpha.
public struct PixelImage: Sendable, Equatable {
    /// Longest side in pixels.
    public static let largestSide = 16_384

    /// Most pixels; 201 MB of them.
    public static let largestPixelCount = 1 << 26

    /// Pixels in a row.
    public let width: Int

    /// Rows.
    public let height: Int

    /// The pixels: `[height, width, 3]`, red first, 0 … 255.
    public let rgb: [UInt8]

    /// Checks that sides and bytes fit each other.
    ///
    /// - Parameters:
    ///   - width: 1 … `largestSide`.
    ///   - height: 1 … `largestSide`, with `width` at most `largestPixelCount` pixels.
    ///   - rgb: `[height, width, 3]`.
    /// - Throws: `ImageError.invalidPixels`.
    public init(width: Int, height: Int, rgb: [UInt8]) throws(ImageError) {
        guard
            Self.isPossible(width: width, height: height),
            rgb.count == width * height * 3
        else {
            throw .invalidPixels(width: width, height: height, byteCount: rgb.count)
        }
        self.width = width
        self.height = height
        self.rgb = rgb
    }

    /// Whether a picture may have these sides.
    public static func isPossible(width: Int, height: Int) -> Bool {
        let sides = 1...largestSide
        return sides.contains(width) && sides.contains(height)
            && width * height <= largestPixelCount
    }
}
