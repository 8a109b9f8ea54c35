import Testing

@testable import Krea2

struct ControlGroupTests {
    private static let version2 = """
        22 27 0:20 / /proc rw,nosuid - proc proc rw
        31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 master:3 - cgroup2 cgroup2 rw,nsdelegate

        """
    private static let version1 = """
        31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
        33 31 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct
        32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw

        """

    private func group(_ groups: String, _ mounts: String, _ files: [String: String] = [:])
        -> ControlGroup
    {
        var all = files
        all["/proc/self/cgroup"] = groups
        all["/proc/self/mountinfo"] = mounts
        return ControlGroup { [all] in all[$0] }
    }

    // MARK: Folders

    @Test func findsGroupsOfVersion2() {
        let group = group("0::/user.slice/run.scope\n", Self.version2)
        let folders = ["", "/user.slice", "/user.slice/run.scope"].map { "/sys/fs/cgroup" + $0 }
        #expect(group.memoryFolders == folders && group.processorFolders == folders)
    }

    @Test func findsGroupsOfVersion1() {
        let group = group("4:memory:/a:b\n2:cpuacct:/x\n1:cpu,other:/c\n", Self.version1)
        #expect(group.memoryFolders == ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/a:b"])
        #expect(group.processorFolders == ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu/c"])
    }

    @Test func findsBothVersions() {
        let group = group("4:memory:/\n1:cpu:/\n0::/\n", Self.version1)
        let unified = "/sys/fs/cgroup/unified"
        #expect(group.memoryFolders == ["/sys/fs/cgroup/memory", unified])
        #expect(group.processorFolders == ["/sys/fs/cgroup/cpu", unified])
    }

    @Test(arguments: [
        ("/docker/1f", "/docker/1f", ["/m"]), ("/docker/1f", "/docker/1f/in", ["/m", "/m/in"]),
        ("/docker/1f", "/docker/1fe", ["/m"]), ("/docker/1f", "/", ["/m"]),
        ("/..", "/", ["/m"]), ("/", "/../x", ["/m"]), ("/", "/", ["/m"]),
    ])
    func startsWhereTheContainerDoes(_ root: String, _ path: String, folders: [String]) {
        let mounts = "35 31 0:32 \(root) /m rw - cgroup cgroup rw,memory\n"
        #expect(group("4:memory:\(path)\n", mounts).memoryFolders == folders)
    }

    @Test(arguments: [
        ("", ""), ("0::/a", ""), ("", Self.version2), ("a\n:\n::\n", Self.version2),
        ("4:memory:/", "a b\n- - - -\n1 2 3 4 5 6 - cgroup\n1 - cgroup cgroup rw,memory"),
    ])
    func saysNothingWithoutGroups(_ groups: String, _ mounts: String) {
        let group = group(groups, mounts)
        #expect(group.availableMemory == nil && group.processors == nil)
    }

    // MARK: Memory

    @Test func memoryOfVersion2() {
        var files = [
            "/sys/fs/cgroup/a/memory.max": "max\n", "/sys/fs/cgroup/a/memory.high": "max\n",
            "/sys/fs/cgroup/a/memory.current": "1000\n",
            "/sys/fs/cgroup/a/memory.stat": "anon 700\ninactive_file 300\nactive_file 5\n",
        ]
        func available() -> Int? { group("0::/a/b\n", Self.version2, files).availableMemory }
        #expect(available() == nil)
        files["/sys/fs/cgroup/a/memory.max"] = "5000\n"
        #expect(available() == 4300)
        files["/sys/fs/cgroup/a/memory.high"] = "4000\n"
        #expect(available() == 3300)
        files["/sys/fs/cgroup/a/b/memory.max"] = "9000"
        files["/sys/fs/cgroup/a/b/memory.current"] = "8000"
        #expect(available() == 1000)
        files["/sys/fs/cgroup/a/b/memory.current"] = "9500"
        #expect(available() == 0)
        files["/sys/fs/cgroup/a/b/memory.stat"] = "inactive_file 9999999\n"
        #expect(available() == 3300)
        files["/sys/fs/cgroup/a/b/memory.current"] = "-3"
        #expect(available() == 3300)
    }

    @Test func memoryOfVersion1() {
        let folder = "/sys/fs/cgroup/memory"
        let files = [
            "\(folder)/memory.limit_in_bytes": "9223372036854771712\n",
            "\(folder)/memory.usage_in_bytes": "800000\n",
            "\(folder)/c/memory.limit_in_bytes": "600000\n",
            "\(folder)/c/memory.usage_in_bytes": "500000\n",
            "\(folder)/c/memory.stat": "inactive_file 1\ntotal_inactive_file 70000\n",
        ]
        #expect(group("4:memory:/c\n", Self.version1, files).availableMemory == 170_000)
        #expect(
            group("4:memory:/d\n", Self.version1, files).availableMemory
                == 9_223_372_036_854_771_712 - 800_000
        )
    }

    @Test func availableMemoryOfTheSystem() {
        let text = "MemTotal:       24684092 kB\nMemFree:  1 kB\nMemAvailable:   21986416 kB\n"
        #expect(Engine.availableMemory(in: text) == 21_986_416 * 1024)
        for text in [
            "", "MemAvailable:", "MemAvailable: x kB", "MemAvailable: -1 kB",
            "MemAvailable: 9223372036854775807 kB",
        ] {
            #expect(Engine.availableMemory(in: text) == nil)
        }
        #expect((1...Engine.memoryByteCount).contains(Engine.availableMemory))
    }

    // MARK: Processors

    @Test(
        arguments: [
            ("max 100000\n", nil), ("150000 100000\n", 1.5), ("400000 100000", 4), ("", nil),
            ("100000 0", nil), ("x y", nil), ("-1 100000", nil), ("max", nil),
        ] as [(String, Double?)]
    )
    func processorsOfVersion2(_ text: String, processors: Double?) {
        let files = ["/sys/fs/cgroup/a/cpu.max": text]
        #expect(group("0::/a/b\n", Self.version2, files).processors == processors)
    }

    @Test func processorsOfVersion1() {
        let folder = "/sys/fs/cgroup/cpu"
        let files = [
            "\(folder)/cpu.cfs_quota_us": "-1\n", "\(folder)/cpu.cfs_period_us": "100000\n",
            "\(folder)/c/cpu.cfs_quota_us": "250000\n", "\(folder)/c/cpu.cfs_period_us": "100000\n",
            "\(folder)/c/d/cpu.cfs_quota_us": "50000\n", "\(folder)/c/d/cpu.cfs_period_us": "10000",
        ]
        #expect(group("1:cpu,cpuacct:/c/d\n", Self.version1, files).processors == 2.5)
        #expect(group("1:cpu:/\n", Self.version1, files).processors == nil)
    }

    @Test func threadsFollowCoresAndProcessors() {
        #expect(Engine.threads(cores: 8, processors: .infinity) == 8)
        #expect(Engine.threads(cores: 8, processors: 2.5) == 3)
        #expect(Engine.threads(cores: 2, processors: 1e30) == 2)
        #expect(Engine.threads(cores: 8, processors: 0) == 1)
        #expect((1...Engine.physicalCores).contains(Engine.defaultThreads))
    }
}
