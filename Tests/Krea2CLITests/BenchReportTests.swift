import Foundation
import Synchronization
import Testing

@testable import Krea2
@testable import Krea2CLI

/// What `krea2 bench` writes for given numbers.
struct BenchReportTests {
    /// A row with everything, and one with as little as there is.
    private let rows: [BenchRow] = {
        let sample: () throws(GenerationError) -> BenchmarkSample = {
            BenchmarkSample(seconds: 0, readBytes: 0)
        }
        let full = BenchmarkResult(
            BenchmarkCase(
                .block,
                "block 0 of 28",
                shape: "1024x1024, 4160 tokens",
                weights: "BF16",
                precision: .int8,
                threads: 2,
                work: ComputeWork(.linear, .int8, 3e12)
                    + ComputeWork(.attention, .bfloat16, 5e11),
                weightBytes: 1_000_000_000,
                body: sample
            ),
            kernels: "avx512bf16",
            seconds: [2.5, 2, 2.56789],
            readBytes: 0,
            peakMemoryBytes: 3 << 29,
            peaks: [.int8: 2e12, .bfloat16: 1e12],
            memoryBytesPerSecond: 40e9
        )
        let small = BenchmarkResult(
            BenchmarkCase(
                .load,
                "open the \"transformer\"",
                shape: "28 blocks",
                precision: nil,
                threads: 1,
                body: sample
            ),
            kernels: "avx512bf16",
            seconds: [0.00123456],
            readBytes: nil,
            peakMemoryBytes: nil,
            peaks: [:],
            memoryBytesPerSecond: nil
        )
        return [BenchRow(full, processor: "A | B"), BenchRow(small, processor: nil)]
    }()

    private func text(_ format: BenchFormat) throws -> String {
        let written = Mutex("")
        var console = Console.process()
        console.writeOutput = { bytes in
            written.withLock { $0 += String(decoding: bytes, as: UTF8.self) }
        }
        var writer = BenchWriter(format, console)
        for row in rows { try writer.write(row) }
        try writer.finish()
        return written.withLock { $0 }
    }

    @Test func markdown() throws {
        let head =
            "| group | what | shape | weights | precision | threads | n | median s | min s | max s "
            + "| GFLOP/s | peak | % | GB/s | memory | % | read | peak memory |"
        #expect(
            try text(.markdown) == """
                krea2 \(Engine.version), A | B, kernels avx512bf16

                \(head)
                |\(String(repeating: "---|", count: 18))
                | block | block 0 of 28 | 1024x1024, 4160 tokens | BF16 | int8 | 2 | 3 | 2.500 | 2.000 | 2.568 | 1400 | 1750 | 80.0 | 0.4000 | 40.00 | 1.00 | 0 B | 1.5 GiB |
                | load | open the "transformer" | 28 blocks | | | 1 | 1 | 0.001235 | 0.001235 | 0.001235 | | | | | | | | |

                """
        )
    }

    @Test func csv() throws {
        let lines = try text(.csv).split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines.count == 4 && lines[3].isEmpty)
        #expect(lines[0] == BenchRow.csvNames.joined(separator: ",")[...])
        #expect(
            lines[1] == "block,block 0 of 28,\"1024x1024, 4160 tokens\",BF16,int8,2,3,2.50000,"
                + "2.00000,2.56789,1400.00,1750.00,80.0000,0.400000,40.0000,1.00000,0,1610612736,"
                + "avx512bf16,A | B,\(Engine.version)"
        )
        #expect(
            lines[2] == "load,\"open the \"\"transformer\"\"\",28 blocks,,,1,1,0.00123456,"
                + "0.00123456,0.00123456,,,,,,,,,avx512bf16,unknown,\(Engine.version)"
        )
    }

    @Test func jsonLines() throws {
        let lines = try text(.jsonLines).split(separator: "\n")
        #expect(lines.count == 2)
        #expect(
            lines[0] == """
                {"gigabytesPerSecond":0.4,"gigaflops":1400,"group":"block",\
                "kernels":"avx512bf16","maxSeconds":2.56789,"medianSeconds":2.5,\
                "memoryGigabytesPerSecond":40,"minSeconds":2,"peakGigaflops":1750,\
                "peakMemoryBytes":1610612736,"percentOfMemory":1,"percentOfPeak":80,\
                "precision":"int8","processor":"A | B","readBytes":0,"repetitions":3,\
                "seconds":[2.5,2,2.56789],"shape":"1024x1024, 4160 tokens",\
                "subject":"block 0 of 28","threads":2,"version":"\(Engine.version)",\
                "weights":"BF16"}
                """
        )
        #expect(
            lines[1] == """
                {"group":"load","kernels":"avx512bf16","maxSeconds":0.00123456,\
                "medianSeconds":0.00123456,"minSeconds":0.00123456,"processor":"unknown",\
                "repetitions":1,"seconds":[0.00123456],"shape":"28 blocks",\
                "subject":"open the \\"transformer\\"","threads":1,"version":"\(Engine.version)"}
                """
        )
    }

    @Test func json() throws {
        let objects = try JSONSerialization.jsonObject(with: Data(text(.json).utf8))
        let list = try #require(objects as? [[String: Any]])
        #expect(list.map { $0["group"] as? String } == ["block", "load"])
        // The names of the columns are those of the objects.
        #expect(Set(list[0].keys) == Set(BenchRow.csvNames + ["seconds"]))
    }

    @Test(arguments: [
        (0, 4, "0"), (1, 4, "1.000"), (0.00123456, 4, "0.001235"), (12.3456, 4, "12.35"),
        (9.9996, 4, "10.000"), (999.96, 4, "1000.0"), (1234.5, 4, "1235"), (123456, 4, "123456"),
        (-1.25, 3, "-1.25"), (0.99999, 3, "1.000"), (1e-9, 3, "0.00000000100"),
        (1e-15, 3, "0.000000000000"), (.nan, 4, "nan"), (.infinity, 4, "inf"), (1e20, 4, "1e+20"),
    ])
    func numbersHaveSignificantDigits(_ value: Double, digits: Int, text: String) {
        #expect(significant(value, digits: digits) == text)
    }

    @Test func quotesWhatMustBeQuoted() {
        #expect(csvLine(["a b", "a,b", "a\"b", "a\nb", ""]) == "a b,\"a,b\",\"a\"\"b\",\"a\nb\",")
        #expect(markdownLine(["a", "", "b"]) == "| a | | b |")
    }

    @Test(arguments: [
        (0.004, "0 s"), (0.08, "0.08 s"), (7.46, "7.5 s"), (42.4, "42 s"), (99.6, "1:40"),
    ])
    func timesThatMayBeShort(_ seconds: Double, text: String) {
        #expect(secondsText(seconds) == text)
    }
}
