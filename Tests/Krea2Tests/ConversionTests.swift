import Checkpoints
import Compute
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

struct ConversionTests {
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private let official = FixtureModel.path("head16/turbo.safetensors")

    /// Converts a fixture or another file and returns the new one's path.
    private func convert(
        _ path: String,
        _ format: ConversionFormat,
        to name: String = "out.safetensors",
        threads: Int = 2
    ) throws(GenerationError) -> String {
        try Conversion(path: path, to: format).run(
            to: folder.file(name),
            overwriting: true,
            threads: threads
        )
        return folder.file(name)
    }

    /// The weights of a file, and their values.
    private func stored(_ path: String) throws -> (
        weights: [StoredWeight], values: [String: [Float]]
    ) {
        let stored = StoredWeights(try Checkpoint(path: path))
        #expect(stored.problems.isEmpty && stored.all.allSatisfy { $0.problems.isEmpty })
        let pairs = try stored.all.map { weight in
            (weight.name, dequantized(try #require(stored.matrix(weight).matrix)).elements)
        }
        return (stored.all, Dictionary(uniqueKeysWithValues: pairs))
    }

    // MARK: Forms

    /// Observed: 0.027 for fp8_scaled, 0.0074 for int8_convrot.
    private static let limits = [ConversionFormat.float8: 0.1, .int8: 0.03]

    @Test(arguments: [ConversionFormat.float8, .int8], ["head16", "head128"])
    func matricesOfBlocksAreQuantised(_ format: ConversionFormat, _ model: String) throws {
        let files = try FixtureModel.files(model)
        for source in [files.transformer, files.textEncoder] {
            let conversion = try Conversion(path: source, to: format)
            let (weights, values) = try stored(try convert(source, format))
            let original = try stored(try convert(source, .float32, to: "f32.safetensors"))
            #expect(Set(values.keys) == Set(original.values.keys))
            var quantized = 0
            for weight in weights {
                let wanted = try #require(original.values[weight.name])
                let found = try #require(values[weight.name])
                guard weight.scale != nil else {
                    #expect(haveEqualBits(found, wanted), "\(weight.name)")
                    continue
                }
                quantized += 1
                let limit = try #require(Self.limits[format])
                #expect(relativeError(found, wanted) < limit, "\(weight.name)")
                #expect(weight.record.shape.count == 2 && weight.name.hasSuffix(".weight"))
            }
            let perBlock = conversion.part == .transformer ? 8 : 7
            #expect(quantized > 0 && quantized.isMultiple(of: perBlock))
            #expect(quantized == conversion.convertedCount)
            #expect(weights.count == conversion.tensorCount)
        }
    }

    /// What ComfyUI looks for, byte by byte.
    @Test func writesWhatComfyUIReads() throws {
        let path = try convert(official, .int8)
        let file = try SafetensorsFile(path: path)
        func text(_ name: String) throws -> String {
            let tensor = try #require(file.tensor(name))
            #expect(tensor.elementType == .uint8)
            let bytes = UnsafeRawBufferPointer(start: tensor.address, count: tensor.byteCount)
            return String(decoding: bytes, as: UTF8.self)
        }
        #expect(
            try text("blocks.0.attn.wq.comfy_quant")
                == #"{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 16}"#
        )
        // No power of 4 divides 117.
        #expect(try text("blocks.0.mlp.down.comfy_quant") == #"{"format": "int8_tensorwise"}"#)
        #expect(file.tensors["blocks.0.attn.wk.weight"]?.elementType == .int8)
        #expect(file.tensors["blocks.0.attn.wk.weight_scale"]?.elementType == .float32)
        #expect(file.tensors["blocks.0.attn.wk.weight_scale"]?.shape == [32, 1])
        #expect(file.tensors["tproj.1.weight"]?.elementType == .float32)
        #expect(file.metadata["krea2.converted"]?.hasPrefix("int8_convrot of sha256:") == true)
        #expect(file.tensors.values.allSatisfy { $0.isAligned })

        let scaled = try SafetensorsFile(path: try convert(official, .float8))
        #expect(
            scaled.tensors["txtfusion.refiner_blocks.1.mlp.up.weight"]?.elementType == .float8E4M3
        )
        #expect(scaled.tensors["txtfusion.refiner_blocks.1.mlp.up.weight_scale"]?.shape == [])
        let note = try #require(scaled.tensor("blocks.1.attn.gate.comfy_quant"))
        let bytes = UnsafeRawBufferPointer(start: note.address, count: note.byteCount)
        #expect(String(decoding: bytes, as: UTF8.self) == #"{"format": "float8_e4m3fn"}"#)
    }

