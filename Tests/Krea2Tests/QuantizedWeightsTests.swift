import Checkpoints
import Compute
import Tensors
import Testing

@testable import Krea2

/// Quantised weights have the values that ComfyUI's decoders give.
struct QuantizedWeightsTests {
    @Test(arguments: [("noted", "noted"), ("header", "noted"), ("legacy", "legacy")])
    func haveTheValuesOfTheReference(_ file: String, values: String) throws {
        let expected = try FixtureTensors("quantization/\(values)-values.safetensors")
        let reader = WeightReader(
            try Checkpoint(path: Fixture.path("quantization/\(file).safetensors"))
        )
        for name in expected.names {
            let shape = try expected.shape(name)
            let matrix = reader.weightMatrix("\(name).weight", shape[0], shape[1])
            let found = dequantized(matrix).elements
            let wanted = try expected.floats(name)
            let differing = zip(found, wanted).filter {
                $0.bitPattern != $1.bitPattern && !($0.isNaN && $1.isNaN)
            }
            #expect(found.count == wanted.count && differing.isEmpty, "\(name): \(differing)")
        }
        try reader.finish()
    }

    /// Files cast to eight bits as a whole have norms and biases in them too.
    @Test func smallTensorsMayBeFloat8() throws {
        let reader = WeightReader(
            try Checkpoint(path: Fixture.path("quantization/noted.safetensors"))
        )
        let small = reader.small("float8_e4m3fn.bare.weight", 2, 128, orShapes: [[8, 32]])
        let values = try FixtureTensors("quantization/noted-values.safetensors")
            .floats("float8_e4m3fn.bare")
        #expect(small.shape == [2, 128])
        #expect(zip(small.elements, values).allSatisfy { $0 == $1 || ($0.isNaN && $1.isNaN) })
        try reader.finish { _ in true }
    }
}
