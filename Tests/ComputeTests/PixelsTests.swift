import Tensors
import TestSupport
import Testing

@testable import Compute

/// Operators on planes, pixels and bytes.
struct PixelsTests {
    private let operators = Operators(threads: 2)

    @Test func scalesPlanes() {
        let x = Tensor([1, 2, 3, 4, 5, 6], shape: [2, 1, 3])
        let factor = Tensor([2, -1], shape: [2])
        let offset = Tensor([0.5, 10], shape: [2])
        operators.scalePlanes(x, by: factor, plus: offset, into: x)
        #expect(x.elements == [2.5, 4.5, 6.5, 6, 5, 4])
    }

    @Test func movesChannelsLastAndBack() {
        let (channels, height, width) = (3, 50, 41)
        let count = channels * height * width
        let planes = Tensor((0..<count).map(Float.init), shape: [channels, height, width])
        let pixels = Tensor(zeros: [height, width, channels])
        operators.channelsLast(planes, into: pixels)
        let expected = (0..<count).map { Float($0 % channels * height * width + $0 / channels) }
        #expect(pixels.elements == expected)

        let back = Tensor(zeros: [channels, height, width])
        for rows in [0..<7, 7..<8, 8..<50] {
            ImageRows(pixels.rows(rows), firstRow: rows.lowerBound, imageHeight: height)
                .copy(toPlanes: back)
        }
        #expect(back.elements == planes.elements)
    }

    @Test func clamps() {
        let x = Tensor([-2, -1, -0.5, 0, 1, 1.5], shape: [6])
        operators.clampToUnit(x)
        #expect(x.elements == [-1, -1, -0.5, 0, 1, 1])
    }

    /// Halves go to the even byte; what is outside of -1 to 1 to the nearest end.
    @Test func roundsToBytes() {
        let wanted: [Float] = [0, 0.25, 0.75, 1, 126.5, 127.5, 128.5, 200.5, 254.75, 255, 300, -20]
        let x = Tensor(wanted.map { $0 / 255 * 2 - 1 }, shape: [1, 4, 3])
        var bytes = [UInt8](repeating: 77, count: 36)
        ImageRows(x, firstRow: 1, imageHeight: 3).copy(toBytes: &bytes)
        #expect(bytes[12..<24] == [0, 0, 1, 1, 126, 128, 128, 200, 255, 255, 255, 0])
        #expect(bytes[..<12].allSatisfy { $0 == 77 } && bytes[24...].allSatisfy { $0 == 77 })
    }
}
