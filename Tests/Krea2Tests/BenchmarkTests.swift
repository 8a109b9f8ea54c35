import Compute
import Foundation
import Synchronization
import TestSupport
import Testing

@testable import Krea2

/// A case that notes its turn and claims to have taken some seconds.
private func fakeCase(
    _ name: String,
    threads: Int = 1,
    work: ComputeWork = ComputeWork(),
    weightBytes: Int = 0,
    warmsUp: Bool = true,
    body: @escaping () throws(GenerationError) -> BenchmarkSample
) -> BenchmarkCase {
    BenchmarkCase(
        .gemm,
        name,
        shape: "",
        precision: nil,
        threads: threads,
        work: work,
        weightBytes: weightBytes,
        warmsUp: warmsUp,
        body: body
    )
}

/// The order in which cases are repeated, and what becomes of their times.
struct BenchmarkTests {
    @Test func casesTakeTurns() throws {
        var turns = ""
        func turn(_ name: String, warmsUp: Bool) -> BenchmarkCase {
            fakeCase(name, warmsUp: warmsUp) { () throws(GenerationError) in
                turns += name
                return BenchmarkSample(seconds: Double(turns.count), readBytes: turns.count)
            }
        }
        let set = BenchmarkSet(.gemm, "turns") { () throws(GenerationError) in
            [turn("a", warmsUp: true), turn("b", warmsUp: false), turn("c", warmsUp: true)]
        }
        var told = ""
        let results = try Benchmark(repetitions: 3).run(set) { round, item in
            told += "\(round)\(item.subject)"
        }
        #expect(turns == "ac" + "abc" + "abc" + "abc")
        #expect(told == "0a0c1a1b1c2a2b2c3a3b3c")
        #expect(results.map(\.benchmark.subject) == ["a", "b", "c"])
        #expect(results.map(\.seconds) == [[3, 6, 9], [4, 7, 10], [5, 8, 11]])
        #expect(results.map(\.readBytes) == [9, 10, 11])
        #expect(results.allSatisfy { $0.kernels == Engine.kernelLevel })
        #expect(results.allSatisfy { $0.peaks.isEmpty && $0.memoryBytesPerSecond == nil })
    }

    @Test func peaksAreThoseOfTheArithmeticsInUse() throws {
        let set = BenchmarkSet(.gemm, "peaks") { () throws(GenerationError) in
            let work = ComputeWork(.linear, .float32, 1) + ComputeWork(.attention, .float32, 1)
            return [
                fakeCase("a", work: work, weightBytes: 1) { () throws(GenerationError) in
                    BenchmarkSample(seconds: 1, readBytes: nil)
                },
                fakeCase("b") { () throws(GenerationError) in
                    BenchmarkSample(seconds: 1, readBytes: nil)
                },
                fakeCase("c", threads: 2) { () throws(GenerationError) in
                    BenchmarkSample(seconds: 1, readBytes: nil)
                },
            ]
        }
        let results = try Benchmark(repetitions: 1).run(set)
        #expect(results[0].peaks.keys.map(\.rawValue) == ["f32"])
        #expect(try #require(results[0].peaks[.float32]) > 1e6)
        #expect(try #require(results[0].memoryBytesPerSecond) > 1e6)
        #expect(results[1].memoryBytesPerSecond == nil)
        #expect(results[2].peaks.isEmpty)
        #expect(results.allSatisfy { $0.readBytes == nil })
    }

    @Test func stopsBetweenRepetitions() throws {
        let count = Atomic(0)
        let set = BenchmarkSet(.gemm, "stop") { () throws(GenerationError) in
            [
                fakeCase("a") { () throws(GenerationError) in
                    count.add(1, ordering: .relaxed)
                    return BenchmarkSample(seconds: 1, readBytes: 0)
                }
            ]
        }
        let benchmark = try Benchmark(repetitions: 9) { count.load(ordering: .relaxed) == 4 }
        #expect(throws: GenerationError.cancelled) { try benchmark.run(set) }
        #expect(count.load(ordering: .relaxed) == 4)
    }

