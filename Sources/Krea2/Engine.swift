import Checkpoints
import Compute
import FoundationEssentials
import Glibc

/// Facts about this build of the engine and the machine it runs on.
public enum Engine {
    /// Version of the engine, which pictures are marked with.
    public static let version = "0.1.0"

    /// Environment variable that forces a kernel level, for tests and bug reports.
    public static let kernelsVariable = "KREA2_KERNELS"

    /// Kernel level in use: "avx512", "avx2", "generic" or "scalar".
    ///
    /// An unknown level in the environment is refused when a pipeline is opened; here it counts as
    /// none.
    public static var kernelLevel: String { ((try? kernels()) ?? .best).name }

    /// Kernel levels of this build that this processor runs, fastest first.
    public static var kernelLevels: [String] {
        Kernels.allNames.filter { Kernels(named: $0) != nil }
    }

    /// A name for the content of a file, which tells in pictures what they were made of.
    ///
    /// - Parameter path: The file.
    /// - Returns: `sha256:` and the SHA-256 of all its bytes.
    /// - Throws: `.model` with what the system says where it cannot be read.
    public static func digest(ofFile path: String) throws(GenerationError) -> String {
        do {
            return try contentDigest(ofFiles: [path])
        } catch {
            throw .model(error)
        }
    }

    /// Threads to compute with unless somebody knows better: `physicalCores`, or fewer where a
    /// control group gives this process less processor time.
    public static var defaultThreads: Int {
        let limit = ControlGroup(contents: text).processors ?? .infinity
        return threads(cores: physicalCores, processors: limit)
    }

    /// As many threads as cores, or as processors, rounded up, and at least one.
    static func threads(cores: Int, processors: Double) -> Int {
        max(1, min(cores, Int(min(processors.rounded(.up), Double(Int32.max)))))
    }

    /// Processor cores this process may use; threads that share a core count once.
    public static var physicalCores: Int {
        let allowed = text(of: "/proc/self/status")?.split(separator: "\n")
            .first { $0.hasPrefix("Cpus_allowed_list:") }?.split(separator: "\t").last
        let cores = processors(in: allowed ?? "0").map { processor in
            text(of: "/sys/devices/system/cpu/cpu\(processor)/topology/core_cpus_list")
                ?? "\(processor)"
        }
        return max(1, Set(cores).count)
    }

    /// Bytes of the machine's memory.
    public static var memoryByteCount: Int {
        sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE))
    }

    /// Bytes that this process can take without others being swapped out or it being stopped.
    ///
    /// What the system says is available, or less where a control group allows less; all of the
    /// memory where it does not say.
    public static var availableMemory: Int {
        let system = text(of: "/proc/meminfo").flatMap { availableMemory(in: $0) }
        let group = ControlGroup(contents: text).availableMemory
        return min(system ?? memoryByteCount, group ?? .max)
    }

    /// The bytes of the `MemAvailable` line of `/proc/meminfo`, nil where there is none.
    static func availableMemory(in meminfo: String) -> Int? {
        let line = meminfo.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") }
        let kibibytes = line?.split(separator: " ").dropFirst().first.flatMap { Int($0) }
        let bytes = kibibytes?.multipliedReportingOverflow(by: 1024)
        return bytes.flatMap { $0.overflow || $0.partialValue < 0 ? nil : $0.partialValue }
    }

    /// The name of the processor; nil where the system does not say.
    public static var processor: String? {
        text(of: "/proc/cpuinfo").flatMap { processor(in: $0) }
    }

    /// The name in a text such as that of `/proc/cpuinfo`: its first `model name`.
    static func processor(in facts: String) -> String? {
        for line in facts.split(separator: "\n") {
            let pair = line.split(separator: ":", maxSplits: 1)
            guard pair.count == 2, pair[0].hasPrefix("model name") else { continue }
            let name = pair[1].split { $0.isWhitespace }.joined(separator: " ")
            return name.isEmpty ? nil : name
        }
        return nil
    }

    /// The numbers in a list such as "0-3,8".
    static func processors(in list: Substring) -> [Int] {
        let most = 4096
        return list.split(separator: ",").reduce(into: []) { processors, part in
            let ends = part.split(separator: "-").compactMap { Int($0) }
            guard let first = ends.first, let last = ends.last, first <= last, last < most
            else { return }
            processors += Array(first...last)
        }
    }

    private static func text(of path: String) -> String? {
        FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) }
    }

    /// The best kernels, or those the environment names.
    static func kernels() throws(GenerationError) -> Kernels {
        guard let value = unsafe getenv(kernelsVariable) else { return .best }
        let name = unsafe String(cString: value)
        guard !name.isEmpty else { return .best }
        guard let kernels = Kernels(named: name) else {
            throw .request(
                "\(kernelsVariable)=\(name): this build or this processor has no such kernels; "
                    + "there are \(kernelLevels.joined(separator: ", "))"
            )
        }
        return kernels
    }
}
