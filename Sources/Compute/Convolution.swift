import CKernels
package import Tensors

/// A 3×3 convolution's weights, packed for the kernels that will run it.
package struct ConvolutionWeights: Sendable {
    /// Input channels.
    package let inputChannels: Int
    /// Output channels.
    package let outputChannels: Int
    /// Element type of the pixels it reads: float32 or bfloat16.
    package let inputType: ElementType
    let packed: Tensor
    let bias: Tensor

    /// Packs a kernel.
    ///
    /// - Parameters:
    ///   - kernel: `[output, 3, 3, input]`, float32.
    ///   - bias: `[output]`, float32.
    ///   - operators: Owner of the kernels that will run it.
    package init(_ kernel: Tensor, bias: Tensor, for operators: Operators) {
        precondition(kernel.shape.count == 4 && kernel.shape[1] == 3 && kernel.shape[2] == 3)
        precondition(bias.count == kernel.shape[0])
        inputChannels = kernel.shape[3]
        outputChannels = kernel.shape[0]
        self.bias = bias
        inputType = operators.pixelType(channels: inputChannels)
        let (outputs, k) = (kernel.shape[0], kernel.rowCount)
        func padded(_ panel: Int) -> Int { (outputs + panel - 1) / panel * panel }
        if inputType == .bfloat16, let pairs = operators.table.pairs?.pointee {
            // Two halves in the place of a float.
            packed = Tensor(zeros: [padded(pairs.channel_panel), k / 2])
            let lanes = packed.address.assumingMemoryBound(to: UInt32.self)
            pairs.pack_weights(lanes, kernel.floats, outputs, k)
        } else {
            let panel = operators.table.products(.float32).column_panel
            packed = Tensor(zeros: [padded(panel), k])
            operators.table.pack_weights(packed.floats, kernel.floats, outputs, k)
        }
    }
}

extension Operators {
    /// Element type of the pixels that convolutions over `channels` channels read.
    ///
    /// Kernels in bfloat16 take two channels at a time.
    package func pixelType(channels: Int) -> ElementType {
        policy != .float32 && table.pairs != nil && channels.isMultiple(of: 2)
            ? .bfloat16 : .float32
    }
}

/// Some consecutive rows of an image, channels last.
package struct ImageRows: Sendable {
    /// `[rows, width, channels]`, float32 or bfloat16.
    package let tensor: Tensor
    /// Row of the image that comes first.
    package let firstRow: Int
    /// Rows of the whole image.
    package let imageHeight: Int

    /// Places `tensor` in an image.
    package init(_ tensor: Tensor, firstRow: Int, imageHeight: Int) {
        precondition(tensor.shape.count == 3 && firstRow + tensor.rows <= imageHeight)
        self.tensor = tensor
        self.firstRow = firstRow
        self.imageHeight = imageHeight
    }
}

/// What becomes of a convolution's pixels.
package enum ConvolutionResult: Sendable {
    /// They replace those of y, float32.
    case pixels
    /// They are added to those of y, float32.
    case sum
    /// They are scaled to length √channels, times gamma `[channels]`, and passed through silu; y has
    /// the type that the next convolution reads.
    case normed(gamma: Tensor)
}

