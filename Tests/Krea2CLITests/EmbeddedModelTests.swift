import Foundation
import Krea2
import TestSupport
import Testing

@testable import Krea2CLI

struct EmbeddedModelTests {
    private let mini = ["/p/weights/mini/turbo.safetensors", "/p/weights/mini/raw.safetensors"]
    private let cached = "/hub/models--krea--Krea-2-Raw/snapshots/a/raw.safetensors"

    /// Discovery over a disk with just these files.
    private func discovery(
        _ files: [String],
        _ environment: [String: String] = [:]
    ) -> ModelDiscovery {
        ModelDiscovery(
            environment: environment,
            disk: .init(
                kind: { files.contains($0) ? .file : nil },
                names: { folder in
                    files.filter { $0.hasPrefix(folder + "/") }
                        .compactMap { $0.dropFirst(folder.count + 1).split(separator: "/").first }
                        .map(String.init)
                },
                text: { _ in nil }
            ),
            embeddedFolders: ["/p/.build/weights/mini", "/p/weights/mini", "/q/weights/mini"]
        )
    }

    @Test func isLookedForUpwardsFromTheExecutable() {
        let folders = EmbeddedModel.folders(executable: "/a/b/krea2", currentFolder: "/home/me")
        #expect(folders == ["/a/b/weights/mini", "/a/weights/mini", "/home/me/weights/mini"])
        #expect(
            EmbeddedModel.folders(executable: "/a/b/krea2", currentFolder: "/a")
                == ["/a/b/weights/mini", "/a/weights/mini"]
        )
        #expect(EmbeddedModel.folders(executable: nil, currentFolder: "/") == ["/weights/mini"])
    }

    @Test func findsTheRealExecutable() {
        let tests = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        let nearest = tests.deletingLastPathComponent().appendingPathComponent("weights/mini")
        #expect(EmbeddedModel.folders().first == nearest.path)
    }

    @Test func isTheDefault() throws {
        let discovery = discovery(mini + [cached], ["HF_HUB_CACHE": "/hub"])
        #expect(try discovery.resolve(nil).path == mini[0])
        #expect(try discovery.resolve(nil, variant: .raw).path == mini[1])
        #expect(discovery.all().map(\.name) == ["mini-turbo", "mini-raw", "krea/Krea-2-Raw"])
    }

    @Test func theUsersOwnChoiceComesFirst() throws {
        let files = mini + ["/t.safetensors", "/k.safetensors"]
        let turbo = discovery(files, ["OSS_TURBO": "/t.safetensors"])
        #expect(try turbo.resolve(nil).path == "/t.safetensors")
        #expect(try turbo.resolve(nil, variant: .raw).path == "/t.safetensors")
        let own = discovery(files, ["KREA2_MODEL": "/k.safetensors"])
        #expect(try own.resolve(nil).path == "/k.safetensors")
        #expect(try own.resolve("mini-turbo").path == mini[0])
    }

    @Test func hasNamesOfItsOwn() throws {
        let both = discovery(mini + [cached], ["HF_HUB_CACHE": "/hub"])
        #expect(try both.resolve("mini-raw").path == mini[1])
        #expect(try both.resolve("Mini-Turbo").path == mini[0])
        #expect(try both.resolve("raw").path == cached)
        #expect(throws: Failure.self) { try both.resolve("turbo") }
    }

    @Test func aMissingVariantIsNotFound() throws {
        let discovery = discovery([mini[1]])
        #expect(discovery.all().map(\.name) == ["mini-raw"])
        let error = #expect(throws: Failure.self) { try discovery.resolve("mini-turbo") }
        #expect(error?.message.contains("weights/mini above the executable") == true)
    }
}

/// A `krea2` that is installed beside a model in the place of the embedded one.
@Suite(.serialized)
struct EmbeddedModelProcessTests {
    private let folder: TemporaryFolder
    private let executable: URL
    private let mini: String

    /// Puts the fixture model there as both official files, for resolution class 512.
    init() throws {
        folder = try TemporaryFolder()
        let files = FileManager.default
        executable = try CommandProcess.copy(in: folder)
        let model = try ModelCopy(in: folder)
        try model.remove("transformer")
        try files.copyItem(
            atPath: model.file("turbo.safetensors"),
            toPath: model.file("raw.safetensors")
        )
        mini = folder.file("weights/mini")
        try files.createDirectory(atPath: folder.file("weights"), withIntermediateDirectories: true)
        try files.moveItem(atPath: model.path, toPath: mini)
        let index = URL(fileURLWithPath: "\(mini)/model_index.json")
        let object = try JSONSerialization.jsonObject(with: Data(contentsOf: index))
        var settings = try #require(object as? [String: Any])
        settings["is_distilled"] = nil
        settings["resolution_class"] = 512
        try JSONSerialization.data(withJSONObject: settings).write(to: index)
    }

    private func run(_ arguments: [String]) throws -> CommandRun {
        let run = try CommandProcess(arguments, in: folder.path, executable: executable).finish()
        #expect(run.code == 0, "\(run.errors)")
        return run
    }

    private func plan(_ arguments: [String]) throws -> [String: Any] {
        let run = try run(["generate", "a fox", "--plan", "--json"] + arguments)
        let object = try JSONSerialization.jsonObject(with: Data(run.output))
        return try #require(object as? [String: Any])
    }

    @Test func bothAreListed() throws {
        let lines = try run(["models", "list"]).lines
        try #require(lines.count == 2)
        #expect(lines[0] == "mini-turbo  \(mini)/turbo.safetensors  (embedded)")
        #expect(lines[1] == "mini-raw    \(mini)/raw.safetensors  (embedded)")
        #expect(try run(["models", "ensure", "mini-raw"]).lines.count == 4)
    }

    @Test func sizeAndStepsFollowTheModel() throws {
        let turbo = try plan([])
        #expect(turbo["width"] as? Int == 512 && turbo["height"] as? Int == 512)
        #expect(turbo["steps"] as? Int == 8)
        let raw = try plan(["--model", "mini-raw", "--aspect-ratio", "2.35:1"])
        #expect(raw["width"] as? Int == 784 && raw["height"] as? Int == 336)
        #expect(raw["steps"] as? Int == 52)
    }

    /// The shift of RAW is that of 32 x 32 tokens, as `calculate_shift` of diffusers has it.
    @Test(arguments: [
        ("mini-turbo", "turbo", "cfg 0 (", "mu 1.15,"),
        ("mini-raw", "raw", "cfg 3.5 (", "mu 0.58125,"),
    ])
    func guidanceAndShiftFollowTheModel(
        _ model: String,
        variant: String,
        guidance: String,
        shift: String
    ) throws {
        let run = try run(["generate", "a fox", "--model", model, "--steps", "1"])
        let source = "variant \(variant) (the name \(variant).safetensors), size 512x512"
        for text in [source, guidance, shift] {
            #expect(run.errors.contains(text), "\(run.errors)")
        }
    }
}
