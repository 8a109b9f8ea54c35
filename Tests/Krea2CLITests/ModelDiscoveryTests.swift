import Krea2
import Testing

@testable import Krea2CLI

/// Discovery over a disk that exists in a dictionary only.
struct ModelDiscoveryTests {
    /// Files with their text; folders are what lies above them.
    private func discovery(
        _ files: [String: String],
        _ environment: [String: String] = [:],
        embeddedFolders: [String] = []
    ) -> ModelDiscovery {
        ModelDiscovery(
            environment: environment,
            disk: .init(
                kind: { path in
                    if files[path] != nil { return .file }
                    return files.keys.contains { $0.hasPrefix(path + "/") } ? .folder : nil
                },
                names: { folder in
                    let inside = files.keys.filter { $0.hasPrefix(folder + "/") }
                    let names = inside.map { path in
                        path.dropFirst(folder.count + 1).prefix { $0 != "/" }
                    }
                    return Set(names).map(String.init)
                },
                text: { files[$0] }
            ),
            embeddedFolders: embeddedFolders
        )
    }

    private let turboSnapshot = "/hub/models--krea--Krea-2-Turbo/snapshots"
    private let rawSnapshot = "/hub/models--krea--Krea-2-Raw/snapshots"

    @Test func explicitPathComesFirst() throws {
        let discovery = discovery(
            ["/m/turbo.safetensors": "", "/k/model.safetensors": ""],
            ["KREA2_MODEL": "/k/model.safetensors"]
        )
        #expect(
            try discovery.resolve("/m/turbo.safetensors")
                == .init(
                    name: "turbo",
                    path: "/m/turbo.safetensors",
                    origin: .argument,
                    variant: .turbo
                )
        )
        #expect(try discovery.resolve(nil).path == "/k/model.safetensors")
    }

    @Test(arguments: [
        ("krea2_raw_bf16", Variant.raw), ("Krea-2-Turbo", .turbo), ("krea2TURBO8", .turbo),
        ("krea2-strawberry", nil), ("turbo-raw", nil),
    ])
    func wordsOfTheNameTellTheVariant(_ name: String, variant: Variant?) throws {
        let path = "/m/\(name).safetensors"
        #expect(try discovery([path: ""]).resolve(path).variant == variant)
    }

    @Test func placesInOrder() {
        let files = [
            "/k/model.safetensors": "", "/o/t.safetensors": "", "/o/r.safetensors": "",
            "\(turboSnapshot)/aa/turbo.safetensors": "",
            "\(rawSnapshot)/aa/model_index.json": "",
            "\(rawSnapshot)/aa/transformer/config.json": "",
            "/c/diffusion_models/krea2_turbo_bf16.safetensors": "",
            "/c/diffusion_models/flux.safetensors": "",
            "/c/diffusion_models/krea2.txt": "",
            "/d/My-Krea/model_index.json": "",
        ]
        let found = discovery(
            files,
            [
                "KREA2_MODEL": "/k/model.safetensors", "OSS_TURBO": "/o/t.safetensors",
                "OSS_RAW": "/o/r.safetensors", "HF_HUB_CACHE": "/hub", "KREA2_MODELS": "/c:/d",
            ]
        ).all()
        #expect(
            found == [
                .init(
                    name: "model",
                    path: "/k/model.safetensors",
                    origin: .krea2Model,
                    variant: nil
                ),
                .init(
                    name: "turbo",
                    path: "/o/t.safetensors",
                    origin: .officialTurbo,
                    variant: .turbo
                ),
                .init(name: "raw", path: "/o/r.safetensors", origin: .officialRaw, variant: .raw),
                .init(
                    name: "krea/Krea-2-Turbo",
                    path: "\(turboSnapshot)/aa/turbo.safetensors",
                    origin: .cache,
                    variant: .turbo
                ),
                .init(
                    name: "krea/Krea-2-Raw",
                    path: "\(rawSnapshot)/aa",
                    origin: .cache,
                    variant: .raw
                ),
                .init(
                    name: "krea2_turbo_bf16",
                    path: "/c/diffusion_models/krea2_turbo_bf16.safetensors",
                    origin: .folders,
                    variant: .turbo
                ),
                .init(name: "My-Krea", path: "/d/My-Krea", origin: .folders, variant: nil),
            ]
        )
    }

    @Test(arguments: [
        (["HF_HUB_CACHE": "/hub", "HF_HOME": "/x", "HOME": "/y"], "/hub"),
        (["HF_HOME": "/hf", "HOME": "/y"], "/hf/hub"),
        (["HOME": "/home/me"], "/home/me/.cache/huggingface/hub"),
    ])
    func findsTheCache(_ environment: [String: String], hub: String) throws {
        let file = "\(hub)/models--krea--Krea-2-Turbo/snapshots/aa/turbo.safetensors"
        #expect(try discovery([file: ""], environment).resolve(nil).path == file)
    }

    @Test func takesTheSnapshotThatMainNames() throws {
        var files = [
            "\(turboSnapshot)/aa/turbo.safetensors": "",
            "\(turboSnapshot)/bb/turbo.safetensors": "",
        ]
        let environment = ["HF_HUB_CACHE": "/hub"]
        #expect(try discovery(files, environment).resolve(nil).path.contains("/bb/"))
        files["/hub/models--krea--Krea-2-Turbo/refs/main"] = "aa\n"
        #expect(try discovery(files, environment).resolve(nil).path.contains("/aa/"))
        files["/hub/models--krea--Krea-2-Turbo/refs/main"] = "not downloaded"
        #expect(try discovery(files, environment).resolve(nil).path.contains("/bb/"))
    }

    @Test func incompleteSnapshotFallsBackToAnother() throws {
        let files = [
            "\(turboSnapshot)/aa/turbo.safetensors": "",
            "\(turboSnapshot)/bb/model_index.json": "",
        ]
        let found = try discovery(files, ["HF_HUB_CACHE": "/hub"]).resolve(nil)
        #expect(found.path == "\(turboSnapshot)/aa/turbo.safetensors")
    }

    @Test(arguments: [
        ("krea/Krea-2-Raw", "/raw"), ("krea-2-raw", "/raw"), ("RAW", "/raw"), ("turbo", "/t"),
        ("mine", "/c/diffusion_models/mine"),
    ])
    func resolvesNames(_ name: String, prefix: String) throws {
        let discovery = discovery(
            [
                "/t.safetensors": "", "/c/diffusion_models/mine.krea.safetensors": "",
                "/raw/models--krea--Krea-2-Raw/snapshots/a/raw.safetensors": "",
            ],
            ["OSS_TURBO": "/t.safetensors", "HF_HUB_CACHE": "/raw", "KREA2_MODELS": "/c"]
        )
        let full = name == "mine" ? "mine.krea" : name
        #expect(try discovery.resolve(full).path.hasPrefix(prefix))
    }

    @Test func variantPicksTheDefault() throws {
        let files = ["/t.safetensors": "", "/r.safetensors": "", "/k.safetensors": ""]
        var environment = ["OSS_TURBO": "/t.safetensors", "OSS_RAW": "/r.safetensors"]
        let both = discovery(files, environment)
        #expect(try both.resolve(nil).path == "/t.safetensors")
        #expect(try both.resolve(nil, variant: .raw).path == "/r.safetensors")
        environment["KREA2_MODEL"] = "/k.safetensors"
        let all = discovery(files, environment)
        #expect(try all.resolve(nil, variant: .raw).path == "/k.safetensors")
        let turbo = discovery(files, ["OSS_TURBO": "/t.safetensors"])
        #expect(try turbo.resolve(nil, variant: .raw).path == "/t.safetensors")
    }

    @Test func onlyTheOfficialVariablesStateTheVariant() {
        #expect(ModelDiscovery.Origin.officialTurbo.variant == .turbo)
        #expect(ModelDiscovery.Origin.officialRaw.variant == .raw)
        #expect(ModelDiscovery.Origin.cache.variant == nil)
    }

    @Test func nothingFoundNamesThePlaces() {
        let discovery = discovery([:], ["HOME": "/h", "KREA2_MODELS": "/a:/b"])
        #expect(discovery.all().isEmpty)
        let error = #expect(throws: Failure.self) { try discovery.resolve(nil) }
        #expect(
            error
                == Failure(
                    .noInput,
                    "no model found in KREA2_MODEL (not set), OSS_TURBO (not set), OSS_RAW (not "
                        + "set), the Hugging Face cache /h/.cache/huggingface/hub, KREA2_MODELS "
                        + "(/a:/b); give one with --model, or run scripts/quickstart"
                )
        )
    }

    @Test func setButMissingIsAnError() {
        let discovery = discovery(["/t.safetensors": ""], ["KREA2_MODEL": "/gone"])
        let error = #expect(throws: Failure.self) { try discovery.resolve(nil) }
        #expect(error?.code == .noInput)
        #expect(error?.message.contains("/gone: no such file") == true)
        #expect(error?.message.contains("KREA2_MODEL names it") == true)
    }

    @Test func unknownNameIsAnError() {
        let error = #expect(throws: Failure.self) { try discovery([:]).resolve("nope") }
        #expect(error?.code == .noInput)
        #expect(error?.message.hasPrefix("nope: neither a file") == true)
    }
}
