import Checkpoints
import Foundation
import TestSupport
import Testing

@testable import Krea2

/// Trees of empty files; nothing is opened to find the parts of a model.
struct ModelFilesTests {
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    /// Makes empty files, and the folders above them.
    private func make(_ files: String...) throws {
        for file in files {
            let url = URL(fileURLWithPath: folder.file(file))
            try FileManager.default.createDirectory(
                at: url.deletingLastPathComponent(),
                withIntermediateDirectories: true
            )
            try Data().write(to: url)
        }
    }

    /// The companions of a diffusers folder, below `root`.
    private func makeCompanions(_ root: String = ".") throws {
        try make(
            "\(root)/text_encoder/model.safetensors",
            "\(root)/tokenizer/tokenizer.json",
            "\(root)/vae/diffusion_pytorch_model.safetensors"
        )
    }

    /// The companions of a ComfyUI tree, below `root`.
    private func makeTree(_ root: String = ".") throws {
        try make(
            "\(root)/text_encoders/qwen3vl_4b_bf16.safetensors",
            "\(root)/vae/qwen_image_vae.safetensors",
            "\(root)/tokenizer/vocab.json"
        )
    }

    private func expectError(
        _ expected: GenerationError,
        _ locate: () throws -> ModelFiles,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(throws: expected, sourceLocation: sourceLocation) { _ = try locate() }
    }

    // MARK: Diffusers folders

    @Test func findsThePartsOfADiffusersFolder() throws {
        try makeCompanions()
        try make(
            "transformer/diffusion_pytorch_model.safetensors",
            "model_index.json",
            "scheduler/scheduler_config.json",
            "turbo.safetensors",
            "raw.safetensors"
        )
        let expected = ModelFiles(
            transformer: folder.file("transformer"),
            textEncoder: folder.file("text_encoder"),
            tokenizer: folder.file("tokenizer"),
            autoencoder: folder.file("vae"),
            modelIndex: folder.file("model_index.json"),
            scheduler: folder.file("scheduler/scheduler_config.json")
        )
        #expect(try ModelFiles.locate(folder.path) == expected)
        #expect(try ModelFiles.locate(folder.path + "/") == expected)
    }

    @Test func findsCompanionsAroundATransformerFolder() throws {
        try makeCompanions()
        let index = "transformer/diffusion_pytorch_model.safetensors.index.json"
        try make(
            index,
            "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
            "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
            "model_index.json"
        )
        for path in [folder.file("transformer"), folder.file(index)] {
            let files = try ModelFiles.locate(path)
            #expect(files.transformer == path)
            #expect(files.textEncoder.hasSuffix("/text_encoder"))
            #expect(files.modelIndex?.hasSuffix("/model_index.json") == true)
            #expect(files.scheduler == nil)
        }
    }

    @Test(arguments: [
        ("head16", Variant.turbo), ("head48", .raw), ("head128", .raw),
    ])
    func findsThePartsOfTheFixtures(name: String, variant: Variant) throws {
        let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("Fixtures").path
        let files = try ModelFiles.locate(
            "\(fixtures)/pipeline/models/\(name)",
            tokenizer: name == "head48" ? "\(fixtures)/tokenizer/tokenizer" : nil
        )
        for path in [files.transformer, files.textEncoder, files.autoencoder] {
            #expect(try !Checkpoint(path: path).names.isEmpty)
        }
        #expect(try ShiftRule(schedulerOf: files) == ShiftRule())
        let index = try ModelIndex(path: files.modelIndex)
        let choice = VariantChoice.decide(
            override: nil,
            index: index,
            transformerPath: files.transformer
        )
        #expect(choice.variant == variant)
    }

    // MARK: Single files

    @Test func findsCompanionsBesideASingleFile() throws {
        try makeCompanions()
        try make("raw.safetensors", "model_index.json")
        let files = try ModelFiles.locate(folder.file("raw.safetensors"))
        #expect(files.transformer == folder.file("raw.safetensors"))
        #expect(files.textEncoder == folder.file("text_encoder"))
        #expect(files.tokenizer == folder.file("tokenizer"))
        #expect(files.autoencoder == folder.file("vae"))
        #expect(files.modelIndex == folder.file("model_index.json"))
        #expect(try ModelFiles.locate(folder.path) == files)
    }

    @Test func takesAFileUnderAnotherNameWhenItIsAlone() throws {
        try makeCompanions()
        try make("mine.safetensors", ".hidden.safetensors")
        #expect(try ModelFiles.locate(folder.path).transformer == folder.file("mine.safetensors"))
        try make("turbo.safetensors")
        #expect(try ModelFiles.locate(folder.path).transformer == folder.file("turbo.safetensors"))
    }

    @Test func asksWhichOfBothOfficialFiles() throws {
        try makeCompanions()
        try make("turbo.safetensors", "raw.safetensors")
        expectError(
            .request(
                "several models and nothing to tell which to take: \(folder.path)/raw.safetensors, "
                    + "\(folder.path)/turbo.safetensors; choose one with --model PATH"
            )
        ) { try ModelFiles.locate(folder.path) }
    }

