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
        do throws(JSONError) {
            shards = try Self.weightMap(file.withBytes { [UInt8]($0) })
        } catch {
            let place = error.keys.isEmpty ? "" : error.keys.joined(separator: ": ") + " with "
            throw .damaged(
                path: path,
                tensor: nil,
                found: place + error.found,
                expected: error.expected
            )
        }
        self.path = path
    }

    /// The shard of each tensor in an index's text.
    static func weightMap(_ text: [UInt8]) throws(JSONError) -> [String: String] {
        var shards: [String: String]?
        var scanner = JSONScanner(text)
        try scanner.object { key, scanner throws(JSONError) in
            guard key == "weight_map" else { return try scanner.skipValue() }
            var map: [String: String] = [:]
            try scanner.object { tensor, scanner throws(JSONError) in
                map[tensor] = try checkedShard(try scanner.string())
            }
            shards = map
        }
        try scanner.end()
        guard let shards, !shards.isEmpty else {
            throw JSONError(found: "no tensor in weight_map", expected: "at least one")
        }
        return shards
    }

    /// Refuses names that lead out of the index's folder.
    private static func checkedShard(_ name: String) throws(JSONError) -> String {
        // The system would cut a path at NUL.
        let isPlain = !name.utf8.contains { $0 == UInt8(ascii: "/") || $0 == 0 }
        guard isPlain, !["", ".", ".."].contains(name) else {
            throw JSONError(
                found: "shard \"\(name)\"",
                expected: "the name of a file beside the index"
            )
        }
        return name
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
