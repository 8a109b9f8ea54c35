import Checkpoints
import Foundation
import TestSupport
import Testing

@testable import Krea2

struct ModelIndexTests {
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private func index(_ text: String) throws -> ModelIndex {
        try ModelIndex(path: try folder.write(text, to: "model_index.json"))
    }

    private func shiftRule(_ text: String) throws -> ShiftRule {
        let path = try folder.write(text, to: "scheduler_config.json")
        return try ShiftRule(schedulerOf: files(scheduler: path))
    }

    private func files(scheduler: String?) -> ModelFiles {
        ModelFiles(
            transformer: "",
            textEncoder: "",
            tokenizer: "",
            autoencoder: "",
            scheduler: scheduler
        )
    }

    // MARK: model_index.json

    @Test func readsWhatConcernsUs() throws {
        let index = try index(
            """
            {"_class_name": "Krea2Pipeline", "is_distilled": false, "patch_size": 2,
             "text_encoder_select_layers": [2, 5, 8], "resolution_class": 512,
             "vae": ["diffusers", "AutoencoderKLQwenImage"]}
            """
        )
        #expect(index.isDistilled == false)
        #expect(index.taps == [2, 5, 8])
        #expect(index.resolutionClass == 512)
    }

    @Test func everythingIsOptional() throws {
        #expect(try index("{}") == ModelIndex())
        #expect(try ModelIndex(path: nil) == ModelIndex())
        #expect(try index(#"{"is_distilled": null, "patch_size": null}"#) == ModelIndex())
        #expect(ModelIndex().resolutionClass == 1024)
        #expect(ModelIndex().isDistilled == nil && ModelIndex().taps == nil)
    }

    @Test(arguments: [
        ("is_distilled", "1"), ("is_distilled", "\"true\""), ("patch_size", "1"),
        ("patch_size", "2.0"), ("patch_size", "99999999999999999999"), ("patch_size", "true"),
        ("text_encoder_select_layers", "[]"), ("text_encoder_select_layers", "[0, 2]"),
        ("text_encoder_select_layers", "[5, 2]"), ("text_encoder_select_layers", "[2, 2]"),
        ("text_encoder_select_layers", "[-1]"), ("text_encoder_select_layers", "[2.5]"),
        ("text_encoder_select_layers", "[9223372036854775807]"),
        ("text_encoder_select_layers", "3"), ("text_encoder_select_layers", "[\"2\"]"),
        ("resolution_class", "48"), ("resolution_class", "4112"), ("resolution_class", "1000"),
        ("resolution_class", "-1024"), ("resolution_class", "1e3"),
        ("resolution_class", "9223372036854775807"), ("resolution_class", "[1024]"),
    ])
    func refusesOtherValues(key: String, value: String) throws {
        let error = #expect(throws: CheckpointError.self) {
            try index("{\"\(key)\": \(value)}")
        }
        #expect(error?.isMissingFile == false)
        let text = error?.description ?? ""
        #expect(text.hasPrefix("\(folder.file("model_index.json")): \"\(key)\" "))
    }

    @Test(arguments: [64, 1040, 4096])
    func acceptsResolutionClasses(value: Int) throws {
        #expect(try index("{\"resolution_class\": \(value)}").resolutionClass == value)
    }

    @Test(arguments: ["", "[]", "{\"is_distilled\": true", "{\"a\": 1, \"a\": 2}"])
    func refusesDamagedFiles(text: String) {
        let error = #expect(throws: CheckpointError.self) { try index(text) }
        #expect(error?.isMissingFile == false)
    }

    @Test func missingFilesAreErrors() {
        let path = folder.file("none.json")
        #expect(throws: CheckpointError.missing(path: path)) { try ModelIndex(path: path) }
        #expect(throws: CheckpointError.missing(path: path)) {
            try ShiftRule(schedulerOf: files(scheduler: path))
        }
    }

    // MARK: scheduler_config.json

    @Test func readsTheShiftRule() throws {
        let text = """
            {"base_image_seq_len": 64, "base_shift": -0.5, "max_image_seq_len": 1024,
             "max_shift": 2, "time_shift_type": "exponential", "use_dynamic_shifting": true}
            """
        let expected = ShiftRule(baseShift: -0.5, maxShift: 2, baseTokens: 64, maxTokens: 1024)
        #expect(try shiftRule(text) == expected)
        #expect(try shiftRule("{}") == ShiftRule())
        #expect(try ShiftRule(schedulerOf: files(scheduler: nil)) == ShiftRule())
    }

    @Test(arguments: [
        ("base_shift", "11"), ("base_shift", "\"0.5\""), ("max_shift", "-1e9"),
        ("max_shift", "true"), ("base_image_seq_len", "0"), ("base_image_seq_len", "6400.5"),
        ("max_image_seq_len", "256"), ("max_image_seq_len", "9223372036854775807"),
        ("time_shift_type", "\"linear\""), ("time_shift_type", "1"),
        ("use_dynamic_shifting", "false"), ("use_dynamic_shifting", "0"),
    ])
    func refusesOtherSchedulers(key: String, value: String) {
        let error = #expect(throws: CheckpointError.self) {
            try shiftRule("{\"\(key)\": \(value)}")
        }
        #expect(error?.isMissingFile == false)
        #expect(error?.description.contains(": \"\(key)\" ") == true)
    }
}

