import Foundation
import TestSupport
import Testing

@testable import Krea2

/// A calibration of a machine that is easy to reckon with.
private let example = Calibration(
    key: .init(processor: "A (R) Processor: 3.0 GHz", kernels: "avx2", threads: 2),
    speeds: [
        .init(kind: .linear, precision: .float32, operationsPerSecond: 100),
        .init(kind: .linear, precision: .int8, operationsPerSecond: 400),
        .init(kind: .attention, precision: .float32, operationsPerSecond: 50),
        .init(kind: .convolution, precision: .float32, operationsPerSecond: 10),
    ],
    memory: 1000,
    disk: 20
)

/// Times predicted from measured speeds.
struct CalibrationTests {
    @Test func workOfOneKindAndArithmeticIsAddedUp() {
        let work =
            ComputeWork(.linear, .int8, 3) + ComputeWork(.attention, .float32, 2)
            + 2 * ComputeWork(.linear, .int8, 4) + ComputeWork(.linear, .float32, 1)
        #expect(work.parts.map(\.operations) == [11, 2, 1])
        #expect(work.total == 14)
        #expect(ComputeWork().total == 0)
    }

    @Test func partsOfWorkFollowEachOther() {
        let work = ComputeWork(.linear, .int8, 800) + ComputeWork(.attention, .float32, 100)
        #expect(example.seconds(of: work) == 4)
        // What was not measured counts as float32.
        #expect(example.seconds(of: ComputeWork(.linear, .bfloat16, 800)) == 8)
        #expect(example.seconds(of: ComputeWork()) == 0)
    }

    private func stage(
        repetitions: Int = 3,
        weightBytes: Int = 0,
        first: Int = 0,
        repeated: Int = 0
    ) -> GenerationPlan.Stage {
        GenerationPlan.Stage(
            name: "transformer",
            repetitions: repetitions,
            work: ComputeWork(.linear, .float32, 200),
            weightBytes: weightBytes,
            firstReadBytes: first,
            repeatedReadBytes: repeated
        )
    }

    @Test func theSlowestOfComputingMemoryAndDiskCounts() {
        #expect(example.seconds(of: stage()) == (6, false))
        #expect(example.seconds(of: stage(weightBytes: 1000)) == (6, false))
        #expect(example.seconds(of: stage(weightBytes: 5000)) == (15, false))
        // The first time reads for 5 s, the others for none.
        #expect(example.seconds(of: stage(first: 100)) == (9, false))
        #expect(example.seconds(of: stage(first: 100, repeated: 100)) == (15, true))
        #expect(stage(first: 100, repeated: 7).diskBytes == 114)
        #expect(stage(repetitions: 1, first: 100, repeated: 7).diskBytes == 100)
    }

    @Test func aDiskThatWasNotMeasuredIsLeftOut() {
        let other = Calibration(key: example.key, speeds: example.speeds, memory: 1000, disk: nil)
        #expect(other.seconds(of: stage(first: 1 << 40, repeated: 1 << 40)) == (6, false))
    }

    @Test func measuresWhatTheKernelsHave() throws {
        let weights = Fixture.path("pipeline/models/head16/transformer")
        let folder = try TemporaryFolder()
        let found = try Calibration.measure(
            threads: 1,
            reading: weights,
            orWritingTo: folder.path
        )
        #expect(try folder.names().isEmpty)
        #expect(found.key == (try Calibration.currentKey(threads: 1)))
        #expect(found.key.kernels == Engine.kernelLevel)
        for kind in ComputeWork.Kind.allCases {
            #expect(found.speeds.contains { $0.kind == kind && $0.precision == .float32 })
        }
        // From the slowest kernels on a busy machine to many fast cores.
        #expect(found.speeds.allSatisfy { (1e6...1e15).contains($0.operationsPerSecond) })
        #expect((1e6...1e14).contains(found.memoryBytesPerSecond))
        #expect((1...1e14).contains(try #require(found.diskBytesPerSecond)))
    }

    @Test func measuresADiskByAFileThatIsRemoved() throws {
        let folder = try TemporaryFolder()
        let rate = try #require(try DiskRate.measure(in: folder.file("new/folder")))
        #expect(rate > 0)
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder.file("new/folder")).isEmpty
        )
        // Too little to tell anything.
        #expect(try DiskRate.measure(reading: Fixture.path("pipeline/models/head16/vae")) == nil)
    }
}

