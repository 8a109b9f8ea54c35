/// How a stored picture has to be turned to stand upright, numbered as EXIF does.
///
/// Source: Exif 2.32 (CIPA DC-008), section 4.6.4, tag 0x0112; TIFF 6.0, sections 2 and 8.
enum Orientation: Int, CaseIterable {
    /// Stored as it is seen.
    case upright = 1
    /// Left and right change places.
    case mirrored
    /// Half a turn.
    case upsideDown
    /// Top and bottom change places.
    case flipped
    /// Rows become columns.
    case transposed
    /// A quarter turn clockwise.
    case quarterTurn
    /// Rows become columns, and then half a turn.
    case transversed
    /// A quarter turn anticlockwise.
    case quarterTurnBack

    /// Finds the orientation in EXIF data.
    ///
    /// Data without the tag means `upright`. The result is nil for data that breaks off, that is no
    /// EXIF, or that has another value than 1 … 8.
    ///
    /// - Parameter exif: The data, from its TIFF header or from the bytes `Exif`, 0, 0 before it.
    init?(exif: [UInt8]) {
        let data = exif.starts(with: "Exif\0\0".utf8) ? Array(exif.dropFirst(6)) : exif
        let order: ByteOrder
        switch data.number(at: 0, byteCount: 2, .bigEndian) {
        case 0x4949: order = .littleEndian
        case 0x4D4D: order = .bigEndian
        default: return nil
        }
        guard
            data.number(at: 2, byteCount: 2, order) == 42,
            let table = data.number(at: 4, byteCount: 4, order),
            let entryCount = data.number(at: table, byteCount: 2, order)
        else { return nil }
        for index in 0..<entryCount {
            let entry = table + 2 + 12 * index
            guard let tag = data.number(at: entry, byteCount: 2, order) else { return nil }
            guard tag == 0x0112 else { continue }
            guard
                data.number(at: entry + 2, byteCount: 2, order) == 3,
                let value = data.number(at: entry + 8, byteCount: 2, order),
                let orientation = Self(rawValue: value)
            else { return nil }
            self = orientation
            return
        }
        self = .upright
    }

    /// Whether the turned picture is as wide as the stored one is high.
    var swapsSides: Bool { rawValue > 4 }

    /// Turns a picture.
    ///
    /// - Parameter image: The picture as stored.
    /// - Returns: The picture as it is to be seen.
    /// - Throws: Never for an image, whose sides stay possible.
    func applied(to image: PixelImage) throws(ImageError) -> PixelImage {
        guard self != .upright else { return image }
        let (width, height) = (image.width, image.height)
        let (right, bottom) = (width - 1, (height - 1) * width)
        // The stored place of the upper left pixel, and the steps to its right and its lower
        // neighbour, in pixels.
        let (start, across, down) =
            switch self {
            case .upright: (0, 1, width)
            case .mirrored: (right, -1, width)
            case .upsideDown: (bottom + right, -1, -width)
            case .flipped: (bottom, 1, -width)
            case .transposed: (0, width, 1)
            case .quarterTurn: (bottom, -width, 1)
            case .transversed: (bottom + right, -width, -1)
            case .quarterTurnBack: (right, width, -1)
            }
        let rows = swapsSides ? width : height
        let columns = swapsSides ? height : width
        var rgb: [UInt8] = []
        rgb.reserveCapacity(image.rgb.count)
        for row in 0..<rows {
            var place = start + row * down
            for _ in 0..<columns {
                rgb.append(image.rgb[3 * place])
                rgb.append(image.rgb[3 * place + 1])
                rgb.append(image.rgb[3 * place + 2])
                place += across
            }
        }
        return try PixelImage(width: columns, height: rows, rgb: rgb)
    }
}
