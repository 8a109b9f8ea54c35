import Checkpoints
import Foundation
import TestSupport
import Testing

@testable import Krea2

/// Settings that ask for more than any file holds end in errors, and take neither memory nor time.
struct HostileConfigurationTests {
    /// The error of opening a transformer or a text encoder with other settings than its own.
    private func failure(_ part: String, _ settings: String) throws -> CheckpointError? {
        let folder = try TemporaryFolder()
        try folder.write(settings, to: "config.json")
        let original = Fixture.path("pipeline/models/head16/\(part)")
        for name in try FileManager.default.contentsOfDirectory(atPath: original)
        where name != "config.json" {
            try FileManager.default.createSymbolicLink(
                atPath: folder.file(name),
                withDestinationPath: "\(original)/\(name)"
            )
        }
        return #expect(throws: CheckpointError.self) {
            switch part {
            case "transformer": _ = try Transformer(TransformerFiles(path: folder.path))
            default: _ = try TextEncoder(TextEncoderFiles(path: folder.path), taps: [200])
            }
        }
    }

    @Test(arguments: [
        "num_attention_heads", "num_key_value_heads", "intermediate_size", "in_channels",
        "timestep_embed_dim", "num_text_layers", "text_hidden_dim", "text_intermediate_size",
    ])
    func sizesOfATransformer(key: String) throws {
        let settings = "{\"\(key)\": \(ConfigurationFile.largestInteger)}"
        let error = try failure("transformer", settings)
        #expect(error?.isMissingFile == false)
    }

    @Test(arguments: ["num_layers", "num_layerwise_text_blocks", "num_refiner_text_blocks"])
    func blocksOfATransformer(key: String) throws {
        let many = try failure("transformer", "{\"\(key)\": 1025}")
        #expect(many?.description.contains("\"\(key)\" 1025, expected") == true)
        let most = try failure("transformer", "{\"\(key)\": 1024}")
        #expect(most?.description.contains(" is missing from ") == true)
    }

    @Test(arguments: ["hidden_size", "vocab_size", "num_attention_heads", "intermediate_size"])
    func sizesOfATextEncoder(key: String) throws {
        let settings = """
            {"model_type": "qwen3_vl", "num_hidden_layers": 1024,
             "\(key)": \(ConfigurationFile.largestInteger)}
            """
        let error = try failure("text_encoder", settings)
        #expect(error?.isMissingFile == false)
    }
}
