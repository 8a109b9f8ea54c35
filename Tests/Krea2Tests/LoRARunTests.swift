import Checkpoints
import Compute
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// How the difference of a weight is written in a file.
enum LoRAFactorisation: String, CaseIterable {
    case lora, loha, lokr, lokrOfFactors, difference, doraOfRows, doraOfColumns

    /// Tensors that change a layer, with names that ComfyUI gives.
    func tensors(
        _ layer: LoRATargets.Layer,
        _ random: inout SeededGenerator
    ) -> [String: Tensor] {
        let (outputs, inputs) = (layer.outputs, layer.inputs)
        let (top, left) = (Self.divisor(outputs), Self.divisor(inputs))
        var shapes: [(String, [Int], Float)]
        switch self {
        case .lora, .doraOfRows, .doraOfColumns:
            shapes = [("lora_A.weight", [4, inputs], 1), ("lora_B.weight", [outputs, 4], 0.05)]
        case .loha:
            shapes = [
                ("hada_w1_a", [outputs, 2], 1), ("hada_w1_b", [2, inputs], 1),
                ("hada_w2_a", [outputs, 2], 1), ("hada_w2_b", [2, inputs], 0.05),
            ]
        case .lokr:
            shapes = [
                ("lokr_w1", [top, left], 1), ("lokr_w2", [outputs / top, inputs / left], 0.05),
            ]
        case .lokrOfFactors:
            shapes = [
                ("lokr_w1", [top, left], 1), ("lokr_w2_a", [outputs / top, 1], 1),
                ("lokr_w2_b", [1, inputs / left], 0.05),
            ]
        case .difference: shapes = [("diff", [outputs, inputs], 0.05)]
        }
        let hasBias = !layer.name.contains("block") && layer.name != "txtfusion.projector"
        if self == .difference, hasBias { shapes.append(("diff_b", [outputs], 0.1)) }
        if self == .doraOfRows { shapes.append(("dora_scale", [outputs, 1], 1)) }
        if self == .doraOfColumns { shapes.append(("dora_scale", [1, inputs], 1)) }
        return Dictionary(
            uniqueKeysWithValues: shapes.map { end, shape, size in
                let values = (0..<shape.reduce(1, *)).map { _ in
                    // Lengths are about those of the weights.
                    end == "dora_scale"
                        ? Float.random(in: 0.7...1.3, using: &random)
                        : size * Float.random(in: -1...1, using: &random)
                }
                return ("diffusion_model.\(layer.name).\(end)", Tensor(values, shape: shape))
            }
        )
    }

    /// A small divisor, 1 for a prime number.
    private static func divisor(_ count: Int) -> Int {
        (2...9).first { count.isMultiple(of: $0) && count > $0 } ?? 1
    }
}

extension LoRAModule {
    /// A weight that it has changed.
    fileprivate func changed(_ weight: PlainMatrix, strength: Double) -> PlainMatrix {
        guard let difference else { return weight }
        let (rows, columns) = (weight.rows, weight.columns)
        let sum = PlainMatrix(rows, columns) { weight[$0, $1] + difference[$0, $1] }
        let changed: PlainMatrix
        switch magnitude {
        case nil:
            changed = sum
        case .rows(let lengths):
            let factors = (0..<rows).map { row in
                let square = (0..<columns).reduce(0) { $0 + sum[row, $1] * sum[row, $1] }
                return Double(lengths.values[row]) / square.squareRoot()
            }
            changed = PlainMatrix(rows, columns) { factors[$0] * sum[$0, $1] }
        case .columns(let lengths):
            let factors = (0..<columns).map { column in
                let square = (0..<rows).reduce(0) { $0 + sum[$1, column] * sum[$1, column] }
                return Double(lengths.values[column]) / square.squareRoot()
            }
            changed = PlainMatrix(rows, columns) { factors[$1] * sum[$0, $1] }
        }
        return PlainMatrix(rows, columns) {
            weight[$0, $1] + strength * (changed[$0, $1] - weight[$0, $1])
        }
    }
}

/// LoRAs in runs of a small model, against models with merged weights.
struct LoRARunTests {
    /// Sums of float32 in another order; observed at most 2e-6.
    private static let limit = 1e-5

    private let folder: TemporaryFolder
    private let official = FixtureModel.path("head16/turbo.safetensors")

    init() throws { folder = try TemporaryFolder() }

    // MARK: Files

