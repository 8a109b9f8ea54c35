import Compute
import Tensors

/// Matrices of one size in a block of the transformer.
struct BlockMatrices {
    /// Names of the matrices in the block.
    let names: [String]
    /// Length of an input row and of an output row.
    let k, columns: Int

    /// All matrices of one block of the 12 B model.
    static let all = [
        BlockMatrices(names: ["q", "gate", "out"], k: 6144, columns: 6144),
        BlockMatrices(names: ["k", "v"], k: 6144, columns: 1536),
        BlockMatrices(names: ["up", "feed-forward gate"], k: 6144, columns: 16384),
        BlockMatrices(names: ["down"], k: 16384, columns: 6144),
    ]

    /// Floating-point operations of one matrix with `rows` tokens.
    func operations(_ rows: Int) -> Double { 2 * Double(rows) * Double(k) * Double(columns) }
}

/// Compares our `linear` with OpenBLAS for every matrix of a block and for the whole block.
///
/// OpenBLAS gets the same weights as float32, which is not timed; it reads no other type.
func compareLinear(_ operators: Operators, rows: Int, type: ElementType, repetitions: Int) {
    print("linear, \(rows) rows, \(type.rawValue) weights")
    var (total, blockSeconds) = (0.0, [0.0, 0.0])
    for matrices in BlockMatrices.all {
        let seconds = compare(operators, matrices, rows, type, repetitions)
        let name =
            "  \(matrices.names.joined(separator: ", ")) \(matrices.k) -> \(matrices.columns)"
        report(name, seconds.map { matrices.operations(rows) / $0 })
        total += Double(matrices.names.count) * matrices.operations(rows)
        for i in 0..<2 { blockSeconds[i] += Double(matrices.names.count) * seconds[i] }
    }
    report("  all of a block", blockSeconds.map { total / $0 })
}

/// One line: our operations per second and those of OpenBLAS.
private func report(_ name: String, _ speeds: [Double]) {
    let ours = (speeds[0] * 1e-9).text(8)
    let theirs = (speeds[1] * 1e-9).text(6)
    let ratio = (speeds[0] / speeds[1]).text(5, digits: 3)
    print("\(name.padded(42)) \(ours) GFLOP/s, OpenBLAS \(theirs) GFLOP/s, ratio \(ratio)")
}

private func compare(
    _ operators: Operators,
    _ matrices: BlockMatrices,
    _ rows: Int,
    _ type: ElementType,
    _ repetitions: Int
) -> [Double] {
    let (x, ours, theirs) = (
        randomTensor([rows, matrices.k]), Tensor(zeros: [rows, matrices.columns]),
        Tensor(zeros: [rows, matrices.columns])
    )
    let (weight, wide) = randomWeight(matrices.columns, matrices.k, type)
    let seconds = medianSeconds(
        repetitions,
        [
            { operators.linear(x, WeightMatrix(weight), into: ours) },
            { OpenBLAS.linear(x, wide, into: theirs) },
        ]
    )
    var (difference, size) = (0.0, 0.0)
    for i in 0..<ours.count {
        let (a, b) = (Double(ours.floats[i]), Double(theirs.floats[i]))
        (difference, size) = (difference + (a - b) * (a - b), size + b * b)
    }
    let error = (difference / size).squareRoot()
    if !(error < 1e-5) { fail("the results differ by \(error)") }
    return seconds
}

/// A tensor of numbers between −1 and 1.
private func randomTensor(_ shape: [Int]) -> Tensor {
    let tensor = Tensor(zeros: shape)
    var noise = Noise()
    let floats = tensor.floats
    for i in 0..<tensor.count { floats[i] = noise.next() }
    return tensor
}

/// A weight of a given type, float32 or bfloat16, and the same numbers as float32.
private func randomWeight(
    _ columns: Int,
    _ k: Int,
    _ type: ElementType
) -> (weight: Tensor, wide: Tensor) {
    let wide = randomTensor([columns, k])
    guard type == .bfloat16 else { return (wide, wide) }
    let storage = Storage(byteCount: 2 * wide.count)
    let weight = Tensor(storage, byteOffset: 0, shape: wide.shape, elementType: type)
    let (floats, halves) = (wide.floats, weight.address.assumingMemoryBound(to: UInt16.self))
    for i in 0..<wide.count {
        halves[i] = UInt16(truncatingIfNeeded: floats[i].bitPattern >> 16)
        floats[i] = Float(bitPattern: UInt32(halves[i]) << 16)
    }
    return (weight, wide)
}
