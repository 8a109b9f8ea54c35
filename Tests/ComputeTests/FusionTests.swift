import CKernels
import TestSupport
import Tensors
import Testing

@testable import Compute

/// Layers whose input is prepared and whose products are finished on the way, against the same steps
/// one after the other.
struct FusionTests {
    private static let levels = ["scalar", "generic", "avx2", "avx512"]

    private struct Inputs {
        let x: Tensor
        let gate: Tensor
        let norm: RowNorm
        let weight: WeightMatrix
        let other: WeightMatrix
        let target: Tensor

        /// Rows and columns that fill some tiles and begin others.
        init(rows: Int = 29, k: Int = 70, columns: Int = 300) {
            var random = Random(1)
            x = random.tensor(rows, k)
            gate = random.tensor(rows, k)
            norm = RowNorm(
                weight: random.tensor(k),
                stored: .minusOne,
                epsilon: 1e-5,
                scale: random.tensor(k),
                shift: random.tensor(k)
            )
            weight = WeightMatrix(random.weight(columns, k, .bfloat16))
            other = WeightMatrix(random.weight(columns, k, .float16))
            target = random.tensor(rows, columns)
        }
    }

    @Test(arguments: levels, [1, 3])
    func normComesFirst(level: String, threads: Int) throws {
        let (operators, inputs) = (try operators(level, threads: threads), Inputs())
        let (normed, y) = (inputs.x.guardedCopy(), inputs.target.guardedCopy())
        operators.linear(.normed(inputs.x, inputs.norm), [LinearLayer(inputs.weight, into: y)])
        operators.rmsNorm(normed, inputs.norm, into: normed)
        let expected = inputs.target.guardedCopy()
        operators.linear(normed, inputs.weight, into: expected)
        expectIdentical(y, expected)
    }

    @Test(arguments: levels)
    func gateComesFirst(level: String) throws {
        let (operators, inputs) = (try operators(level), Inputs())
        let (gated, y) = (inputs.x.guardedCopy(), inputs.target.guardedCopy())
        operators.linear(.gated(inputs.x, by: inputs.gate), [LinearLayer(inputs.weight, into: y)])
        operators.table.sigmoid_multiply(gated.floats, inputs.gate.floats, gated.count)
        let expected = inputs.target.guardedCopy()
        operators.linear(gated, inputs.weight, into: expected)
        expectIdentical(y, expected)
    }

    @Test(arguments: levels)
    func productsAreAdded(level: String) throws {
        let (operators, inputs) = (try operators(level), Inputs())
        var random = Random(2)
        for gate in [nil, random.tensor(300)] {
            let y = inputs.target.guardedCopy()
            operators.linear(
                .rows(inputs.x),
                [LinearLayer(inputs.weight, addingTo: y, gate: gate)]
            )
            let (products, expected) = (Tensor(guarded: y.shape), inputs.target.guardedCopy())
            operators.linear(inputs.x, inputs.weight, into: products)
            operators.gatedAdd(expected, products, gate: gate)
            expectIdentical(y, expected)
        }
    }

    @Test(arguments: levels)
    func siluMultipliesTheOtherProducts(level: String) throws {
        let (operators, inputs) = (try operators(level), Inputs())
        let y = inputs.target.guardedCopy()
        operators.linear(
            .rows(inputs.x),
            [LinearLayer(gate: inputs.weight, up: inputs.other, into: y)]
        )
        let (gate, up) = (Tensor(guarded: y.shape), Tensor(guarded: y.shape))
        operators.linear(inputs.x, inputs.weight, into: gate)
        operators.linear(inputs.x, inputs.other, into: up)
        operators.table.silu_multiply(gate.floats, up.floats, gate.count)
        expectIdentical(y, gate)
    }

    @Test(arguments: levels, [6, 48, 100, 128, 150])
    func headsAreNormedAndRotated(level: String, headSize: Int) throws {
        let operators = try operators(level, threads: 2)
        let inputs = Inputs(columns: 5 * headSize)
        var random = Random(3)
        let half = headSize / 2
        let rotary = RotaryTable(
            cosine: random.tensor(29, half),
            sine: random.tensor(29, half),
            pairsAreAdjacent: headSize > 100
        )
        let norm = HeadNorm(
            weight: random.tensor(headSize),
            stored: .minusOne,
            epsilon: 1e-5,
            rotary: rotary
        )
        let y = inputs.target.guardedCopy()
        operators.linear(.rows(inputs.x), [LinearLayer(inputs.weight, heads: norm, into: y)])
        let expected = Tensor(guarded: y.shape)
        operators.linear(inputs.x, inputs.weight, into: expected)
        operators.headNorm(expected, norm)
        expectIdentical(y, expected)
    }

    /// Layers of one call may differ in arithmetic and rotation; each is as if it were alone.
    @Test func layersOfOneCallAreIndependent() throws {
        let operators = try operators("scalar", policy: .stored)
        let inputs = Inputs(k: 64)
        var random = Random(4)
        let matrices = [
            inputs.weight, WeightMatrix(random.weight(40, 64, .int8)),
            WeightMatrix(random.weight(50, 64, .int8), rotation: 64), inputs.other,
        ]
        let outputs = matrices.map { Tensor(guarded: [29, $0.rows]) }
        operators.linear(
            .rows(inputs.x),
            zip(matrices, outputs).map { LinearLayer($0, into: $1) }
        )
        for (matrix, output) in zip(matrices, outputs) {
            let expected = Tensor(guarded: output.shape)
            operators.linear(inputs.x, matrix, into: expected)
            expectIdentical(output, expected)
        }
    }

    /// Quantised files may leave one of them as it was.
    @Test(arguments: ["scalar", "avx512bf16"])
    func gateAndUpMayDifferInArithmetic(level: String) throws {
        let operators = try operators(level, policy: .stored)
        let inputs = Inputs(k: 64)
        var random = Random(5)
        let quantized = WeightMatrix(
            random.weight(300, 64, .int8),
            scale: random.tensor(300, range: 0.02),
            rotation: 16
        )
        for (first, second) in [(inputs.weight, quantized), (quantized, inputs.weight)] {
            let y = inputs.target.guardedCopy()
            operators.linear(.rows(inputs.x), [LinearLayer(gate: first, up: second, into: y)])
            let (gate, up) = (Tensor(guarded: y.shape), Tensor(guarded: y.shape))
            operators.linear(inputs.x, first, into: gate)
            operators.linear(inputs.x, second, into: up)
            operators.table.silu_multiply(gate.floats, up.floats, gate.count)
            expectIdentical(y, gate)
        }
    }

    @Test func refusesLayersThatDoNotFit() async {
        await #expect(processExitsWith: .failure) {
            let inputs = Inputs()
            let norm = HeadNorm(
                weight: Tensor(zeros: [7]),
                stored: .plain,
                epsilon: 1,
                rotary: nil
            )
            // 300 columns are no whole heads of 7.
            Operators(threads: 1)
                .linear(
                    .rows(inputs.x),
                    [LinearLayer(inputs.weight, heads: norm, into: inputs.target)]
                )
        }
    }
}
