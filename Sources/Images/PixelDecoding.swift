internal import CCodecs

/// Decodes the pixels of a file.
///
/// - Parameters:
///   - bytes: The whole file.
///   - format: Its format.
///   - width: Pixels in a row, as the file's header has it.
///   - height: Rows, as the file's header has it.
///   - channels: 3 for RGB, 4 for RGB and an alpha that is not multiplied in.
///   - path: The file's name, for the error.
/// - Returns: `[height, width, channels]`.
/// - Throws: `ImageError.damaged`.
func decodePixels(
    _ bytes: [UInt8],
    _ format: PictureFormat,
    width: Int,
    height: Int,
    channels: Int,
    path: String? = nil
) throws(ImageError) -> [UInt8] {
    var message = Message()
    var status: Int32 = 1
    // Left as it comes, so that a small file that claims to be a large picture costs no memory.
    let pixels = unsafe [UInt8](
        unsafeUninitializedCapacity: width * height * channels
    ) { pixels, count in
        guard let first = pixels.baseAddress else { return }
        unsafe message.withBuffer { text, capacity in
            unsafe bytes.withUnsafeBufferPointer { file in
                guard let start = file.baseAddress else { return }
                var raster = unsafe codecs_raster(
                    pixels: first,
                    width: UInt32(width),
                    height: UInt32(height),
                    channels: UInt32(channels),
                    message: text,
                    message_capacity: capacity
                )
                status =
                    switch format {
                    case .png: unsafe codecs_png_decode(start, file.count, &raster)
                    case .jpeg: unsafe codecs_jpeg_decode(start, file.count, &raster)
                    case .webp: unsafe codecs_webp_decode(start, file.count, &raster)
                    }
            }
        }
        if status == 0 { count = width * height * channels }
    }
    guard status == 0 else {
        throw .damaged(path: path, format: format, reason: message.text)
    }
    return pixels
}
