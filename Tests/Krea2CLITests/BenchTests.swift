import Foundation
import Krea2
import TestSupport
import Testing

@testable import Krea2CLI

/// What `krea2 bench` makes of its options.
struct BenchOptionsTests {
    private func settings(_ arguments: [String]) throws(Failure) -> BenchSettings {
        let scan = try BenchSettings.table.scan(arguments)
        var settings = BenchSettings()
        try BenchSettings.table.apply(scan.given, to: &settings)
        return settings
    }

    @Test func listsAreTakenApart() throws {
        let found = try settings([
            "-r", "3", "--precision", "f32,int8,auto", "-t", "1,8", "--size", "512x768,1024x1024",
            "--tokens", "64,512", "--rows", "1,16384", "--matrices", "6144x16384,7x9",
            "--weights", "f32,fp8", "-o", "jsonl", "--memory", "2GiB", "--blocks", "4",
            "--lora-rank", "0,16", "--references", "0,4x144,-1x7",
        ])
        #expect(found.repetitions == 3)
        #expect(found.precisions == [.float32, .int8, .automatic])
        #expect(found.threads == [1, 8])
        #expect(
            found.sizes == [
                PictureSize(width: 512, height: 768), PictureSize(width: 1024, height: 1024),
            ]
        )
        #expect(found.tokens == [64, 512])
        #expect(found.rows == [1, 16384])
        #expect(
            found.matrices == [
                BenchmarkMatrix("up, feed-forward gate", inputs: 6144, outputs: 16384),
                BenchmarkMatrix("matrix", inputs: 7, outputs: 9),
            ]
        )
        #expect(found.weights == [.float32, .float8])
        #expect(found.format == .jsonLines)
        #expect(found.memory == 2 << 30)
        #expect(found.blocks == 4)
        #expect(found.loraRanks == [0, 16])
        #expect(
            found.references == [
                BenchmarkReferences(count: 0, rows: 0), BenchmarkReferences(count: 4, rows: 144),
                BenchmarkReferences(count: 1, rows: 7, isNegative: true),
            ]
        )
    }

    @Test(arguments: [
        (["-r", "0"], "-r: '0' is not a whole number from 1 to 1000"),
        (["--precision", "f32,"], "--precision: '' is not one of f32, bf16, int8, auto"),
        (["--precision", "f32,f32"], "--precision: 'f32' is there twice"),
        (["--threads", "1,0"], "--threads: '0' is not a whole number from 1 to 1024"),
        (["--size", "500x512"], "--size: '500x512' has sides that are no multiples of 16"),
        (["--size", "512"], "--size: '512' is not WIDTHxHEIGHT, such as 1024x768"),
        (["--size", "32x64"], "--size: '32' is not a whole number from 64 to 4096"),
        (["--tokens", "513"], "--tokens: '513' is not a whole number from 1 to 512"),
        (["--rows", "1,1"], "--rows: '1' is there twice"),
        (["--references", "4"], "--references: '4' is not 0 or COUNTxROWS, such as 4x144"),
        (["--references", "64x1024"], "--references: '64x1024' has more than 16384 rows"),
        (["--matrices", "1x2x3"], "--matrices: '1x2x3' is not INPUTSxOUTPUTS, such as 6144x16384"),
        (
            ["--matrices", "65536x65536"],
            "--matrices: '65536x65536' has more than 268435456 elements"
        ),
        (["--weights", "int8"], "--weights: 'int8' is not one of f32, f16, bf16, fp8"),
        (["-o", "rows.md"], "-o: 'rows.md' is not one of md, csv, json, jsonl"),
        (["--synthetic", "full", "-m", "x"], "--synthetic and -m exclude each other"),
    ])
    func wrongValuesAreRefused(_ arguments: [String], message: String) {
        #expect(throws: Failure(.wrongUsage, "\(message); see krea2 bench --help")) {
            try settings(arguments)
        }
    }

    @Test(arguments: [
        (["bench", "gem"], "'gem' is not one of gemm, attention, block, te, dit, vae, load, e2e"),
        (["bench", "gemm", "calibrate"], "calibrate stands alone"),
        (["bench", "calibrate", "-r", "2"], "-r does not concern calibrate"),
        (
            ["bench", "te", "--tokens", "34", "-m", fixtureModel],
            "expected more than the template's"
        ),
        (["bench", "dit", "--memory", "1MiB", "-m", fixtureModel], "needs at least"),
        (["bench", "e2e", "--memory", "1MiB", "-m", fixtureModel], "needs at least"),
    ])
    func wrongUsageIsOneLine(_ arguments: [String], message: String) throws {
        let folder = try TemporaryFolder()
        let run = try CommandRun.process(arguments + ["--quiet"], in: folder.path)
        #expect(run.code == 64)
        #expect(run.output.isEmpty)
        #expect(run.isOneErrorLine, "\(run.errors)")
        #expect(run.errors.contains(message), "\(run.errors)")
        #expect(run.errors.hasSuffix("; see krea2 bench --help\n"), "\(run.errors)")
    }
}

