import Compute
import Foundation
import Synchronization
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// The folder that encoded pictures and prompts are kept in.
struct EncodingCacheTests {
    private let folder: TemporaryFolder
    private let cache: EncodingCache
    private var fixture = ReferenceFixture()
    private static let encoder = ReferenceFixture.encoder

    init() throws {
        folder = try TemporaryFolder()
        cache = EncodingCache(folder: folder.file("a/b"))
    }

    private var names: [String] {
        get throws { try FileManager.default.contentsOfDirectory(atPath: cache.folder).sorted() }
    }

    private func found(_ file: ReferenceFile, in cache: EncodingCache? = nil) -> ReferenceFile? {
        (cache ?? self.cache).reference(file.source, by: file.encoder)
    }

    @Test mutating func givesBackEveryBit() throws {
        let file = try fixture.reference()
        #expect(found(file) == nil)
        try cache.keep(file)
        let kept = try #require(found(file))
        #expect(kept == file && kept.rows.bits == file.rows.bits)
        #expect(try names.count == 1 && names[0].hasSuffix(".k2ref"))
        try cache.keep(file)
        #expect(try names.count == 1)
    }

    @Test mutating func everythingThatMattersIsPartOfTheKey() throws {
        let file = try fixture.reference()
        try cache.keep(file)
        var others = try [
            fixture.reference("pixels-sha256:cd"), fixture.reference(treatment: "soft"),
            fixture.reference(side: 384),
        ]
        for (digest, template) in [("sha256:9", "sha256:4567"), ("sha256:0123", "sha256:9")] {
            let encoder = EncoderIdentity(
                family: "qwen3-vl-test",
                digest: digest,
                template: template,
                taps: 3,
                width: 8
            )
            others.append(try fixture.reference(encoder: encoder))
        }
        for other in others { #expect(found(other) == nil) }
        var precise = cache
        precise.arithmetic = "bf16"
        #expect(found(file, in: precise) == nil)
        #expect(found(file) != nil)
    }

    @Test mutating func promptsKeepTheirBits() throws {
        let taps = Tensor.random([4, 3, 8], &fixture.random)
        #expect(cache.taps(of: [1, 2, 3], by: Self.encoder) == nil)
        try cache.keep(taps, of: [1, 2, 3], by: Self.encoder)
        let kept = try #require(cache.taps(of: [1, 2, 3], by: Self.encoder))
        #expect(kept.elements.map(\.bitPattern) == taps.elements.map(\.bitPattern))
        #expect(kept.shape == [4, 3, 8])
        for other in [[1, 2], [12, 3], [1, 2, 3, 4]] as [[Int32]] {
            #expect(cache.taps(of: other, by: Self.encoder) == nil)
        }
    }

    /// Nothing that is wrong with a file is an error, and the next encoding replaces it.
    @Test mutating func whatIsDamagedIsReplaced() throws {
        let file = try fixture.reference()
        try cache.keep(file)
        let path = try cache.folder + "/" + #require(names.first)
        let sound = Array(try Data(contentsOf: URL(filePath: path)))
        var flipped = sound
        // The kinds come last; before them is the last tap, which is no number now.
        (flipped[sound.count - 15], flipped[sound.count - 14]) = (0xFF, 0xFF)
        let other = try fixture.reference("pixels-sha256:cd")
        try other.write(to: folder.file("other"), overwriting: false)
        let foreign = Array(try Data(contentsOf: URL(filePath: folder.file("other"))))
        for bytes in [[], Array(sound.prefix(100)), Array(sound.dropLast()), flipped, foreign] {
            try Data(bytes).write(to: URL(filePath: path))
            #expect(found(file) == nil)
            #expect(try names.isEmpty)
            try cache.keep(file)
            #expect(found(file)?.rows.bits == file.rows.bits)
        }
        try FileManager.default.removeItem(atPath: path)
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        #expect(found(file) == nil)
        #expect(throws: GenerationError.self) { try cache.keep(file) }
    }

    /// What was encoded tells what was asked for.
    @Test mutating func onlyTheUserCanReadIt() throws {
        try cache.keep(fixture.reference())
        try cache.keep(Tensor.random([4, 3, 8], &fixture.random), of: [1], by: Self.encoder)
        func mode(_ path: String) throws -> Int? {
            try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        }
        #expect(try mode(cache.folder) == 0o700)
        #expect(try names.map { try mode(cache.folder + "/" + $0) } == [0o600, 0o600])
    }

    // MARK: Size

    private func setAge(_ file: ReferenceFile, days: Double) throws {
        let before = try names
        // The name is the digest of what only the cache knows: the file that goes when it is removed.
        let path = try #require(
            before.map { cache.folder + "/" + $0 }.first {
                (try? ReferenceFile(path: $0, for: Self.encoder))?.source == file.source
            }
        )
        let date = Date(timeIntervalSinceNow: -86_400 * days)
        try FileManager.default.setAttributes([.modificationDate: date], ofItemAtPath: path)
    }

