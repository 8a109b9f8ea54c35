import JSON
import Tensors

/// An index file: which shard each tensor of a checkpoint is in.
///
/// Source: `<name>.safetensors.index.json` as huggingface_hub writes it:
/// `{"metadata": {…}, "weight_map": {tensor: shard}}`.
struct ShardIndex {
    /// Longest index read.
    static let longest = 100_000_000

    private let path: String
    /// Shard by tensor.
    private let shards: [String: String]

    /// Reads and checks an index; the shards are not touched.
    init(path: String) throws(CheckpointError) {
        let file: MappedFile
        do throws(MappingError) { file = try MappedFile(path: path) } catch {
            throw CheckpointError(error)
        }
        guard file.byteCount <= Self.longest else {
            throw .damaged(
                path: path,
                tensor: nil,
                found: "an index of \(file.byteCount) bytes",
                expected: "at most \(Self.longest)"
            )
        }
        shards = try Self.weightMap(file.withBytes { [UInt8]($0) }, path: path)
        self.path = path
    }

    /// The shard of each tensor in an index's text.
    ///
    /// - Parameters:
    ///   - text: Contents of the index.
    ///   - path: The index, for errors.
    /// - Returns: Names of files in the index's folder, at least one.
    /// - Throws: `.damaged`.
    static func weightMap(_ text: [UInt8], path: String) throws(CheckpointError) -> [String: String]
    {
        func damaged(_ found: String, _ expected: String) -> CheckpointError {
            .damaged(path: path, tensor: nil, found: found, expected: expected)
        }
        let value = try jsonObject(text, path: path)["weight_map"] ?? .object([:])
        guard case .object(let map) = value else {
            throw damaged("weight_map \(value)", "an object")
        }
        guard !map.isEmpty else { throw damaged("no tensor in weight_map", "at least one") }
        var shards: [String: String] = [:]
        for (tensor, value) in map.sorted(by: { $0.key < $1.key }) {
            guard case .string(let shard) = value, isInFolder(shard) else {
                throw damaged(
                    "shard \(value) of tensor \(tensor)",
                    "the name of a file beside the index"
                )
            }
            shards[tensor] = shard
        }
        return shards
    }

    /// Whether a name cannot lead out of the index's folder.
    private static func isInFolder(_ name: String) -> Bool {
        // The system would cut a path at NUL.
        let isPlain = !name.utf8.contains { $0 == UInt8(ascii: "/") || $0 == 0 }
        return isPlain && !["", ".", ".."].contains(name)
    }
}

// MARK: Shards

extension ShardIndex {
    /// Opens all shards and checks that they hold what the index says, no less and no more.
    ///
    /// - Returns: The shards, ordered by name.
    func openedShards() throws(CheckpointError) -> [SafetensorsFile] {
        var folder = path
        while let last = folder.last, last != "/" { folder.removeLast() }
        var files: [SafetensorsFile] = []
        for name in Set(shards.values).sorted() {
            do throws(CheckpointError) {
                files.append(try SafetensorsFile(path: folder + name))
            } catch .missing(let shard) {
                throw .missingShard(path: shard, index: path)
            }
        }
        let problems = problems(in: files, folder)
        guard problems.isEmpty else { throw .unfit(path: path, problems: problems) }
        return files
    }

    /// Tensors that are not in the shard the index says, in several, or not in the index.
    private func problems(in files: [SafetensorsFile], _ folder: String) -> [WeightProblem] {
        var holders: [String: [String]] = [:]
        for file in files {
            for name in file.tensors.keys { holders[name, default: []].append(file.path) }
        }
        var problems: [WeightProblem] = []
        for (name, shard) in shards.sorted(by: { $0.key < $1.key })
        where holders[name]?.contains(folder + shard) != true {
            problems.append(.missing(tensor: name, file: folder + shard))
        }
        for (name, paths) in holders.sorted(by: { $0.key < $1.key }) {
            if paths.count > 1 { problems.append(.repeated(tensor: name, files: paths)) }
            if shards[name] == nil { problems.append(.surplus(tensor: name, file: paths[0])) }
        }
        return problems
    }
}
