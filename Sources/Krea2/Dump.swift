import Checkpoints
import Tensors

/// Intermediate tensors of a run, for comparison with another implementation.
public final class Dump {
    private var writer = SafetensorsWriter()
    /// Values of one name, picture after picture.
    private var perImage: [String: (shape: [Int], values: [Float])] = [:]
    private var pixels: (shape: [Int], values: [UInt8])?
    private let imageCount: Int

    /// Starts with nothing.
    ///
    /// - Parameter imageCount: Pictures the run makes; of several, each name holds all of them.
    public init(imageCount: Int) {
        self.imageCount = imageCount
    }

    /// Keeps token ids.
    func add(_ name: String, _ ids: [Int32]) {
        writer.add(name, ids.map(Int64.init), as: .int64, shape: [ids.count])
    }

    /// Keeps values that all pictures share.
    func add(_ name: String, _ values: [Float], shape: [Int]) {
        writer.add(name, values, as: .float32, shape: shape)
    }

    /// Keeps a copy of a tensor that all pictures share.
    func add(_ name: String, _ tensor: Tensor) {
        add(name, tensor.elements, shape: tensor.shape)
    }

    /// Keeps one picture's values; pictures come in order.
    func addImage(_ name: String, _ values: [Float], shape: [Int]) {
        perImage[name, default: (shape, [])].values += values
    }

    /// Keeps one picture's pixels; pictures come in order.
    func addPixels(_ values: [UInt8], shape: [Int]) {
        pixels = (shape, (pixels?.values ?? []) + values)
    }

    /// Writes all that was kept, under a temporary name first.
    ///
    /// - Parameters:
    ///   - path: Path of the new `.safetensors` file.
    ///   - isOverwriting: Whether a file at `path` is replaced.
    /// - Throws: `.model` with `.exists` or `.cannotWrite`.
    public func write(to path: String, overwriting isOverwriting: Bool) throws(GenerationError) {
        var writer = writer
        for (name, entry) in perImage {
            writer.add(name, entry.values, as: .float32, shape: batched(entry.shape))
        }
        if let pixels {
            writer.add("rgb", pixels.values, as: .uint8, shape: batched(pixels.shape))
        }
        do {
            try writer.write(to: path, overwriting: isOverwriting)
        } catch {
            throw .model(error)
        }
    }

    /// The axis of pictures is dropped when there is one.
    private func batched(_ shape: [Int]) -> [Int] { imageCount == 1 ? shape : [imageCount] + shape }
}