/// The files that calibrations are kept in.
struct CalibrationStoreTests {
    private let folder: TemporaryFolder
    private let store: CalibrationStore

    init() throws {
        folder = try TemporaryFolder()
        store = CalibrationStore(folder: folder.file("a/krea2"))
    }

    @Test func keepsWhatWasMeasured() throws {
        #expect(store.load(example.key) == nil)
        try store.save(example)
        #expect(store.load(example.key) == example)
        let name = "calibration-A--R--Processor--3-0-GHz-avx2-2.json"
        #expect(store.path(example.key) == folder.file("a/krea2/\(name)"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: store.folder) == [name])

        let slower = Calibration(key: example.key, speeds: example.speeds, memory: 0.1, disk: nil)
        try store.save(slower)
        #expect(store.load(example.key) == nil, "a tenth of a byte a second is no rate")
        try store.save(example)
        #expect(store.load(example.key) == example)
    }

    @Test func anotherMachineHasAnotherFile() throws {
        try store.save(example)
        for key in [
            Calibration.Key(processor: "B", kernels: "avx2", threads: 2),
            Calibration.Key(processor: example.key.processor, kernels: "avx512", threads: 2),
            Calibration.Key(processor: example.key.processor, kernels: "avx2", threads: 1),
        ] {
            #expect(store.path(key) != store.path(example.key))
            #expect(store.load(key) == nil)
        }
        // Names that differ in signs alone share a file; what is in it decides.
        let similar = Calibration.Key(
            processor: "A [R] Processor: 3.0 GHz",
            kernels: "avx2",
            threads: 2
        )
        #expect(store.path(similar) == store.path(example.key))
        #expect(store.load(similar) == nil)
    }

    @Test(arguments: [
        ("\"threads\" : 2", "\"threads\" : 3"),
        ("\"format\" : 1", "\"format\" : 2"),
        ("\"engine\" : \"", "\"engine\" : \"0"),
        ("\"avx2\"", "\"avx512\""),
        ("\"avx2\"", "7"),
        ("\"memoryBytesPerSecond\" : 1000", "\"memoryBytesPerSecond\" : -1000"),
        ("\"memoryBytesPerSecond\" : 1000", "\"memoryBytesPerSecond\" : 1e999"),
        ("\"memoryBytesPerSecond\" : 1000", "\"memoryBytesPerSecond\" : 0"),
        ("\"memoryBytesPerSecond\" : 1000", "\"memory\" : 1000"),
        ("\"diskBytesPerSecond\" : 20", "\"diskBytesPerSecond\" : \"20\""),
        ("\"f32\" : 100", "\"f32\" : []"),
        ("\"f32\" : 50", "\"bf16\" : 50"),
        ("\"attention\"", "\"attentions\""),
        ("{", "["),
        ("}\n", ""),
    ])
    func whatIsDamagedOrForeignIsAsGoodAsNone(_ part: String, replacement: String) throws {
        try store.save(example)
        let path = store.path(example.key)
        let text = try String(contentsOfFile: path, encoding: .utf8)
        #expect(text.contains(part), "\(text)")
        try text.replacingOccurrences(of: part, with: replacement)
            .write(toFile: path, atomically: false, encoding: .utf8)
        #expect(store.load(example.key) == nil)
        try store.save(example)
        #expect(store.load(example.key) == example)
    }

    @Test(arguments: [[], [0], Array("null".utf8), [0xFF, 0xFE]])
    func anythingMayBeInTheFile(_ bytes: [UInt8]) throws {
        try store.save(example)
        try Data(bytes).write(to: URL(filePath: store.path(example.key)))
        #expect(store.load(example.key) == nil)
    }

    @Test func somethingElseMayBeInItsPlace() throws {
        try makeFolder(store.path(example.key))
        #expect(store.load(example.key) == nil)
        #expect(throws: GenerationError.self) { try store.save(example) }
        try folder.write("x", to: "file")
        #expect(throws: GenerationError.self) {
            try CalibrationStore(folder: folder.file("file/krea2")).save(example)
        }
    }
}
