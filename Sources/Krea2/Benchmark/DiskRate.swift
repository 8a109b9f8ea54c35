import Checkpoints
import FoundationEssentials
import Tensors

/// Measures how fast weights are read from disk, past the system's cache where that is possible.
enum DiskRate {
    /// Time that a measurement takes, about.
    private static let duration = Duration.milliseconds(250)
    /// Most bytes that are read.
    private static let mostBytes = 1 << 30
    /// Bytes that a measurement needs, and those of the file that is written where there are fewer.
    static let leastBytes = 64 << 20

    /// Reads the beginning of a checkpoint's files.
    ///
    /// - Parameter path: A safetensors file, an index of shards, or a folder with either.
    /// - Returns: Bytes a second; nil where there are not enough.
    /// - Throws: Why it cannot be read.
    static func measure(reading path: String) throws(CheckpointError) -> Double? {
        let checkpoint = try Checkpoint(path: path)
        guard checkpoint.byteCount >= leastBytes else { return nil }
        let inOrder = checkpoint.files.flatMap { file in
            file.tensors.filter { $0.value.isAligned && !$0.value.range.isEmpty }
                .sorted { $0.value.range.lowerBound < $1.value.range.lowerBound }
                .compactMap { file.tensor($0.key) }
        }
        var byteCount = 0
        let tensors = inOrder.prefix { tensor in
            defer { byteCount += tensor.byteCount }
            return byteCount < mostBytes
        }
        guard let held = tensors.map(\.byteCount).max() else { return nil }
        let list = Array(tensors)

        let start = ContinuousClock.now
        let stream = try WeightStream(
            list,
            of: checkpoint,
            budget: WeightPlan.minimumByteCount(list, of: checkpoint, held: held),
            held: held,
            cache: .never
        )
        for index in list.indices {
            _ = try stream.take(index)
            stream.release(index)
            if ContinuousClock.now - start > duration { break }
        }
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        let bytes = stream.statistics.readByteCount
        return bytes > 0 && seconds > 0 ? Double(bytes) / seconds : nil
    }

    /// Writes a file, reads it and removes it.
    ///
    /// - Parameter folder: Where the file goes; made if need be.
    /// - Returns: Bytes a second.
    /// - Throws: Why it cannot be written or read.
    static func measure(in folder: String) throws(CheckpointError) -> Double? {
        try makeFolder(folder)
        let path = PathText.inside(
            folder,
            ".disk-rate-\(ProcessInfo.processInfo.processIdentifier)"
        )
        var writer = SafetensorsWriter()
        for piece in 0..<8 {
            writer.add("\(piece)", Tensor(zeros: [leastBytes / 8 / MemoryLayout<Float>.size]))
        }
        try writer.write(to: path, overwriting: true)
        // What stays behind if this fails is small, and is written over some day.
        defer { try? FileManager.default.removeItem(atPath: path) }
        return try measure(reading: path)
    }
}

/// Makes a folder and those above it, unless it is there.
///
/// - Parameters:
///   - path: The folder.
///   - isPrivate: Whether only the user may look into a new one.
/// - Throws: `.cannotWrite`.
func makeFolder(_ path: String, isPrivate: Bool = false) throws(CheckpointError) {
    do {
        try FileManager.default.createDirectory(
            atPath: path,
            withIntermediateDirectories: true,
            attributes: isPrivate ? [.posixPermissions: 0o700] : nil
        )
    } catch {
        throw .cannotWrite(path: path, reason: "the folder cannot be made")
    }
}
