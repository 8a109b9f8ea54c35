package import Tensors

/// Hands out a checkpoint's tensors and collects everything that is wrong with them.
///
/// Used from one thread. A model's initialisers ask for all tensors, problems or not; `finish`
/// then throws one error that names all missing, surplus, misshapen and mistyped ones.
package final class WeightReader {
    /// What is shared by all readers of one checkpoint.
    private final class Record {
        /// In the order found, without repeats.
        private(set) var problems: [WeightProblem] = []
        /// The same, to find repeats.
        private var known: Set<WeightProblem> = []
        /// Names in the checkpoint that were asked for.
        var used: Set<String> = []

        func note(_ problem: WeightProblem) {
            if known.insert(problem).inserted { problems.append(problem) }
        }
    }

    private let checkpoint: Checkpoint
    private let rename: @Sendable (String) -> String
    private let prefix: String
    private let record: Record

    /// Starts with no problems and all tensors unused.
    ///
    /// - Parameters:
    ///   - checkpoint: Where the tensors are.
    ///   - rename: Gives the name in the checkpoint for the full name a model asks for.
    package convenience init(
        _ checkpoint: Checkpoint,
        rename: @escaping @Sendable (String) -> String = { $0 }
    ) {
        self.init(checkpoint, rename, prefix: "", Record())
    }

    private init(
        _ checkpoint: Checkpoint,
        _ rename: @escaping @Sendable (String) -> String,
        prefix: String,
        _ record: Record
    ) {
        self.checkpoint = checkpoint
        self.rename = rename
        self.prefix = prefix
        self.record = record
    }

    /// A reader for the names below `prefix`; problems end up in the same list.
    ///
    /// - Parameter prefix: Put before every name, after the prefixes of this reader: `blocks.0.`.
    /// - Returns: The reader.
    package func scoped(_ prefix: String) -> WeightReader {
        WeightReader(checkpoint, rename, prefix: self.prefix + prefix, record)
    }

    /// The shape of a tensor, nil when there is none; does not count as a use.
    package func shape(_ name: String) -> [Int]? {
        checkpoint.record(rename(prefix + name))?.shape
    }

    /// A view of a tensor's elements as the file has them: float32, float16 or bfloat16.
    ///
    /// - Parameters:
    ///   - name: Name below the reader's prefix.
    ///   - shape: Shape of the result.
    ///   - alternatives: Other shapes of as many elements that the file may have instead, such as
    ///     `[12]` for `[1, 12]`; the result has `shape` all the same.
    /// - Returns: The tensor; after a problem zeros that must not be written to, so that
    ///   reading can go on until `finish` throws.
    package func tensor(_ name: String, shape: [Int], orShapes alternatives: [[Int]] = []) -> Tensor
    {
        let stored = rename(prefix + name)
        let shownName = checkpoint.nameInFile(stored)
        let file = checkpoint.file(of: stored)
        record.used.insert(stored)
        guard let found = checkpoint.record(stored) else {
            record.note(.missing(tensor: shownName, file: file))
            return Placeholder.tensor(shape)
        }
        let expected = [shape] + alternatives
        if !expected.contains(found.shape) {
            record.note(
                .misshapen(tensor: shownName, file: file, found: found.shape, expected: expected)
            )
        }
        if !found.elementType.isComputable {
            let type = found.elementType.rawValue
            record.note(.mistyped(tensor: shownName, file: file, found: type))
        }
        guard expected.contains(found.shape), found.elementType.isComputable,
            let tensor = checkpoint.tensor(stored)
        else {
            return Placeholder.tensor(shape)
        }
        return tensor.reshaped(shape)
    }

    /// Ends reading, and fails if anything was wrong or is left over.
    ///
    /// - Parameter isIgnored: Whether a tensor may stay unused; gets its name in the checkpoint.
    /// - Throws: `.unfit` with every problem.
    package func finish(
        ignoring isIgnored: (String) -> Bool = { _ in false }
    ) throws(CheckpointError) {
        let surplus = checkpoint.names.filter { !record.used.contains($0) && !isIgnored($0) }
        let problems =
            record.problems
            + surplus.map {
                .surplus(tensor: checkpoint.nameInFile($0), file: checkpoint.file(of: $0))
            }
        guard problems.isEmpty else { throw .unfit(path: checkpoint.path, problems: problems) }
    }
}