    @Test func failuresComeThrough() throws {
        let set = BenchmarkSet(.gemm, "failure") { () throws(GenerationError) in
            [fakeCase("a") { () throws(GenerationError) in throw .request("no") }]
        }
        let benchmark = try Benchmark(repetitions: 1)
        #expect(throws: GenerationError.request("no")) { try benchmark.run(set) }
    }

    private func result(
        _ work: ComputeWork,
        weightBytes: Int = 0,
        _ seconds: [Double]
    ) -> BenchmarkResult {
        BenchmarkResult(
            fakeCase("a", work: work, weightBytes: weightBytes) { () throws(GenerationError) in
                BenchmarkSample(seconds: 0, readBytes: 0)
            },
            kernels: "avx2",
            seconds: seconds,
            readBytes: 0,
            peakMemoryBytes: 0,
            peaks: [.float32: 100, .int8: 400],
            memoryBytesPerSecond: weightBytes > 0 ? 1000 : nil
        )
    }

    @Test func sharesAreOfTheTimeAtThePeaks() {
        let work = ComputeWork(.linear, .int8, 400) + ComputeWork(.attention, .float32, 100)
        let mixed = result(work, weightBytes: 800, [8, 1, 4])
        #expect(mixed.medianSeconds == 4)
        #expect(mixed.operationsPerSecond == 125)
        // One second each at the peak.
        #expect(mixed.shareOfPeak == 0.5)
        #expect(mixed.weightBytesPerSecond == 200)
        #expect(mixed.shareOfMemory == 0.2)
        #expect(result(work, [8, 1, 4, 5]).medianSeconds == 4.5)
        #expect(result(work, [4]).shareOfMemory == nil)
        #expect(result(ComputeWork(), [4]).operationsPerSecond == nil)
        #expect(result(ComputeWork(), [4]).shareOfPeak == nil)
        #expect(result(ComputeWork(.linear, .bfloat16, 1), [4]).shareOfPeak == nil)
    }

    /// Every level can say what its own instructions reach.
    @Test(arguments: Kernels.allNames)
    func everyLevelHasAPeak(level: String) throws {
        guard let kernels = Kernels(named: level) else {
            try Test.cancel("this CPU lacks \(level)")
        }
        let rates = MachineRates(kernels: kernels, threads: 1)
        for precision in MachineRates.precisions(.linear, kernels) {
            #expect((1e6...1e15).contains(rates.peak(precision)), "\(precision)")
        }
    }
}

/// What the system counts.
struct ProcessCountersTests {
    @Test func readsTheSystemsWords() {
        let text = "rchar: 12\nread_bytes: 7\nVmHWM:\t  2048 kB\nbad: x\nless: -1\nVmHWMX: 1\n"
        #expect(ProcessCounters.number("rchar", in: text) == 12)
        #expect(ProcessCounters.number("read_bytes", in: text) == 7)
        #expect(ProcessCounters.number("VmHWM", in: text) == 2048)
        for key in ["bad", "less", "bytes", ""] {
            #expect(ProcessCounters.number(key, in: text) == nil, "\(key)")
        }
    }

    @Test func countsWhatIsRead() throws {
        let folder = try TemporaryFolder()
        let path = try folder.write([UInt8](repeating: 1, count: 300_000), to: "a")
        guard let before = ProcessCounters.Reads() else {
            try Test.cancel("this system does not count")
        }
        _ = try String(contentsOfFile: path, encoding: .utf8)
        let after = try #require(ProcessCounters.Reads())
        // Other tests may read meanwhile.
        #expect(after.bytes(since: before) >= 300_000)
    }

    @Test func knowsTheLargestMemory() throws {
        guard let peak = ProcessCounters.peakMemoryBytes else {
            try Test.cancel("this system does not tell")
        }
        #expect(peak > 1 << 20)
        ProcessCounters.resetPeakMemory()
        #expect(try #require(ProcessCounters.peakMemoryBytes) > 1 << 20)
    }
}