extension Operators {
    /// 3×3 convolution with one pixel of zero padding, optionally after nearest upsampling, or to
    /// half the size.
    ///
    /// - Parameters:
    ///   - source: The rows that the output reads, of the weights' `inputType`; rows outside the
    ///     image count as zero.
    ///   - weights: The packed kernel.
    ///   - upsampling: 1, or 2 to double the source by repeating pixels first.
    ///   - stride: 1; or 2, without upsampling: output row r then reads rows 2r to 2r + 2, so the
    ///     padding is at the bottom and, of columns, on the right.
    ///   - rows: Output rows to compute, counted in the output image.
    ///   - y: `[rows, width · upsampling / stride, outputChannels]`; must not overlap the source.
    ///   - result: What becomes of the pixels.
    package func convolution(
        _ source: ImageRows,
        _ weights: ConvolutionWeights,
        upsampling: Int = 1,
        stride: Int = 1,
        rows: Range<Int>,
        into y: Tensor,
        _ result: ConvolutionResult = .pixels
    ) {
        precondition(stride == 1 || (stride == 2 && upsampling == 1))
        let width = source.tensor.shape[1]
        let outputWidth = width * upsampling / stride
        let needed =
            max(
                0,
                (rows.lowerBound * stride + stride - 2) / upsampling
            )..<min(source.imageHeight, rows.upperBound * stride / upsampling + 1)
        precondition(source.firstRow <= needed.lowerBound || rows.isEmpty)
        precondition(source.firstRow + source.tensor.rows >= needed.upperBound || rows.isEmpty)
        precondition(source.tensor.shape[2] == weights.inputChannels)
        precondition(source.tensor.elementType == weights.inputType)
        precondition(y.shape == [rows.count, outputWidth, weights.outputChannels])

        let image = convolved_image(
            first_row: source.firstRow,
            row_count: source.tensor.rows,
            height: source.imageHeight,
            width: width,
            channels: weights.inputChannels,
            upsampling: upsampling,
            stride: stride
        )
        let pixels = rows.count * outputWidth
        let start = rows.lowerBound * outputWidth
        let block = Int(convolution_pixels)
        parallelTasks((pixels + block - 1) / block) { index, worker in
            let range = index * block..<min((index + 1) * block, pixels)
            if weights.inputType == .bfloat16 {
                convolvePairs(source, image, weights, start, range, y, result, workspace(worker))
            } else {
                convolve(source, image, weights, start, range, y, result, workspace(worker))
            }
        }
    }

    /// Pixels `range` of the output in float32.
    private func convolve(
        _ source: ImageRows,
        _ image: convolved_image,
        _ weights: ConvolutionWeights,
        _ start: Int,
        _ range: Range<Int>,
        _ y: Tensor,
        _ result: ConvolutionResult,
        _ workspace: Workspace
    ) {
        let columns = weights.outputChannels
        let target: UnsafeMutablePointer<Float>
        var accumulate = false
        switch result {
        case .pixels: target = y.floats + range.lowerBound * columns
        case .sum: (target, accumulate) = (y.floats + range.lowerBound * columns, true)
        case .normed: target = workspace.sums.0
        }
        var task = convolution_task(
            y: target,
            first_pixel: start + range.lowerBound,
            count: range.count,
            source: UnsafePointer(source.tensor.floats),
            image: image,
            w: UnsafePointer(weights.packed.floats),
            columns: columns,
            bias: UnsafePointer(weights.bias.floats),
            accumulate: accumulate
        )
        table.convolve(&task, workspace.floats)
        guard case .normed(let gamma) = result else { return }
        for (index, pixel) in range.enumerated() {
            finishPixel(
                target + index * columns,
                gamma: gamma,
                silu: true,
                into: y,
                at: pixel * columns
            )
        }
    }

    /// Pixels `range` of the output in bfloat16, with sums in float32.
    private func convolvePairs(
        _ source: ImageRows,
        _ image: convolved_image,
        _ weights: ConvolutionWeights,
        _ start: Int,
        _ range: Range<Int>,
        _ y: Tensor,
        _ result: ConvolutionResult,
        _ workspace: Workspace
    ) {
        guard let pairs = table.pairs?.pointee else { return }
        let (columns, panel) = (weights.outputChannels, pairs.channel_panel)
        let stride = (columns + panel - 1) / panel * panel
        var task = pair_convolution_task(
            sums: workspace.sums.0,
            first_pixel: start + range.lowerBound,
            count: range.count,
            source: UnsafePointer(source.tensor.address.assumingMemoryBound(to: UInt16.self)),
            image: image,
            w: UnsafePointer(weights.packed.address.assumingMemoryBound(to: UInt32.self)),
            columns: columns
        )
        pairs.convolve(&task, workspace.lanes)
        for (index, pixel) in range.enumerated() {
            let sums = workspace.sums.0 + index * stride
            table.gated_add(sums, weights.bias.floats, nil, 1, columns)
            switch result {
            case .pixels: (y.floats + pixel * columns).update(from: sums, count: columns)
            case .sum: table.gated_add(y.floats + pixel * columns, sums, nil, 1, columns)
            case .normed(let gamma):
                finishPixel(sums, gamma: gamma, silu: true, into: y, at: pixel * columns)
            }
        }
    }
}
