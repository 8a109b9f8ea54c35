internal import CCodecs

/// The formats that pictures are read from, told by what a file holds and not by its name.
public enum PictureFormat: String, Sendable, CaseIterable, CustomStringConvertible {
    /// Read by libpng.
    case png = "PNG"
    /// Read by libjpeg-turbo.
    case jpeg = "JPEG"
    /// Read by libwebp.
    case webp = "WebP"

    /// The format's name.
    public var description: String { rawValue }

    /// Versions of the libraries that read them, by name.
    public static var libraryVersions: [String: String] {
        let webp = codecs_webp_version()
        return [
            "libpng": PNG.libraryVersion,
            "libjpeg-turbo": unsafe String(cString: codecs_jpeg_version()),
            "libwebp": [16, 8, 0].map { String(webp >> $0 & 0xFF) }.joined(separator: "."),
        ]
    }

    /// The format that a file starts like; nil for any other.
    ///
    /// - Parameter bytes: The file, or its first 12 bytes at least.
    init?(startOf bytes: [UInt8]) {
        if bytes.starts(with: PNG.signature) {
            self = .png
        } else if bytes.starts(with: [0xFF, 0xD8, 0xFF]) {
            self = .jpeg
        } else if bytes.starts(with: "RIFF".utf8), bytes.dropFirst(8).starts(with: "WEBP".utf8) {
            self = .webp
        } else {
            return nil
        }
    }

    /// The name of a well-known format that is not read; nil for any other.
    ///
    /// - Parameter bytes: The file, or its first 12 bytes at least.
    /// - Returns: A name for the error.
    static func foreignName(startOf bytes: [UInt8]) -> String? {
        let starts: [(name: String, offset: Int, bytes: [UInt8])] = [
            ("GIF", 0, Array("GIF8".utf8)), ("BMP", 0, Array("BM".utf8)),
            ("TIFF", 0, [0x49, 0x49, 0x2A, 0]), ("TIFF", 0, [0x4D, 0x4D, 0, 0x2A]),
            ("JPEG XL", 0, [0xFF, 0x0A]), ("JPEG XL", 4, Array("JXL ".utf8)),
            ("AVIF", 4, Array("ftypavi".utf8)), ("HEIC", 4, Array("ftyphe".utf8)),
            ("HEIC", 4, Array("ftypmif1".utf8)),
        ]
        return starts.first { bytes.dropFirst($0.offset).starts(with: $0.bytes) }?.name
    }
}
