import Checkpoints

/// Takes a model's sizes from its configuration file, or from the shapes of its tensors.
struct SizeReader {
    private let checkpoint: Checkpoint
    private let file: ConfigurationFile?
    private let rename: (String) -> String

    /// Most blocks of one kind that a configuration may ask for; released models have up to 36.
    private static let mostBlocks = 256

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
    /// - Throws: When `key` has more than `mostBlocks`.
    func count(_ key: String, or prefix: String) throws(CheckpointError) -> Int {
        if let value = try file?.integer(key, in: 1...Self.mostBlocks) { return value }
        return checkpoint.numbers(after: rename(prefix)).count
    }

    /// The number at `key`, rounded to float32, or `value`.
    func number(_ key: String, default value: Float) throws(CheckpointError) -> Float {
        guard let number = try file?.positiveNumber(key) else { return value }
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
