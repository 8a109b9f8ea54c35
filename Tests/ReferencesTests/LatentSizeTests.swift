import Images
import Testing

@testable import References

struct LatentSizeTests {
    private func size(
        _ width: Int,
        _ height: Int,
        side: Int = 512,
        limit: (width: Int, height: Int)? = nil
    ) throws -> [Int] {
        let size = try LatentSize(width: width, height: height, side: side, limit: limit)
        return [size.width, size.height]
    }

    @Test func keepsAspectAndArea() throws {
        #expect(try size(512, 512) == [512, 512])
        #expect(try size(1024, 1024) == [512, 512])
        #expect(try size(1000, 1000) == [512, 512])
        #expect(try size(3000, 2000) == [624, 416])
        #expect(try size(2000, 3000, side: 1024) == [832, 1248])
        // Smaller ones keep their size, but for the rounding.
        #expect(try size(100, 95) == [96, 80])
        #expect(try size(1024, 1024, side: 1024) == [1024, 1024])
    }

    @Test func staysInsideTheLimit() throws {
        #expect(try size(512, 512, limit: (256, 512)) == [256, 256])
        #expect(try size(400, 300, limit: (1024, 160)) == [208, 160])
        #expect(try size(4000, 100, limit: (512, 512)) == [512, 64])
    }

    @Test(arguments: [192, 512, 1024])
    func sidesAreOfUse(_ side: Int) throws {
        for width in [28, 29, 63, 64, 65, 500, 511, 513, 4097, 16384] {
            for height in [28, 47, 64, 333, 1024, 16384] {
                let (size, turned) = (
                    try size(width, height, side: side), try size(height, width, side: side)
                )
                #expect(size.allSatisfy { $0.isMultiple(of: 16) && (64...4096).contains($0) })
                #expect(size[0] * size[1] <= side * side)
                #expect(turned == size.reversed())
            }
        }
    }

    @Test func refusesSlivers() {
        #expect(throws: ImageError.tooSmall(width: 27, height: 99, shortestSide: 28)) {
            try LatentSize(width: 27, height: 99, side: 512)
        }
    }

    @Test func longestSidesAreCutDown() throws {
        func size(_ width: Int, _ height: Int) throws -> [Int] {
            let rgb = [UInt8](repeating: 0, count: 3 * width * height)
            let image = try PixelImage(width: width, height: height, rgb: rgb)
            let size = try ReferenceSize(image, longest: 768)
            return [size.width, size.height]
        }
        #expect(try size(768, 500) == [768, 512])
        #expect(try size(1536, 1000) == [768, 512])
        #expect(try size(300, 1537) == [160, 768])
        #expect(try size(40, 30) == [64, 64])
        #expect(try size(3000, 30) == [768, 64])
        #expect(throws: ImageError.self) { try size(27, 99) }
    }
}