    /// The two layouts hold the same numbers, and end up under the same names and shapes.
    @Test func bothNamingsGiveTheSameFile() throws {
        for format in [ConversionFormat.int8, .float8, .float32] {
            let one = try Checkpoint(path: try convert(official, format, to: "a.safetensors"))
            let other = try Checkpoint(
                path: try convert(
                    FixtureModel.path("head16/transformer"),
                    format,
                    to: "b.safetensors"
                )
            )
            #expect(one.names == other.names)
            for name in one.names {
                let (a, b) = (try #require(one.tensor(name)), try #require(other.tensor(name)))
                #expect(a.shape == b.shape && a.elementType == b.elementType, "\(name)")
                #expect(memcmp(a.address, b.address, a.byteCount) == 0, "\(name)")
            }
        }
    }

    @Test func encodersGetTheNamesOfTheReleasedFile() throws {
        let path = try convert(FixtureModel.path("head16/text_encoder"), .float8)
        let names = try Checkpoint(path: path).names
        #expect(names.contains("model.language_model.embed_tokens.weight"))
        #expect(names.contains("model.language_model.layers.0.mlp.up_proj.comfy_quant"))
        #expect(names.contains { $0.hasPrefix("model.visual.") })
        #expect(names.allSatisfy { $0.hasPrefix("model.") })
        let comfy = try FixtureModel.files("head48").textEncoder
        let converted = try convert(comfy, .bfloat16)
        #expect(try Checkpoint(path: converted).names == (try Checkpoint(path: comfy).names))
    }

    // MARK: Other types

    /// Nothing is lost by more bits, so the picture stays the same to the last one.
    @Test func wideFilesGiveTheSamePicture() throws {
        var files = try FixtureModel.files("head16")
        files.transformer = official
        let expected = try Outcome(files)
        files.transformer = try convert(official, .float32, to: "t.safetensors")
        files.textEncoder = try convert(files.textEncoder, .float32, to: "e.safetensors")
        #expect(try Outcome(files).differences(from: expected) == [])
        for file in [files.transformer, files.textEncoder] {
            let checkpoint = try Checkpoint(path: file)
            #expect(
                checkpoint.names.allSatisfy { checkpoint.record($0)?.elementType == .float32 }
            )
        }
    }

