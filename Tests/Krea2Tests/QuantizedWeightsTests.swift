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
}
