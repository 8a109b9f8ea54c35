import Glibc
import Tensors
import TestSupport
import Testing

@testable import Checkpoints

struct CheckpointTests {
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    /// Writes a file with float32 tensors of one element: its number in `names`.
    @discardableResult
    private func write(
        _ names: [String],
        to file: String,
        metadata: [String: String] = [:]
    ) throws -> String {
        var writer = SafetensorsWriter(metadata: metadata)
        for (index, name) in names.enumerated() {
            writer.add(name, Tensor([Float(index)], shape: [1]))
        }
        try writer.write(to: folder.file(file))
        return folder.file(file)
    }

    @discardableResult
    private func writeIndex(_ map: [String: String], to file: String = "model") throws -> String {
        let pairs = map.map { "\"\($0)\":\"\($1)\"" }.joined(separator: ",")
        return try folder.write(
            #"{"metadata":{"total_size":1},"weight_map":{\#(pairs)}}"#,
            to: file + ".safetensors.index.json"
        )
    }

    /// The error of opening, as text without the folder's path.
    private func refusal(
        of path: String,
        _ location: SourceLocation = #_sourceLocation
    ) -> String {
        let error = #expect(throws: CheckpointError.self, sourceLocation: location) {
            try Checkpoint(path: path)
        }
        return error?.description.replacing(folder.path, with: "F") ?? ""
    }

    // MARK: Files and folders

    @Test func opensAFile() throws {
        let path = try write(["b", "a"], to: "m.safetensors", metadata: ["k": "v"])
        let checkpoint = try Checkpoint(path: path)
        #expect(checkpoint.names == ["a", "b"])
        #expect(checkpoint.tensor("a")?.elements == [1])
        #expect(checkpoint.record("b")?.elementType == .float32)
        #expect(checkpoint.file(of: "a") == path)
        #expect(checkpoint.metadata == ["k": "v"])
        #expect(checkpoint.byteCount == 8)
        #expect(checkpoint.tensor("c") == nil && checkpoint.record("c") == nil)
        #expect(checkpoint.file(of: "c") == path)
        try checkpoint.checkUnchanged()
    }

    @Test func opensAFolderWithOneFile() throws {
        let path = try write(["a"], to: "anything.safetensors")
        try folder.write("junk", to: "._anything.safetensors")
        try folder.write("{}", to: "config.json")
        for spelling in [folder.path, folder.path + "/"] {
            let checkpoint = try Checkpoint(path: spelling)
            #expect(checkpoint.names == ["a"])
            #expect(checkpoint.path == spelling)
            #expect(checkpoint.files.map(\.path) == [path])
        }
    }

    @Test func prefersTheUsualName() throws {
        try write(["half"], to: "diffusion_pytorch_model.fp16.safetensors")
        try write(["full"], to: "diffusion_pytorch_model.safetensors")
        #expect(try Checkpoint(path: folder.path).names == ["full"])
        try write(["a"], to: "s.safetensors")
        try writeIndex(["a": "s.safetensors"])
        #expect(try Checkpoint(path: folder.path).names == ["a"])
    }

    @Test func refusesFoldersThatLeaveTheChoiceOpen() throws {
        #expect(refusal(of: folder.path) == "F: no safetensors file in this folder")
        try write(["a"], to: "x.safetensors")
        try write(["a"], to: "y.safetensors")
        #expect(
            refusal(of: folder.path) == "F: several safetensors files and no index, expected one: "
                + "x.safetensors, y.safetensors"
        )
        try writeIndex(["a": "x.safetensors"], to: "x")
        #expect(try Checkpoint(path: folder.path).names == ["a"])
        try writeIndex(["a": "y.safetensors"], to: "y")
        #expect(refusal(of: folder.path).contains("x.safetensors.index.json, y.safetensors.index"))
    }

    @Test func missingFilesAreToldFromDamagedOnes() throws {
        let missing = folder.file("none.safetensors")
        #expect(refusal(of: missing) == "F/none.safetensors: no such file")
        #expect(throws: CheckpointError.missing(path: missing)) { try Checkpoint(path: missing) }
        #expect(CheckpointError.missing(path: "").isMissingFile)
        #expect(CheckpointError.noWeights(folder: "").isMissingFile)
        #expect(CheckpointError.missingShard(path: "", index: "").isMissingFile)
        #expect(!CheckpointError.unfit(path: "", problems: []).isMissingFile)
    }

    // MARK: Shards

    @Test func opensShards() throws {
        let one = try write(["a", "b"], to: "one.safetensors", metadata: ["n": "1", "x": "y"])
        let two = try write(["c"], to: "two.safetensors", metadata: ["n": "2"])
        let index = try writeIndex([
            "a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors",
        ])
        for path in [index, folder.path] {
            let checkpoint = try Checkpoint(path: path)
            #expect(checkpoint.names == ["a", "b", "c"])
            #expect(checkpoint.files.map(\.path) == [one, two])
            #expect(checkpoint.tensor("b")?.elements == [1])
            #expect(checkpoint.file(of: "c") == two)
            #expect(checkpoint.metadata == ["n": "1", "x": "y"])
            #expect(checkpoint.byteCount == 12)
        }
    }

    @Test func missingShardsAreNamed() throws {
        try write(["a"], to: "one.safetensors")
        let index = try writeIndex(["a": "one.safetensors", "b": "two.safetensors"])
        #expect(
            refusal(of: index) == "F/two.safetensors: no such file, "
                + "but F/model.safetensors.index.json names it as a shard"
        )
    }

    @Test func disagreementsOfIndexAndShardsAreNamed() throws {
        try write(["a", "both", "extra"], to: "one.safetensors")
        try write(["b", "both"], to: "two.safetensors")
        let index = try writeIndex([
            "a": "two.safetensors", "b": "two.safetensors", "both": "one.safetensors",
            "gone": "one.safetensors",
        ])
        #expect(
            refusal(of: index) == "F/model.safetensors.index.json: "
                + "tensor a is missing from F/two.safetensors; "
                + "tensor gone is missing from F/one.safetensors; "
                + "tensor both is in F/one.safetensors and in F/two.safetensors; "
                + "tensor extra in F/one.safetensors is not expected"
        )
    }

    @Test(arguments: ["../m.safetensors", "/etc/passwd", "sub/m", "..", ".", "", "m\\u0000.x"])
    func shardsStayInTheFolder(shard: String) throws {
        try write(["a"], to: "m.safetensors")
        let text = refusal(of: try writeIndex(["a": shard]))
        #expect(text.hasPrefix("F/model.safetensors.index.json: shard "))
        #expect(text.hasSuffix(" of tensor a, expected the name of a file beside the index"))
    }

    @Test func damagedIndexesAreNamed() throws {
        for (text, reason) in [
            ("{", "the text ends here at byte 1, expected JSON"),
            ("[]", "an array of 0, expected a JSON object"),
            ("{}", "no tensor in weight_map, expected at least one"),
            (#"{"weight_map":{}}"#, "no tensor in weight_map, expected at least one"),
            (#"{"weight_map":null}"#, "weight_map null, expected an object"),
            (
                #"{"weight_map":{"a":1}}"#,
                "shard 1 of tensor a, expected the name of a file beside the index"
            ),
            (
                #"{"weight_map":{"a":"x","a":"y"}}"#,
                "key \"a\" is there twice at byte 23, expected JSON"
            ),
        ] {
            let path = try folder.write(text, to: "x.safetensors.index.json")
            #expect(refusal(of: path) == "F/x.safetensors.index.json: \(reason)")
        }
        let missing = folder.file("none.safetensors.index.json")
        #expect(throws: CheckpointError.missing(path: missing)) { try Checkpoint(path: missing) }
    }

    @Test func damagedShardsAreNamed() throws {
        try write(["a"], to: "one.safetensors")
        try folder.write("broken", to: "two.safetensors")
        let index = try writeIndex(["a": "one.safetensors", "b": "two.safetensors"])
        #expect(refusal(of: index) == "F/two.safetensors: 6 bytes, expected at least 8")
    }

    @Test func changesOfAnyShardAreNoticed() throws {
        try write(["a"], to: "one.safetensors")
        let two = try write(["b"], to: "two.safetensors")
        let index = try writeIndex(["a": "one.safetensors", "b": "two.safetensors"])
        let checkpoint = try Checkpoint(path: index)
        try checkpoint.checkUnchanged()
        unlink(two)
        #expect(throws: CheckpointError.missing(path: two)) { try checkpoint.checkUnchanged() }
    }

    // MARK: Views

    @Test func viewsTensorsBelowAPrefix() throws {
        let names = ["model.diffusion_model.a", "model.diffusion_model.b.c", "model.x", "vae.y"]
        let path = try write(names, to: "m.safetensors")
        let checkpoint = try Checkpoint(path: path)
        let view = checkpoint.strippingPrefix("model.diffusion_model.")
        #expect(view.names == ["a", "b.c"])
        #expect(view.tensor("b.c")?.elements == [1])
        #expect(view.record("a") == checkpoint.record("model.diffusion_model.a"))
        #expect(view.tensor("model.x") == nil && view.tensor("x") == nil)
        #expect(view.nameInFile("a") == "model.diffusion_model.a")
        #expect(view.byteCount == 8)
        let twice = checkpoint.strippingPrefix("model.").strippingPrefix("diffusion_model.b.")
        #expect(twice.names == ["c"])
        #expect(twice.nameInFile("c") == "model.diffusion_model.b.c")
        #expect(checkpoint.strippingPrefix("").names == checkpoint.names)
    }

    @Test func passesAdviceOn() throws {
        try write(["a"], to: "one.safetensors")
        try write(["b"], to: "two.safetensors")
        let index = try writeIndex(["a": "one.safetensors", "b": "two.safetensors"])
        let checkpoint = try Checkpoint(path: index)
        let tensors = checkpoint.names.compactMap { checkpoint.tensor($0) }
        checkpoint.prefetch(tensors)
        checkpoint.release(tensors + [Tensor(zeros: [5000])])
        #expect(tensors.map(\.elements) == [[0], [0]])
    }

    // MARK: Digest

    @Test func smallFilesAreHashedWhole() throws {
        let header = "{\(entry("a", "U8", [3], 0, 3))}"
        let path = try folder.write(safetensors(header, data: 3), to: "m.safetensors")
        // sha256sum of the same 64 bytes.
        #expect(
            try Checkpoint(path: path).digest()
                == "sha256:9fb7cade50123f28c6cbdd60bec99728b3db67b1150d0159fbe85e5cc159dd1e"
        )
    }

    @Test func largeFilesAreSampled() throws {
        let count = 300_000
        let header = "{\(entry("a", "U8", [count], 0, count))}"
        var bytes = safetensors(header, data: count)
        let start = bytes.count - count
        func digest(_ bytes: [UInt8], limit: Int = 1000) throws -> String {
            let path = try folder.write(bytes, to: "m.safetensors")
            return try SafetensorsFile(path: path).digest(wholeUpTo: limit)
        }

        let stride = (count - 65536) / 63
        var hash = SHA256()
        let size = (0..<8).map { UInt8(truncatingIfNeeded: bytes.count >> (8 * $0)) }
        var pieces = [Array(bytes[..<start]), size]
        pieces += (0..<64).map { Array(bytes[start + $0 * stride..<start + $0 * stride + 65536]) }
        for piece in pieces { piece.withUnsafeBytes { hash.update($0) } }
        let first = try digest(bytes)
        #expect(first == "sampled-sha256:" + hash.digest())
        #expect(try digest(bytes, limit: bytes.count).hasPrefix("sha256:"))

        bytes[start + 200_000] ^= 1
        #expect(try digest(bytes) != first)
    }

    @Test func shardsAreHashedTogether() throws {
        try write(["a"], to: "one.safetensors")
        try write(["b", "c"], to: "two.safetensors")
        let index = try writeIndex([
            "a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors",
        ])
        let checkpoint = try Checkpoint(path: index)
        let digests = try checkpoint.files.map { try $0.digest() }
        #expect(Set(digests).count == 2)
        var hash = SHA256()
        Array("\(digests[0]) one.safetensors\n\(digests[1]) two.safetensors\n".utf8)
            .withUnsafeBytes { hash.update($0) }
        #expect(try checkpoint.digest() == "shards-sha256:" + hash.digest())
    }

    @Test func changedFilesHaveNoDigest() throws {
        let path = try write(["a"], to: "m.safetensors")
        let checkpoint = try Checkpoint(path: path)
        unlink(path)
        #expect(throws: CheckpointError.missing(path: path)) { try checkpoint.digest() }
    }
}