struct VariantTests {
    private func choice(
        _ path: String,
        override: Variant? = nil,
        isDistilled: Bool? = nil
    ) -> (variant: Variant, source: String) {
        var index = ModelIndex()
        index.isDistilled = isDistilled
        return VariantChoice.decide(override: override, index: index, transformerPath: path)
    }

    @Test func theUsersWordComesFirst() {
        let choice = choice("/m/turbo.safetensors", override: .raw, isDistilled: true)
        #expect(choice.variant == .raw)
        #expect(choice.source == "asked for")
    }

    @Test func theIndexComesBeforeNames() {
        #expect(choice("/m/raw.safetensors", isDistilled: true).variant == .turbo)
        let choice = choice("/m/turbo.safetensors", isDistilled: false)
        #expect(choice.variant == .raw)
        #expect(choice.source == "is_distilled in model_index.json")
    }

    @Test(arguments: [
        ("/m/raw.safetensors", Variant.raw, "raw.safetensors"),
        ("/m/krea2_RAW_bf16.safetensors", .raw, "krea2_RAW_bf16.safetensors"),
        ("/m/krea2Raw.safetensors", .raw, "krea2Raw.safetensors"),
        ("/m/krea2raw.safetensors", .raw, "krea2raw.safetensors"),
        ("/raw/turbo.safetensors", .turbo, "turbo.safetensors"),
        ("/m/Krea-2-Raw/model.safetensors", .raw, "Krea-2-Raw"),
        ("/m/Krea-2-Raw/transformer", .raw, "Krea-2-Raw"),
        ("/m/Krea-2-Raw/transformer/", .raw, "Krea-2-Raw"),
        ("/m/Krea-2-Raw/transformer/model.safetensors.index.json", .raw, "Krea-2-Raw"),
        (
            "/hub/models--krea--Krea-2-Raw/snapshots/0a1b/transformer", .raw,
            "models--krea--Krea-2-Raw"
        ),
        (
            "/hub/models--krea--Krea-2-Raw/snapshots/0a1b/model.safetensors", .raw,
            "models--krea--Krea-2-Raw"
        ),
        ("/raw/turbo_vs_raw.safetensors", .raw, "raw"),
    ])
    func namesTell(path: String, variant: Variant, name: String) {
        let choice = choice(path)
        #expect(choice.variant == variant)
        #expect(choice.source == "the name \(name)")
    }

    @Test(arguments: [
        "/m/krea2.safetensors", "/m/strawberry.safetensors", "/raw/m/krea2.safetensors",
        "/raw/m/transformer", "/m/drawing/model.safetensors", "/", "",
    ])
    func turboIsAssumedOtherwise(path: String) {
        let choice = choice(path)
        #expect(choice.variant == .turbo)
        #expect(choice.source.hasPrefix("assumed, "))
    }
}
