import Checkpoints

/// Takes a model's sizes from its configuration file, or from the shapes of its tensors.
struct SizeReader {
    private let checkpoint: Checkpoint
    private let file: ConfigurationFile?
    private let rename: (String) -> String

    /// Most layers of one kind, every one of which is looked for; released models have up to 36.
    private static let mostLayers = 1024

    /// Reads from `file` where it has a value, else from `checkpoint`.
    ///
    /// - Parameters:
    ///   - checkpoint: The tensors.
    ///   - file: The settings; nil when there are none.
    ///   - rename: Gives the name in the checkpoint for the one asked for.
    init(
        _ checkpoint: Checkpoint,
        _ file: ConfigurationFile?,
        rename: @escaping (String) -> String = { $0 }
    ) {
        self.checkpoint = checkpoint
        self.file = file
        self.rename = rename
    }

    /// The value of `key`, or else the length of one axis of a tensor.
    ///
    /// - Parameters:
    ///   - key: Key of the configuration file.
    ///   - tensor: Tensor that shows the size.
    ///   - axis: Its axis; negative ones count from the last.
    ///   - divisor: What the length is divided by.
    /// - Returns: The size, 1 or more unless the division gives 0.
    /// - Throws: When neither tells, or the value is out of range.
    func read(
        _ key: String,
        or tensor: String,
        _ axis: Int,
        dividedBy divisor: Int = 1
    ) throws(CheckpointError) -> Int {
        if let value = try file?.integer(key) { return value }
        return try length(tensor, axis) / divisor
    }

    /// The value of `key`, or else how many different numbers follow `prefix` in tensors' names.
    ///
    /// - Throws: When there are more than `mostLayers`.
    func count(_ key: String, or prefix: String) throws(CheckpointError) -> Int {
        if let value = try file?.integer(key, in: 1...Self.mostLayers) { return value }
        let count = checkpoint.numbers(after: rename(prefix)).count
        guard count <= Self.mostLayers else {
            throw .damaged(
                path: checkpoint.path,
                tensor: nil,
                found: "\(count) layers \(checkpoint.nameInFile(rename(prefix)))…",
                expected: "at most \(Self.mostLayers)"
            )
        }
        return count
    }

    /// The number at `key`, rounded to float32, or `value`.
    func number(_ key: String, default value: Float) throws(CheckpointError) -> Float {
        guard let file, let number = try file.positiveNumber(key) else { return value }
        guard Float(number).isNormal else { throw file.mismatch(key, "a float32 number above 0") }
        return Float(number)
    }

    /// The length of one axis of a tensor, 1 or more; negative axes count from the last.
    func length(_ name: String, _ axis: Int) throws(CheckpointError) -> Int {
        let stored = rename(name)
        let (shownName, file) = (checkpoint.nameInFile(stored), checkpoint.file(of: stored))
        guard let shape = checkpoint.record(stored)?.shape else {
            throw .unfit(
                path: checkpoint.path,
                problems: [.missing(tensor: shownName, file: file)]
            )
        }
        let index = axis < 0 ? shape.count + axis : axis
        guard shape.indices.contains(index),
            (1...ConfigurationFile.largestInteger).contains(shape[index])
        else {
            throw .damaged(
                path: file,
                tensor: shownName,
                found: "shape \(shape)",
                expected: "a size on axis \(index)"
            )
        }
        return shape[index]
    }
}