    @Test func halvesConcernMatrices() throws {
        let (weights, _) = try stored(
            try convert(FixtureModel.path("head16/transformer"), .bfloat16)
        )
        for weight in weights {
            let isMatrix = weight.name.contains("blocks.") && weight.record.shape.count == 2
            #expect(
                weight.record.elementType == (isMatrix ? .bfloat16 : .float32),
                "\(weight.name)"
            )
        }
        let encoder = FixtureModel.path("head16/text_encoder")
        let (halves, _) = try stored(try convert(encoder, .float16))
        for weight in halves {
            let isLarge = weight.record.shape.count > 1
            #expect(weight.record.elementType == (isLarge ? .float16 : .bfloat16), "\(weight.name)")
        }
    }

    /// Back to wide types, from both forms and once more from their copies.
    @Test(arguments: [ConversionFormat.float8, .int8])
    func quantisedFilesAreReadAgain(_ format: ConversionFormat) throws {
        let first = try convert(official, format, to: "first.safetensors")
        let (_, values) = try stored(first)
        let wide = try stored(try convert(first, .float32))
        #expect(wide.weights.allSatisfy { $0.format == .plain })
        for (name, found) in wide.values {
            #expect(haveEqualBits(found, try #require(values[name])), "\(name)")
        }
        // What is in the form already is not rounded a second time.
        let conversion = try Conversion(path: first, to: format)
        #expect(conversion.convertedCount == 0)
        let again = try stored(try convert(first, format, to: "again.safetensors"))
        #expect(again.values == values)
    }

    @Test func otherQuantisedLayersStayQuantised() throws {
        var weights = try Weights(official)
        let name = "tmlp.2.weight"
        let shape = try #require(weights.tensors[name]).shape
        let codes = Tensor(
            Storage(byteCount: shape.reduce(1, *)),
            byteOffset: 0,
            shape: shape,
            elementType: .int8
        )
        weights = weights.adding([
            name: codes, "tmlp.2.weight_scale": Tensor([0.5], shape: [1]),
            "scaled_fp8": Tensor(zeros: [0]),
        ])
        let path = try weights.write(to: folder.file("mixed.safetensors"))
        let quantized = try stored(try convert(path, .float8)).weights
        let kept = try #require(quantized.first { $0.name == name })
        #expect(kept.format == .int8(rotation: nil) && kept.scale == "tmlp.2.weight_scale")
        let wide = try stored(try convert(path, .bfloat16)).weights
        #expect(wide.first { $0.name == name }?.record.elementType == .bfloat16)
        #expect(wide.allSatisfy { $0.format == .plain && $0.name != "scaled_fp8" })
    }

    // MARK: Runs

    @Test func stoppedRunsAreContinued() throws {
        let whole = try Data(contentsOf: URL(filePath: try convert(official, .int8)))
        let conversion = try Conversion(path: official, to: .int8)
        let path = folder.file("piecewise.safetensors")
        var runs = 0
        var isFinished = false
        while !isFinished {
            var asked = 0
            var starts: [Int] = []
            do throws(GenerationError) {
                try conversion.run(
                    to: path,
                    progress: { starts.append($0.finishedTensors) },
                    isCancelled: {
                        asked += 1
                        return asked > 30
                    }
                )
                isFinished = true
            } catch {
                #expect(error == .cancelled)
                #expect(!FileManager.default.fileExists(atPath: path))
            }
            #expect(starts.first == 30 * runs)
            runs += 1
        }
        #expect(runs == 4)
        #expect(try Data(contentsOf: URL(filePath: path)) == whole)
        #expect(
            try folder.names() == [
                "out.NOTICE.txt", "out.safetensors", "piecewise.NOTICE.txt",
                "piecewise.safetensors",
            ]
        )
    }

    /// Runs a conversion until it has written some tensors.
    private func stop(_ source: String, _ format: ConversionFormat, _ path: String) throws {
        var asked = 0
        #expect(throws: GenerationError.cancelled) {
            try Conversion(path: source, to: format).run(to: path) {
                _ in
            } isCancelled: {
                asked += 1
                return asked > 5
            }
        }
    }

    @Test func otherSourcesAndFormsStartAnew() throws {
        let source = try Weights(official).write(to: folder.file("source.safetensors"))
        let path = folder.file("out.safetensors")
        func start(_ format: ConversionFormat) throws -> Int? {
            var first: Int?
            #expect(throws: GenerationError.cancelled) {
                try Conversion(path: source, to: format).run(
                    to: path,
                    progress: { first = first ?? $0.finishedTensors },
                    isCancelled: { true }
                )
            }
            return first
        }
        try stop(source, .int8, path)
        #expect(try start(.int8) == 5)
        #expect(try start(.float8) == 0)
        try stop(source, .int8, path)
        try Weights(official).write(to: source)
        #expect(try start(.int8) == 0)
    }

    @Test func changedSourcesLeaveNothing() throws {
        let source = try Weights(official).write(to: folder.file("source.safetensors"))
        let conversion = try Conversion(path: source, to: .int8)
        let error = #expect(throws: GenerationError.self) {
            try conversion.run(to: folder.file("out.safetensors")) { progress in
                if progress.finishedTensors == 20 { truncate(source, 4096) }
            }
        }
        guard case .model(.changed(source, _)) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(try folder.names() == ["source.safetensors"])
    }

    @Test func threadsChangeNothing() throws {
        let files = try [1, 2, 5].map { threads in
            let name = "\(threads).safetensors"
            return try Data(
                contentsOf: URL(filePath: try convert(official, .int8, to: name, threads: threads))
            )
        }
        #expect(files[0] == files[1] && files[0] == files[2])
    }

    // MARK: Notices

    @Test func licencesAreNamedBesideTheFile() throws {
        let conversion = try Conversion(path: official, to: .int8)
        let notice = try conversion.run(to: folder.file("krea.safetensors"))
        #expect(notice == folder.file("krea.NOTICE.txt"))
        let text = try String(contentsOfFile: notice, encoding: .utf8)
        #expect(
            text.hasPrefix(
                "Krea 2 is licensed under the Krea 2 Community License Agreement. For more "
                    + "information, visit https://krea.ai/krea-2-licensing.\n"
            )
        )
        #expect(text.contains("krea.safetensors is a modified copy") && text.contains("sha256:"))
        let encoder = try Conversion(path: FixtureModel.path("head16/text_encoder"), to: .float8)
        let other = try encoder.run(to: folder.file("encoder.safetensors"))
        #expect(try String(contentsOfFile: other, encoding: .utf8).contains("Apache License"))

        try folder.write("mine", to: "next.NOTICE.txt")
        let path = folder.file("next.NOTICE.txt")
        #expect(throws: GenerationError.model(.exists(path: path))) {
            try conversion.run(to: folder.file("next.safetensors"))
        }
    }

    // MARK: Errors

    @Test(arguments: [Float.nan, .infinity])
    func whatIsNotFiniteIsNotQuantised(_ value: Float) throws {
        let name = "blocks.1.mlp.up.weight"
        var weights = try Weights(official)
        let damaged = try #require(weights.tensors[name]).stored(as: .float32)
        damaged.floats[5] = value
        weights = weights.adding([name: damaged])
        let source = try weights.write(to: folder.file("source.safetensors"))
        for format in [ConversionFormat.int8, .float8] {
            let error = #expect(throws: GenerationError.self) { try convert(source, format) }
            #expect(
                error?.description == "\(source): tensor \(name) in \(source) has NaN or infinity, "
                    + "expected finite values"
            )
            #expect(error?.category == .unfitFile)
        }
        #expect(try folder.names() == ["source.safetensors"])
    }

    @Test func whatDoesNotFitIsNotRounded() throws {
        let name = "blocks.0.attn.wq.weight"
        var weights = try Weights(official)
        let large = try #require(weights.tensors[name]).stored(as: .float32)
        large.floats[0] = 1e6
        weights = weights.adding([name: large])
        let source = try weights.write(to: folder.file("source.safetensors"))
        let error = #expect(throws: GenerationError.self) { try convert(source, .float16) }
        #expect(error?.description.contains("values beyond the range of F16") == true)
        #expect(try folder.names() == ["source.safetensors"])
    }

    @Test func formsThatAreNotReadAreRefused() throws {
        let weights = try Weights(official).adding([
            "blocks.0.attn.wq.comfy_quant": Tensor(bytes: Array(#"{"format":"nvfp4"}"#.utf8))
        ])
        let source = try weights.write(to: folder.file("source.safetensors"))
        let error = #expect(throws: GenerationError.self) {
            try Conversion(path: source, to: .int8)
        }
        #expect(
            error?.description.contains(
                "format nvfp4 of tensor blocks.0.attn.wq.weight in \(source) is not supported"
            ) == true
        )
    }

    @Test func matricesOfOtherTypesAreRefused() throws {
        let name = "blocks.0.attn.wq.weight"
        let numbers = Tensor(
            Storage(byteCount: 8 * 96 * 96),
            byteOffset: 0,
            shape: [96, 96],
            elementType: .int64
        )
        let source = try Weights(official).adding([name: numbers])
            .write(to: folder.file("source.safetensors"))
        for format in ConversionFormat.allCases {
            let error = #expect(throws: GenerationError.self) {
                try Conversion(path: source, to: format)
            }
            #expect(error?.description.contains("type I64 is known but not computed") == true)
        }
    }

    @Test func tensorsThatWouldCollideAreRefused() throws {
        let name = "blocks.0.attn.wq.weight_scale"
        let source = try Weights(official).adding([name: Tensor([1], shape: [1])])
            .write(to: folder.file("source.safetensors"))
        let error = #expect(throws: GenerationError.self) {
            try Conversion(path: source, to: .int8)
        }
        #expect(
            error?.description
                == "\(source): tensor \(name) is in \(source) and in the converted file"
        )
    }

    @Test func otherModelsAreRefused() throws {
        let autoencoder = FixtureModel.path("head16/vae")
        let error = #expect(throws: GenerationError.self) {
            try Conversion(path: autoencoder, to: .int8)
        }
        #expect(error?.description.contains("a Krea 2 transformer or its text encoder") == true)
        let plain = try Weights(FixtureModel.path("head16/text_encoder")).renamed { name in
            name.hasPrefix("visual.") ? nil : name.replacing("language_model.", with: "model.")
        }.write(to: folder.file("plain.safetensors"))
        #expect(throws: GenerationError.self) { try Conversion(path: plain, to: .int8) }
    }

    // MARK: Places

    @Test func findsThePartsOfAModel() throws {
        let model = FixtureModel.path("head16")
        #expect(try Conversion.locate(model) == model + "/transformer")
        #expect(try Conversion.locate(official) == official)
        #expect(try Conversion.locate(model, part: .textEncoder) == model + "/text_encoder")
        #expect(try Conversion.locate(model + "/transformer") == model + "/transformer")
        #expect(try Conversion.locate(model + "/text_encoder") == model + "/text_encoder")
        #expect(try Conversion.locate(official, part: .textEncoder) == model + "/text_encoder")
        let comfy = FixtureModel.path("head48")
        let transformer = comfy + "/diffusion_models/krea2_raw_bf16.safetensors"
        let encoder = comfy + "/text_encoders/qwen3vl_4b_bf16.safetensors"
        #expect(try Conversion.locate(comfy) == transformer)
        #expect(try Conversion.locate(transformer, part: .textEncoder) == encoder)
        #expect(try Conversion.locate(encoder) == encoder)
        #expect(throws: GenerationError.request("\(encoder) is a text encoder, not a transformer"))
        {
            try Conversion.locate(encoder, part: .transformer)
        }
        let missing = folder.file("none")
        #expect(throws: GenerationError.model(.missing(path: missing))) {
            try Conversion.locate(missing)
        }
        let error = #expect(throws: GenerationError.self) { try Conversion.locate(folder.path) }
        #expect(error?.description.hasSuffix("; give one with another MODEL") == true)
    }

    @Test func suggestsTheNamesOfComfyUI() throws {
        for (path, name) in [
            (official, "diffusion_models/krea2_turbo_int8_convrot.safetensors"),
            (
                FixtureModel.path("head48/diffusion_models/krea2_raw_bf16.safetensors"),
                "diffusion_models/krea2_raw_int8_convrot.safetensors"
            ),
            (
                FixtureModel.path("head128/transformer"),
                "diffusion_models/krea2_int8_convrot.safetensors"
            ),
            (
                FixtureModel.path("head16/text_encoder"),
                "text_encoders/qwen3vl_4b_int8_convrot.safetensors"
            ),
        ] {
            #expect(try Conversion(path: path, to: .int8).suggestedPath == name)
        }
    }
}
