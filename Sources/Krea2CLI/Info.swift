import FoundationEssentials
import Images
import Krea2

/// What `krea2 info` can be told.
struct InfoSettings: Equatable, Sendable {
    var isJSON = false

    static let table = OptionTable<InfoSettings>(
        command: "info",
        positional: nil,
        options: [
            .flag("json", help: "JSON instead of text", \.isJSON)
        ]
    )
}

/// `krea2 info`: what this build finds on this machine.
enum Info {
    static let command = Command(
        InfoSettings.table,
        summary: "version, processor, kernels, threads, memory, libraries",
        synopsis: "[options]",
        body: run
    )

    private static func run(
        _ scan: OptionTable<InfoSettings>.Scan,
        _ console: Console
    ) throws(Failure) {
        var settings = InfoSettings()
        try InfoSettings.table.apply(scan.given, to: &settings)
        let report = Report(
            processor: Engine.processor,
            memoryFacts: text(of: "/proc/meminfo")
        )
        try console.print(settings.isJSON ? JSONText.pretty(report) : report.text)
    }

    /// A file of the proc file system; empty where there is none.
    private static func text(of path: String) -> String {
        FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }

    /// The facts of one machine.
    struct Report: Encodable {
        let version: String
        let processor: String
        let kernels: String
        /// Kernel levels this machine could run, fastest first.
        let kernelLevels: [String]
        let threads: Int
        /// `nil` where the system does not say.
        let memoryBytes: Int?
        let availableBytes: Int?
        /// Version by name.
        let libraries: [String: String]

        /// Collects the facts.
        ///
        /// - Parameters:
        ///   - processor: Its name, if the system tells it.
        ///   - memoryFacts: Text of `/proc/meminfo`.
        init(processor: String?, memoryFacts: String) {
            version = Engine.version
            self.processor = processor ?? "unknown"
            kernels = Engine.kernelLevel
            kernelLevels = Engine.kernelLevels
            threads = Engine.defaultThreads
            memoryBytes = Self.kibibytes("MemTotal", in: memoryFacts)
            availableBytes = Self.kibibytes("MemAvailable", in: memoryFacts)
            libraries = PictureFormat.libraryVersions
        }

        /// The facts as lines for people.
        var text: String {
            let memory = memoryBytes.map(byteText) ?? "unknown"
            let available = availableBytes.map { ", \(byteText($0)) available" } ?? ""
            let others = kernelLevels.filter { $0 != kernels }.joined(separator: ", ")
            let names = libraries.keys.sorted().map { "\($0) \(libraries[$0] ?? "")" }
            return """
                krea2      \(version)
                processor  \(processor)
                kernels    \(kernels); \(Engine.kernelsVariable) can choose \(others)
                threads    \(threads) by default, the physical cores this process may use
                memory     \(memory)\(available)
                libraries  \(names.joined(separator: ", "))
                """
        }

        /// The value of the first `key : value` line.
        private static func value(_ key: String, in facts: String) -> String? {
            for line in facts.split(separator: "\n") {
                let pair = line.split(separator: ":", maxSplits: 1)
                guard pair.count == 2, pair[0].trimmed == key else { continue }
                return pair[1].trimmed
            }
            return nil
        }

        /// The value of a `key: 123 kB` line, in bytes.
        private static func kibibytes(_ key: String, in facts: String) -> Int? {
            guard let number = value(key, in: facts)?.split(separator: " ").first else {
                return nil
            }
            guard let bytes = Int(number)?.multipliedReportingOverflow(by: 1024), !bytes.overflow
            else { return nil }
            return bytes.partialValue
        }
    }
}

extension Substring {
    /// The text without white space at either end.
    fileprivate var trimmed: String {
        let start = drop { $0.isWhitespace }
        let end = start.lastIndex { !$0.isWhitespace }
        return end.map { String(start[...$0]) } ?? ""
    }
}