    @Test mutating func whatWasNotUsedForLongGoesFirst() throws {
        let files = try (0..<4).map { try fixture.reference("pixels-sha256:\($0)") }
        try cache.keep(files[0])
        let size =
            try FileManager.default.attributesOfItem(
                atPath: cache.folder + "/" + #require(names.first)
            )[.size] as? Int
        let limited = EncodingCache(folder: cache.folder, byteLimit: 3 * (try #require(size)))
        for file in files[1...2] { try limited.keep(file) }
        for (index, days) in [(0, 1.0), (1, 3.0), (2, 2.0)] {
            try setAge(files[index], days: days)
        }
        // Looking at a file is a use of it.
        #expect(found(files[1], in: limited) != nil)
        try limited.keep(files[3])
        #expect(files.map { found($0, in: limited) != nil } == [true, true, false, true])

        let tiny = EncodingCache(folder: cache.folder, byteLimit: 10)
        try tiny.keep(files[2])
        #expect(try names.isEmpty)
    }

    @Test mutating func otherFilesStay() throws {
        try FileManager.default.createDirectory(
            atPath: cache.folder,
            withIntermediateDirectories: true
        )
        let names = [".krea2-1-1.partial", ".krea2-2-1.partial", "notes.txt"]
        for name in names { try folder.write("a", to: "a/b/" + name) }
        try FileManager.default.setAttributes(
            [.modificationDate: Date(timeIntervalSinceNow: -200_000)],
            ofItemAtPath: folder.file("a/b/" + names[0])
        )
        try EncodingCache(folder: cache.folder, byteLimit: 0).keep(fixture.reference())
        #expect(try self.names == Array(names.dropFirst()))
    }

    @Test mutating func manyMayUseItAtOnce() throws {
        let files = try (0..<4).map { try fixture.reference("pixels-sha256:\($0)") }
        let limited = EncodingCache(folder: cache.folder, byteLimit: 5000)
        let faults = Atomic(0)
        DispatchQueue.concurrentPerform(iterations: 64) { index in
            let file = files[index % 4]
            if let kept = limited.reference(file.source, by: file.encoder) {
                if kept.rows.bits != file.rows.bits { faults.add(1, ordering: .relaxed) }
            }
            do { try limited.keep(file) } catch { faults.add(1, ordering: .relaxed) }
        }
        #expect(faults.load(ordering: .relaxed) == 0)
        #expect(try names.allSatisfy { $0.hasSuffix(".k2ref") })
    }

    @Test mutating func aFolderThatCannotBeMadeIsAnError() throws {
        try folder.write("x", to: "file")
        let cache = EncodingCache(folder: folder.file("file/b"))
        let file = try fixture.reference()
        #expect(throws: GenerationError.self) { try cache.keep(file) }
        #expect(cache.reference(file.source, by: file.encoder) == nil)
    }
}

/// Pictures and prompts through a pipeline, new and from the cache.
struct PipelineReferenceTests {
    private let folder: TemporaryFolder
    private var random = SeededGenerator(seed: 8)

    init() throws {
        folder = try TemporaryFolder()
    }

    private func pipeline(_ precision: Precision = .float32, isCaching: Bool = true) throws
        -> Pipeline
    {
        let cache = EncodingCache(folder: folder.file("cache"))
        return try FixtureModel.pipeline("head16", precision, cache: isCaching ? cache : nil)
    }

    private mutating func picture(
        _ content: String,
        width: Int = 64,
        height: Int = 96
    ) -> ReferencePicture {
        ReferencePicture(
            source: .init(content: content, treatment: "none", side: 256),
            width: width,
            height: height,
            rgb: (0..<3 * width * height).map { _ in UInt8.random(in: 0...255, using: &random) }
        )
    }

    private let request = GenerationRequest(
        prompt: "a fox",
        width: 64,
        height: 64,
        steps: 2,
        seed: 7
    )

    /// The latent that the request and some groups come to.
    private func latents(
        _ pipeline: Pipeline,
        _ groups: [ConditioningGroup] = []
    ) throws -> [Float] {
        var request = request
        request.groups = groups
        return try Outcome(pipeline, request).floats("latents")
    }

    @Test(arguments: [Precision.float32, .bfloat16])
    mutating func cachedPicturesAreThoseEncodedAnew(_ precision: Precision) throws {
        let pictures = [picture("a"), picture("b", width: 96, height: 64), picture("a")]
        let fresh = try pipeline(precision, isCaching: false).encode(pictures)
        let first = try pipeline(precision).encode(pictures)
        let second = try pipeline(precision).encode(pictures.reversed())
        #expect(fresh.map(\.source.content) == ["a", "b", "a"])
        for (a, b, c) in zip(zip(fresh, first), second.reversed()).map({ ($0.0, $0.1, $1) }) {
            #expect(a == b && b == c)
            #expect(a.rows.bits == b.rows.bits && b.rows.bits == c.rows.bits)
        }
        #expect(
            [fresh[0].gridRows, fresh[0].gridColumns, fresh[1].gridColumns].allSatisfy { $0 > 0 }
        )
        #expect(
            fresh[0].rows.kinds.count { $0 == .image } == fresh[0].gridRows * fresh[0].gridColumns
        )
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder.file("cache")).count == 2
        )
        let identity = try pipeline().encoderIdentity
        #expect(fresh[0].encoder == identity && identity.family.hasPrefix("qwen3-vl-"))
    }

    /// The whole way: a picture with a reference from memory, from a file, and from the cache.
    @Test mutating func allWaysGiveTheSamePicture() throws {
        let (pipeline, reference) = (try pipeline(isCaching: false), picture("a"))
        let file = try pipeline.encode([reference])[0]
        let path = folder.file("a.k2ref")
        try file.write(to: path, overwriting: false)
        let stored = try ReferenceFile(path: path, for: pipeline.encoderIdentity)
        let board = try pipeline.moodboard([file, file])
        let base = try latents(pipeline)
        let styled = try latents(pipeline, [ConditioningGroup(file.rows, strength: 1)])
        #expect(styled != base)
        #expect(try latents(pipeline, [ConditioningGroup(stored.rows, strength: 1)]) == styled)
        #expect(try latents(pipeline, [ConditioningGroup(board.rows, strength: 1)]) == styled)
        #expect(try latents(pipeline, [ConditioningGroup(board.rows, strength: 0)]) == base)
        // A board of one picture is that picture, so both cancel.
        let both = [
            ConditioningGroup(board.rows, strength: 0.5),
            ConditioningGroup(stored.rows, strength: -0.5),
        ]
        #expect(try latents(pipeline, both) == base)
        let cached = try self.pipeline()
        for _ in 0..<2 {
            let rows = try cached.encode([reference])[0].rows
            #expect(try latents(cached, [ConditioningGroup(rows, strength: 1)]) == styled)
        }
    }

    @Test mutating func tellsHowFarItIs() throws {
        let pictures = (0..<10).map { picture("\($0)") }
        var seen: [GenerationProgress] = []
        let tell = { (progress: GenerationProgress) in seen.append(progress) }
        _ = try pipeline().encode([pictures[4]], progress: tell)
        #expect(seen.last?.fraction == 1 && seen.last?.step == 1 && seen.last?.steps == 1)
        seen = []
        // One of them is in the cache, and one is there twice.
        _ = try pipeline().encode(pictures + [pictures[0]], progress: tell)
        #expect(seen.allSatisfy { $0.stage == .references && $0.steps == 9 })
        #expect(zip(seen, seen.dropFirst()).allSatisfy { $0.fraction < $1.fraction })
        #expect(Set(seen.map(\.step)) == Set(0...9) && seen.last?.overall == 1)
        seen = []
        _ = try pipeline().encode(pictures, progress: tell)
        #expect(seen.isEmpty)
    }

    @Test mutating func stopsWhenAsked() throws {
        let (pipeline, picture) = (try pipeline(), picture("a"))
        let isStopped = Atomic(false)
        #expect(throws: GenerationError.cancelled) {
            try pipeline.encode(
                [picture],
                progress: { _ in isStopped.store(true, ordering: .relaxed) },
                isCancelled: { isStopped.load(ordering: .relaxed) }
            )
        }
        #expect(!FileManager.default.fileExists(atPath: folder.file("cache")))
    }

    @Test mutating func severalBoardsAdd() throws {
        let pipeline = try pipeline(isCaching: false)
        let files = try pipeline.encode([picture("a"), picture("b"), picture("c")])
        let boards = try [
            pipeline.moodboard([files[0], files[1]]), pipeline.moodboard([files[2]]),
        ]
        let groups = boards.map { ConditioningGroup($0.rows, strength: 0.35) }
        let both = try latents(pipeline, groups)
        #expect(try latents(pipeline, groups.reversed()) == both)
        for group in groups { #expect(try latents(pipeline, [group]) != both) }
    }

    @Test func keptPromptsChangeNoBit() throws {
        let base = try latents(pipeline(isCaching: false))
        #expect(try latents(pipeline()) == base)
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.file("cache"))
        #expect(names.count == 1 && names[0].hasSuffix(".k2text"))
        #expect(try latents(pipeline()) == base)
        // It is really used: another content of the file is another picture.
        let path = folder.file("cache/" + names[0])
        var parts = try RowParts(path)
        let taps = try #require(parts.tensors["taps"])
        parts.tensors["taps"] = Tensor(taps.elements.map { -$0 }, shape: taps.shape)
        try parts.write(to: path)
        #expect(try latents(pipeline()) != base)
        // Of other sizes it is as good as not there.
        parts.tensors["taps"] = taps.rows(0..<2)
        for name in ["kind", "mult"] { parts.tensors[name] = parts.tensors[name]?.rows(0..<2) }
        try parts.write(to: path)
        #expect(try latents(pipeline()) == base)
    }

    @Test func keptPromptsMayComeFromSeveralRuns() throws {
        var guided = request
        (guided.guidance, guided.negativePrompt) = (2, "a dog on a mat")
        let base = try pipeline(isCaching: false).generate(guided)[0].rgb
        for text in ["a dog on a mat", "a fox"] { _ = try pipeline().encode(text: text) }
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder.file("cache")).count == 2
        )
        #expect(try pipeline().generate(guided)[0].rgb == base)
    }

    /// Rows that are the same count like one that stands for all of them.
    @Test mutating func mergingEqualRowsChangesNothing() throws {
        let pipeline = try pipeline(isCaching: false)
        let encoder = pipeline.encoderIdentity
        let kinds = ReferenceFixture.kinds(40)
        let distinct = Tensor.random([17, encoder.taps, encoder.width], &random)
        // Ten rows, each four times, between one before and six after them.
        let rows = [0] + (0..<40).map { 1 + $0 / 4 } + (11..<17)
        let taps = Tensor(
            rows.flatMap { distinct.row($0).elements },
            shape: [rows.count] + distinct.shape.dropFirst()
        )
        let all = try ConditioningRows(key: "a", taps: taps, kinds: kinds).rounded()
        let few = try Prototypes(
            [all],
            projector: [1, -1, 0.5],
            most: 20,
            Operators(threads: 1)
        )
        #expect(few.kinds == ReferenceFixture.kinds(10))
        let merged = try ConditioningRows(
            key: "b",
            taps: few.taps,
            kinds: few.kinds,
            multiplicities: few.multiplicities
        )
        let found = try [all, merged].map {
            try latents(pipeline, [ConditioningGroup($0, strength: 0.8)])
        }
        // 1e-6 was seen.
        #expect(relativeError(found[1], found[0]) < 1e-5)
    }

    @Test func aTextHasTheRowsOfAPrompt() throws {
        let pipeline = try pipeline()
        let rows = try pipeline.encode(text: "a fox")
        #expect(rows.kinds.suffix(5).allSatisfy { $0 == .suffix })
        #expect(rows.kinds.dropLast(5).allSatisfy { $0 == .text } && rows.kinds.count > 5)
        let taps = try Outcome(pipeline, request).floats("taps.pos")
        #expect(taps == rows.taps.elements)
        #expect(try self.pipeline().encode(text: "a fox").taps.elements == rows.taps.elements)
        #expect(
            try self.pipeline(isCaching: false).encode(text: "a fox").taps.elements
                == rows.taps.elements
        )
    }

    @Test mutating func placeholdersAreAsLarge() throws {
        let pipeline = try pipeline(isCaching: false)
        let pictures = [picture("a"), picture("b", width: 32 * 12, height: 32 * 12)]
        let files = try pipeline.encode(pictures)
        for (picture, file) in zip(pictures, files) {
            let blank = try pipeline.placeholder([picture])
            #expect(blank.kinds == file.rows.kinds && blank.taps.shape == file.rows.taps.shape)
        }
        #expect(
            try pipeline.placeholder(pictures).kinds == pipeline.moodboard(files).rows.kinds
        )
    }

    @Test mutating func refusesOddSides() throws {
        let odd = picture("a", width: 33, height: 64)
        let error = #expect(throws: GenerationError.self) { try pipeline().encode([odd]) }
        #expect(error?.category == .request)
    }
}
