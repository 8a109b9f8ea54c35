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

    /// C libraries the engine computes with and their versions; none today, its kernels are its own.
    public static let libraries: [(name: String, version: String)] = []

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
                    + "there are \(Kernels.allNames.filter { Kernels(named: $0) != nil })"
            )
        }
        return kernels
    }
}
