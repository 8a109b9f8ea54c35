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
}
