import Images

/// Pictures in rows and columns on white, with a line of text above each row and each column.
struct ContactSheet {
    /// Pictures next to each other.
    struct Row {
        let label: String
        var pictures: [PixelImage] = []
    }

    /// Texts of the columns.
    let columns: [String]
    /// Sides of each picture on the sheet.
    let cell: PictureSize
    var rows: [Row] = []

    private static let gap = 8
    /// Pixels of a point of a letter.
    private static let point = 2
    private static let lineHeight = BitmapFont.height * point + gap

    /// Sides of a sheet with some rows.
    func size(rows: Int) -> PictureSize {
        PictureSize(
            width: Self.gap + columns.count * (cell.width + Self.gap),
            height: Self.gap + Self.lineHeight
                + rows * (Self.lineHeight + cell.height + Self.gap)
        )
    }

    /// Draws everything.
    ///
    /// - Throws: `ImageError.invalidPixels` for a sheet that is too large.
    func image() throws(ImageError) -> PixelImage {
        let size = size(rows: rows.count)
        var canvas = Canvas(size)
        for (column, text) in columns.enumerated() {
            canvas.draw(text, x: x(column), y: Self.gap, width: cell.width, point: Self.point)
        }
        var y = Self.gap + Self.lineHeight
        for row in rows {
            let width = size.width - 2 * Self.gap
            canvas.draw(row.label, x: Self.gap, y: y, width: width, point: Self.point)
            y += Self.lineHeight
            for (column, picture) in row.pictures.enumerated() {
                canvas.draw(picture, x: x(column), y: y)
            }
            y += cell.height + Self.gap
        }
        return try PixelImage(width: size.width, height: size.height, rgb: canvas.rgb)
    }

    private func x(_ column: Int) -> Int { Self.gap + column * (cell.width + Self.gap) }
}

extension PixelImage {
    /// The averages of squares of `factor` pixels; what is left over at the edges is cut off.
    func shrunk(by factor: Int) throws(ImageError) -> PixelImage {
        guard factor > 1 else { return self }
        let (columns, rows) = (width / factor, height / factor)
        var result = [UInt8](repeating: 0, count: 3 * columns * rows)
        for y in 0..<rows {
            for x in 0..<columns {
                for channel in 0..<3 {
                    var sum = 0
                    for row in y * factor..<(y + 1) * factor {
                        let start = 3 * (row * width + x * factor) + channel
                        for i in 0..<factor { sum += Int(rgb[start + 3 * i]) }
                    }
                    let count = factor * factor
                    result[3 * (y * columns + x) + channel] = UInt8((sum + count / 2) / count)
                }
            }
        }
        return try PixelImage(width: columns, height: rows, rgb: result)
    }
}

/// White paper.
private struct Canvas {
    let size: PictureSize
    private(set) var rgb: [UInt8]

    init(_ size: PictureSize) {
        self.size = size
        rgb = [UInt8](repeating: 255, count: 3 * size.width * size.height)
    }

    mutating func draw(_ picture: PixelImage, x: Int, y: Int) {
        for row in 0..<picture.height {
            let (target, source) = (3 * ((y + row) * size.width + x), 3 * row * picture.width)
            rgb.replaceSubrange(
                target..<target + 3 * picture.width,
                with: picture.rgb[source..<source + 3 * picture.width]
            )
        }
    }

    /// Draws as many letters as fit into the width.
    mutating func draw(_ text: String, x: Int, y: Int, width: Int, point: Int) {
        let advance = (BitmapFont.width + BitmapFont.gap) * point
        for (index, letter) in text.prefix(max(0, width / advance)).enumerated() {
            for row in 0..<BitmapFont.height * point {
                for column in 0..<BitmapFont.width * point
                where BitmapFont.isSet(letter, row: row / point, column: column / point) {
                    let place = (y + row) * size.width + x + index * advance + column
                    for channel in 0..<3 { rgb[3 * place + channel] = 0 }
                }
            }
        }
    }
}
