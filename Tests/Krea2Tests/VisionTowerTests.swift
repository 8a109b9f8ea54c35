import Checkpoints
import Compute
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// The vision tower, against transformers and with files that are not as they should be.
struct VisionTowerTests {
    /// Largest relative error (of the 2-norm); 1.7e-6 was seen.
    static let limit = 6e-6
    /// The same in int8; 0.019 was seen.
    static let int8Limit = 0.06

    @Test func hasCases() { #expect(VisionCase.all.count >= 10) }

    @Test(arguments: VisionCase.all)
    func agreesWithTransformers(_ vision: VisionCase) throws {
        let features = try VisionModel(vision.model).features(vision.pictures)
        let dump = try vision.dump
        func compare(_ name: String, _ tensor: Tensor) throws {
            #expect(try tensor.shape == dump.shape(name), "\(name)")
            let error = try relativeError(tensor.elements, dump.floats(name))
            #expect(error < Self.limit, "\(name): \(error)")
        }
        try compare("features", features.tokens)
        for (index, tensor) in features.deepstack.enumerated() {
            try compare("deepstack.\(index)", tensor)
        }
        let deepstack = dump.names.filter { $0.hasPrefix("deepstack.") }
        #expect(features.deepstack.count == deepstack.count)
    }

    // MARK: Pictures

    @Test func patchesAreOrderedTokenByToken() {
        let grid = VisionGrid(rows: 4, columns: 6, merge: 2)
        #expect(grid.tokens == 6 && grid.tokenRows == 2 && grid.tokenColumns == 3)
        let places = grid.places.map { [$0.row, $0.column] }
        #expect(places.count == 24)
        #expect(Array(places[..<6]) == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3]])
        #expect(places[12] == [2, 0] && places[23] == [3, 5])
    }

    @Test func patchesHoldPlanesOfColour() throws {
        let (width, height, side) = (8, 4, 2)
        let rgb = (0..<width * height * 3).map { UInt8($0) }
        let picture = try VisionPicture(width: width, height: height, rgb: rgb)
        #expect(picture.values[0] == -1)
        let grid = VisionGrid(rows: 2, columns: 4, merge: 2)
        let patches = Tensor(zeros: [8, 3 * side * side])
        picture.write(grid, into: patches)
        for (index, place) in grid.places.enumerated() {
            let expected = (0..<3).flatMap { channel in
                [(0, 0), (0, 1), (1, 0), (1, 1)].map { row, column in
                    let pixel = (place.row * side + row) * width + place.column * side + column
                    return (Float(pixel * 3 + channel) / 255 - 0.5) / 0.5
                }
            }
            #expect(patches.row(index).elements == expected, "\(place)")
        }
    }

    @Test func positionsAreInterpolatedBetweenCorners() {
        // Three patches on a table of five: every second entry; six rows: fractions.
        let grid = VisionGrid(rows: 6, columns: 2, merge: 2)
        let terms = grid.tableTerms(side: 4)
        #expect(terms.count == 12 && terms.allSatisfy { $0.count == 4 })
        func sum(_ index: Int, _ value: (Int) -> Float) -> Float {
            terms[index].reduce(0) { $0 + $1.weight * value($1.id) }
        }
        for (index, place) in grid.places.enumerated() {
            #expect(abs(sum(index) { _ in 1 } - 1) < 1e-6)
            #expect(abs(sum(index) { Float($0 / 4) } - Float(place.row) * 3 / 5) < 1e-6)
            #expect(abs(sum(index) { Float($0 % 4) } - Float(place.column) * 3) < 1e-6)
        }
        let one = VisionGrid(rows: 1, columns: 1, merge: 1).tableTerms(side: 1)
        #expect(one[0].map(\.id) == [0, 0, 0, 0] && one[0].map(\.weight) == [1, 0, 0, 0])
    }

    @Test func refusesPicturesThatAreNone() throws {
        let pixels = [UInt8](repeating: 1, count: 3 * 64)
        for (width, height) in [(0, 8), (8, 0), (-8, -8), (Int.max, 2), (1 << 13, 1 << 12), (8, 7)]
        {
            let error = #expect(throws: GenerationError.self) {
                try VisionPicture(width: width, height: height, rgb: pixels)
            }
            #expect(error?.category == .request, "\(width)×\(height)")
        }
        let picture = try VisionPicture(width: 8, height: 8, rgb: pixels)
        let config = try VisionFiles(VisionModel("head16").files).config
        let error = #expect(throws: GenerationError.self) { try picture.grid(config) }
        #expect(error?.description.contains("8×8 pixels") == true)
        #expect(error?.description.contains("multiples of 32") == true)
    }

    // MARK: Files

