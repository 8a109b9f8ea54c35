internal import CCodecs

/// What has to be known about a picture's file before memory is reserved for its pixels.
///
/// PNG and JPEG files are only walked through: whether they are sound is for the decoders to say.
struct PictureHeader {
    /// Why a header cannot be used.
    enum Fault: Error {
        /// The file is damaged.
        case damaged(String)
        /// The file is of a kind that is not read.
        case unsupported(found: String, expected: String)
    }

    /// Pixels in a stored row, as the file has it; not checked.
    private(set) var width = 0
    /// Stored rows, as the file has it; not checked.
    private(set) var height = 0
    /// Whether the pixels may have alpha.
    private(set) var hasAlpha = false
    /// The file's EXIF data.
    private(set) var exif: [UInt8]?
    /// What the file holds and decoding leaves out or changes.
    private(set) var notes: [String] = []

    /// Reads the header of a file that starts like one of this format.
    ///
    /// - Throws: `Fault`.
    init(_ bytes: [UInt8], _ format: PictureFormat) throws(Fault) {
        switch format {
        case .png: try readPNG(bytes)
        case .jpeg: try readJPEG(bytes)
        case .webp: try readWebP(bytes)
        }
    }

    /// Notes something once.
    private mutating func note(_ text: String) {
        if !notes.contains(text) { notes.append(text) }
    }

    private mutating func noteProfile() {
        note("its colour profile is not applied; its colours are taken as sRGB")
    }

    // MARK: PNG

    /// Source: PNG Specification (Third Edition), sections 5 and 11.
    private mutating func readPNG(_ bytes: [UInt8]) throws(Fault) {
        guard
            bytes.number(at: 8, byteCount: 4, .bigEndian) == 13,
            bytes.hasName("IHDR", at: 12),
            let width = bytes.number(at: 16, byteCount: 4, .bigEndian),
            let height = bytes.number(at: 20, byteCount: 4, .bigEndian),
            let colorType = bytes.number(at: 25, byteCount: 1, .bigEndian)
        else { throw .damaged("it does not start with a header") }
        (self.width, self.height) = (width, height)
        hasAlpha = [4, 6].contains(colorType)
        var position = PNG.signature.count
        while let length = bytes.number(at: position, byteCount: 4, .bigEndian) {
            let data = position + 8
            if bytes.hasName("tRNS", at: position + 4) {
                hasAlpha = true
            } else if bytes.hasName("iCCP", at: position + 4) {
                noteProfile()
            } else if bytes.hasName("acTL", at: position + 4) {
                note("it is animated; only its first picture is used")
            } else if bytes.hasName("eXIf", at: position + 4), data + length <= bytes.count {
                exif = exif ?? Array(bytes[data..<data + length])
            }
            position = data + length + 4
        }
    }

    // MARK: JPEG

    /// Source: ITU-T T.81, annex B; Exif 2.32, section 4.7.2; ICC.1:2022, annex B.4.
    private mutating func readJPEG(_ bytes: [UInt8]) throws(Fault) {
        var position = 2
        while let marker = bytes.marker(from: &position) {
            switch marker {
            case 0x00, 0x01, 0xD0...0xD8: continue
            case 0xD9, 0xDA:
                guard width > 0 else { throw .damaged("its picture data has no header") }
                return
            default: break
            }
            guard
                let length = bytes.number(at: position, byteCount: 2, .bigEndian),
                length >= 2,
                length <= bytes.count - position
            else { break }
            readSegment(marker, bytes[(position + 2)..<(position + length)])
            position += length
        }
        throw .damaged("the file ends too early")
    }

    private mutating func readSegment(_ marker: Int, _ data: ArraySlice<UInt8>) {
        switch marker {
        case 0xC4, 0xC8, 0xCC: break
        case 0xC0...0xCF:
            let frame = Array(data)
            height = frame.number(at: 1, byteCount: 2, .bigEndian) ?? 0
            width = frame.number(at: 3, byteCount: 2, .bigEndian) ?? 0
            if frame.number(at: 5, byteCount: 1, .bigEndian) == 4 {
                note("its inks are converted without a colour profile")
            }
        case 0xE1 where data.starts(with: "Exif\0\0".utf8): exif = exif ?? Array(data)
        case 0xE2 where data.starts(with: "ICC_PROFILE\0".utf8): noteProfile()
        default: break
        }
    }

    // MARK: WebP

    /// Source: RFC 9649, section 2.
    private mutating func readWebP(_ bytes: [UInt8]) throws(Fault) {
        guard
            let fileLength = bytes.number(at: 4, byteCount: 4, .littleEndian),
            fileLength <= bytes.count - 8
        else { throw .damaged("the file ends too early") }
        var position = 12
        while let length = bytes.number(at: position + 4, byteCount: 4, .littleEndian) {
            let data = position + 8
            if bytes.hasName("ICCP", at: position) {
                noteProfile()
            } else if bytes.hasName("EXIF", at: position), data + length <= bytes.count {
                exif = exif ?? Array(bytes[data..<data + length])
            }
            position = data + length + length % 2
        }

        let facts = try Self.describeWebP(bytes)
        guard !facts.has_animation else {
            throw .unsupported(found: "an animation", expected: "a single picture")
        }
        (width, height) = (Int(facts.width), Int(facts.height))
        hasAlpha = facts.has_alpha
    }

    private static func describeWebP(
        _ bytes: [UInt8]
    ) throws(Fault) -> codecs_webp_description {
        var facts = codecs_webp_description()
        var message = Message()
        let status = unsafe bytes.withUnsafeBufferPointer { file in
            unsafe message.withBuffer { text, capacity in
                guard let start = file.baseAddress else { return Int32(1) }
                return unsafe codecs_webp_describe(start, file.count, &facts, text, capacity)
            }
        }
        guard status == 0 else { throw .damaged(message.text) }
        return facts
    }
}
