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
        /// How quantised tensors are stored, once one was asked for that may be.
        var stored: StoredWeights?
        /// Tensors of each form that is not read.
        private var unsupported: [String: (count: Int, first: String, file: String)] = [:]

        func note(_ problem: WeightProblem) {
            if known.insert(problem).inserted { problems.append(problem) }
        }

        /// Counts a tensor in a form that is not read; all of one form are one problem.
        func note(unsupported format: String, _ tensor: String, _ file: String) {
            unsupported[format, default: (0, tensor, file)].count += 1
        }

        /// Problems, and one for each form that is not read.
        var allProblems: [WeightProblem] {
            problems
                + unsupported.sorted { $0.key < $1.key }.map { format, tensors in
                    .unsupported(
                        format: format,
                        count: tensors.count,
                        first: tensors.first,
                        file: tensors.file
                    )
                }
        }
    }

    private let checkpoint: Checkpoint
    private let rename: @Sendable (String) -> String
    private let differences: [String: Tensor]
    private let prefix: String
    private let record: Record

    /// Starts with no problems and all tensors unused.
    ///
    /// - Parameters:
    ///   - checkpoint: Where the tensors are.
    ///   - rename: Gives the name in the checkpoint for the full name a model asks for.
    ///   - differences: What the model adds to small tensors, by the full names it asks for.
    package convenience init(
        _ checkpoint: Checkpoint,
        rename: @escaping @Sendable (String) -> String = { $0 },
        adding differences: [String: Tensor] = [:]
    ) {
        self.init(checkpoint, rename, differences, prefix: "", Record())
    }

    private init(
        _ checkpoint: Checkpoint,
        _ rename: @escaping @Sendable (String) -> String,
        _ differences: [String: Tensor],
        prefix: String,
        _ record: Record
    ) {
        self.checkpoint = checkpoint
        self.rename = rename
        self.differences = differences
        self.prefix = prefix
        self.record = record
    }

    /// A reader for the names below `prefix`; problems end up in the same list.
    ///
    /// - Parameter prefix: Put before every name, after the prefixes of this reader: `blocks.0.`.
    /// - Returns: The reader.
    package func scoped(_ prefix: String) -> WeightReader {
        WeightReader(checkpoint, rename, differences, prefix: self.prefix + prefix, record)
    }

    /// The shape of a tensor, nil when there is none; does not count as a use.
    package func shape(_ name: String) -> [Int]? {
        checkpoint.record(rename(prefix + name))?.shape
    }

    /// What is to be added to a tensor; nil for nothing.
    package func difference(_ name: String) -> Tensor? { differences[prefix + name] }

    /// A view of a tensor's elements as the file has them: float32, float16 or bfloat16, or 8-bit
    /// floats where the caller takes them.
    ///
    /// - Parameters:
    ///   - name: Name below the reader's prefix.
    ///   - shape: Shape of the result.
    ///   - alternatives: Other shapes of as many elements that the file may have instead, such as
    ///     `[12]` for `[1, 12]`; the result has `shape` all the same.
    ///   - acceptsFloat8: Whether the elements may be 8-bit floats, which are then values without a
    ///     scale.
    /// - Returns: The tensor; after a problem zeros that must not be written to, so that
    ///   reading can go on until `finish` throws.
    package func tensor(
        _ name: String,
        shape: [Int],
        orShapes alternatives: [[Int]] = [],
        acceptsFloat8: Bool = false
    ) -> Tensor {
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
        let isFloat8 = WeightFormat(found.elementType) == .float8(found.elementType)
        let isAccepted = found.elementType.isComputable || (acceptsFloat8 && isFloat8)
        if !isAccepted {
            let type = found.elementType.rawValue
            record.note(.mistyped(tensor: shownName, file: file, found: type))
        }
        guard expected.contains(found.shape), isAccepted,
            let tensor = checkpoint.tensor(stored)
        else {
            return Placeholder.tensor(shape)
        }
        return tensor.reshaped(shape)
    }

    /// The matrix of a linear layer or an embedding as the file stores it, quantised or not.
    ///
    /// All tensors that say how it is stored count as used.
    ///
    /// - Parameters:
    ///   - name: Name below the reader's prefix, which ends in `weight`.
    ///   - rows: Outputs of the layer, or entries of the table.
    ///   - columns: Inputs of the layer, or the width of the table.
    ///   - storedShape: Shape in the file where it has more axes after the rows, such as that of a
    ///     convolution's kernels.
    /// - Returns: The matrix; after a problem zeros that must not be written to, as from `tensor`.
    package func weightMatrix(
        _ name: String,
        _ rows: Int,
        _ columns: Int,
        storedAs storedShape: [Int]? = nil
    ) -> WeightMatrix {
        let shape = storedShape ?? [rows, columns]
        let officialName = prefix + name
        let name = rename(officialName)
        var placeholder: WeightMatrix { WeightMatrix(Placeholder.tensor([rows, columns])) }
        let (shownName, file) = (checkpoint.nameInFile(name), checkpoint.file(of: name))
        record.used.insert(name)
        let stored = storedWeights()
        guard let weight = stored.weight(name) else {
            record.note(.missing(tensor: shownName, file: file))
            return placeholder
        }
        record.used.formUnion(weight.companions)
        if case .unsupported(let format) = weight.format {
            record.note(unsupported: format, shownName, file)
            return placeholder
        }
        var problems = weight.problems
        if weight.record.shape != shape {
            problems.append(
                .misshapen(
                    tensor: shownName,
                    file: file,
                    found: weight.record.shape,
                    expected: [shape]
                )
            )
        }
        if weight.format == .other, weight.problems.isEmpty {
            problems.append(
                .mistyped(
                    tensor: shownName,
                    file: file,
                    found: weight.record.elementType.rawValue
                )
            )
        }
        guard problems.isEmpty else {
            problems.forEach(record.note)
            return placeholder
        }
        let (matrix, problem) = stored.matrix(weight)
        if let problem { record.note(problem) }
        guard var matrix else { return placeholder }
        matrix.origin = .init(name: String(officialName.dropLast(".weight".count)))
        return matrix
    }

    /// The notes on quantisation, read at the first call.
    private func storedWeights() -> StoredWeights {
        if let stored = record.stored { return stored }
        let stored = StoredWeights(checkpoint)
        stored.problems.forEach(record.note)
        record.stored = stored
        return stored
    }

    /// Ends reading, and fails if anything was wrong or is left over.
    ///
    /// - Parameter isIgnored: Whether a tensor may stay unused; gets its name in the checkpoint.
    /// - Throws: `.unfit` with every problem.
    package func finish(
        ignoring isIgnored: (String) -> Bool = { _ in false }
    ) throws(CheckpointError) {
        let surplus = checkpoint.names.filter {
            !record.used.contains($0) && $0 != StoredWeights.marker && !isIgnored($0)
        }
        let problems =
            record.allProblems
            + surplus.map {
                .surplus(tensor: checkpoint.nameInFile($0), file: checkpoint.file(of: $0))
            }
        guard problems.isEmpty else { throw .unfit(path: checkpoint.path, problems: problems) }
    }
}
