import Checkpoints
import Compute

/// How fast this machine is, measured, to predict times from.
public struct Calibration: Sendable, Equatable {
    /// What a measurement holds for.
    public struct Key: Sendable, Equatable {
        /// Name of the processor.
        public let processor: String
        /// Level of the kernels.
        public let kernels: String
        /// Threads to compute with.
        public let threads: Int

        /// Names what is measured.
        ///
        /// - Parameters:
        ///   - processor: Name of the processor.
        ///   - kernels: Level of the kernels.
        ///   - threads: Threads to compute with.
        public init(processor: String, kernels: String, threads: Int) {
            self.processor = processor
            self.kernels = kernels
            self.threads = threads
        }
    }

    /// A kind of work and its speed.
    public struct Speed: Sendable, Equatable {
        /// Kind of work.
        public let kind: ComputeWork.Kind
        /// Arithmetic; never automatic.
        public let precision: Precision
        /// Multiplications and additions a second.
        public let operationsPerSecond: Double
    }

    /// What it holds for.
    public let key: Key
    /// What the kernels have, each kind in float32 at least.
    public let speeds: [Speed]
    /// Bytes read from memory a second, by all threads together.
    public let memoryBytesPerSecond: Double
    /// Bytes read from disk a second; nil where nothing could be read.
    public let diskBytesPerSecond: Double?

    init(key: Key, speeds: [Speed], memory: Double, disk: Double?) {
        self.key = key
        self.speeds = speeds
        memoryBytesPerSecond = memory
        diskBytesPerSecond = disk
    }
}

// MARK: Measuring

extension Calibration {
    /// Measures this machine, here and now, which takes about a second.
    ///
    /// A machine that is busy meanwhile seems slower than it is.
    ///
    /// - Parameters:
    ///   - threads: Threads to compute with, 1 or more.
    ///   - weights: Files whose disk is measured: a safetensors file, an index or a folder.
    ///   - folder: Where a file of 64 MiB is written instead if those are none or smaller; nil for
    ///     no measurement of the disk then.
    /// - Returns: The speeds; that of the disk is nil where it could not be measured.
    /// - Throws: `.request` when the environment names unknown kernels.
    public static func measure(
        threads: Int,
        reading weights: String? = nil,
        orWritingTo folder: String? = nil
    ) throws(GenerationError) -> Calibration {
        let kernels = try Engine.kernels()
        let rates = MachineRates(kernels: kernels, threads: max(1, threads))
        let speeds = ComputeWork.Kind.allCases.flatMap { kind in
            MachineRates.precisions(kind, kernels).map {
                Speed(kind: kind, precision: $0, operationsPerSecond: rates.speed(kind, $0))
            }
        }
        return Calibration(
            key: key(threads: max(1, threads), kernels: kernels.name),
            speeds: speeds,
            memory: rates.memory(),
            disk: diskRate(reading: weights, orWritingTo: folder)
        )
    }

    /// What a measurement made now holds for.
    ///
    /// - Parameter threads: Threads to compute with.
    /// - Returns: The key.
    /// - Throws: `.request` when the environment names unknown kernels.
    public static func currentKey(threads: Int) throws(GenerationError) -> Key {
        key(threads: max(1, threads), kernels: try Engine.kernels().name)
    }

    private static func key(threads: Int, kernels: String) -> Key {
        Key(processor: Engine.processor ?? "unknown", kernels: kernels, threads: threads)
    }

    /// The rate of the disk; nil where it cannot be measured, which leaves plans without it.
    private static func diskRate(reading weights: String?, orWritingTo folder: String?) -> Double? {
        do throws(CheckpointError) {
            if let weights, let rate = try DiskRate.measure(reading: weights) { return rate }
        } catch {
            // What is wrong with the files shows when they are opened.
        }
        do throws(CheckpointError) {
            guard let folder else { return nil }
            return try DiskRate.measure(in: folder)
        } catch {
            return nil
        }
    }
}

// MARK: Predicting

extension Calibration {
    /// How long some work takes when nothing else runs.
    ///
    /// - Parameter work: Kinds and arithmetics; those that were not measured count as float32.
    /// - Returns: Seconds.
    public func seconds(of work: ComputeWork) -> Double {
        work.parts.reduce(0) { sum, part in
            let speeds = speeds.filter { $0.kind == part.kind }
            let speed =
                speeds.first { $0.precision == part.precision }
                ?? speeds.first { $0.precision == .float32 }
            return sum + part.operations / (speed?.operationsPerSecond ?? .nan)
        }
    }

    /// How long a stage takes, all of its repetitions.
    ///
    /// Computing and reading go on at once, so the slower one counts; weights come from memory in
    /// any case.
    ///
    /// - Parameter stage: What it computes and reads.
    /// - Returns: Seconds, and whether most of them are spent waiting for the disk.
    public func seconds(
        of stage: GenerationPlan.Stage
    ) -> (seconds: Double, isDiskBound: Bool) {
        let computing = max(
            seconds(of: stage.work),
            Double(stage.weightBytes) / memoryBytesPerSecond
        )
        func reading(_ byteCount: Int) -> Double {
            diskBytesPerSecond.map { Double(byteCount) / $0 } ?? 0
        }
        let (first, next) = (reading(stage.firstReadBytes), reading(stage.repeatedReadBytes))
        let further = Double(stage.repetitions - 1)
        let seconds = max(computing, first) + further * max(computing, next)
        return (seconds, seconds > 2 * Double(stage.repetitions) * computing)
    }
}
