import Compute
import Tensors

extension ResidualBlock {
    /// Runs the block on a whole image.
    ///
    /// - Parameters:
    ///   - x: `[height, width, inputChannels]`.
    ///   - buffers: At least as many elements as x and y.
    ///   - operators: Arithmetic.
    ///   - y: `[height, width, outputChannels]`; may be x where there is no shortcut.
    func forwardWhole(
        _ x: Tensor,
        _ buffers: (Tensor, Tensor),
        _ operators: Operators,
        into y: Tensor
    ) {
        let height = x.shape[0]
        let stage = RowStage(
            kind: .residual,
            inputChannels: x.shape[2],
            outputChannels: y.shape[2],
            height: height,
            width: x.shape[1]
        )
        forward(
            ImageRows(x, firstRow: 0, imageHeight: height),
            StageBand(stage, output: 0..<height),
            normed: buffers,
            innerCarry: nil,
            operators,
            into: y
        )
    }

    /// Runs the block on some rows: y = x + convolutions of x, x through the shortcut if any.
    ///
    /// - Parameters:
    ///   - x: The rows `rows.outer.input`: `[rows, width, inputChannels]`.
    ///   - rows: Rows to read and write.
    ///   - normed: Buffers for the inputs of the two convolutions.
    ///   - innerCarry: Rows between the convolutions that are kept for the next band; nil if there
    ///     is none.
    ///   - operators: Arithmetic.
    ///   - y: `[rows.output, width, outputChannels]`; may be x where it is the whole image and
    ///     there is no shortcut.
    func forward(
        _ x: ImageRows,
        _ rows: StageBand,
        normed: (Tensor, Tensor),
        innerCarry: Tensor?,
        _ operators: Operators,
        into y: Tensor
    ) {
        guard let second = rows.inner else { return }
        let (width, height) = (x.tensor.shape[1], x.imageHeight)
        let outputChannels = convolution2.outputChannels

        let first = normed.0.start(x.tensor.shape, as: convolution1.inputType)
        operators.channelNorm(x.tensor, gamma: norm1, silu: true, into: first)

        let innerType = convolution2.inputType
        let inner = normed.1.start([second.input.count, width, outputChannels], as: innerType)
        let carry = innerCarry.map { $0.start($0.shape, as: innerType) }
        if let carry { second.restore(inner, from: carry) }
        operators.convolution(
            ImageRows(first, firstRow: x.firstRow, imageHeight: height),
            convolution1,
            rows: second.fresh,
            into: inner.rows(second.known.count..<second.input.count),
            .normed(gamma: norm2)
        )
        if let carry { second.keep(inner, in: carry) }

        let start = rows.output.lowerBound - x.firstRow
        let passed = x.tensor.rows(start..<start + rows.output.count)
        if let shortcut {
            let pixels = rows.output.count * width
            operators.linear(
                passed.reshaped(pixels, convolution1.inputChannels),
                shortcut.weight,
                bias: shortcut.bias,
                into: y.reshaped(pixels, outputChannels)
            )
        } else if passed.storage !== y.storage || passed.byteOffset != y.byteOffset {
            y.copy(from: passed)
        }
        operators.convolution(
            ImageRows(inner, firstRow: second.input.lowerBound, imageHeight: height),
            convolution2,
            rows: rows.output,
            into: y,
            .sum
        )
    }
}

extension MiddleBlock {
    /// Runs the block on the stream.
    ///
    /// - Parameters:
    ///   - scratch: Has the stream, updated in place, and buffers.
    ///   - operators: Arithmetic.
    ///   - place: What `check` is told.
    ///   - config: Tells the costs.
    ///   - check: Called after each part.
    /// - Throws: What `check` throws.
    func forward(
        _ scratch: AutoencoderScratch,
        _ operators: Operators,
        _ place: String,
        _ config: AutoencoderConfig,
        _ check: AutoencoderCheck
    ) throws(GenerationError) {
        let x = scratch.stream
        let pixels = x.shape[0] * x.shape[1]
        before.forwardWhole(x, scratch.middle, operators, into: x)
        try check(x, place, config.residualMultiplications * Double(pixels))
        let cost = config.attentionMultiplications(pixels: pixels)
        try attention.forward(x, scratch, operators) { rows throws(GenerationError) in
            try check(rows, place, cost * Double(rows.rows))
        }
        after.forwardWhole(x, scratch.middle, operators, into: x)
        try check(x, place, config.residualMultiplications * Double(pixels))
    }
}

extension PixelAttention {
    /// Adds to every pixel what it reads from all pixels.
    ///
    /// - Parameters:
    ///   - x: `[height, width, channels]`, updated in place.
    ///   - scratch: Buffers.
    ///   - operators: Arithmetic.
    ///   - finished: Called with every group of pixels that is done: `[pixels, channels]`.
    /// - Throws: What `finished` throws.
    func forward(
        _ x: Tensor,
        _ scratch: AutoencoderScratch,
        _ operators: Operators,
        _ finished: (Tensor) throws(GenerationError) -> Void
    ) throws(GenerationError) {
        let (pixels, channels) = (x.shape[0] * x.shape[1], x.shape[2])
        let x = x.reshaped(pixels, channels)
        let type = operators.activations
        let keys = scratch.middle.0.start([pixels, channels], as: type)
        let values = scratch.middle.1.start([pixels, channels], as: type)
        let groupSize = scratch.queries.0.count / channels
        let groups = stride(from: 0, to: pixels, by: groupSize).map { first in
            first..<min(first + groupSize, pixels)
        }

        for rows in groups {
            let normed = scratch.queries.0.start([rows.count, channels])
            operators.channelNorm(x.rows(rows), gamma: norm, silu: false, into: normed)
            operators.linear(normed, key.weight, bias: key.bias, into: keys.rows(rows))
            operators.linear(normed, value.weight, bias: value.bias, into: values.rows(rows))
        }
        // Keys and values are complete, so a group's pixels may change after its queries are made.
        for rows in groups {
            let normed = scratch.queries.0.start([rows.count, channels])
            let queries = scratch.queries.1.start([rows.count, channels], as: type)
            operators.channelNorm(x.rows(rows), gamma: norm, silu: false, into: normed)
            operators.linear(normed, query.weight, bias: query.bias, into: queries)
            operators.attention(queries, keys, values, heads: 1, keyValueHeads: 1, into: queries)
            operators.linear(
                queries,
                projection.weight,
                bias: projection.bias,
                into: x.rows(rows),
                adding: true
            )
            try finished(x.rows(rows))
        }
    }
}
