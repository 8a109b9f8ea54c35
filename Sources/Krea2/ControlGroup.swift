/// Limits that Linux control groups, such as those of a container, put on this process.
///
/// Both versions are understood, also side by side. A limit holds for all groups below the one it
/// is set for, so each group from this process's own up to the top counts.
///
/// Source: "Control Group v2" and "Memory Resource Controller" in the Linux kernel's documentation,
/// `cgroups(7)`, `proc_pid_mountinfo(5)`.
struct ControlGroup {
    /// Folders of the groups that limit memory.
    let memoryFolders: [String]
    /// Folders of the groups that limit processor time.
    let processorFolders: [String]
    /// The contents of a file, nil where there is none.
    private let contents: (String) -> String?

    /// Finds the groups of this process.
    ///
    /// - Parameter contents: Reads a text file by its path.
    init(contents: @escaping (String) -> String?) {
        let groups = (contents("/proc/self/cgroup") ?? "").split(separator: "\n")
        let mounts = (contents("/proc/self/mountinfo") ?? "").split(separator: "\n")
            .compactMap { Mount($0) }
        func folders(_ controller: Substring) -> [String] {
            groups.flatMap { line in
                let fields = line.split(
                    separator: ":",
                    maxSplits: 2,
                    omittingEmptySubsequences: false
                )
                guard fields.count == 3 else { return [String]() }
                let controllers = fields[1].split(separator: ",")
                // Version 2 has one tree for all controllers and names none.
                guard controllers.isEmpty || controllers.contains(controller) else { return [] }
                let mount = mounts.first {
                    controllers.isEmpty ? $0.isVersion2 : $0.controllers.contains(controller)
                }
                return mount?.folders(ofGroup: String(fields[2])) ?? []
            }
        }
        memoryFolders = folders("memory")
        processorFolders = folders("cpu")
        self.contents = contents
    }

    /// Bytes that this process may still take, nil for no limit.
    ///
    /// What the system can drop from its cache of files counts as free.
    var availableMemory: Int? {
        memoryFolders.compactMap { folder in
            let limits = ["memory.max", "memory.high", "memory.limit_in_bytes"]
                .compactMap { number(in: "\(folder)/\($0)") }
            let usage =
                number(in: "\(folder)/memory.current")
                ?? number(in: "\(folder)/memory.usage_in_bytes")
            guard let limit = limits.min(), let usage else { return nil }
            let statistics = contents("\(folder)/memory.stat") ?? ""
            let cached =
                Self.value("total_inactive_file", in: statistics)
                ?? Self.value("inactive_file", in: statistics) ?? 0
            return max(0, limit - max(0, usage - cached))
        }.min()
    }

    /// Processors whose time this process may use, such as 1.5; nil for no limit.
    var processors: Double? {
        processorFolders.compactMap { folder in
            // "max 100000" or "150000 100000".
            let both = (contents("\(folder)/cpu.max") ?? "").split(separator: " ")
            let quota =
                both.first.flatMap { Self.natural($0) } ?? number(in: "\(folder)/cpu.cfs_quota_us")
            let period =
                both.last.flatMap { Self.natural($0) } ?? number(in: "\(folder)/cpu.cfs_period_us")
            guard let quota, let period, period > 0 else { return nil }
            return Double(quota) / Double(period)
        }.min()
    }

    /// The number that is all of a file; nil for "max" and −1, which stand for no limit.
    private func number(in path: String) -> Int? {
        contents(path).flatMap { Self.natural($0[...]) }
    }

    private static func natural(_ text: Substring) -> Int? {
        let number = text.split(whereSeparator: \.isWhitespace).first.flatMap { Int($0) }
        return number.flatMap { $0 >= 0 ? $0 : nil }
    }

    /// The value of a `key 123` line.
    private static func value(_ key: String, in text: String) -> Int? {
        let line = text.split(separator: "\n").first { $0.hasPrefix(key + " ") }
        return line.flatMap { natural($0.dropFirst(key.count)) }
    }
}

/// A mounted tree of control groups.
private struct Mount {
    let isVersion2: Bool
    /// Controllers of a tree of version 1, among its other options.
    let controllers: [Substring]
    private let root: String
    private let folder: String

    /// Reads a line of mountinfo; nil for mounts of other kinds.
    init?(_ line: Substring) {
        // Before the hyphen: two numbers, device, root, folder, options; after it: kind, source,
        // options of the file system.
        let fields = line.split(separator: " ")
        guard let hyphen = fields.firstIndex(of: "-"), hyphen >= 6, fields.count == hyphen + 4
        else {
            return nil
        }
        let kind = fields[hyphen + 1]
        guard kind == "cgroup" || kind == "cgroup2" else { return nil }
        isVersion2 = kind == "cgroup2"
        controllers = isVersion2 ? [] : fields[hyphen + 3].split(separator: ",")
        root = fields[3] == "/" ? "" : String(fields[3])
        folder = String(fields[4])
    }

    /// The folders of a group and of all above it that are mounted.
    ///
    /// Inside a container the mount may begin at the container's group, and the group's path may
    /// be one outside of it.
    func folders(ofGroup path: String) -> [String] {
        let isInside = path == root || path.hasPrefix(root + "/")
        var parts = isInside ? path.dropFirst(root.count).split(separator: "/") : []
        if parts.contains("..") { parts = [] }
        return (0...parts.count).map { count in
            ([Substring(folder)] + parts.prefix(count)).joined(separator: "/")
        }
    }
}
