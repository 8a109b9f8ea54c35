import Checkpoints
import Compute
import Tensors

/// How far a conversion is.
public struct ConversionProgress: Sendable, Equatable {
    /// Tensors of the source that are written.
    public let finishedTensors: Int
    /// All tensors.
    public let tensors: Int
    /// Bytes of the new file that are written.
    public let finishedBytes: Int
    /// Bytes of the new file.
    public let bytes: Int

    /// Finished part, 0 to 1.
    public var fraction: Double { bytes > 0 ? Double(finishedBytes) / Double(bytes) : 1 }
}

extension Conversion {
    /// Writes the new file and, beside it, a notice of the licence.
    ///
    /// The file is in `PATH.krea2-partial` until it is complete. A run that was stopped, or failed
    /// for want of room, is continued by the next one of the same source, format and path.
    ///
    /// - Parameters:
    ///   - path: The new file; its folder exists.
    ///   - isOverwriting: Whether files of these names are replaced.
    ///   - threads: Threads to use, 1 or more.
    ///   - progress: Told at the start, where an earlier run is continued too, and after each tensor.
    ///   - isCancelled: Asked before each tensor.
    /// - Returns: The path of the notice.
    /// - Throws: `.cancelled` when asked to stop, with a state to go on from; `.model` otherwise.
    @discardableResult
    public func run(
        to path: String,
        overwriting isOverwriting: Bool = false,
        threads: Int = Engine.physicalCores,
        progress: (ConversionProgress) -> Void = { _ in },
        isCancelled: () -> Bool = { false }
    ) throws(GenerationError) -> String {
        let notice = TextFile(
            path: LicenceNotice.path(for: path),
            text: LicenceNotice.text(self, name: PathText.components(path).last ?? path)
        )
        return try mappingErrors { () throws(CheckpointError) in
            try notice.check(overwriting: isOverwriting)
            let file = try ResumableFile(
                path: path,
                layout: layout,
                pieces: pieces.count,
                identity: try stored.checkpoint.stamp(),
                overwriting: isOverwriting
            )
            let isComplete = try write(file, threads, progress, isCancelled)
            guard isComplete else { return nil }
            try notice.write(overwriting: isOverwriting)
            try file.finish()
            return notice.path
        }
    }

    /// Runs a conversion; nil stands for one that was stopped.
    private func mappingErrors(
        _ body: () throws(CheckpointError) -> String?
    ) throws(GenerationError) -> String {
        let notice: String?
        do { notice = try body() } catch { throw .model(error) }
        guard let notice else { throw .cancelled }
        return notice
    }

    /// Writes all pieces that are not there yet; false when asked to stop before that.
    private func write(
        _ file: ResumableFile,
        _ threads: Int,
        _ progress: (ConversionProgress) -> Void,
        _ isCancelled: () -> Bool
    ) throws(CheckpointError) -> Bool {
        let total = pieces.reduce(0) { $0 + $1.byteCount }
        var finished = pieces[..<file.finishedPieces].reduce(0) { $0 + $1.byteCount }
        func report() {
            progress(
                ConversionProgress(
                    finishedTensors: file.finishedPieces,
                    tensors: pieces.count,
                    finishedBytes: finished,
                    bytes: total
                )
            )
        }
        report()
        for piece in pieces[file.finishedPieces...] {
            if isCancelled() {
                try file.save()
                return false
            }
            try write(piece, file, threads)
            finished += piece.byteCount
            report()
        }
        return true
    }

    /// Writes one piece; whatever is wrong with the source leaves nothing of the file.
    private func write(
        _ piece: ConversionPiece,
        _ file: ResumableFile,
        _ threads: Int
    ) throws(CheckpointError) {
        let checkpoint = stored.checkpoint
        do throws(CheckpointError) {
            checkpoint.prefetch([checkpoint.tensor(piece.weight.name)].compactMap(\.self))
            let written = Result { () throws(CheckpointError) in
                try PieceWriter(piece, stored, file, threads: threads).write()
            }
            // A file that was cut reads as zeros, or cannot be written from.
            try checkpoint.checkUnchanged()
            try written.get()
            try file.finishPiece()
        } catch {
            if case .cannotWrite = error {} else { file.discard() }
            throw error
        }
    }
}

/// Converts one tensor, some rows at a time.
private struct PieceWriter {
    let piece: ConversionPiece
    let stored: StoredWeights
    let file: ResumableFile
    let threads: Int

    /// Elements that are in memory as float32 at a time.
    private static let chunkElements = 1 << 22

    init(_ piece: ConversionPiece, _ stored: StoredWeights, _ file: ResumableFile, threads: Int) {
        self.piece = piece
        self.stored = stored
        self.file = file
        self.threads = threads
    }

    private var weight: StoredWeight { piece.weight }

    func write() throws(CheckpointError) {
        if let note = piece.format.note {
            try file.write(bytes(note), to: piece.noteName)
        }
        switch piece.conversion {
        case .copy: try copyElements()
        case .keep:
            let scale = try matrix().scale ?? Tensor([1], shape: [1])
            try file.write(scale, to: piece.scaleName)
            try copyElements()
        case .narrow(let type): try narrow(to: type)
        case .float8: try writeFloat8()
        case .int8(let rotation): try writeInt8(rotation)
        }
    }

