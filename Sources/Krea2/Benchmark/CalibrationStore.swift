import Checkpoints
import FoundationEssentials

/// Keeps calibrations in a folder, one file for each processor, kernel level and number of threads.
public struct CalibrationStore: Sendable {
    /// The folder, which need not exist.
    public let folder: String

    /// Of the file's form; another one is as good as no file.
    private static let format = 1
    /// Rates from a byte a second to far beyond any machine.
    private static let range = 1.0...1e24

    /// Names the folder.
    public init(folder: String) { self.folder = folder }

    /// The file of a calibration.
    ///
    /// - Parameter key: What it holds for.
    /// - Returns: A path in the folder.
    public func path(_ key: Calibration.Key) -> String {
        let name = "\(key.processor) \(key.kernels) \(key.threads)".unicodeScalars.map { scalar in
            let isPlain = scalar.isASCII && (scalar.properties.isAlphabetic || "0"..."9" ~= scalar)
            return isPlain ? String(scalar) : "-"
        }
        return PathText.inside(folder, "calibration-\(name.joined().suffix(150)).json")
    }

    /// What is stored, by this version of the engine.
    ///
    /// - Parameter key: What it should hold for.
    /// - Returns: The calibration; nil where there is none, or the file is damaged, another
    ///   machine's or another version's: it is to be measured anew.
    public func load(_ key: Calibration.Key) -> Calibration? {
        do throws(CheckpointError) {
            guard let file = try ConfigurationFile(path: path(key)) else { return nil }
            return try Self.calibration(file, key)
        } catch {
            // Whatever is wrong with it, the next measurement replaces it.
            return nil
        }
    }

    /// Stores a calibration, in place of what is there for its key.
    ///
    /// - Parameter calibration: What was measured.
    /// - Throws: `.model(.cannotWrite)`.
    public func save(_ calibration: Calibration) throws(GenerationError) {
        do throws(CheckpointError) {
            try makeFolder(folder)
            let text = try Self.text(calibration)
            try TextFile(path: path(calibration.key), text: text).write(overwriting: true)
        } catch {
            throw .model(error)
        }
    }
}

// MARK: The file

extension CalibrationStore {
    /// What a file says; nil where it is not about `key`.
    private static func calibration(
        _ file: ConfigurationFile,
        _ key: Calibration.Key
    ) throws(CheckpointError) -> Calibration? {
        guard try file.integer("format") == format,
            try file.string("engine") == Engine.version,
            try file.string("processor") == key.processor,
            try file.string("kernels") == key.kernels,
            try file.integer("threads") == key.threads,
            let memory = try file.number("memoryBytesPerSecond", in: range)
        else { return nil }
        var speeds: [Calibration.Speed] = []
        for kind in ComputeWork.Kind.allCases {
            guard let group = try file.object(kind.rawValue) else { return nil }
            for precision in Precision.allCases {
                guard let speed = try group.number(precision.rawValue, in: range) else { continue }
                speeds.append(
                    Calibration.Speed(
                        kind: kind,
                        precision: precision,
                        operationsPerSecond: speed
                    )
                )
            }
            guard speeds.contains(where: { $0.kind == kind && $0.precision == .float32 }) else {
                return nil
            }
        }
        return Calibration(
            key: key,
            speeds: speeds,
            memory: memory,
            disk: try file.number("diskBytesPerSecond", in: range)
        )
    }

    /// The text of a file.
    private static func text(_ calibration: Calibration) throws(CheckpointError) -> String {
        func speeds(_ kind: ComputeWork.Kind) -> [String: Double] {
            let speeds = calibration.speeds.filter { $0.kind == kind }
                .map { ($0.precision.rawValue, $0.operationsPerSecond) }
            return Dictionary(speeds) { _, last in last }
        }
        let contents = Contents(
            processor: calibration.key.processor,
            kernels: calibration.key.kernels,
            threads: calibration.key.threads,
            linear: speeds(.linear),
            attention: speeds(.attention),
            convolution: speeds(.convolution),
            memoryBytesPerSecond: calibration.memoryBytesPerSecond,
            diskBytesPerSecond: calibration.diskBytesPerSecond
        )
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
        do {
            return String(decoding: try encoder.encode(contents), as: UTF8.self) + "\n"
        } catch {
            throw .cannotWrite(path: "calibration", reason: "its numbers have no JSON form")
        }
    }

    private struct Contents: Encodable {
        let format = CalibrationStore.format
        let engine = Engine.version
        let processor: String
        let kernels: String
        let threads: Int
        let linear: [String: Double]
        let attention: [String: Double]
        let convolution: [String: Double]
        let memoryBytesPerSecond: Double
        let diskBytesPerSecond: Double?
    }
}