    /// Writes a LoRA for the layers that are wanted.
    private func write(
        _ kind: LoRAFactorisation,
        seed: UInt64 = 1,
        where isWanted: (String) -> Bool = { _ in true }
    ) throws -> String {
        var random = SeededGenerator(seed: seed)
        var tensors: [String: Tensor] = [:]
        let config = try Transformer(TransformerFiles(path: official)).config
        for layer in LoRATargets(config).layers where isWanted(layer.name) {
            tensors.merge(kind.tensors(layer, &random)) { $1 }
        }
        return try Weights(tensors).write(to: folder.file("\(kind)\(seed).safetensors"))
    }

    /// The model in another storage type.
    private func base(_ format: ConversionFormat) throws -> String {
        let path = folder.file("\(format.rawValue).safetensors")
        try Conversion(path: official, to: format).run(to: path, overwriting: true, threads: 1)
        return path
    }

    /// The values of a model's weights with LoRAs merged into them one after the other, in float32.
    private func merged(_ base: String, _ use: LoRAUse) throws -> String {
        let path = folder.file("merged.safetensors")
        try Conversion(path: base, to: .float32).run(to: path, overwriting: true, threads: 1)
        var weights = try Weights(path)
        let targets = LoRATargets(try Transformer(TransformerFiles(path: path)).config)
        for vector in use.file.vectors {
            let name = targets.vectors[vector.vector].name
            let old = try #require(weights.tensors[name])
            weights.tensors[name] = Tensor(
                zip(old.values, vector.difference.values).map { $0 + use.scale * $1 },
                shape: old.shape
            )
        }
        for module in use.file.modules {
            let layer = targets.layers[module.layer]
            let weight = try #require(weights.tensors[layer.name + ".weight"])
            let matrix = PlainMatrix(weight.reshaped(layer.outputs, layer.inputs))
            weights.tensors[layer.name + ".weight"] = Tensor(
                module.changed(matrix, strength: Double(use.scale)).floats,
                shape: weight.shape
            )
            guard let change = module.bias else { continue }
            let bias = try #require(weights.tensors[layer.name + ".bias"])
            weights.tensors[layer.name + ".bias"] = Tensor(
                zip(bias.values, change.values).map { $0 + use.scale * module.biasScale * $1 },
                shape: bias.shape
            )
        }
        return try weights.write(to: folder.file("changed.safetensors"))
    }

    // MARK: Runs

    private func pipeline(
        _ transformer: String,
        _ precision: Precision = .float32,
        threads: Int = 1,
        memory: Int? = nil
    ) throws -> Pipeline {
        var files = try FixtureModel.files("head16")
        files.transformer = transformer
        return try Pipeline(
            files,
            options: PipelineOptions(
                threads: threads,
                variant: .raw,
                precision: precision,
                memoryByteCount: memory
            )
        )
    }

    private func request(_ loras: [LoRAUse], steps: Int = 1) -> GenerationRequest {
        GenerationRequest(
            prompt: "a red fox",
            negativePrompt: "blue",
            width: 64,
            height: 64,
            steps: steps,
            guidance: 2,
            seed: 5,
            loras: loras
        )
    }

    /// Text rows and latents of a run.
    private func run(
        _ pipeline: Pipeline,
        _ loras: [LoRAUse] = [],
        steps: Int = 1
    ) throws -> [Float] {
        let dump = Dump(imageCount: 1)
        _ = try pipeline.generate(request(loras, steps: steps), dump: dump)
        let path = folder.file("dump.safetensors")
        try dump.write(to: path, overwriting: true)
        let file = try SafetensorsFile(path: path)
        return try ["text.pos.in", "text.neg.in", "latents"].flatMap {
            try #require(file.tensor($0)).elements
        }
    }

    /// Whether a layer is one of a kind, to save time.
    private static func isFirst(_ name: String) -> Bool { !name.contains("blocks.1") }

    private func use(
        _ path: String,
        _ scale: Float = 0.8,
        window: ClosedRange<Double> = 0...1
    ) throws -> LoRAUse {
        LoRAUse(try pipeline(official).openLoRA(path: path), scale: scale, window: window)
    }

    // MARK: Values

    @Test(arguments: LoRAFactorisation.allCases)
    func everyFactorisationEqualsMergedWeights(_ kind: LoRAFactorisation) throws {
        let use = try use(write(kind) { kind == .lora || Self.isFirst($0) })
        #expect(kind != .lora || use.file.layerCount == use.file.modelLayerCount)
        let found = try run(pipeline(official), [use])
        let error = try relativeError(found, run(pipeline(merged(official, use))))
        #expect(error < Self.limit, "\(error)")
        let moved = try relativeError(found, run(pipeline(official)))
        #expect(moved > 0.01, "\(moved)")
    }

