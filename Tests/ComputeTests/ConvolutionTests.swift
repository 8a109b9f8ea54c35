import Compute
import TestSupport
import Tensors
import Testing

/// One 3×3 convolution of a random image.
struct ConvolutionCase {
    var inputs: Int
    var outputs: Int
    var width: Int
    var height: Int
    var upsampling = 1
    var stride = 1
    var adding = false

    /// Channels around the vectors and the packed blocks, odd widths, doubled, as they are, halved.
    static let sweep: [ConvolutionCase] = {
        let channels = [1, 3, 5, 16, 33].flatMap { inputs in
            [1, 3, 5, 16, 33].map { (inputs, $0) }
        }
        return channels.enumerated().flatMap { index, channels in
            [(1, 1), (1, 5), (5, 1), (4, 3), (7, 5), (33, 7)].flatMap { width, height in
                [(1, 1), (2, 1), (1, 2)].filter { $1 == 1 || min(width, height) > 1 }.map {
                    ConvolutionCase(
                        inputs: channels.0,
                        outputs: channels.1,
                        width: width,
                        height: height,
                        upsampling: $0,
                        stride: $1,
                        adding: index & 1 == 1
                    )
                }
            }
        }
    }()

    var outputShape: [Int] {
        [height * upsampling / stride, width * upsampling / stride, outputs]
    }

    struct Arrays {
        let image: Tensor
        let kernel: Tensor
        let bias: Tensor
        let output: Tensor
    }

    func arrays() -> Arrays {
        var random = Random(UInt64((inputs * 100 + outputs) * 10000 + width * 100 + height))
        return Arrays(
            image: random.tensor(height, width, inputs),
            kernel: random.tensor(outputs, 3, 3, inputs),
            bias: random.tensor(outputs),
            output: random.tensor(outputShape[0], outputShape[1], outputs)
        )
    }

    func run(_ operators: Operators) -> Tensor {
        let arrays = arrays()
        operators.convolution(
            ImageRows(arrays.image, firstRow: 0, imageHeight: height),
            ConvolutionWeights(arrays.kernel, bias: arrays.bias, for: operators),
            upsampling: upsampling,
            stride: stride,
            rows: 0..<outputShape[0],
            into: arrays.output,
            adding ? .sum : .pixels
        )
        return arrays.output
    }

    /// The formula in float64.
    func direct() -> [Float] {
        let arrays = arrays()
        let (image, kernel) = (arrays.image.exactElements, arrays.kernel.exactElements)
        return (0..<arrays.output.count).map { i in
            let (column, row) = (i / outputs % outputShape[1], i / outputs / outputShape[1])
            var sum = Double(arrays.bias.floats[i % outputs])
            for tap in 0..<9 {
                // Padding on all sides, or at the bottom and on the right alone.
                let first = stride == 1 ? -1 : 0
                let (y, x) = (row * stride + first + tap / 3, column * stride + first + tap % 3)
                guard (0..<height * upsampling).contains(y), (0..<width * upsampling).contains(x)
                else { continue }
                let pixel = (y / upsampling * width + x / upsampling) * inputs
                let weight = (i % outputs * 9 + tap) * inputs
                for c in 0..<inputs { sum += image[pixel + c] * kernel[weight + c] }
            }
            return Float(sum + (adding ? Double(arrays.output.floats[i]) : 0))
        }
    }
}

struct ConvolutionTests {
    /// Observed at most 3.3e-7, with 297 terms.
    static let scalarLimit = 1.2e-6
    /// Observed at most 2.4e-7.
    static let levelLimit = 9e-7

    @Test func scalarAgreesWithFormula() throws {
        let scalar = try operators("scalar")
        for sizes in ConvolutionCase.sweep where sizes.width < 6 {
            let output = sizes.run(scalar).elements
            expectClose(output, sizes.direct(), limit: Self.scalarLimit, "\(sizes)")
        }
    }

    @Test(arguments: fastLevels)
    func agreesWithScalar(level: String) throws {
        let (scalar, fast) = (try operators("scalar"), try operators(level))
        for sizes in ConvolutionCase.sweep {
            let expected = sizes.run(scalar).elements
            expectClose(sizes.run(fast).elements, expected, limit: Self.levelLimit, "\(sizes)")
        }
    }

    @Test(arguments: allLevels, [(1, 1), (2, 1), (1, 2)])
    func rowsFromPartOfTheImageAreTheSame(level: String, scale: (Int, Int)) throws {
        let operators = try operators(level)
        let (upsampling, stride) = scale
        let sizes = ConvolutionCase(
            inputs: 5,
            outputs: 33,
            width: 13,
            height: 9,
            upsampling: upsampling,
            stride: stride
        )
        let (whole, arrays) = (sizes.run(operators), sizes.arrays())
        let weights = ConvolutionWeights(arrays.kernel, bias: arrays.bias, for: operators)
        for first in 0..<whole.rows {
            for end in first + 1...whole.rows {
                // Only the source rows that the output rows read.
                let before = stride == 1 ? 1 : 0
                let last = min(9 * upsampling - 1, end * stride) / upsampling
                let needed = max(0, first * stride - before) / upsampling...last
                let part = Tensor(guarded: [needed.count, 13, 5])
                part.copy(from: arrays.image.rows(Range(needed)))
                let output = Tensor(guarded: [end - first, 13 * upsampling / stride, 33])
                operators.convolution(
                    ImageRows(part, firstRow: needed.lowerBound, imageHeight: 9),
                    weights,
                    upsampling: upsampling,
                    stride: stride,
                    rows: first..<end,
                    into: output
                )
                expectIdentical(output, whole.rows(first..<end), "rows \(first)..<\(end)")
            }
        }
    }

    @Test(arguments: allLevels)
    func computesNoRows(level: String) throws {
        let sizes = ConvolutionCase(inputs: 3, outputs: 3, width: 5, height: 4)
        let (operators, arrays) = (try operators(level), sizes.arrays())
        operators.convolution(
            ImageRows(arrays.image.rows(1..<2), firstRow: 1, imageHeight: 4),
            ConvolutionWeights(arrays.kernel, bias: arrays.bias, for: operators),
            rows: 2..<2,
            into: arrays.output.rows(0..<0)
        )
        expectIdentical(arrays.output, sizes.arrays().output)
    }

    @Test(arguments: allLevels)
    func spreadsNaNToItsNeighbours(level: String) throws {
        let sizes = ConvolutionCase(inputs: 3, outputs: 5, width: 7, height: 6)
        let (operators, arrays) = (try operators(level), sizes.arrays())
        arrays.image.floats[(2 * 7 + 6) * 3 + 1] = .nan
        operators.convolution(
            ImageRows(arrays.image, firstRow: 0, imageHeight: 6),
            ConvolutionWeights(arrays.kernel, bias: arrays.bias, for: operators),
            rows: 0..<6,
            into: arrays.output
        )
        let spoiled = arrays.output.elements.map(\.isNaN)
        #expect(spoiled == (0..<210).map { (1...3).contains($0 / 35) && $0 % 35 >= 25 })
    }
}
