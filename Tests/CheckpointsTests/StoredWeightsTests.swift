import Tensors
import TestSupport
import Testing

@testable import Checkpoints

struct StoredWeightsTests {
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private let rotated16 = #"{"format":"int8_tensorwise","convrot":true,"convrot_groupsize":16}"#

    /// What reading the module and nothing else finds, without the folder's path.
    private func problems(_ module: QuantizedModule) throws -> [String] {
        let reader = WeightReader(try module.checkpoint(in: folder))
        let matrix = reader.weightMatrix("m.weight", 2, 16)
        #expect(matrix.rows == 2 && matrix.columns == 16)
        let result = Result { () throws(CheckpointError) in try reader.finish() }
        guard case .failure(.unfit(_, let problems)) = result else { return [] }
        // What stands in for a damaged matrix is zero; a surplus tensor damages none.
        if problems.contains(where: { if case .surplus = $0 { false } else { true } }) {
            #expect(matrix.elements.elements.allSatisfy { $0 == 0 } && matrix.scale == nil)
        }
        return problems.map { $0.description.replacing(folder.path + "/", with: "") }
    }

    // MARK: Forms

    @Test(
        arguments: [
            (#"{"format":"int8_tensorwise"}"#, nil), (#"{"format":"int8_rowwise"}"#, nil),
            ("{}", nil),
            (#"{"format":"int8_tensorwise","convrot":false,"convrot_groupsize":3}"#, nil),
            (#"{"format":"int8_tensorwise","convrot":true,"convrot_groupsize":4}"#, 4),
            (#"{"convrot":true,"convrot_groupsize":16}"#, 16),
            (#"{"format":"int8_tensorwise","params":{"convrot":true,"convrot_groupsize":4}}"#, 4),
            (#"{"convrot":true,"convrot_groupsize":4,"params":{"convrot_groupsize":16}}"#, 4),
            (#" {"format" : "int8_tensorwise", "params":null, "new": [1, {"a": "b"}]} "#, nil),
        ] as [(String, Int?)]
    )
    func readsIntegers(_ note: String, rotation: Int?) throws {
        let module = QuantizedModule(note: note)
        #expect(try problems(module) == [])
        let stored = StoredWeights(try module.checkpoint(in: folder))
        #expect(stored.weight("m.weight")?.format == .int8(rotation: rotation))
        #expect(stored.all.map(\.name) == ["m.weight"])
    }

    @Test func headersCountWhereThereIsNoTensor() throws {
        let layers = #"{"format_version":"1.0","layers":{"m":\#(rotated16),"other":{"x":1}}}"#
        var module = QuantizedModule(note: nil, metadata: ["_quantization_metadata": layers])
        var stored = StoredWeights(try module.checkpoint(in: folder))
        #expect(stored.weight("m.weight")?.format == .int8(rotation: 16))
        module.note = #"{"format":"int8_tensorwise"}"#
        stored = StoredWeights(try module.checkpoint(in: folder))
        #expect(stored.weight("m.weight")?.format == .int8(rotation: nil))
        #expect(try problems(module) == [])
    }

    @Test func headersNameModulesWithOrWithoutThePrefix() throws {
        for name in ["model.m", "m"] {
            var writer = SafetensorsWriter(metadata: [
                "_quantization_metadata": #"{"layers":{"\#(name)":\#(rotated16)}}"#
            ])
            writer.add("model.m.weight", tensor([UInt8](0..<32), .int8, [2, 16]))
            writer.add("model.m.weight_scale", Tensor([1, 2], shape: [2]))
            try writer.write(to: folder.file("p.safetensors"), overwriting: true)
            let view = try Checkpoint(path: folder.file("p.safetensors")).strippingPrefix("model.")
            let reader = WeightReader(view)
            let matrix = reader.weightMatrix("m.weight", 2, 16)
            try reader.finish()
            #expect(matrix.rotation == 16 && matrix.scale?.elements == [1, 2])
        }
    }

    @Test func takesScalesOfManyShapesAndTypes() throws {
        let half = tensor([0x00, 0x3C, 0x00, 0xC0], .float16, [2])
        let brain = tensor([0x80, 0x3F, 0x00, 0xC0], .bfloat16, [2, 1])
        for (scale, values) in [
            (Tensor([0.25], shape: []), [0.25]), (Tensor([0.25], shape: [1]), [0.25]),
            (Tensor([0.25], shape: [1, 1]), [0.25]), (Tensor([1, -2], shape: [2]), [1, -2]),
            (Tensor([1, 0], shape: [2, 1]), [1, 0]), (half, [1, -2]), (brain, [1, -2]),
        ] as [(Tensor, [Float])] {
            for name in ["weight_scale", "scale_weight"] {
                let module = QuantizedModule(others: ["m.\(name)": scale])
                let reader = WeightReader(try module.checkpoint(in: folder))
                #expect(reader.weightMatrix("m.weight", 2, 16).scale?.elements == values)
                try reader.finish()
            }
        }
    }

    @Test func float8NeedsNoScale() throws {
        let weight = tensor([UInt8](0..<32), .float8E5M2, [2, 16])
        for note in [nil, #"{"format":"float8_e5m2"}"#, "{}"] {
            let module = QuantizedModule(weight: weight, note: note, others: [:])
            let reader = WeightReader(try module.checkpoint(in: folder))
            let matrix = reader.weightMatrix("m.weight", 2, 16)
            try reader.finish()
            #expect(matrix.elements.elementType == .float8E5M2 && matrix.scale == nil)
        }
        let scaled = QuantizedModule(weight: weight, note: nil)
        #expect(
            try WeightReader(scaled.checkpoint(in: folder)).weightMatrix("m.weight", 2, 16).scale?
                .elements == [0.5]
        )
    }

    @Test func plainWeightsNeedNothing() throws {
        let module = QuantizedModule(weight: Tensor(zeros: [2, 16]), note: nil, others: [:])
        #expect(try problems(module) == [])
    }

    @Test func whatConcernsActivationsIsPassedOver() throws {
        let one = Tensor([1], shape: [1])
        let module = QuantizedModule(
            others: [
                "m.scale_weight": one, "m.scale_input": one, "m.input_scale": one,
                "scaled_fp8": tensor([0, 0], .float8E4M3, [2]),
            ]
        )
        #expect(try problems(module) == [])
        #expect(try StoredWeights(module.checkpoint(in: folder)).all.map(\.name) == ["m.weight"])
    }

    // MARK: Errors

    @Test(arguments: [
        ("", "the text ends here at byte 0, expected JSON"),
        ("{", "the text ends here at byte 1, expected JSON"),
        ("[]", "an array of 0, expected an object"),
        (#"{"format":1}"#, "format 1, expected a text"),
        (#"{"convrot":1}"#, "convrot 1, expected true or false"),
        (#"{"params":[]}"#, "params an array of 0, expected an object"),
        (
            #"{"convrot":true,"convrot_groupsize":8}"#,
            "convrot_groupsize 8, expected a power of 4 from 4 to 1024"
        ),
        (
            #"{"convrot":true,"convrot_groupsize":4096}"#,
            "convrot_groupsize 4096, expected a power of 4 from 4 to 1024"
        ),
        (
            #"{"convrot":true,"convrot_groupsize":-4}"#,
            "convrot_groupsize -4, expected a power of 4 from 4 to 1024"
        ),
        (
            #"{"convrot":true,"convrot_groupsize":"16"}"#,
            "convrot_groupsize \"16\", expected a power of 4 from 4 to 1024"
        ),
        (#"{"format":"float8_e4m3fn"}"#, "float8_e4m3fn, expected a form of I8"),
    ])
    func namesWrongNotes(_ note: String, text: String) throws {
        #expect(
            try problems(QuantizedModule(note: note))
                == ["tensor m.comfy_quant in m.safetensors has \(text)"]
        )
        guard !note.isEmpty, note != "{" else { return }
        let layers = #"{"layers":{"m":\#(note)}}"#
        let inHeader = QuantizedModule(note: nil, metadata: ["_quantization_metadata": layers])
        #expect(try problems(inHeader) == ["tensor m.weight in m.safetensors has \(text)"])
    }

    @Test func namesGroupsThatDoNotDivide() throws {
        #expect(
            try problems(QuantizedModule(note: #"{"convrot":true}"#)) == [
                "tensor m.weight in m.safetensors has 16 columns, rotated in groups of 256, "
                    + "expected groups that divide them"
            ]
        )
    }

    @Test func namesNotesOfOtherTypesAndSizes() throws {
        let wide = tensor([UInt8](repeating: 32, count: 1 << 17), .uint8, [1 << 17])
        for (note, found) in [
            (Tensor([1], shape: [1]), "4 bytes of F32"), (wide, "131072 bytes of U8"),
        ] {
            var module = QuantizedModule(note: nil)
            module.others["m.comfy_quant"] = note
            #expect(
                try problems(module) == [
                    "tensor m.comfy_quant in m.safetensors has \(found), "
                        + "expected U8, at most 65536 bytes"
                ]
            )
        }
    }

    @Test(arguments: [
        ("[", "the text ends here at byte 1, expected JSON"),
        ("[]", "no object, expected one with layers"),
        (#"{"layers":7}"#, "layers 7, expected an object"),
    ])
    func namesWrongHeaders(_ header: String, text: String) throws {
        let module = QuantizedModule(metadata: ["_quantization_metadata": header])
        let expected = "_quantization_metadata in m.safetensors: \(text)"
        #expect(throws: CheckpointError.self) { try self.finish(module) }
        #expect(
            try StoredWeights(module.checkpoint(in: folder)).problems.map {
                $0.description.replacing(folder.path + "/", with: "")
            } == [expected]
        )
    }

    private func finish(_ module: QuantizedModule) throws {
        let reader = WeightReader(try module.checkpoint(in: folder))
        _ = reader.weightMatrix("m.weight", 2, 16)
        try reader.finish()
    }

    @Test func namesWrongScales() throws {
        let long = Tensor(zeros: [16])
        let integers = tensor([1, 0, 0, 0], .int32, [1])
        for (scale, text) in [
            (long, "has shape [16], expected [] or [1] or [2] or [2, 1]"),
            (Tensor([.nan], shape: []), "has NaN or infinity, expected finite numbers"),
            (Tensor([1, .infinity], shape: [2]), "has NaN or infinity, expected finite numbers"),
            (
                integers,
                ": type I32 is known but not computed with, expected F32, F16 or BF16"
            ),
        ] {
            let found = try problems(QuantizedModule(others: ["m.weight_scale": scale]))
            let gap = text.hasPrefix(":") ? "" : " "
            #expect(found == ["tensor m.weight_scale in m.safetensors\(gap)\(text)"])
        }
        #expect(
            try problems(QuantizedModule(others: [:]))
                == ["tensor m.weight_scale is missing from m.safetensors"]
        )
        let one = Tensor([1], shape: [])
        #expect(
            try problems(QuantizedModule(others: ["m.weight_scale": one, "m.scale_weight": one]))
                == [
                    "tensor m.weight in m.safetensors has m.weight_scale and m.scale_weight, "
                        + "expected one scale"
                ]
        )
    }

    @Test func neverReadsWhatItDoesNotKnow() throws {
        let one = Tensor([1], shape: [])
        for name in ["mxfp8", "nvfp4", "convrot_w4a4", "asym_w4a8_int8", "awq_w4a16", "q\n"] {
            let quoted = name.replacing("\n", with: "\\n")
            let module = QuantizedModule(
                note: #"{"format":"\#(quoted)"}"#,
                others: ["m.weight_scale": one, "m.weight_scale_2": one, "m.weight_s_rel": one]
            )
            #expect(
                try problems(module) == [
                    "format \(quoted) of tensor m.weight in m.safetensors is not supported, "
                        + "expected float8_e4m3fn, float8_e5m2 or int8_tensorwise"
                ]
            )
        }
        for (type, hint) in [
            (ElementType.uint8, ""), (.int8, ", or a weight_scale beside it"),
        ] {
            let weight = tensor([UInt8](0..<32), type, [2, 16])
            #expect(
                try problems(QuantizedModule(weight: weight, note: nil, others: [:])) == [
                    "tensor m.weight in m.safetensors: type \(type.rawValue) is known but not "
                        + "computed with, expected F32, F16 or BF16\(hint)"
                ]
            )
        }
        // A scale beside values of full precision has no known meaning.
        #expect(
            try problems(QuantizedModule(weight: Tensor(zeros: [2, 16]), note: nil))
                == ["tensor m.weight_scale in m.safetensors is not expected"]
        )
        let float8 = tensor([UInt8](0..<32), .float8E4M3, [2, 16])
        #expect(
            try problems(
                QuantizedModule(
                    weight: float8,
                    note: #"{"format":"float8_e4m3fn","convrot":true,"convrot_groupsize":4}"#
                )
            ) == [
                "tensor m.comfy_quant in m.safetensors has float8_e4m3fn with convrot, "
                    + "expected no rotation"
            ]
        )
    }

    @Test func formsThatAreNotReadAreCounted() throws {
        var writer = SafetensorsWriter()
        let note = Array(#"{"format":"nvfp4"}"#.utf8)
        for index in 0..<30 {
            writer.add("\(index).weight", [0] as [UInt8], as: .uint8, shape: [1, 1])
            writer.add("\(index).comfy_quant", note, as: .uint8, shape: [note.count])
        }
        try writer.write(to: folder.file("m.safetensors"))
        let reader = WeightReader(try Checkpoint(path: folder.file("m.safetensors")))
        for index in 0..<30 { _ = reader.weightMatrix("\(index).weight", 1, 2) }
        let error = #expect(throws: CheckpointError.self) { try reader.finish() }
        #expect(
            error?.description.contains(
                ": format nvfp4 of 30 tensors from tensor 0.weight in "
            ) == true
        )
    }

    @Test func wrongSizesAndMissingTensorsAreNamed() throws {
        let reader = WeightReader(try QuantizedModule().checkpoint(in: folder))
        _ = reader.weightMatrix("m.weight", 16, 2)
        _ = reader.weightMatrix("n.weight", 1 << 40, 1 << 40)
        let error = #expect(throws: CheckpointError.self) { try reader.finish() }
        let path = folder.file("m.safetensors")
        #expect(
            error
                == .unfit(
                    path: path,
                    problems: [
                        .misshapen(
                            tensor: "m.weight",
                            file: path,
                            found: [2, 16],
                            expected: [[16, 2]]
                        ),
                        .missing(tensor: "n.weight", file: path),
                    ]
                )
        )
    }

    @Test func shardsAgreeOnWhatTheySay() throws {
        func write(_ name: String, _ group: Int) throws {
            let note = #"{"convrot":true,"convrot_groupsize":\#(group)}"#
            var writer = SafetensorsWriter(metadata: [
                "_quantization_metadata": #"{"layers":{"m":\#(note),"n":{}}}"#
            ])
            writer.add("\(name).weight", tensor([UInt8](0..<32), .int8, [2, 16]))
            writer.add("\(name).weight_scale", Tensor([1], shape: [1]))
            try writer.write(to: folder.file("\(name).safetensors"), overwriting: true)
        }
        let map =
            #"{"weight_map":{"m.weight":"m.safetensors","m.weight_scale":"m.safetensors","#
            + #""n.weight":"n.safetensors","n.weight_scale":"n.safetensors"}}"#
        let index = try folder.write(map, to: "model.safetensors.index.json")
        for (group, count) in [(16, 0), (4, 1)] {
            try write("m", 16)
            try write("n", group)
            let stored = StoredWeights(try Checkpoint(path: index))
            #expect(stored.problems.count == count, "\(stored.problems)")
        }
    }
}
