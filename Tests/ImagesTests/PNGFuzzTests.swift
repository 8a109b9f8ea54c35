import TestSupport
import Testing

@testable import Images

/// Damages PNG files in seeded random ways, chunk by chunk.
struct PNGMutator {
    var random: SeededGenerator

    /// A file with every kind of text, before and after the picture.
    static let texts = PNGFile([
        .header(width: 3, height: 2), .init(type: "sRGB", data: [0]),
        .text("parameters", Array("a fox\nSteps: 8, Seed: 1".utf8)),
        .compressedText("Comment", zlib: zlibStored(Array("some compressed text".utf8))),
        .internationalText("krea2", Array(#"{"formatVersion":1,"prompt":"狐"}"#.utf8)),
        .picture([UInt8](repeating: 0, count: 20)),
        .internationalText("later", zlibStored(Array("später".utf8)), isCompressed: true),
        .compressedText("bomb", zlib: zlibBomb(count: 20)), .end,
    ])

    /// Texts of 26 kB, 129 kB and, which is too much, 9 MB.
    private static let bombs = [100, 500, 35_000].map {
        PNGFile.Chunk.compressedText("bomb", zlib: zlibBomb(count: $0))
    }

    /// One damaged file.
    mutating func next(_ original: PNGFile) -> [UInt8] {
        var file = original
        for _ in 0..<Int.random(in: 1...3, using: &random) { damageChunk(&file) }
        var bytes = file.bytes
        // Most files keep right CRCs, so that the damage reaches the readers of the chunks.
        if Int.random(in: 0..<3, using: &random) == 0 { bytes.damage(&random) }
        return bytes
    }

    private mutating func damageChunk(_ file: inout PNGFile) {
        guard !file.chunks.isEmpty else { return }
        let index = Int.random(in: 0..<file.chunks.count, using: &random)
        let other = Int.random(in: 0..<file.chunks.count, using: &random)
        switch Int.random(in: 0..<12, using: &random) {
        case 0: file.chunks.remove(at: index)
        case 1: file.chunks.insert(file.chunks[index], at: other)
        case 2: file.chunks.swapAt(index, other)
        case 3: file.chunks[index].data = file.chunks[other].data
        case 4:
            let types = [
                "IHDR", "PLTE", "tRNS", "IDAT", "IEND", "tEXt", "zTXt", "iTXt", "iCCP", "eXIf",
                "zzzz",
            ]
            file.chunks[index].type = types.randomElement(using: &random) ?? "tEXt"
        case 5:
            guard let bomb = Self.bombs.randomElement(using: &random) else { return }
            file.chunks[index] = bomb
        default: file.chunks[index].data.damage(&random)
        }
    }
}

struct PNGFuzzTests {
    /// Any other end than a typed error ends the process.
    @Test func endsInTypedErrorsOnly() throws {
        var mutator = PNGMutator(random: SeededGenerator(seed: 20))
        var readable = 0
        var reasons: Set<String> = []
        for _ in 0..<mutationCount {
            let bytes = mutator.next(PNGMutator.texts)
            do throws(ImageError) {
                let description = try PNG.readText(bytes)
                readable += 1
                #expect(description.width > 0 && description.texts.count <= 250)
                _ = try? description.record()
            } catch .damaged(nil, .png, let reason) {
                reasons.insert(reason)
            } catch {
                Issue.record("\(error)")
            }
            do throws(ImageError) {
                _ = try PNG.decode(bytes)
            } catch {
                switch error {
                case .damaged, .unsupported: break
                default: Issue.record("\(error)")
                }
            }
        }
        // The damage is neither always fatal nor always the same.
        #expect(readable > mutationCount / 10 && readable < mutationCount)
        #expect(reasons.count > 20, "\(reasons.sorted())")
    }
}