    /// Quantised weights count with the values that they stand for.
    @Test(
        arguments: [
            (ConversionFormat.bfloat16, LoRAFactorisation.lora), (.float8, .doraOfRows),
            (.float8, .lokr), (.int8, .lora), (.int8, .doraOfRows), (.int8, .doraOfColumns),
        ]
    )
    func everyBaseEqualsItsValuesMerged(
        _ format: ConversionFormat,
        _ kind: LoRAFactorisation
    ) throws {
        let (base, use) = (try base(format), try use(write(kind, where: Self.isFirst)))
        let digest = try Checkpoint(path: base).digest()
        let found = try run(pipeline(base), [use])
        let error = try relativeError(found, run(pipeline(merged(base, use))))
        #expect(error < Self.limit, "\(error)")
        #expect(try Checkpoint(path: base).digest() == digest)
    }

    /// Rounding in other arithmetics is as large as without LoRAs.
    @Test(
        arguments: [
            (ConversionFormat.float32, Precision.bfloat16, LoRAFactorisation.lora),
            (.float32, .bfloat16, .lokr), (.float32, .bfloat16, .doraOfRows),
            (.float32, .int8, .loha), (.float32, .int8, .difference),
            (.float32, .int8, .doraOfColumns), (.int8, .int8, .lora), (.int8, .int8, .lokr),
            (.int8, .int8, .doraOfRows),
        ]
    )
    func otherArithmeticsStayClose(
        _ format: ConversionFormat,
        _ precision: Precision,
        _ kind: LoRAFactorisation
    ) throws {
        let (base, use) = (try base(format), try use(write(kind)))
        let exact = try run(pipeline(base), [use])
        let found = try run(pipeline(base, precision), [use])
        let error = relativeError(found, exact)
        // Observed at most 0.005 in bfloat16 and 0.012 in int8.
        #expect(error < (precision == .int8 ? 0.06 : 0.02), "\(error)")
    }

    @Test func normsAndTablesEqualMergedOnes() throws {
        let targets = LoRATargets(try Transformer(TransformerFiles(path: official)).config)
        let (all, image) = (
            try writeVectors(targets.vectors), try writeVectors(targets.vectors.filter(\.isOfImage))
        )
        let use = try use(all)
        #expect(use.file.vectorCount == targets.vectors.count && use.file.layerCount == 0)
        let (pipeline, base) = (try pipeline(official), try run(pipeline(official)))
        let found = try run(pipeline, [use])
        #expect(try found == run(self.pipeline(merged(official, use))))
        #expect(relativeError(found, base) > 0.01)
        #expect(try run(pipeline) == base)
        // In steps only, and in none of them.
        #expect(try run(pipeline, [self.use(image)]) != base)
        #expect(try run(pipeline, [self.use(image, window: 0...0.001)]) == base)
        #expect(try pipeline.plan(request([use])).loraBytes > 0)
    }

    /// A file that changes vectors, under the names of either kind of checkpoint.
    private func writeVectors(_ vectors: [LoRATargets.Vector]) throws -> String {
        var random = SeededGenerator(seed: 4)
        var tensors: [String: Tensor] = [:]
        for (index, vector) in vectors.enumerated() {
            let count = vector.shape.reduce(1, *)
            let values = (0..<count).map { _ in Float.random(in: -0.2...0.2, using: &random) }
            let name =
                index.isMultiple(of: 2)
                ? "diffusion_model.\(vector.name).diff"
                : "transformer.\(TransformerNames.diffusers.stored(vector.name)).w_norm"
            tensors[name.replacing(".weight.", with: ".")] = Tensor(
                values,
                shape: index.isMultiple(of: 3) ? vector.shape : [1, count]
            )
        }
        return try Weights(tensors).write(to: folder.file("vectors\(vectors.count).safetensors"))
    }

    // MARK: Lists

    @Test func noneIsTheBase() throws {
        let (pipeline, path) = (try pipeline(official), try write(.lora))
        let base = try run(pipeline)
        let changed = try run(pipeline, [use(path)])
        #expect(changed != base)
        // After a run with a LoRA, with a scale of 0, and with scales that cancel.
        #expect(try run(pipeline) == base)
        #expect(try run(pipeline, [use(path, 0)]) == base)
        #expect(try run(pipeline, [use(path, 0.5), use(path, -0.5)]) == base)
    }

