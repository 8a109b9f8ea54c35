import CKernels
package import Tensors

/// A 3×3 convolution's weights, packed for the kernels that will run it.
package struct ConvolutionWeights: Sendable {
    /// Input channels.
    package let inputChannels: Int
    /// Output channels.
    package let outputChannels: Int
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
        let panel = operators.table.column_panel
        let columns = (outputChannels + panel - 1) / panel * panel
        packed = Tensor(zeros: [columns, kernel.rowCount])
        operators.table.pack_weights(
            packed.floats,
            UnsafeRawPointer(kernel.address),
            kernel.kernelType,
            kernel.rowCount,
            outputChannels,
            kernel.rowCount
        )
        self.bias = bias
    }
}

/// Some consecutive rows of an image, channels last.
package struct ImageRows: Sendable {
    /// `[rows, width, channels]`, float32.
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

extension Operators {
    /// 3×3 convolution with one pixel of zero padding, optionally after nearest upsampling.
    ///
    /// - Parameters:
    ///   - source: The rows that the output reads; rows outside the image count as zero.
    ///   - weights: The packed kernel.
    ///   - upsampling: 1, or 2 to double the source by repeating pixels first.
    ///   - rows: Output rows to compute, counted in the output image.
    ///   - y: `[rows, width · upsampling, outputChannels]`; must not overlap the source.
    ///   - adding: Whether to add to y instead of overwriting it.
    package func convolution(
        _ source: ImageRows,
        _ weights: ConvolutionWeights,
        upsampling: Int = 1,
        rows: Range<Int>,
        into y: Tensor,
        adding: Bool = false
    ) {
        let width = source.tensor.shape[1]
        let needed =
            max(
                0,
                (rows.lowerBound - 1) / upsampling
            )..<min(source.imageHeight, rows.upperBound / upsampling + 1)
        precondition(source.firstRow <= needed.lowerBound || rows.isEmpty)
        precondition(source.firstRow + source.tensor.rows >= needed.upperBound || rows.isEmpty)
        precondition(source.tensor.shape[2] == weights.inputChannels)
        precondition(y.shape == [rows.count, width * upsampling, weights.outputChannels])

        let pixels = rows.count * width * upsampling
        let block = convolution_pixels
        parallelTasks((pixels + block - 1) / block) { index, worker in
            let first = index * block
            var task = convolution_task(
                y: y.floats + first * weights.outputChannels,
                first_pixel: rows.lowerBound * width * upsampling + first,
                count: min(block, pixels - first),
                source: UnsafePointer(source.tensor.floats),
                first_row: source.firstRow,
                row_count: source.tensor.rows,
                height: source.imageHeight,
                width: width,
                channels: weights.inputChannels,
                upsampling: upsampling,
                w: UnsafePointer(weights.packed.floats),
                columns: weights.outputChannels,
                bias: UnsafePointer(weights.bias.floats),
                accumulate: adding
            )
            table.convolve(&task, workspace(worker))
        }
    }
}
