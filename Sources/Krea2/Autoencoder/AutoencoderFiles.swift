import Checkpoints
import FoundationEssentials

/// The opened files of the autoencoder, and its sizes.
struct AutoencoderFiles {
    let checkpoint: Checkpoint
    let config: AutoencoderConfig

    /// Opens a folder, an index or a file.
    ///
    /// - Parameter path: A folder may hold a `config.json`; single files have none.
    /// - Throws: When it is not a Qwen-Image autoencoder, or its sizes are not supported.
    init(path: String) throws(CheckpointError) {
        checkpoint = try Checkpoint(path: path)
        let configPath = path + "/config.json"
        if let bytes = FileManager.default.contents(atPath: configPath) {
            config = try AutoencoderConfig(json: [UInt8](bytes), path: configPath)
        } else {
            let (tensors, names) = AutoencoderNames.recognise(checkpoint)
            config = try AutoencoderConfig(shapesOf: tensors, names)
        }
    }

    /// Bytes of the float32 copies that the decoder makes, from shapes alone; padding is left out.
    var decoderByteCount: Int {
        checkpoint.names.reduce(0) { sum, name in
            guard !name.contains("encoder."), let shape = checkpoint.record(name)?.shape else {
                return sum
            }
            // Of a kernel over time, height and width, only the last slice in time is kept.
            let isOverTime = shape.count == 5 && shape[2] > 0
            return sum + 4 * shape.reduce(1, *) / (isOverTime ? shape[2] : 1)
        }
    }
}
