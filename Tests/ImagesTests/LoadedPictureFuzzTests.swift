import TestSupport
import Testing

@testable import Images

/// What became of a series of damaged files.
private struct Tally {
    var readableCount = 0
    var reasons: Set<String> = []

    /// Reads a damaged file; any other end than a picture or a typed error ends the process.
    mutating func add(_ bytes: [UInt8]) {
        do throws(ImageError) {
            let picture = try LoadedPicture(bytes)
            readableCount += 1
            // What a decoder leaves out would differ.
            #expect(try LoadedPicture(bytes) == picture)
        } catch {
            switch error {
            case .damaged(nil, _, let reason): reasons.insert(reason)
            case .unsupported, .unknownFormat: break
            default: Issue.record("\(error)")
            }
        }
    }

    /// The damage is to be neither always fatal nor always the same.
    func check(leastReasonCount: Int) {
        #expect(readableCount > 0 && readableCount < mutationCount)
        #expect(reasons.count >= leastReasonCount, "\(reasons.sorted())")
    }
}

struct LoadedPictureFuzzTests {
    @Test func survivesDamagedPNGFiles() throws {
        let originals = try PictureFixture.readable.filter { $0.format == .png }
            .map { try #require(PNGFile($0.file)) }
        var mutator = PNGMutator(random: SeededGenerator(seed: 21))
        var tally = Tally()
        for index in 0..<mutationCount {
            tally.add(mutator.next(originals[index % originals.count]))
        }
        tally.check(leastReasonCount: 20)
    }

    @Test(arguments: [PictureFormat.jpeg, .webp])
    func survivesDamagedFiles(_ format: PictureFormat) throws {
        let originals = PictureFixture.readable.filter { $0.format == format }.map(\.file)
        var random = SeededGenerator(seed: 22)
        var tally = Tally()
        for index in 0..<mutationCount {
            var bytes = originals[index % originals.count]
            bytes.damage(&random)
            tally.add(bytes)
        }
        tally.check(leastReasonCount: format == .jpeg ? 10 : 2)
    }

    @Test func survivesAnySizes() throws {
        // Sizes by chance are mostly refused for their number of pixels, so these are small.
        let jpeg = try PictureFixture.named("jpeg-420").file
        let frame = try #require(jpeg.firstRange(of: [0xFF, 0xC0, 0, 17])).upperBound
        var random = SeededGenerator(seed: 23)
        for _ in 0..<mutationCount / 10 {
            var bytes = jpeg
            for (place, limit) in [(frame + 1, 4), (frame + 2, 256), (frame + 4, 256)] {
                bytes[place] = UInt8(Int.random(in: 0..<limit, using: &random))
            }
            var tally = Tally()
            tally.add(bytes)
        }
    }
}