/// `krea2 bench` on small models: what it runs and writes, not how long that takes.
@Suite(.serialized)
struct BenchTests {
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    /// The rows of a run as JSON objects.
    private func rows(_ arguments: [String], code: Int32 = 0) throws -> [[String: Any]] {
        let run = try CommandRun.process(
            ["bench", "-r", "2", "-o", "jsonl"] + arguments,
            in: folder.path
        )
        #expect(run.code == code, "\(run.errors)")
        return try run.lines.map { line in
            try #require(
                try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
            )
        }
    }

    private func values(_ key: String, _ rows: [[String: Any]]) -> [String] {
        rows.map { $0[key] as? String ?? ($0[key] as? Int).map(String.init) ?? "" }
    }

    private let small = ["--size", "64x64", "-t", "1"]

    @Test func gemmCrossesItsLists() throws {
        let found = try rows([
            "gemm", "--matrices", "64x48,100x30", "--rows", "3,40", "--precision", "f32,auto",
            "-t", "1,2", "--weights", "f32,fp8",
        ])
        // Where the kernels lack bfloat16, auto is float32 and no row of its own.
        let arithmetics = Set(values("precision", found)).count
        #expect(found.count == 2 * 2 * arithmetics * 2 * 2)
        let keys = ["shape", "precision", "threads", "weights"].map { values($0, found) }
        let tuples = found.indices.map { index in keys.map { $0[index] }.joined(separator: " ") }
        #expect(Set(tuples).count == found.count)
        #expect(tuples.contains("40x100x30 f32 2 F8_E4M3"))
        for row in found {
            #expect(row["group"] as? String == "gemm")
            #expect(row["kernels"] as? String == Engine.kernelLevel)
            #expect((row["seconds"] as? [Double])?.count == 2)
            for key in ["gigaflops", "peakGigaflops", "percentOfPeak", "percentOfMemory"] {
                #expect(try #require(row[key] as? Double) > 0, "\(key)")
            }
        }
    }

    @Test func attentionNeedsNoModel() throws {
        let found = try rows(["attention", "--tokens", "16,64"] + small)
        #expect(Set(values("shape", found)) == ["64x64, 32 tokens", "64x64, 80 tokens"])
        #expect(found.allSatisfy { $0["weights"] == nil && $0["percentOfMemory"] == nil })
    }

    @Test(arguments: [
        ("block", ["block 0 of 2"]), ("te", ["6 of 7 layers", "vision tower"]),
        ("dit", ["2 blocks"]),
        ("vae", ["decoder"]), ("load", ["open the transformer", "read the transformer"]),
        ("e2e", ["2 blocks, 1 step"]),
    ])
    func everyGroupRunsOnAModel(_ group: String, subjects: [String]) throws {
        let found = try rows([group, "-m", fixtureModel, "--steps", "1"] + small)
        #expect(values("group", found) == subjects.map { _ in group })
        #expect(values("subject", found) == subjects)
        for row in found {
            let seconds = try #require(row["seconds"] as? [Double])
            #expect(seconds.count == 2 && seconds.allSatisfy { $0 > 0 })
            #expect((row["gigaflops"] == nil) == (group == "load"))
        }
    }

    @Test(arguments: [("block", "block 0 of 2"), ("dit", "2 blocks")])
    func lorasAreRowsOfTheirOwn(_ group: String, subject: String) throws {
        let found = try rows([group, "-m", fixtureModel, "--lora-rank", "0,4"] + small)
        #expect(values("subject", found) == [subject, subject + ", LoRA of rank 4"])
    }

    @Test(arguments: [("block", "block 0 of 2"), ("dit", "2 blocks")])
    func referencesAreRowsOfTheirOwn(_ group: String, subject: String) throws {
        let found = try rows([group, "-m", fixtureModel, "--references", "0,2x5,-1x5"] + small)
        #expect(
            values("subject", found) == [
                subject, subject + ", 2 references of 5 rows",
                subject + ", 1 negative reference of 5 rows",
            ]
        )
        #expect(
            values("shape", found) == ["64x64, 80 tokens", "64x64, 90 tokens", "64x64, 85 tokens"]
        )
    }

    /// The fixture's transformer is float32, its text encoder bfloat16.
    @Test(arguments: [
        ("block", "f32,auto"), ("te", "bf16,int8,auto"), ("dit", "f32,auto"),
        ("vae", "bf16,int8,auto"), ("e2e", "f32,auto"),
    ])
    func arithmeticsThatComeToTheSameAreOneRow(_ group: String, precisions: String) throws {
        let arguments = [group, "-m", fixtureModel, "--steps", "1", "--precision", precisions]
        // The text encoder has its vision tower beside it.
        #expect(try rows(arguments + small).count == (group == "te" ? 2 : 1))
    }

    @Test func withAModelMoreGroupsAreUsual() throws {
        let options = ["--matrices", "64x48", "--rows", "3", "-r", "1", "-t", "1"]
        let bench = ["bench", "-o", "jsonl", "--size", "64x64"] + options
        let without = try CommandRun.process(bench, in: folder.path)
        #expect(without.code == 0, "\(without.errors)")
        #expect(!without.text.contains("\"group\":\"block\""))
        #expect(without.errors == "krea2: gemm, matrix, 64 to 48\nkrea2: attention, random heads\n")
        let with = try CommandRun.process(bench + ["-m", fixtureModel], in: folder.path)
        for group in ["gemm", "attention", "block", "te", "vae", "load"] {
            #expect(with.text.contains("\"group\":\"\(group)\""), "\(group)")
        }
        #expect(!with.text.contains("\"group\":\"dit\""))
    }

    @Test func missingModelsAreMissingInputs() throws {
        let run = try CommandRun.process(["bench", "dit"], in: folder.path)
        #expect(run.code == 66)
        #expect(run.isOneErrorLine)
        let named = try CommandRun.process(["bench", "vae", "-m", "no-such"], in: folder.path)
        #expect(named.code == 66)
    }

    @Test func randomWeightsAreWrittenAndRemoved() throws {
        let temporary = folder.file("temporary")
        try FileManager.default.createDirectory(
            atPath: temporary,
            withIntermediateDirectories: false
        )
        let arguments = [
            "block", "te", "dit", "vae", "load", "e2e", "--synthetic", "tiny", "--temporary",
            temporary, "--steps", "1", "--weights", "bf16,fp8",
        ]
        let found = try rows(arguments + small)
        let groups = values("group", found)
        for group in ["block", "dit", "e2e"] {
            #expect(groups.filter { $0 == group }.count == 2, "\(group)")
        }
        #expect(groups.filter { $0 == "te" }.count == 4)
        #expect(groups.filter { $0 == "vae" }.count == 1)
        #expect(groups.filter { $0 == "load" }.count == 4)
        #expect(Set(values("weights", found)).isSuperset(of: ["BF16", "F8_E4M3"]))
        #expect(try FileManager.default.contentsOfDirectory(atPath: temporary).isEmpty)

        // However the run ends.
        let small = ["--synthetic", "tiny", "--temporary", temporary, "--memory", "1MiB"]
        #expect(try rows(["dit"] + small, code: 64).isEmpty)
        #expect(try FileManager.default.contentsOfDirectory(atPath: temporary).isEmpty)
        let absent = ["dit", "--synthetic", "tiny", "--temporary", folder.file("absent")]
        #expect(try rows(absent, code: 73).isEmpty)
    }

    @Test func aSignalRemovesRandomWeights() throws {
        let process = try CommandProcess(
            ["bench", "block", "--synthetic", "tiny", "--temporary", folder.path, "-r", "1000"],
            in: folder.path
        )
        process.waitForError("krea2: block, one block")
        process.send(SIGINT)
        let run = try process.finish()
        #expect(run.code == 130)
        #expect(run.errors.hasSuffix("krea2: stopped by SIGINT\n"))
        #expect(try folder.names().isEmpty)
    }

    @Test func calibrateKeepsWhatItMeasures() throws {
        let run = try CommandRun.process(["bench", "calibrate", "-t", "1,2"], in: folder.path)
        #expect(run.code == 0, "\(run.errors)")
        #expect(run.lines.contains { $0.hasPrefix("| 1 | linear f32 | ") })
        #expect(run.lines.contains { $0.hasPrefix("| 2 | disk | ") && $0.hasSuffix(" GB/s |") })
        let kept = try FileManager.default
            .contentsOfDirectory(atPath: folder.file(".cache/krea2")).sorted()
        #expect(kept.count == 2)
        #expect(kept.allSatisfy { $0.contains("-\(Engine.kernelLevel)-") })

        let plan = ["generate", "a", "--plan", "-m", fixtureModel, "-t", "2"]
        #expect(try CommandRun.process(plan, in: folder.path).errors.isEmpty)
    }

    @Test(arguments: [("csv", "1,memory,"), ("json", "\"speeds\" : ["), ("jsonl", "{\"disk")])
    func calibrateWritesInAllForms(_ form: String, part: String) throws {
        let arguments = [
            "bench", "calibrate", "-t", "1", "-o", form, "-m", fixtureModel, "--quiet",
        ]
        let run = try CommandRun.process(arguments, in: folder.path)
        #expect(run.code == 0)
        #expect(run.errors.isEmpty)
        #expect(run.text.contains(part), "\(run.text)")
    }

    /// Where no folder is named, or it cannot be written, the numbers are as good.
    @Test func whatCannotBeKeptIsMeasuredAllTheSame() throws {
        try folder.write("x", to: "file")
        for (environment, reason) in [
            ([:], "neither XDG_CACHE_HOME nor HOME names a folder"),
            (["XDG_CACHE_HOME": folder.file("file")], "the folder cannot be made"),
        ] {
            let run = CommandRun.inProcess(
                "bench",
                "calibrate",
                "-t",
                "1",
                environment: environment
            )
            #expect(run.code == 0)
            #expect(run.errors.contains("the calibration is not kept: "), "\(run.errors)")
            #expect(run.errors.contains(reason), "\(run.errors)")
            #expect(run.text.contains("| 1 | memory | "))
        }
    }

    @Test(arguments: [
        ([:], nil), (["HOME": "/h"], "/h/.cache/krea2"),
        (["HOME": "/h", "XDG_CACHE_HOME": "/c"], "/c/krea2"),
        (["HOME": "/h", "XDG_CACHE_HOME": "/c/"], "/c/krea2"),
        (["HOME": "/h", "XDG_CACHE_HOME": "relative"], "/h/.cache/krea2"),
    ])
    func calibrationsAreKeptWhereCachesAre(_ environment: [String: String], folder: String?) {
        #expect(StoredCalibration.folder(environment) == folder)
    }
}
