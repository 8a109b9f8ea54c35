import Glibc
import Images
import JSON

/// The facts of one PNG file, in words.
struct PictureReport {
    private let path: String
    private let picture: PNG.Description

    /// Reads the header and the texts of a picture.
    ///
    /// - Parameter path: Any path; `nil` comes back when it is no PNG file.
    /// - Throws: Exit code 65 for a damaged picture.
    init?(path: String) throws(Failure) {
        guard Self.isPNG(path) else { return nil }
        self.path = path
        do {
            picture = try PNG.readText(path: path)
        } catch {
            throw Failure(error)
        }
    }

    /// Several lines for people.
    var text: String {
        var lines = [
            "\(path): picture, \(picture.width) x \(picture.height), "
                + "\(picture.bitDepth)-bit \(picture.colorType)"
        ]
        for text in picture.texts where text.keyword != Self.xmpKeyword {
            lines.append("  \(text.keyword):")
            lines += shown(text).split(separator: "\n", omittingEmptySubsequences: false)
                .map { "    " + $0 }
        }
        if statesTrainedModel {
            lines.append("  source: made by a trained model, as its XMP says")
        }
        return lines.map(\.escapingControls).joined(separator: "\n")
    }

    /// One line for programs.
    var json: String {
        let facts = Facts(
            file: path,
            width: picture.width,
            height: picture.height,
            bitDepth: picture.bitDepth,
            colorType: "\(picture.colorType)",
            texts: picture.texts.map { .init(keyword: $0.keyword, value: $0.value) },
            krea2: picture.text(GenerationRecord.keyword).flatMap(Self.parsed),
            statesTrainedModel: statesTrainedModel
        )
        return JSONText.line(facts)
    }

    /// A text as it is printed: the record of this engine indented, others as they are.
    private func shown(_ text: PNG.Text) -> String {
        guard text.keyword == GenerationRecord.keyword, let value = Self.parsed(text.value) else {
            return text.value
        }
        return JSONText.pretty(value)
    }

    /// Whether the XMP names the IPTC's digital source type of generated pictures.
    private var statesTrainedModel: Bool {
        picture.text(Self.xmpKeyword)?.contains("digitalsourcetype/trainedAlgorithmicMedia") == true
    }

    private struct Facts: Encodable {
        struct Text: Encodable {
            let keyword: String
            let value: String
        }

        let file: String
        let kind = "picture"
        let width: Int
        let height: Int
        let bitDepth: Int
        let colorType: String
        let texts: [Text]
        /// The record of this engine, taken apart; absent where there is none.
        let krea2: JSONValue?
        let statesTrainedModel: Bool
    }

    /// Keyword under which PNG files carry XMP.
    private static let xmpKeyword = "XML:com.adobe.xmp"

    private static func parsed(_ json: String) -> JSONValue? {
        // A text that is no JSON is shown as it is.
        try? JSONParser.parse(Array(json.utf8))
    }

    /// Whether a file begins as PNG files do; anything unreadable does not.
    private static func isPNG(_ path: String) -> Bool {
        guard FileKind(of: path) == .file else { return false }
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: PNG.signature.count)
        let count = unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe read(descriptor, buffer.baseAddress, buffer.count)
        }
        return count == bytes.count && bytes == PNG.signature
    }
}