    @Test func orderAndEqualFilesDoNotMatter() throws {
        let pipeline = try pipeline(official)
        let paths = try [
            write(.lora), write(.lora, seed: 2), write(.doraOfRows), write(.lokr),
            write(.difference),
        ]
        let uses = try paths.map { try use($0) }
        let all = try run(pipeline, uses)
        #expect(try run(pipeline, uses.reversed()) == all)
        // The same content under another name, and in parts.
        let copy = folder.file("copy.safetensors")
        try FileManager.default.copyItem(atPath: paths[0], toPath: copy)
        let parts = try [use(copy, 0.5), use(paths[0], 0.3)]
        #expect(try run(pipeline, parts + uses.dropFirst()) == all)
        #expect(try run(pipeline, [uses[0]]) != all)
    }

    @Test func neitherMemoryNorThreadsChangeABit() throws {
        let uses = try [use(write(.lora)), use(write(.doraOfRows)), use(write(.lokr))]
        for precision in [Precision.float32, .bfloat16, .int8] {
            let free = try run(pipeline(official, precision), uses)
            let error = #expect(throws: GenerationError.self) {
                try run(pipeline(official, precision, threads: 2, memory: 1), uses)
            }
            let words = try #require(error).description.split(separator: " ")
            let needed = try #require(words.dropLast().last.flatMap { Int($0) })
            let least = try pipeline(official, precision, threads: 2, memory: needed << 20)
            #expect(try run(least, uses) == free, "\(precision)")
        }
    }

    @Test func windowsChooseSteps() throws {
        let pipeline = try pipeline(official)
        let (blocks, text) = (
            try write(.lora) { $0.hasPrefix("blocks") },
            try write(.lora, seed: 2) { $0.hasPrefix("txt") }
        )
        let base = try run(pipeline, steps: 2)
        // No step begins there.
        #expect(try run(pipeline, [use(blocks, window: 0...0.001)], steps: 2) == base)
        #expect(
            try run(pipeline, [use(text, window: 0...0.001)], steps: 2)
                == run(pipeline, [use(text)], steps: 2)
        )
        let (first, second) = (
            try run(pipeline, [use(blocks, window: 0.999...1)], steps: 2),
            try run(pipeline, [use(blocks, window: 0...0.998)], steps: 2)
        )
        let both = try run(pipeline, [use(blocks)], steps: 2)
        #expect(Set([base, first, second, both]).count == 4)
        let halves = try [use(blocks, window: 0.999...1), use(blocks, window: 0...0.998)]
        #expect(try run(pipeline, halves, steps: 2) == both)
    }

    // MARK: Errors

    @Test func aFileThatChangedIsAnErrorAndNoMore() throws {
        let (pipeline, path) = (try pipeline(official), try write(.lora))
        let (base, use) = (try run(pipeline), try use(path))
        try FileHandle(forWritingTo: URL(filePath: path)).truncate(atOffset: 4096)
        let error = #expect(throws: GenerationError.self) { try run(pipeline, [use]) }
        #expect(error?.category == .unfitFile)
        #expect(try run(pipeline) == base)
    }

    @Test(arguments: [Float.nan, .infinity])
    func scalesAreNumbers(_ scale: Float) throws {
        let use = try use(write(.lora), scale)
        let error = #expect(throws: GenerationError.self) { try run(pipeline(official), [use]) }
        #expect(error?.category == .request)
    }

    @Test func cancellingStopsBeforeTheFirstStep() throws {
        let use = try use(write(.doraOfRows))
        #expect(throws: GenerationError.cancelled) {
            try pipeline(official).generate(request([use]), isCancelled: { true })
        }
    }

    // MARK: Plan

    @Test func plansCountLoRAs() throws {
        let pipeline = try pipeline(official)
        let base = try pipeline.plan(request([]))
        #expect(base.loraBytes == 0)
        let (one, two) = (
            try pipeline.plan(request([use(write(.lora))])),
            try pipeline.plan(request([use(write(.lora)), use(write(.lora, seed: 2))]))
        )
        #expect(one.peakBytes == base.peakBytes + one.loraBytes)
        let factors = two.loraBytes - one.loraBytes
        // Of the transformer or of the text stage, which are not in memory together.
        let whole = try Checkpoint(path: write(.lora)).byteCount
        #expect(factors > whole / 2 && factors < whole)
        #expect(try pipeline.plan(request([use(write(.lora), 0)])).loraBytes == 0)
    }
}

extension LoRATargets.Vector {
    fileprivate var isOfImage: Bool { !name.hasPrefix("txt") }
}
