import Checkpoints
import Foundation
import Synchronization
import TestSupport
import Testing

@testable import Krea2

/// Runs that are watched, stopped, or lose their files.
struct RunTests {
    private let folder: TemporaryFolder
    private let path: String

    init() throws {
        folder = try TemporaryFolder()
        path = folder.file("model")
        try FileManager.default.copyItem(atPath: FixtureModel.path("head16"), toPath: path)
    }

    private let request = GenerationRequest(
        prompt: "a fox",
        width: 64,
        height: 64,
        steps: 2,
        seed: 7,
        imageCount: 3
    )

    private func pipeline() throws -> Pipeline {
        try Pipeline(
            ModelFiles.locate(path),
            options: PipelineOptions(threads: 2, precision: .float32)
        )
    }

    /// The largest files of each part; all are many pages long.
    private static let files = [
        "text_encoder/model-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model-00002-of-00003.safetensors",
        "vae/diffusion_pytorch_model-00002-of-00002.safetensors",
    ]

    private struct Full: Error, Equatable {}

    @Test func handsOverEachPictureAsItIsFinished() throws {
        let pipeline = try pipeline()
        let all = try pipeline.generate(request)
        var order: [String] = []
        var images: [GeneratedImage] = []
        try pipeline.generate(
            request,
            progress: { if $0.stage == .autoencoder, $0.fraction == 1 { order.append("decoded") } },
            onImage: {
                order.append("image")
                images.append($0)
            }
        )
        #expect(order == ["decoded", "image", "decoded", "image", "decoded", "image"])
        #expect(images.map(\.seed) == [7, 8, 9])
        #expect(images.map(\.rgb) == all.map(\.rgb))
    }

    @Test func stopsWhenTheReceiverFails() throws {
        var count = 0
        #expect(throws: RunError.receiver(Full())) {
            try pipeline().generate(request) { _ throws(Full) in
                count += 1
                if count == 2 { throw Full() }
            }
        }
        #expect(count == 2)
    }

    @Test func cancellingKeepsWhatWasHandedOver() throws {
        let isCancelled = Atomic(false)
        var count = 0
        #expect(throws: RunError<Never>.generation(.cancelled)) {
            try withoutActuallyEscaping({ isCancelled.load(ordering: .relaxed) }) { asked in
                nonisolated(unsafe) let asked = asked
                try pipeline().generate(request, isCancelled: { asked() }) { _ in
                    count += 1
                    isCancelled.store(true, ordering: .relaxed)
                }
            }
        }
        #expect(count == 1)
    }

    @Test(arguments: files)
    func filesCutShortBeforeTheRunAreAnError(_ name: String) throws {
        let pipeline = try pipeline()
        let file = "\(path)/\(name)"
        let handle = try #require(FileHandle(forWritingAtPath: file))
        try handle.truncate(atOffset: 4096)
        #expect(try changedFile { try pipeline.generate(request) } == file)
    }

    @Test func aFileCutShortDuringTheRunIsAnError() throws {
        let pipeline = try pipeline()
        let file = "\(path)/\(Self.files[1])"
        let handle = try #require(FileHandle(forWritingAtPath: file))
        let changed = try changedFile {
            try pipeline.generate(
                request,
                progress: { progress in
                    guard progress.stage == .transformer, progress.step == 1 else { return }
                    try? handle.truncate(atOffset: 4096)
                }
            )
        }
        #expect(changed == file)
    }

    @Test func aFileReplacedDuringTheRunIsAnError() throws {
        let pipeline = try pipeline()
        let file = "\(path)/\(Self.files[1])"
        let copy = folder.file("copy")
        try FileManager.default.copyItem(atPath: file, toPath: copy)
        let changed = try changedFile {
            try pipeline.generate(
                request,
                progress: { progress in
                    if progress.stage == .transformer, progress.step == 1 { rename(copy, file) }
                }
            )
        }
        #expect(changed == file)
    }

    /// The file that an error says has changed.
    private func changedFile(_ run: () throws -> [GeneratedImage]) throws -> String? {
        do {
            _ = try run()
            return nil
        } catch GenerationError.model(.changed(let path, _)) {
            return path
        }
    }

    @Test func rawShiftsByResolution() throws {
        let pipeline = try Pipeline(
            ModelFiles.locate(path),
            options: PipelineOptions(variant: .raw, precision: .float32)
        )
        // Source: calculate_shift of diffusers 0.42.1 for the documented sizes, to four decimals.
        for (width, height, shift) in [
            (1024, 1024, 0.90625), (1184, 896, 0.9113), (1248, 832, 0.9020), (1376, 768, 0.9096),
            (1568, 672, 0.9084), (928, 1152, 0.9147), (2048, 2048, 2.2062),
        ] {
            let resolved = try pipeline.resolve(
                GenerationRequest(prompt: "", width: width, height: height)
            )
            #expect(abs(resolved.shift - shift) < 6e-5, "\(width)x\(height): \(resolved.shift)")
            #expect(resolved.steps == 52 && resolved.guidance == 3.5)
        }
    }
}
