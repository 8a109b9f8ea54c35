/// The input rows behind a band of output rows of a 3×3 convolution.
///
/// Bands come from top to bottom and leave out no row. Each input row is made once; the last ones
/// are kept for the next band.
struct RowBand: Sendable, Equatable {
    /// Output rows to compute; not empty.
    let output: Range<Int>
    /// Input rows that they read.
    let input: Range<Int>
    /// Input rows that no band before has read; the end of `input`.
    let fresh: Range<Int>
    /// Input rows that the next band reads again; the end of `input`, at most 2.
    let kept: Range<Int>

    /// Tells the rows.
    ///
    /// - Parameters:
    ///   - output: Output rows to compute.
    ///   - inputHeight: Rows of the whole input.
    ///   - upsampling: 1, or 2 where the convolution doubles its input first.
    ///   - stride: 1, or 2 where it halves its input; it then has no padding at the top.
    init(_ output: Range<Int>, inputHeight: Int, upsampling: Int = 1, stride: Int = 1) {
        func start(_ row: Int) -> Int { max(0, (row * stride + stride - 2) / upsampling) }
        func end(_ outputEnd: Int) -> Int {
            outputEnd == 0 ? 0 : min(inputHeight, outputEnd * stride / upsampling + 1)
        }
        let inputEnd = end(output.upperBound)
        self.output = output
        input = start(output.lowerBound)..<inputEnd
        fresh = end(output.lowerBound)..<inputEnd
        kept = start(output.upperBound)..<inputEnd
    }

    /// Input rows that the band before has kept.
    var known: Range<Int> { input.lowerBound..<fresh.lowerBound }

    /// Most rows that are kept.
    static let mostKept = 2
}

/// One stage of the part of the decoder or the encoder that runs in bands of rows.
struct RowStage: Sendable, Equatable {
    /// What the stage computes.
    enum Kind: Sendable {
        /// The encoder's first 3×3 convolution.
        case input
        /// A residual block: two 3×3 convolutions.
        case residual
        /// Doubling by nearest neighbour, then a 3×3 convolution.
        case upsampling
        /// A 3×3 convolution of every second row and column.
        case downsampling
        /// The decoder's last norm and 3×3 convolution.
        case output
    }

    /// What it computes.
    let kind: Kind
    /// Channels of its input.
    let inputChannels: Int
    /// Channels of its output.
    let outputChannels: Int
    /// Rows of its input.
    let height: Int
    /// Columns of its input.
    let width: Int

    /// Rows and columns of the output for one of the input.
    var upsampling: Int { kind == .upsampling ? 2 : 1 }
    /// Rows and columns of the input for one of the output.
    var stride: Int { kind == .downsampling ? 2 : 1 }
    /// Rows of its output.
    var outputHeight: Int { height * upsampling / stride }
    /// Columns of its output.
    var outputWidth: Int { width * upsampling / stride }

    /// Multiplications of the convolutions, for the whole picture.
    var multiplications: Double {
        let (input, output) = (Double(inputChannels), Double(outputChannels))
        let pixels = Double(outputHeight * outputWidth)
        let shortcut = inputChannels == outputChannels ? 0 : input * output
        return pixels
            * (kind == .residual
                ? 9 * input * output + 9 * output * output + shortcut : 9 * input * output)
    }
}

/// The rows that a stage reads and writes in one band.
struct StageBand: Sendable, Equatable {
    /// Rows of the first convolution.
    let outer: RowBand
    /// Rows of the second convolution, where there are two.
    let inner: RowBand?

    /// Tells the rows that `stage` needs for rows `output` of its output.
    init(_ stage: RowStage, output: Range<Int>) {
        guard stage.kind == .residual else {
            outer = RowBand(
                output,
                inputHeight: stage.height,
                upsampling: stage.upsampling,
                stride: stage.stride
            )
            inner = nil
            return
        }
        let second = RowBand(output, inputHeight: stage.height)
        outer = RowBand(second.fresh, inputHeight: stage.height)
        inner = second
    }

    /// Rows of the stage's output.
    var output: Range<Int> { inner?.output ?? outer.output }
}

/// Which rows each stage computes in each band.
struct BandSchedule: Sendable, Equatable {
    /// For each band, for each stage: its rows, nil where it has nothing to do.
    let bands: [[StageBand?]]

    /// Goes through the picture from top to bottom.
    ///
    /// - Parameters:
    ///   - stages: In the order of computation; each one's output is the next one's input.
    ///   - bandRows: Rows of the last stage's output in each band but the last; 1 or more.
    init(_ stages: [RowStage], bandRows: Int) {
        var done = stages.map { _ in 0 }
        let height = stages.last?.outputHeight ?? 0
        bands = stride(from: 0, to: height, by: bandRows).map { first in
            var end = min(first + bandRows, height)
            var band: [StageBand?] = []
            for (index, stage) in stages.enumerated().reversed() {
                guard end > done[index] else {
                    band.append(nil)
                    // The input is as far as this stage's last band needed.
                    end = index > 0 ? done[index - 1] : 0
                    continue
                }
                let rows = StageBand(stage, output: done[index]..<end)
                done[index] = end
                end = rows.outer.input.upperBound
                band.append(rows)
            }
            return band.reversed()
        }
    }
}
