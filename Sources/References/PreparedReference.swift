internal import Checkpoints
package import Images

/// A reference picture as the vision tower is to see it.
package struct PreparedReference: Sendable, Equatable {
    /// Names what the whole picture shows, before its size was changed, whatever file it came from.
    ///
    /// `pixels-sha256:` and, in 64 hexadecimal digits, the SHA-256 of width and height, as four
    /// bytes each, lowest first, and of the pixels `[height, width, 3]`.
    package let contentID: String

    /// The pixels to encode, whose sides are multiples of 32.
    package let image: PixelImage

    /// Prepares a picture.
    ///
    /// The result depends on nothing but the arguments. It is resampled with PIL's antialiased
    /// bicubic filter and rounded to 8 bits, as the image processors of Qwen do with PIL.
    ///
    /// - Parameters:
    ///   - picture: The whole picture, upright and on white, as `LoadedPicture` reads it.
    ///   - side: One of `ReferenceSize.sides`; its square is the largest area.
    ///   - treatment: What is done to the resampled picture.
    /// - Throws: `ImageError.tooSmall`.
    package init(
        _ picture: PixelImage,
        side: Int,
        treatment: Treatment
    ) throws(ImageError) {
        try self.init(
            picture,
            size: ReferenceSize(picture, side: side),
            treatment: treatment
        )
    }

    /// Prepares a picture at a size of its own.
    ///
    /// - Parameters:
    ///   - picture: The whole picture.
    ///   - size: The size.
    ///   - treatment: What is done to the resampled picture.
    /// - Throws: Never, for sides that `ReferenceSize` gives.
    package init(
        _ picture: PixelImage,
        size: ReferenceSize,
        treatment: Treatment
    ) throws(ImageError) {
        let digest = picture.digest
        let seed = UInt64(digest.prefix(16), radix: 16) ?? 0
        let resized = try picture.resized(width: size.width, height: size.height)
        contentID = "pixels-sha256:" + digest
        image = try treatment.applied(to: resized, seed: seed)
    }
}

extension PixelImage {
    fileprivate var digest: String {
        let sides = [width, height].flatMap { side in
            [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: side >> $0) }
        }
        return hexDigest(of: [sides, rgb])
    }
}
