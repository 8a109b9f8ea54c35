import Images
import TestSupport
import Testing

/// A file, and what PIL makes of it.
struct PictureFixture: Sendable, CustomTestStringConvertible {
    let name: String
    let file: [UInt8]
    /// nil for a file that is not read.
    let image: PixelImage?

    var testDescription: String { name }

    /// The format, by the name.
    var format: PictureFormat? {
        PictureFormat.allCases.first { name.hasPrefix($0.rawValue.lowercased()) }
    }

    /// All files, in order of their names.
    static let all: [PictureFixture] = {
        do {
            let fixtures = try FixtureBytes("pictures/decoding.safetensors")
            return try fixtures.names.filter { $0.hasSuffix(".file") }.map { key in
                let name = String(key.dropLast(".file".count))
                return PictureFixture(
                    name: name,
                    file: try fixtures.bytes(key),
                    image: try fixtures.image(name + ".rgb")
                )
            }
        } catch {
            Issue.record("\(error)")
            return []
        }
    }()

    /// Files that are read.
    static var readable: [PictureFixture] { all.filter { $0.image != nil } }

    /// The file of this name.
    static func named(_ name: String) throws -> PictureFixture {
        try #require(all.first { $0.name == name })
    }
}

extension FixtureBytes {
    /// The picture in a tensor `[height, width, 3]`; nil where there is none of this name.
    func image(_ name: String) throws -> PixelImage? {
        guard names.contains(name) else { return nil }
        let shape = try shape(name)
        return try PixelImage(width: shape[1], height: shape[0], rgb: bytes(name))
    }
}
