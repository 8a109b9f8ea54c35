import Compute
import Foundation
import Tensors
import TestSupport
import Testing
import Tokenization

@testable import Krea2

/// One case of `vision/cases.json`: what transformers was asked for.
struct VisionCase: Decodable, Sendable, CustomTestStringConvertible {
    let name: String
    let model: String
    /// Width and height of each picture.
    let sizes: [[Int]]
    let prompt: String
    let labelled: Bool

    var testDescription: String { name }

    static let all: [VisionCase] = Fixture.cases("vision/cases.json")

    /// What transformers computed.
    var dump: FixtureTensors {
        get throws { try FixtureTensors("vision/\(name).safetensors") }
    }

    var pictures: [VisionPicture] {
        get throws {
            let dump = try dump
            return try sizes.enumerated().map { index, size in
                try VisionPicture(width: size[0], height: size[1], rgb: dump.bytes("rgb.\(index)"))
            }
        }
    }

    var picturePrompt: PicturePrompt {
        get throws {
            try PicturePrompt(text: prompt, pictures: pictures, isLabelled: labelled)
        }
    }
}

/// A text encoder of the fixtures, opened without the rest of its model.
///
/// Files of head48 go with it.
struct VisionModel {
    let files: TextEncoderFiles
    let encoder: TextEncoder
    let template: PromptTemplate
    /// Holds what is not a fixture.
    private let folder: TemporaryFolder

    /// Opens a model by its name, or with another text encoder of the same taps and tokens.
    init(_ model: String, textEncoder path: String? = nil) throws {
        let folder = try TemporaryFolder()
        self.folder = folder
        switch model {
        case "mini":
            files = try TextEncoderFiles(path: path ?? Fixture.path(Self.mini + "/text_encoder"))
            encoder = try TextEncoder(files, taps: [2, 5, 8])
            template = try PromptTemplate(Tokenizer(path: Fixture.path(Self.mini + "/tokenizer")))
        case "head48":
            let file = try FixtureModel.files(model).textEncoder
            try FileManager.default.createSymbolicLink(
                atPath: folder.file("e.safetensors"),
                withDestinationPath: file
            )
            // Shapes do not tell them.
            try folder.write(
                """
                {"model_type": "qwen3_vl", "text_config": {"num_attention_heads": 6},
                 "vision_config": {"num_heads": 3, "deepstack_visual_indexes": [0, 1, 2]}}
                """,
                to: "config.json"
            )
            files = try TextEncoderFiles(path: path ?? folder.file("e.safetensors"))
            encoder = try TextEncoder(files, taps: [2, 5, 8, 11, 14])
            template = try Self.fixtureTemplate()
        default:
            let located = try FixtureModel.files(model)
            files = try TextEncoderFiles(path: path ?? located.textEncoder)
            let taps = try ModelIndex(path: located.modelIndex).taps
            encoder = try TextEncoder(files, taps: taps ?? [])
            template = try Self.fixtureTemplate()
        }
    }

    private static let mini = "../../weights/mini"

    private static func fixtureTemplate() throws -> PromptTemplate {
        try PromptTemplate(Tokenizer(path: Fixture.path("tokenizer/tokenizer")))
    }

    func pictureEncoder(
        policy: ArithmeticPolicy = .float32,
        threads: Int = 2
    ) throws -> PictureEncoder {
        try PictureEncoder(
            files,
            encoder,
            template,
            policy: policy.supported(by: .best),
            kernels: .best,
            threads: threads
        )
    }

    /// What the tower makes of pictures, in float32.
    func features(_ pictures: [VisionPicture]) throws -> VisionFeatures {
        let tower = try VisionTower(VisionFiles(files))
        let operators = Operators(threads: 2)
        let grids = try pictures.map { ($0, try $0.grid(tower.config)) }
        func buffers(_ arena: inout Arena) -> (VisionFeatures, VisionScratch) {
            let tokens = grids.reduce(0) { $0 + $1.1.tokens }
            let patches = grids.reduce(0) { $0 + $1.1.patches }
            return (
                VisionFeatures(tower.config, tokens: tokens, &arena),
                VisionScratch(tower.config, patches: patches, .float32, &arena)
            )
        }
        var measuring = Arena.measuring()
        _ = buffers(&measuring)
        var arena = Arena(Storage(byteCount: measuring.byteCount))
        let (features, scratch) = buffers(&arena)
        var steps = 0
        try tower.forward(
            grids.map { (picture: $0.0, grid: $0.1) },
            supply: MatrixSupply(tower.order(.float32), operators: operators),
            scratch: scratch,
            operators: operators,
            watch: tower.watch { steps += 1 },
            into: features
        )
        #expect(steps == tower.steps)
        return features
    }
}
