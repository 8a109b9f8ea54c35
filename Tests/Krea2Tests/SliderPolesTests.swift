import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// Sliders that are made of texts.
struct SliderPolesTests {
    private let folder: TemporaryFolder
    private static let precisions = [Precision.float32, .bfloat16, .int8]

    init() throws { folder = try TemporaryFolder() }

    private func pipeline(
        _ precision: Precision = .float32,
        threads: Int = 1,
        isCaching: Bool = false
    ) throws -> Pipeline {
        let cache = EncodingCache(folder: folder.file("cache"))
        return try FixtureModel.pipeline(
            "head16",
            precision,
            threads: threads,
            variant: .turbo,
            cache: isCaching ? cache : nil
        )
    }

    private func slider(
        _ positive: [String],
        _ negative: [String],
        _ more: String = "",
        name: String = "age"
    ) throws -> SliderManifest {
        let poles = ["positive": positive, "negative": negative]
        let text = String(
            decoding: try JSONSerialization.data(withJSONObject: poles),
            as: UTF8.self
        )
        return try SliderManifest(
            path: folder.write(
                #"{"format": "krea2-slider", "version": 1, "name": "\#(name)", "kind": "poles", "#
                    + #""poles": \#(text)\#(more)}"#,
                to: "a.slider.json"
            )
        )
    }

    private func groups(
        _ slider: SliderManifest,
        _ value: Int,
        _ pipeline: Pipeline
    ) throws -> [ConditioningGroup] {
        try slider.groups(value, pipeline.encode(texts: slider.poles?.texts ?? []))
    }

    private func run(_ pipeline: Pipeline, _ groups: [ConditioningGroup]) throws -> Outcome {
        let request = GenerationRequest(
            prompt: "a red fox",
            width: 64,
            height: 64,
            steps: 1,
            seed: 5,
            groups: groups
        )
        return try Outcome(pipeline, request)
    }

    private func latents(_ pipeline: Pipeline, _ groups: [ConditioningGroup]) throws -> [Float] {
        try run(pipeline, groups).floats("latents")
    }

    // MARK: Values

    @Test func valuesAreOppositeStrengths() throws {
        let pipeline = try pipeline()
        let slider = try slider(["old"], ["young", "a child"], #", "window": [0.25, 1]"#)
        for (value, strength) in [(100, Float(0.5)), (-100, -0.5), (40, 0.2), (-1, -0.005)] {
            let groups = try groups(slider, value, pipeline)
            #expect(groups.map(\.strength) == [strength, -strength])
            #expect(groups.allSatisfy { $0.family == .sliders && $0.mass == 16 })
            #expect(groups.allSatisfy { $0.window == 0.25...1 && $0.injected == [.image, .text] })
            #expect(slider.poles?.strength(at: value) == strength)
        }
        #expect(try groups(slider, 0, pipeline).isEmpty && slider.groups(0, [:]).isEmpty)
        #expect(throws: GenerationError.request("slider age: old is not encoded")) {
            try slider.groups(1, [:])
        }
        let use = try slider.use(100) { path throws(GenerationError) in
            try pipeline.openLoRA(path: path)
        }
        #expect(use == nil)
    }

    @Test func eachSignMayHaveItsOwnStrength() throws {
        let pipeline = try pipeline()
        let slider = try slider(["old"], ["young"], #", "eta_positive": 0.25, "eta_negative": 1"#)
        #expect(try groups(slider, 50, pipeline).map(\.strength) == [0.125, -0.125])
        #expect(try groups(slider, -50, pipeline).map(\.strength) == [-0.5, 0.5])
    }

    // MARK: Identities

    @Test(arguments: precisions)
    func swappedPolesAreTheOppositeValue(_ precision: Precision) throws {
        let pipeline = try pipeline(precision)
        let (young, old) = (["a young fox", "new"], ["an old fox"])
        let (there, back) = (try slider(old, young), try slider(young, old))
        let moved = try latents(pipeline, groups(there, 60, pipeline))
        #expect(try latents(pipeline, groups(back, -60, pipeline)) == moved)
        #expect(try latents(pipeline, groups(there, -60, pipeline)) != moved)
        #expect(
            try latents(pipeline, groups(slider(old, old), 60, pipeline)) == latents(pipeline, [])
        )
        #expect(try latents(pipeline, []) != moved)
    }

    @Test func orderAndRepetitionDoNotMatter() throws {
        let pipeline = try pipeline()
        let first = try slider(["b", "a"], ["c"])
        let second = try slider(["a", "b", "a"], ["c", "c"])
        let moved = try latents(pipeline, groups(first, 30, pipeline))
        #expect(try latents(pipeline, groups(second, 30, pipeline)) == moved)
        #expect(first.poles?.digest == second.poles?.digest)
        for (positive, negative) in [(["c"], ["a", "b"]), (["ab"], ["c"]), (["a", "b c"], ["c"])] {
            #expect(try slider(positive, negative).poles?.digest != first.poles?.digest)
        }
        let other = try groups(slider(["d"], ["e"], name: "hair"), -70, pipeline)
        let one = try groups(first, 30, pipeline)
        #expect(try latents(pipeline, one + other) == latents(pipeline, other + one))
    }

