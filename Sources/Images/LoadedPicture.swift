/// A picture read from a PNG, JPEG or WebP file: upright, 8-bit RGB, on white.
///
/// - The format is told by what the file holds, not by its name.
/// - EXIF's orientation is applied.
/// - What is transparent is laid on white, without regard to gamma, rounded to the nearest.
/// - Of 16 bits a channel the upper eight are kept, as PIL does for RGB.
/// - Inks (CMYK, YCCK) are taken as inverted and mixed by multiplication, as PIL does.
/// - Colour profiles are not applied; `notes` says so.
/// - Of an animated PNG file the first picture is read; animated WebP files are refused.
/// - A file that ends early is an error, even where all its pixels are there.
public struct LoadedPicture: Sendable, Equatable {
    /// Largest file: 75 MB.
    public static let largestByteCount = 75_000_000

    /// Most pixels: 65 megapixels.
    ///
    /// Sides have the limit of `PixelImage`.
    public static let largestPixelCount = 65_000_000

    /// The pixels.
    public let image: PixelImage

    /// The file's format.
    public let format: PictureFormat

    /// What the file holds and reading left out or changed, each the end of a sentence that starts
    /// with the file's name.
    public let notes: [String]

    /// Reads a file.
    ///
    /// - Parameter path: The file.
    /// - Throws: `ImageError.missingFile`, `ImageError.unreadableFile`, and what reading from bytes
    ///   throws.
    public init(path: String) throws(ImageError) {
        let bytes = try readFile(path, largestByteCount: Self.largestByteCount)
        try self.init(bytes, path: path)
    }

    /// Reads a file's bytes.
    ///
    /// Limits are checked before memory is reserved for pixels. A picture then takes 3 bytes a
    /// pixel, 4 with alpha, and 3 more while it is turned; the libraries take up to 8 more for a
    /// progressive JPEG file.
    ///
    /// - Parameters:
    ///   - bytes: The whole file.
    ///   - path: Its name, for errors.
    /// - Throws: `ImageError.unknownFormat`, `ImageError.damaged`, or `ImageError.unsupported` for
    ///   animations and for what is over the limits.
    public init(_ bytes: [UInt8], path: String? = nil) throws(ImageError) {
        guard let format = PictureFormat(startOf: bytes) else {
            let found = PictureFormat.foreignName(startOf: bytes)
            throw .unknownFormat(path: path, found: found)
        }
        guard bytes.count <= Self.largestByteCount else {
            throw .unsupported(
                path: path,
                format: format,
                found: "\(bytes.count) bytes long",
                expected: "at most \(Self.largestByteCount)"
            )
        }
        let header = try Self.header(bytes, format, path: path)
        var pixels = try decodePixels(
            bytes,
            format,
            width: header.width,
            height: header.height,
            channels: header.hasAlpha ? 4 : 3,
            path: path
        )
        if header.hasAlpha { Self.layOnWhite(&pixels) }
        let stored = try PixelImage(width: header.width, height: header.height, rgb: pixels)

        var notes = header.notes
        var orientation = Orientation.upright
        if let exif = header.exif {
            if let found = Orientation(exif: exif) {
                orientation = found
            } else {
                notes.append("its EXIF data cannot be read, so it is not turned")
            }
        }
        self.image = try orientation.applied(to: stored)
        self.format = format
        self.notes = notes
    }

    /// Reads the header and refuses sizes beyond the limits.
    private static func header(
        _ bytes: [UInt8],
        _ format: PictureFormat,
        path: String?
    ) throws(ImageError) -> PictureHeader {
        let header: PictureHeader
        do throws(PictureHeader.Fault) {
            header = try PictureHeader(bytes, format)
        } catch {
            switch error {
            case .damaged(let reason):
                throw .damaged(path: path, format: format, reason: reason)
            case .unsupported(let found, let expected):
                throw .unsupported(path: path, format: format, found: found, expected: expected)
            }
        }
        guard header.width > 0, header.height > 0 else {
            let size = "\(header.width) x \(header.height)"
            throw .damaged(path: path, format: format, reason: "a picture of \(size) pixels")
        }
        guard
            PixelImage.isPossible(width: header.width, height: header.height),
            header.width * header.height <= largestPixelCount
        else {
            throw .unsupported(
                path: path,
                format: format,
                found: "\(header.width) x \(header.height) pixels large",
                expected: "sides up to \(PixelImage.largestSide) and at most"
                    + " \(largestPixelCount) pixels"
            )
        }
        return header
    }

    /// Lays RGB with alpha on white, in place.
    ///
    /// - Parameter pixels: `[pixels, 4]`, and `[pixels, 3]` afterwards.
    private static func layOnWhite(_ pixels: inout [UInt8]) {
        var end = 0
        for start in stride(from: 0, to: pixels.count, by: 4) {
            let alpha = Int(pixels[start + 3])
            for channel in 0..<3 {
                let value = Int(pixels[start + channel]) * alpha + 255 * (255 - alpha)
                pixels[end] = UInt8((value + 127) / 255)
                end += 1
            }
        }
        pixels.removeLast(pixels.count - end)
    }
}
