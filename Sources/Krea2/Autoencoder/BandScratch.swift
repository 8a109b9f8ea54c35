import Compute
import Tensors

/// Rows that a stage keeps from one band for the next.
struct RowCarry: Sendable {
    /// `[2, width, inputChannels]` of the first convolution's input.
    let input: Tensor
    /// `[2, width, outputChannels]` of the second convolution's input, where there are two.
    let inner: Tensor?
}

/// Buffers of stages that run in bands of rows, and the order in which rows are made.
struct BandScratch {
    /// Sizes of the stages.
    let stages: [RowStage]
    /// Rows of every band.
    let schedule: BandSchedule
    /// What each stage but the first keeps between bands.
    let carries: [RowCarry]
    /// Input and output of a stage, in turn; flat.
    let windows: (Tensor, Tensor)
    /// The inputs of a stage's convolutions after their norms; flat.
    let normed: (Tensor, Tensor)
}

extension BandScratch {
    /// Computes the next rows of every stage.
    ///
    /// - Parameters:
    ///   - band: One of the schedule's, in their order.
    ///   - weights: Those of the stages.
    ///   - source: Rows that the first stage reads, if it has anything to do.
    ///   - target: Rows that the last stage makes: `[rows, width, channels]`.
    ///   - operators: Arithmetic.
    func run(
        _ band: [StageBand?],
        _ weights: [RowStageWeights],
        from source: ImageRows,
        into target: Tensor,
        _ operators: Operators
    ) {
        for (index, stage) in stages.enumerated() {
            guard let rows = band[index] else { continue }
            let carry = index > 0 ? carries[index - 1] : nil
            let window = carry == nil ? source : window(index, rows)
            if let carry { rows.outer.restore(window.tensor, from: carry.input) }
            let output = output(index, band) ?? target
            switch weights[index] {
            case .residual(let block):
                block.forward(
                    window,
                    rows,
                    normed: normed,
                    innerCarry: carry?.inner,
                    operators,
                    into: output
                )
            case .convolution(let convolution):
                operators.convolution(
                    window.readable(by: convolution, in: normed.0, operators),
                    convolution,
                    upsampling: stage.upsampling,
                    stride: stage.stride,
                    rows: rows.output,
                    into: output
                )
            case .output(let layer):
                layer.forward(window, rows: rows.output, normed: normed.0, operators, into: output)
            }
            if let carry { rows.outer.keep(window.tensor, in: carry.input) }
        }
    }

    /// The rows that a stage other than the first reads; those made last are in place.
    private func window(_ index: Int, _ rows: StageBand) -> ImageRows {
        let (stage, input) = (stages[index], rows.outer.input)
        let buffer = index.isMultiple(of: 2) ? windows.0 : windows.1
        return ImageRows(
            buffer.start([input.count, stage.width, stage.inputChannels]),
            firstRow: input.lowerBound,
            imageHeight: stage.height
        )
    }

    /// Where a stage other than the last writes: behind the rows that the next stage has kept.
    private func output(_ index: Int, _ band: [StageBand?]) -> Tensor? {
        guard index + 1 < stages.count, let rows = band[index], let next = band[index + 1] else {
            return nil
        }
        let known = next.outer.known.count
        return window(index + 1, next).tensor.rows(known..<known + rows.output.count)
    }
}

extension OutputLayer {
    /// Runs the layer on some rows.
    ///
    /// - Parameters:
    ///   - x: The rows that the output reads.
    ///   - rows: Output rows to compute.
    ///   - normed: At least as many elements as x.
    ///   - operators: Arithmetic.
    ///   - y: `[rows, width, outputChannels]`; must not overlap the others.
    func forward(
        _ x: ImageRows,
        rows: Range<Int>,
        normed: Tensor,
        _ operators: Operators,
        into y: Tensor
    ) {
        let normed = normed.start(x.tensor.shape, as: convolution.inputType)
        operators.channelNorm(x.tensor, gamma: norm, silu: true, into: normed)
        operators.convolution(
            ImageRows(normed, firstRow: x.firstRow, imageHeight: x.imageHeight),
            convolution,
            rows: rows,
            into: y
        )
    }
}

extension ImageRows {
    /// The same rows in the element type that a convolution reads.
    fileprivate func readable(
        by weights: ConvolutionWeights,
        in buffer: Tensor,
        _ operators: Operators
    ) -> ImageRows {
        guard weights.inputType != tensor.elementType else { return self }
        let copy = buffer.start(tensor.shape, as: weights.inputType)
        operators.narrow(tensor, into: copy)
        return ImageRows(copy, firstRow: firstRow, imageHeight: imageHeight)
    }
}

extension RowBand {
    /// Puts the rows that the band before has kept in front of the fresh ones.
    ///
    /// - Parameters:
    ///   - window: The rows `input`.
    ///   - carry: Where they were kept.
    func restore(_ window: Tensor, from carry: Tensor) {
        window.rows(0..<known.count).copy(from: carry.rows(0..<known.count))
    }

    /// Keeps the last rows for the next band.
    ///
    /// - Parameters:
    ///   - window: The rows `input`.
    ///   - carry: At least two rows.
    func keep(_ window: Tensor, in carry: Tensor) {
        let first = kept.lowerBound - input.lowerBound
        carry.rows(0..<kept.count).copy(from: window.rows(first..<first + kept.count))
    }
}
