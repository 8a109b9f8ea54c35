import Checkpoints
import Compute
import Foundation
import Tensors
import TestSupport
import Testing
import Tokenization

@testable import Krea2

/// References and prompts with pictures, against transformers and against themselves.
struct PictureEncoderTests {
    /// Largest relative error (of the 2-norm); 1.2e-6 was seen.
    static let limit = 4.5e-6
    /// The same in bfloat16, which rounds each activation to 7 bits; 0.018 was seen.
    static let bfloat16Limit = 0.06

    @Test(arguments: VisionCase.all)
    func agreesWithTransformers(_ vision: VisionCase) throws {
        let (dump, model) = (try vision.dump, try VisionModel(vision.model))
        defer { withExtendedLifetime(model) {} }
        let encoder = try model.pictureEncoder()
        for (convention, name) in [
            (TapConvention.beforeDeepstack, "taps"), (.afterDeepstack, "taps.post"),
        ] {
            let results = try encoder.encode([vision.picturePrompt], convention: convention)
            let taps = try #require(results.first).taps
            #expect(try taps.shape == dump.shape(name))
            let error = try relativeError(taps.elements, dump.floats(name))
            #expect(error < Self.limit, "\(name): \(error)")
        }
        let (before, after) = (try dump.floats("taps"), try dump.floats("taps.post"))
        #expect(relativeError(before, after) > 0.01)
    }

    /// Ids and positions, which must be exact.
    @Test(arguments: VisionCase.all)
    func tokensStandWhereTransformersPutsThem(_ vision: VisionCase) throws {
        let model = try VisionModel(vision.model)
        let config = try VisionFiles(model.files).config
        let grids = try vision.pictures.map { try $0.grid(config) }
        let encoding = try PictureTemplate(model.template).encode(
            vision.prompt,
            pictureTokens: grids.map(\.tokens),
            isLabelled: vision.labelled
        )
        let dump = try vision.dump
        #expect(try encoding.ids.map(Int64.init) == dump.integers("ids"))
        #expect(encoding.truncatedTokens == 0)
        let sequence = TokenSequence(
            encoding.ids,
            pictures: zip(encoding.pictures, grids).map { tokens, grid in
                PlacedPicture(
                    firstToken: tokens.lowerBound,
                    grid: grid,
                    features: Tensor(zeros: [grid.tokens, 1]),
                    deepstack: []
                )
            }
        )
        let positions = sequence.positions
        let axes = [\TokenPosition.time, \.row, \.column].flatMap { axis in
            positions.map { Int64($0[keyPath: axis]) }
        }
        #expect(try axes == dump.integers("positions"))
    }

    @Test func rowsSayWhatTheyComeFrom() throws {
        let encoder = try VisionModel("head16").pictureEncoder()
        let square = try #require(VisionCase.all.first { $0.name == "head16-square" })
        let reference = try encoder.encode([square.picturePrompt])[0]
        #expect(reference.kinds.map(\.rawValue) == [1, 2, 2, 2, 2, 3, 4, 4, 4, 4, 4])
        #expect(reference.taps.shape == [11, 3, 48] && reference.truncatedTokens == 0)
        #expect(reference.grids == [VisionGrid(rows: 4, columns: 4, merge: 2)])

        let two = try #require(VisionCase.all.first { $0.name == "head16-two" })
        let prompt = try encoder.encode([two.picturePrompt])[0]
        #expect(prompt.grids.map(\.tokens) == [6, 3])
        let kinds = prompt.kinds
        #expect(kinds.count == prompt.taps.rows)
        #expect(kinds.count { $0 == .image } == 9)
        #expect(kinds.count { $0 == .visionStart } == 2 && kinds.count { $0 == .visionEnd } == 2)
        #expect(kinds.first == .text && kinds.suffix(5).allSatisfy { $0 == .suffix })
    }

    @Test func longPromptsAreCutAndCounted() throws {
        let encoder = try VisionModel("head16").pictureEncoder()
        let square = try #require(VisionCase.all.first { $0.name == "head16-square" })
        let text = String(repeating: "7", count: 510)
        let prompt = PicturePrompt(text: text, pictures: try square.pictures)
        let result = try encoder.encode([prompt])[0]
        #expect(result.truncatedTokens == 3)
        #expect(result.kinds.count { $0 == .text } == 507)
        #expect(result.kinds.suffix(5).allSatisfy { $0 == .suffix })
    }

    // MARK: Identities

    private static let policies: [ArithmeticPolicy] = [.float32, .bfloat16]

    /// Prompts of one model, one without pictures among them, and more than go together.
    private func prompts() throws -> [PicturePrompt] {
        let cases = VisionCase.all.filter { $0.model == "head16" }
        let long = String(repeating: "7", count: 500)
        return try cases.map { try $0.picturePrompt } + [PicturePrompt(text: "fox", pictures: [])]
            + cases.map { PicturePrompt(text: long, pictures: try $0.pictures) }
    }

