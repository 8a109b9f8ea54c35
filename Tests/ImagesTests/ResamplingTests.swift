import TestSupport
import Testing

@testable import Images

struct ResamplingTests {
    @Test func agreesWithPIL() throws {
        let fixtures = try FixtureBytes("pictures/resampling.safetensors")
        var count = 0
        for name in fixtures.names {
            let parts = name.split(separator: ".").map(String.init)
            guard parts.count == 3 else { continue }
            let filter = try #require(ResamplingFilter(rawValue: parts[1]))
            let source = try #require(try fixtures.image(parts[0]))
            let expected = try #require(try fixtures.image(name))
            let image = try source.resized(
                width: expected.width,
                height: expected.height,
                filter: filter
            )
            #expect(largestDifference(image, expected) == 0, "\(name)")
            count += 1
        }
        #expect(count == 84)
    }

    @Test func leavesASizeAlone() throws {
        let image = try randomImage(width: 7, height: 5)
        for filter in ResamplingFilter.allCases {
            #expect(try image.resized(width: 7, height: 5, filter: filter) == image)
        }
    }

    @Test func keepsOneColour() throws {
        let image = try PixelImage(
            width: 9,
            height: 4,
            rgb: (0..<36).flatMap { _ in [UInt8(0), 255, 77] }
        )
        for (width, height) in [(1, 1), (3, 50), (64, 2), (1000, 1)] {
            for filter in ResamplingFilter.allCases {
                let result = try image.resized(width: width, height: height, filter: filter)
                let colors = (0..<width * height).map { Array(result.rgb[3 * $0..<3 * $0 + 3]) }
                #expect(Set(colors) == [[0, 255, 77]])
            }
        }
    }

    @Test(arguments: [(0, 1), (1, 0), (-1, 1), (16_385, 1), (16_384, 16_384), (Int.max, Int.max)])
    func refusesImpossibleSizes(width: Int, height: Int) throws {
        let image = try randomImage(width: 2, height: 2)
        #expect(throws: ImageError.self) { try image.resized(width: width, height: height) }
    }
}
