import FoundationEssentials

/// What the system counts for this process.
///
/// Source: `proc_pid_io(5)`, `proc_pid_status(5)`, `proc_pid_clear_refs(5)`.
enum ProcessCounters {
    /// Bytes that were read from files, and loaded from disk, as of mapped files too; nil where the
    /// system does not count.
    struct Reads {
        private let fromFiles: Int
        private let fromDisk: Int
        /// Bytes of the counters themselves, which the system counts next time.
        private let own: Int

        /// Asks the system.
        init?() {
            guard let text = ProcessCounters.text("/proc/self/io"),
                let files = number("rchar", in: text), let disk = number("read_bytes", in: text)
            else { return nil }
            (fromFiles, fromDisk, own) = (files, disk, text.utf8.count)
        }

        /// Bytes since an earlier time: from files, or from disk where that is more.
        func bytes(since earlier: Reads) -> Int {
            max(fromFiles - earlier.fromFiles - earlier.own, fromDisk - earlier.fromDisk)
        }
    }

    /// Most bytes in memory since the last reset; nil where the system does not tell.
    static var peakMemoryBytes: Int? {
        text("/proc/self/status").flatMap { number("VmHWM", in: $0) }
            .flatMap {
                let bytes = $0.multipliedReportingOverflow(by: 1024)
                return bytes.overflow ? nil : bytes.partialValue
            }
    }

    /// Begins to watch memory anew; where that is not allowed, the peak remains that of the whole run.
    static func resetPeakMemory() {
        // 5 resets the peak, and nothing else.
        try? Data("5".utf8).write(to: URL(filePath: "/proc/self/clear_refs"))
    }

    /// The number in the first line `key: number`.
    static func number(_ key: String, in text: String) -> Int? {
        let line = text.split(separator: "\n").first { $0.hasPrefix(key + ":") }
        let word = line?.dropFirst(key.count + 1).split { $0.isWhitespace }.first
        return word.flatMap { Int($0) }.flatMap { $0 < 0 ? nil : $0 }
    }

    private static func text(_ path: String) -> String? {
        FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) }
    }
}