    /// A copy of head16's text encoder with other weights.
    private func copy(
        _ folder: TemporaryFolder,
        _ change: (Weights) -> Weights
    ) throws -> TextEncoderFiles {
        let original = FixtureModel.path("head16/text_encoder")
        try change(Weights(original)).write(to: folder.file("model.safetensors"))
        if try !folder.names().contains("config.json") {
            try FileManager.default.copyItem(
                atPath: original + "/config.json",
                toPath: folder.file("config.json")
            )
        }
        return try TextEncoderFiles(path: folder.path)
    }

    private func failure(_ change: (Weights) -> Weights) throws -> String {
        let folder = try TemporaryFolder()
        let files = try copy(folder, change)
        // Text goes on without it.
        _ = try TextEncoder(files, taps: [2, 5, 6])
        let error = #expect(throws: CheckpointError.self) {
            try VisionTower(VisionFiles(files))
        }
        return error?.description ?? ""
    }

    @Test func textNeedsNoTower() throws {
        let error = try failure { weights in
            weights.renamed { $0.hasPrefix("visual.") ? nil : $0 }
        }
        #expect(error.contains("no tensor visual.patch_embed.proj.weight"), "\(error)")
        #expect(error.contains("expected Qwen3-VL-4B with its visual.* tensors"), "\(error)")
        let plain = try TemporaryFolder()
        let files = try copy(plain) { weights in
            weights.renamed { $0.hasPrefix("visual.") ? nil : $0 }
        }
        #expect(throws: GenerationError.self) {
            try VisionModel("head16", textEncoder: files.whole.path).pictureEncoder()
        }
    }

    @Test(arguments: [
        "visual.blocks.1.attn.qkv.weight", "visual.blocks.0.norm2.bias",
        "visual.merger.norm.weight",
        "visual.deepstack_merger_list.1.linear_fc2.bias", "visual.pos_embed.weight",
        "visual.patch_embed.proj.bias",
    ])
    func badTensorsAreNamed(name: String) throws {
        let missing = try failure { $0.renamed { $0 == name ? nil : $0 } }
        #expect(missing.contains("tensor \(name) is missing from"), "\(missing)")
        let surplus = try failure { $0.adding([name + ".extra": Tensor(zeros: [2])]) }
        #expect(surplus.contains("tensor \(name).extra in"), "\(surplus)")
        let shape = try failure { weights in
            weights.reshaped { key, tensor in key == name ? [tensor.count, 1] : nil }
        }
        #expect(shape.contains("tensor \(name) in") && shape.contains("has shape ["), "\(shape)")
    }

    @Test func flatKernelsAreNamed() throws {
        let name = "visual.patch_embed.proj.weight"
        let error = try failure { weights in
            weights.reshaped { key, _ in key == name ? [16, 1536] : nil }
        }
        #expect(error.contains("tensor \(name) in"), "\(error)")
        #expect(error.contains("has shape [16, 1536], expected [16, 3, 2, 16, 16]"), "\(error)")
    }

    @Test(arguments: [
        "\"hidden_size\": 16777216", "\"depth\": 1024", "\"num_heads\": 5", "\"num_heads\": 16",
        "\"intermediate_size\": 16777216", "\"patch_size\": 16777216", "\"patch_size\": 256",
        "\"temporal_patch_size\": 16777216", "\"temporal_patch_size\": 16",
        "\"spatial_merge_size\": 16777216", "\"spatial_merge_size\": 16",
        "\"num_position_embeddings\": 16777216", "\"num_position_embeddings\": 15",
        "\"out_hidden_size\": 16777216", "\"deepstack_visual_indexes\": [1, 0]",
        "\"deepstack_visual_indexes\": [0, 16777216]", "\"deepstack_visual_indexes\": [0]",
        "\"hidden_size\": 0", "\"depth\": \"two\"", "\"rope_parameters\": {\"rope_theta\": -1}",
    ])
    func hostileSettingsAreErrors(setting: String) throws {
        let folder = try TemporaryFolder()
        let base = """
            {"model_type": "qwen3_vl", "text_config": {"num_attention_heads": 4},
             "vision_config": {\(setting.contains("heads") ? "" : "\"num_heads\": 2, ")\(setting)}}
            """
        try folder.write(base, to: "config.json")
        let files = try copy(folder) { $0 }
        let error = #expect(throws: CheckpointError.self) { try VisionTower(VisionFiles(files)) }
        #expect(error?.isMissingFile == false, "\(setting)")
        #expect(error?.description.count ?? 0 < 6000)
    }

    /// Header and zeros of some tensors, in a file without blocks on the disk.
    private func sparseFile(_ shapes: [String: [Int]], _ path: String) throws {
        var (header, end) = ([String: Any](), 0)
        for (name, shape) in shapes.sorted(by: { $0.key < $1.key }) {
            let size = shape.reduce(2, *)
            header[name] = ["dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]]
            end += size
        }
        let json = try JSONSerialization.data(withJSONObject: header)
        var data = withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) }
        data.append(json)
        try data.write(to: URL(filePath: path))
        try #require(truncate(path, data.count + end) == 0)
    }

    @Test func sizesOfTheReleasedModelComeFromShapes() throws {
        var shapes: [String: [Int]] = [
            "pos_embed.weight": [2304, 1024], "patch_embed.proj.weight": [1024, 3, 2, 16, 16],
            "merger.linear_fc1.weight": [4096, 4096], "merger.linear_fc2.weight": [2560, 4096],
            "blocks.0.mlp.linear_fc1.weight": [4096, 1024],
        ]
        for block in 0..<24 { shapes["blocks.\(block).norm1.weight"] = [1024] }
        for merger in 0..<3 { shapes["deepstack_merger_list.\(merger).norm.weight"] = [4096] }
        let folder = try TemporaryFolder()
        try sparseFile(shapes, folder.file("v.safetensors"))
        let config = try VisionConfig(Checkpoint(path: folder.file("v.safetensors")), nil)
        #expect(config.width == 1024 && config.blocks == 24 && config.heads == 16)
        #expect(config.feedForwardWidth == 4096 && config.patch == 16 && config.frames == 2)
        #expect(config.merge == 2 && config.tableSide == 48 && config.outputWidth == 2560)
        #expect(config.deepstackBlocks == [5, 11, 17] && config.theta == 10_000)
    }

    // MARK: Layouts

    @Test(arguments: [
        ("model.language_model.", "model.visual."), ("model.", "visual."), ("", "visual."),
        ("x.model.language_model.", "x.model.visual."),
    ])
    func namesAreTheSame(language: String, vision: String) throws {
        let pictures = try #require(VisionCase.all.first).pictures
        let expected = try VisionModel("head16").features(pictures)
        let folder = try TemporaryFolder()
        let files = try copy(folder) { weights in
            weights.renamed { name in
                name.hasPrefix("visual.")
                    ? vision + name.dropFirst("visual.".count)
                    : language + name.dropFirst("language_model.".count)
            }
        }
        let model = try VisionModel("head16", textEncoder: files.whole.path)
        let features = try model.features(pictures)
        #expect(features.tokens.elements == expected.tokens.elements)
        #expect(features.deepstack.map(\.elements) == expected.deepstack.map(\.elements))
    }

    /// Int8 with a scale for each row, and eight-bit floats without one.
    @Test func quantizedMatricesHaveTheirValues() throws {
        var (stored, values): ([String: Tensor], [String: Tensor]) = ([:], [:])
        for (name, tensor) in try Weights(FixtureModel.path("head16/text_encoder")).tensors
        where name.hasPrefix("visual.") && name.hasSuffix(".weight") {
            let isKernel = tensor.shape.count == 5
            guard isKernel || (tensor.shape.count == 2 && !name.contains("pos_embed")) else {
                continue
            }
            let type: ElementType = isKernel ? .float8E4M3 : .int8
            let codes = Tensor(
                Storage(byteCount: tensor.count),
                byteOffset: 0,
                shape: tensor.shape,
                elementType: type
            )
            for (index, value) in tensor.values.enumerated() {
                // Sign and magnitude for floats, which have NaN at both ends.
                let magnitude = UInt8(min(90, abs(value) * 100))
                let integer = Int8(max(-90, min(90, value * 100)))
                codes.storage.bytes[index] =
                    isKernel
                    ? magnitude | (value < 0 ? 0x80 : 0) : UInt8(bitPattern: integer)
            }
            let (rows, columns) = (tensor.rows, tensor.rowCount)
            var scale: Tensor?
            if !isKernel {
                let scales = Tensor((0..<rows).map { 0.01 + 0.0001 * Float($0) }, shape: [rows])
                scale = scales
                stored[String(name.dropLast(6)) + "weight_scale"] = scales
            }
            stored[name] = codes
            let matrix = WeightMatrix(codes.reshaped(rows, columns), scale: scale)
            values[name] = dequantized(matrix).reshaped(tensor.shape)
        }
        let pictures = try #require(VisionCase.all.first).pictures
        let outputs = try [stored, values].map { changed in
            let folder = try TemporaryFolder()
            let files = try copy(folder) { $0.adding(changed) }
            return try VisionModel("head16", textEncoder: files.whole.path).features(pictures)
        }
        let error = relativeError(outputs[0].tokens.elements, outputs[1].tokens.elements)
        #expect(error < Self.limit, "\(error)")

        // The parts of a matrix have their parts of its scales in int8 arithmetic, too.
        let folder = try TemporaryFolder()
        let files = try copy(folder) { $0.adding(stored) }
        let model = try VisionModel("head16", textEncoder: files.whole.path)
        let taps = try [ArithmeticPolicy.float32, .stored].map { policy in
            let prompt = PicturePrompt(pictures: pictures)
            return try model.pictureEncoder(policy: policy).encode([prompt])[0].taps.elements
        }
        let rounded = relativeError(taps[1], taps[0])
        #expect(rounded < Self.int8Limit, "\(rounded)")
    }
}
