import Compute
import Tensors

/// Times attention of a 1024² image with its prompt: 48 heads of 128, 12 for keys and values.
func timeAttention(_ operators: Operators, tokens: Int, repetitions: Int) {
    let (query, key) = (randomTensor([tokens, 48 * 128]), randomTensor([tokens, 12 * 128]))
    let output = Tensor(zeros: query.shape)
    let seconds = medianSeconds(
        repetitions,
        [{ operators.attention(query, key, key, heads: 48, keyValueHeads: 12, into: output) }]
    )
    let operations = 4 * Double(tokens) * Double(tokens) * Double(query.rowCount)
    report("attention, \(tokens) tokens, 48/12 heads of 128", operations, seconds[0])
}

/// Times the autoencoder's widest convolutions: 96 channels, 64 rows of a 1024² image.
func timeConvolution(_ operators: Operators, upsampling: Int, repetitions: Int) {
    let (channels, width, rows) = (96, 1024, 64)
    let image = randomTensor([rows / upsampling + 2, width / upsampling, channels])
    let weights = ConvolutionWeights(
        randomTensor([channels, 3, 3, channels]),
        bias: randomTensor([channels]),
        for: operators
    )
    let source = ImageRows(image, firstRow: 0, imageHeight: image.rows)
    let output = Tensor(zeros: [rows, width, channels])
    let seconds = medianSeconds(
        repetitions,
        [
            {
                operators.convolution(
                    source,
                    weights,
                    upsampling: upsampling,
                    rows: 1..<rows + 1,
                    into: output
                )
            }
        ]
    )
    let operations = 2 * 9 * Double(channels * channels * output.count / channels)
    report("convolution 96 -> 96, upsampling \(upsampling)", operations, seconds[0])
}

private func report(_ name: String, _ operations: Double, _ seconds: Double) {
    print("\(name.padded(42)) \((operations / seconds * 1e-9).text(8)) GFLOP/s")
}