    /// Each text goes through text fusion as if it stood beside the prompt alone.
    @Test(arguments: precisions)
    func textsAreFusedAlone(_ precision: Precision) throws {
        let pipeline = try pipeline(precision)
        let texts = ["a long text about a fox", "snow"]
        let rows = try pipeline.encode(texts: texts)
        let joined = try ConditioningRows(joining: texts.compactMap { rows[$0] })
        func fused(_ rows: [ConditioningRows]) throws -> [[Float]] {
            let outcome = try run(pipeline, rows.map { ConditioningGroup($0, strength: 1) })
            return try rows.indices.map { try outcome.floats("group\($0).in") }
        }
        let parts = rows.values.sorted { $0.key < $1.key }
        #expect(try fused([joined]) == [fused(parts).flatMap(\.self)])
        #expect(joined.kinds.count == parts.reduce(0) { $0 + $1.kinds.count })
        // As one encoding they would see each other.
        let taps = parts.flatMap(\.taps.elements)
        let one = try ConditioningRows(
            key: "one",
            taps: Tensor(taps, shape: joined.taps.shape),
            kinds: joined.kinds
        )
        #expect(try fused([one]) != fused([joined]))
        #expect(one != joined)
    }

    @Test func rowsOfOtherSizesAreNotJoined() throws {
        let rows = try [3, 4].map { taps in
            try ConditioningRows(key: "\(taps)", taps: Tensor(zeros: [1, taps, 8]), kinds: [.text])
        }
        #expect(throws: GenerationError.request("taps [1, 4, 8] beside [1, 3, 8]")) {
            try ConditioningRows(joining: rows)
        }
        #expect(throws: GenerationError.self) { try ConditioningRows(joining: []) }
    }

    /// Beside a reference that is limited, a little of a slider does the same in either direction.
    ///
    /// In the reference's family it would change the limit, alike in both; observed 0.011 and 1.6.
    @Test func slidersDoNotLimitReferences() throws {
        let pipeline = try pipeline()
        let reference = try GroupFixture.group(2, 2)
        let slider = try slider(["old"], ["young"])
        func change(_ value: Int, _ family: ConditioningGroup.Family) throws -> [Float] {
            var groups = try groups(slider, value, pipeline)
            for index in groups.indices { groups[index].family = family }
            let moved = try run(pipeline, [reference] + groups).floats("step0.cond")
            let base = try run(pipeline, [reference]).floats("step0.cond")
            return zip(moved, base).map { $0 - $1 }
        }
        func asymmetry(_ family: ConditioningGroup.Family) throws -> Double {
            try relativeError(change(-4, family), change(4, family).map { -$0 })
        }
        let (apart, together) = (try asymmetry(.sliders), try asymmetry(.references))
        #expect(apart < 0.04 && together > 0.3, "\(apart), \(together)")
    }

    // MARK: Encoding

    @Test(arguments: precisions)
    func encodingTogetherOrFromTheCacheChangesNoBit(_ precision: Precision) throws {
        let texts = ["vivid", "a muted picture of nothing", "x"]
        let plain = try pipeline(precision)
        let together = try plain.encode(texts: texts + ["x"])
        #expect(together.count == 3)
        let cached = try pipeline(precision, threads: 2, isCaching: true)
        _ = try cached.encode(text: texts[1])
        for _ in 0..<2 {
            let all = try cached.encode(texts: texts)
            for text in texts {
                let rows = try #require(together[text])
                #expect(try plain.encode(text: text).taps.elements == rows.taps.elements)
                #expect(all[text]?.taps.elements == rows.taps.elements && all[text] == rows)
            }
        }
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.file("cache"))
        #expect(names.count == 3)
        let slider = try slider(["vivid", "x"], [texts[1]])
        #expect(
            try latents(cached, groups(slider, 80, cached))
                == latents(plain, groups(slider, 80, plain))
        )
        #expect(try plain.encode(texts: []).isEmpty)
    }

    @Test func placeholdersAreAsLarge() throws {
        let pipeline = try pipeline()
        let slider = try #require(SliderManifest(builtIn: "complexity"))
        let texts = try #require(slider.poles?.texts)
        let (blank, real) = (
            try pipeline.placeholder(texts: texts), try pipeline.encode(texts: texts)
        )
        #expect(blank == real)
        func plan(_ rows: [String: ConditioningRows]) throws -> GenerationPlan {
            var request = GenerationRequest(prompt: "a", width: 64, height: 64)
            request.groups = try slider.groups(100, rows)
            return try pipeline.plan(request)
        }
        #expect(try plan(blank).peakBytes == plan(real).peakBytes)
        #expect(try plan(blank).floatingPointOperations == plan(real).floatingPointOperations)
    }
}