    private func copyElements() throws(CheckpointError) {
        guard let elements = stored.checkpoint.tensor(weight.name) else { return }
        let flat = elements.reshaped(elements.count)
        for first in stride(from: 0, to: flat.count, by: Self.chunkElements) {
            let range = first..<min(first + Self.chunkElements, flat.count)
            let size = flat.elementType.byteCount
            let chunk = flat.rows(range)
            try file.write(chunk, to: piece.name, at: first * size)
            stored.checkpoint.release([chunk])
        }
    }

    private func narrow(to type: ElementType) throws(CheckpointError) {
        let matrix = try matrix()
        let target = buffer(type)
        try eachChunk(of: matrix) { rows, values throws(CheckpointError) in
            let chunk = target.rows(0..<rows.count)
            guard Compute.narrow(values, into: chunk, threads: threads) else {
                throw invalid("values beyond the range of \(type.rawValue)", "smaller ones")
            }
            try file.write(chunk, to: piece.name, at: offset(rows, type))
        }
    }

    private func writeFloat8() throws(CheckpointError) {
        let matrix = try matrix()
        var largest: Float = 0
        try eachChunk(of: matrix) { _, values throws(CheckpointError) in
            guard let magnitude = largestMagnitude(values, threads: threads) else {
                throw notFinite
            }
            largest = max(largest, magnitude)
        }
        let scale = float8Scale(largest)
        let codes = buffer(.float8E4M3)
        try eachChunk(of: matrix) { rows, values throws(CheckpointError) in
            let chunk = codes.rows(0..<rows.count)
            quantizeFloat8(values, scale: scale, into: chunk, threads: threads)
            try file.write(chunk, to: piece.name, at: offset(rows, .float8E4M3))
        }
        try file.write(Tensor([scale], shape: []), to: piece.scaleName)
    }

    private func writeInt8(_ rotation: Int?) throws(CheckpointError) {
        let matrix = try matrix()
        let codes = buffer(.int8)
        let scales = Tensor(zeros: [weight.rows])
        try eachChunk(of: matrix) { rows, values throws(CheckpointError) in
            let chunk = codes.rows(0..<rows.count)
            let isFinite = quantizeInt8(
                values,
                rotation: rotation,
                into: chunk,
                scales: scales.rows(rows),
                threads: threads
            )
            guard isFinite else { throw notFinite }
            try file.write(chunk, to: piece.name, at: offset(rows, .int8))
        }
        try file.write(scales, to: piece.scaleName)
    }
}

// MARK: Rows

extension PieceWriter {
    /// Rows of a chunk.
    private var chunkRows: Int {
        min(weight.rows, max(1, Self.chunkElements / max(1, weight.columns)))
    }

    /// Room for a chunk of the result.
    private func buffer(_ type: ElementType) -> Tensor {
        Tensor(
            Storage(byteCount: chunkRows * weight.columns * type.byteCount),
            byteOffset: 0,
            shape: [chunkRows, weight.columns],
            elementType: type
        )
    }

    /// Where rows start in the new file's tensor.
    private func offset(_ rows: Range<Int>, _ type: ElementType) -> Int {
        rows.lowerBound * weight.columns * type.byteCount
    }

    /// Hands over the values of all rows, some at a time; they may be overwritten.
    private func eachChunk(
        of matrix: WeightMatrix,
        _ body: (_ rows: Range<Int>, _ values: Tensor) throws(CheckpointError) -> Void
    ) throws(CheckpointError) {
        let values = Tensor(zeros: [chunkRows, weight.columns])
        for first in stride(from: 0, to: weight.rows, by: chunkRows) {
            let rows = first..<min(first + chunkRows, weight.rows)
            let chunk = values.rows(0..<rows.count)
            let source = matrix.rows(rows)
            dequantize(source, into: chunk, threads: threads)
            stored.checkpoint.release([source.elements])
            try body(rows, chunk)
        }
    }

    private func matrix() throws(CheckpointError) -> WeightMatrix {
        let (matrix, problem) = stored.matrix(weight)
        guard let matrix else {
            let problems = problem.map { [$0] } ?? []
            throw .unfit(path: stored.checkpoint.path, problems: problems)
        }
        return matrix
    }

    /// The bytes of a text as a tensor.
    private func bytes(_ text: String) -> Tensor {
        Tensor(bytes: Array(text.utf8))
    }

    private var notFinite: CheckpointError { invalid("NaN or infinity", "finite values") }

    private func invalid(_ found: String, _ expected: String) -> CheckpointError {
        let checkpoint = stored.checkpoint
        return .unfit(
            path: checkpoint.path,
            problems: [
                .invalid(
                    tensor: checkpoint.nameInFile(weight.name),
                    file: checkpoint.file(of: weight.name),
                    found: found,
                    expected: expected
                )
            ]
        )
    }
}
