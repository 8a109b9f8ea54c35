internal import CCodecs

/// Reads and writes PNG files, through libpng.
public enum PNG {
    /// The bytes every PNG file starts with.
    public static let signature: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]

    /// Version of the libpng in use, such as `1.6.39`.
    public static var libraryVersion: String { unsafe String(cString: codecs_png_version()) }

    /// Most bytes of one text, stored or inflated.
    ///
    /// Longer texts are not written, since libpng's readers refuse them by default.
    public static var largestTextByteCount: Int { codecs_png_text_limit() - 128 }

    /// Encodes a picture as an 8-bit RGB PNG file in sRGB.
    ///
    /// Equal pictures and records give equal bytes with equal versions of libpng and zlib. The file
    /// always says, as XMP, that a trained model made the picture; with a record it also holds the
    /// texts `parameters` and `krea2`.
    ///
    /// - Parameters:
    ///   - image: The picture.
    ///   - metadata: How it was made; nil leaves everything out but the source type.
    /// - Returns: The bytes of the file.
    /// - Throws: `ImageError.invalidText` for texts too long to store,
    ///   `ImageError.unwritableRecord`, or `ImageError.encodingFailed` without memory.
    public static func encode(
        _ image: PixelImage,
        metadata: GenerationRecord?
    ) throws(ImageError) -> [UInt8] {
        let source = XMPPacket(creatorTool: metadata?.engineVersion).text
        var texts = [Text(keyword: XMPPacket.keyword, value: source, storage: .international)]
        if let metadata {
            texts.append(Text(keyword: "parameters", value: metadata.parameters))
            texts.append(Text(keyword: GenerationRecord.keyword, value: try metadata.json()))
        }
        return try encode(image, texts: texts)
    }

    /// Encodes a picture with any texts, in the order given.
    static func encode(_ image: PixelImage, texts: [Text]) throws(ImageError) -> [UInt8] {
        let strings = try TextBlock(texts)
        var bytes: UnsafeMutablePointer<UInt8>?
        var byteCount = 0
        var message = Message()
        let status = unsafe image.rgb.withUnsafeBufferPointer { rgb in
            // A picture has at least one pixel, so the array has a base address.
            guard let pixels = rgb.baseAddress else { return Int32(1) }
            return unsafe strings.withEntries { entries in
                unsafe message.withBuffer { text, capacity in
                    unsafe codecs_png_encode_rgb8(
                        pixels,
                        UInt32(image.width),
                        UInt32(image.height),
                        entries.baseAddress,
                        entries.count,
                        &bytes,
                        &byteCount,
                        text,
                        capacity
                    )
                }
            }
        }
        guard status == 0 else { throw .encodingFailed(reason: message.text) }
        defer { unsafe codecs_free(bytes) }
        return unsafe Array(UnsafeBufferPointer(start: bytes, count: byteCount))
    }

    /// Decodes a PNG file that holds 8-bit RGB.
    ///
    /// - Parameter bytes: The whole file.
    /// - Returns: Its pixels as stored; colour space and texts are passed over.
    /// - Throws: `ImageError.damaged`, or `ImageError.unsupported` where the file holds anything
    ///   but 8-bit RGB or is larger than a `PixelImage` may be.
    public static func decode(_ bytes: [UInt8]) throws(ImageError) -> PixelImage {
        let header = try describe(bytes, path: nil, withTexts: false)
        let width = header.width
        let height = header.height
        guard header.colorType == .rgb, header.bitDepth == 8 else {
            throw .unsupported(
                found: "\(header.bitDepth)-bit \(header.colorType)",
                expected: "8-bit RGB"
            )
        }
        guard PixelImage.isPossible(width: width, height: height) else {
            throw .unsupported(
                found: "\(width) x \(height) pixels large",
                expected: "sides up to \(PixelImage.largestSide) and at most"
                    + " \(PixelImage.largestPixelCount) pixels"
            )
        }
        let rgb = try decodePixels(bytes, .png, width: width, height: height, channels: 3)
        return try PixelImage(width: width, height: height, rgb: rgb)
    }
}