    // MARK: ComfyUI trees

    @Test(arguments: ["diffusion_models", "unet"])
    func findsTheOtherPartsOfATree(name: String) throws {
        try makeTree()
        try make("\(name)/krea2_raw_bf16.safetensors", "\(name)/flux.safetensors")
        let path = folder.file("\(name)/krea2_raw_bf16.safetensors")
        for model in [path, folder.path] {
            let files = try ModelFiles.locate(model)
            #expect(files.transformer == path)
            #expect(files.textEncoder == "\(folder.path)/text_encoders/qwen3vl_4b_bf16.safetensors")
            #expect(files.autoencoder == "\(folder.path)/vae/qwen_image_vae.safetensors")
            #expect(files.tokenizer == folder.file("tokenizer"))
            #expect(files.modelIndex == nil)
        }
    }

    @Test func asksWhichModelOfATree() throws {
        try makeTree()
        try make("diffusion_models/krea2_a.safetensors", "diffusion_models/krea2_b.safetensors")
        let error = #expect(throws: GenerationError.self) { try ModelFiles.locate(folder.path) }
        #expect(error?.category == .request)
        #expect(error?.description.contains("/krea2_a.safetensors, ") == true)
    }

    @Test func prefersTextEncodersByName() throws {
        try makeTree()
        try make(
            "diffusion_models/krea2.safetensors",
            "text_encoders/Qwen3-VL-4B-fp8_scaled.safetensors",
            "text_encoders/t5xxl.safetensors"
        )
        let model = folder.file("diffusion_models/krea2.safetensors")
        let best = folder.file("text_encoders/qwen3vl_4b_bf16.safetensors")
        #expect(try ModelFiles.locate(model).textEncoder == best)
        try FileManager.default.removeItem(atPath: best)
        #expect(
            try ModelFiles.locate(model).textEncoder
                == folder.file("text_encoders/Qwen3-VL-4B-fp8_scaled.safetensors")
        )
        try make("text_encoders/qwen3vl_4b_fp16.safetensors")
        expectError(
            .request(
                "several text encoders and nothing to tell which to take: "
                    + "\(folder.path)/text_encoders/Qwen3-VL-4B-fp8_scaled.safetensors, "
                    + "\(folder.path)/text_encoders/qwen3vl_4b_fp16.safetensors; "
                    + "choose one with --text-encoder PATH"
            )
        ) { try ModelFiles.locate(model) }
    }

    @Test func namedFilesFurtherAwayBeatLoneOnes() throws {
        try makeTree("far")
        try make(
            "near/diffusion_models/krea2.safetensors",
            "near/text_encoders/other.safetensors",
            "near/vae/other.safetensors"
        )
        let model = folder.file("near/diffusion_models/krea2.safetensors")
        let far = folder.file("far")
        let files = try ModelFiles.locate(model, searchFolders: [folder.file("none"), far])
        #expect(files.textEncoder == "\(far)/text_encoders/qwen3vl_4b_bf16.safetensors")
        #expect(files.autoencoder == "\(far)/vae/qwen_image_vae.safetensors")
        #expect(files.tokenizer == "\(far)/tokenizer")
        let lone = try ModelFiles.locate(model, tokenizer: "\(far)/tokenizer")
        #expect(lone.textEncoder == folder.file("near/text_encoders/other.safetensors"))
        #expect(lone.autoencoder == folder.file("near/vae/other.safetensors"))
    }

    @Test func takesWansAutoencoderAmongOthers() throws {
        try make(
            "diffusion_models/krea2.safetensors",
            "text_encoders/qwen3vl_4b_bf16.safetensors",
            "tokenizer/tokenizer.json",
            "vae/ae.safetensors",
            "vae/wan_2.1_vae.safetensors"
        )
        let files = try ModelFiles.locate(folder.path)
        #expect(files.autoencoder == folder.file("vae/wan_2.1_vae.safetensors"))
    }

    // MARK: Tokenizer

    @Test(arguments: [
        "encoder/tokenizer.json", "encoder/tokenizer/vocab.json", "tokenizer/tokenizer.json",
    ])
    func findsATokenizerAroundTheTextEncoder(file: String) throws {
        try make("m/turbo.safetensors", "m/vae/qwen_image_vae.safetensors")
        try make("elsewhere/encoder/model.safetensors", "elsewhere/\(file)")
        let expected = PathText.parent(folder.file("elsewhere/\(file)"))
        for encoder in ["elsewhere/encoder", "elsewhere/encoder/model.safetensors"] {
            let files = try ModelFiles.locate(
                folder.file("m/turbo.safetensors"),
                textEncoder: folder.file(encoder)
            )
            #expect(files.tokenizer == expected)
        }
    }

    // MARK: Explicit companions

    @Test func explicitCompanionsWin() throws {
        try makeCompanions()
        try make("turbo.safetensors", "o/e.safetensors", "o/t/tokenizer.json", "o/v.safetensors")
        let files = try ModelFiles.locate(
            folder.path,
            textEncoder: folder.file("o/e.safetensors"),
            autoencoder: folder.file("o/v.safetensors"),
            tokenizer: folder.file("o/t/tokenizer.json")
        )
        #expect(files.textEncoder == folder.file("o/e.safetensors"))
        #expect(files.autoencoder == folder.file("o/v.safetensors"))
        #expect(files.tokenizer == folder.file("o/t/tokenizer.json"))
    }

    @Test func explicitCompanionsMustBeThere() throws {
        try makeCompanions()
        try make("turbo.safetensors")
        let none = folder.file("none")
        let missing = GenerationError.model(.missing(path: none))
        expectError(missing) { try ModelFiles.locate(folder.path, textEncoder: none) }
        expectError(missing) { try ModelFiles.locate(folder.path, autoencoder: none) }
        expectError(missing) { try ModelFiles.locate(folder.path, tokenizer: none) }
        #expect(missing.category == .missingFile)
    }

    // MARK: Missing parts

    @Test func saysWhereItLookedForTheTextEncoder() throws {
        try make("turbo.safetensors", "vae/qwen_image_vae.safetensors")
        let root = folder.path
        let error = #expect(throws: GenerationError.self) {
            try ModelFiles.locate(folder.path, searchFolders: ["/comfy"])
        }
        #expect(error?.category == .missingFile)
        #expect(
            error?.description == "no text encoder found in \(root)/text_encoder, "
                + "\(root)/text_encoders/*qwen3vl_4b*.safetensors, /comfy/text_encoder, "
                + "/comfy/text_encoders/*qwen3vl_4b*.safetensors; give one with --text-encoder PATH"
        )
    }

    @Test func saysWhereItLookedForTheOtherParts() throws {
        try make("turbo.safetensors", "text_encoder/model.safetensors")
        let root = folder.path
        let tokenizer = #expect(throws: GenerationError.self) { try ModelFiles.locate(root) }
        #expect(
            tokenizer?.description
                == "no tokenizer (tokenizer.json, or vocab.json and merges.txt) found in "
                + "\(root)/tokenizer, \(root)/text_encoder/tokenizer, \(root)/text_encoder; "
                + "give one with --tokenizer PATH"
        )
        // Several files and none with a known name.
        try make("tokenizer/tokenizer.json", "vae/a.safetensors", "vae/b.safetensors")
        let autoencoder = #expect(throws: GenerationError.self) { try ModelFiles.locate(root) }
        #expect(
            autoencoder?.description
                == "no autoencoder found in \(root)/vae/diffusion_pytorch_model.safetensors, "
                + "\(root)/vae/qwen_image_vae.safetensors; give one with --vae PATH"
        )
        #expect(autoencoder?.category == .missingFile)
    }

    @Test func saysWhereItLookedForTheTransformer() throws {
        try makeTree()
        let root = folder.path
        expectError(
            .model(
                .missingCompanion(
                    part: "transformer",
                    option: "--model PATH",
                    lookedAt: [
                        "\(root)/transformer", "\(root)/*.safetensors",
                        "\(root)/diffusion_models/*.safetensors", "\(root)/unet/*.safetensors",
                    ]
                )
            )
        ) { try ModelFiles.locate(root) }
    }

    @Test(arguments: ["none", "none/turbo.safetensors", "a\0b"])
    func refusesPathsThatLeadNowhere(name: String) {
        let path = folder.file(name)
        expectError(.model(.missing(path: path))) { try ModelFiles.locate(path) }
    }

    @Test func refusesWhatIsNoFile() {
        expectError(.model(.missing(path: ""))) { try ModelFiles.locate("") }
        expectError(
            .model(
                .unreadable(path: "/dev/null", reason: "it is neither a file nor a folder")
            )
        ) { try ModelFiles.locate("/dev/null") }
    }

    @Test func foldersThatCannotBeListedAreErrors() throws {
        try make("m/turbo.safetensors")
        let path = folder.file("m")
        try #require(chmod(path, 0o311) == 0)
        defer { chmod(path, 0o755) }
        guard access(path, R_OK) != 0 else { try Test.cancel("this user may read every folder") }
        expectError(.model(.unreadable(path: path, reason: "the folder cannot be listed"))) {
            try ModelFiles.locate(path)
        }
    }
}

/// Paths as text.
struct PathTextTests {
    @Test func parentsOfPaths() {
        let parents = [
            "/a/b": "/a", "/a/b/": "/a", "/a": "/", "a": ".", "a/b": "a", ".": "./..",
            "..": "../..", "a/..": "a/../..", "/": "/..",
        ]
        for (path, parent) in parents {
            #expect(PathText.parent(path) == parent, "\(path)")
        }
    }

    @Test func componentsAreAbsolute() {
        #expect(PathText.components("/a/./b/../c//d/") == ["a", "c", "d"])
        #expect(PathText.components("/../..") == [])
        let here = PathText.components(FileManager.default.currentDirectoryPath)
        #expect(PathText.components(".") == here)
        #expect(PathText.components("x/y") == here + ["x", "y"])
        #expect(PathText.components("../y") == here.dropLast() + ["y"])
    }
}