    @Test(arguments: policies)
    func companyAndThreadsChangeNothing(policy: ArithmeticPolicy) throws {
        let (model, prompts) = (try VisionModel("head16"), try prompts())
        let together = try model.pictureEncoder(policy: policy, threads: 2).encode(prompts)
        let single = try model.pictureEncoder(policy: policy, threads: 1)
        for (prompt, result) in zip(prompts, together) {
            let alone = try single.encode([prompt])[0]
            #expect(alone.taps.elements == result.taps.elements)
            #expect(alone.kinds == result.kinds)
        }
    }

    /// What comes before a row does not know of it.
    @Test func picturesDoNotKnowTheText() throws {
        let encoder = try VisionModel("head16").pictureEncoder()
        let square = try #require(VisionCase.all.first { $0.name == "head16-square" })
        let results = try encoder.encode(
            ["", "a fox", "snow at night"].map {
                PicturePrompt(text: $0, pictures: try square.pictures)
            }
        )
        let rows = results.map { $0.taps.rows(0..<6).elements }
        #expect(rows[0] == rows[1] && rows[1] == rows[2])
        #expect(results[0].taps.row(6).elements != results[1].taps.row(6).elements)
    }

    @Test func textAloneIsAsWithoutATower() throws {
        let model = try VisionModel("head16")
        let result = try model.pictureEncoder().encode([PicturePrompt(text: "fox", pictures: [])])
        let ids = model.template.encode("fox").ids
        var measuring = Arena.measuring()
        _ = TextEncoderScratch(model.encoder.config, tokens: ids.count, .float32, &measuring)
        var arena = Arena(Storage(byteCount: measuring.byteCount))
        let operators = Operators(threads: 2)
        let taps = Tensor(zeros: [ids.count - 34, 3, 48])
        try model.encoder.forward(
            [TokenSequence(ids)],
            supply: MatrixSupply(model.encoder.order(.float32), operators: operators),
            scratch: TextEncoderScratch(
                model.encoder.config,
                tokens: ids.count,
                .float32,
                &arena
            ),
            operators: operators,
            watch: model.encoder.watch {},
            into: [taps]
        )
        #expect(result[0].taps.elements == taps.elements)
        #expect(result[0].kinds == [.text, .suffix, .suffix, .suffix, .suffix, .suffix])
    }

    @Test(arguments: VisionCase.all.filter { $0.model != "head48" })
    func bfloat16IsClose(_ vision: VisionCase) throws {
        let encoder = try VisionModel(vision.model).pictureEncoder(policy: .bfloat16)
        let taps = try encoder.encode([vision.picturePrompt])[0].taps
        let error = try relativeError(taps.elements, vision.dump.floats("taps"))
        #expect(error < Self.bfloat16Limit, "\(error)")
        let rounds = ArithmeticPolicy.bfloat16.supported(by: .best) == .bfloat16
        #expect((error > 1e-4) == rounds, "\(error)")
    }

    @Test func tapsMayBeStoredInBfloat16() throws {
        let encoder = try VisionModel("mini").pictureEncoder()
        let wide = try #require(VisionCase.all.first { $0.name == "mini-wide" })
        let exact = try encoder.encode([wide.picturePrompt])[0].taps
        let stored = try encoder.encode([wide.picturePrompt], storage: .bfloat16)[0].taps
        #expect(stored.elementType == .bfloat16 && stored.shape == exact.shape)
        #expect(stored.values == exact.stored(as: .bfloat16).values)
    }

    // MARK: Runs

    @Test func progressIsToldInSteps() throws {
        let encoder = try VisionModel("head16").pictureEncoder()
        let shares = Shares()
        let prompts = try prompts()
        _ = try encoder.encode(prompts, progress: { shares.values.append($0) })
        #expect(shares.values == shares.values.sorted() && shares.values.last == 1)
        #expect(shares.values.count > 20)
    }

    /// Memory grows with the pictures of a batch; weights are read once for it.
    @Test func needsGrowWithPictures() throws {
        let pipeline = try Pipeline(FixtureModel.files("head16"))
        let encoder = try pipeline.pictureEncoder()
        let square = try #require(VisionCase.all.first { $0.name == "head16-square" })
        let one = try encoder.needs([square.picturePrompt], pipeline.arithmetic)
        let two = try encoder.needs(
            [square.picturePrompt, square.picturePrompt],
            pipeline.arithmetic
        )
        #expect(one.byteCount > 64 << 20 && one.byteCount < two.byteCount)
        #expect(two.work.total == 2 * one.work.total)
        #expect(one.readBytes > 0 && two.readBytes == one.readBytes)
    }

    private final class Shares {
        var values: [Double] = []
    }

    @Test func stopsWhenAsked() throws {
        let encoder = try VisionModel("head16").pictureEncoder()
        let prompts = try prompts()
        #expect(throws: GenerationError.cancelled) {
            try encoder.encode(prompts, isCancelled: { true })
        }
    }

    @Test func pipelinesHaveOne() throws {
        let pipeline = try Pipeline(FixtureModel.files("head16"))
        let square = try #require(VisionCase.all.first { $0.name == "head16-square" })
        let result = try pipeline.pictureEncoder().encode([square.picturePrompt])
        #expect(result[0].taps.rows == 11)
    }
}
