package import Tensors

/// One set of named tensors: a safetensors file, or the shards that an index names.
package struct Checkpoint: Sendable {
    /// What was opened: the path of a file, an index or a folder.
    package let path: String
    /// The files the tensors are in, ordered by name.
    package let files: [SafetensorsFile]

    /// What `strippingPrefix` has taken off all names.
    private let prefix: String
    /// Index into `files` by the tensor's name in the file.
    private let fileIndices: [String: Int]

    /// Opens a checkpoint and checks the headers of all its files.
    ///
    /// - Parameter path: A `.safetensors` file, an index (`….json`), or a folder. A folder must
    ///   hold one of, tried in this order: an index under one of the usual names
    ///   (`diffusion_pytorch_model`, `model`), exactly one index, a file under one of the usual
    ///   names, exactly one file. Hidden files do not count.
    /// - Throws: What is missing, damaged or ambiguous; `.unfit` where index and shards disagree.
    package init(path: String) throws(CheckpointError) {
        let weights = try WeightFolder.weights(at: path)
        if weights.hasSuffix(".json") {
            let shards = try ShardIndex(path: weights).openedShards()
            self.init(path: path, files: shards)
        } else {
            self.init(path: path, files: [try SafetensorsFile(path: weights)])
        }
    }

    /// A checkpoint of files that have no tensor in common.
    private init(path: String, files: [SafetensorsFile]) {
        var indices: [String: Int] = [:]
        for (index, file) in files.enumerated() {
            for name in file.tensors.keys { indices[name] = index }
        }
        self.init(path: path, files: files, prefix: "", fileIndices: indices)
    }

    private init(
        path: String,
        files: [SafetensorsFile],
        prefix: String,
        fileIndices: [String: Int]
    ) {
        self.path = path
        self.files = files
        self.prefix = prefix
        self.fileIndices = fileIndices
    }

    /// The tensors whose names start with `prefix`, under the rest of their names.
    ///
    /// The other tensors are not part of the result. Prefixes add up. Errors and
    /// `nameInFile(_:)` give full names.
    package func strippingPrefix(_ prefix: String) -> Checkpoint {
        let full = self.prefix + prefix
        return Checkpoint(
            path: path,
            files: files,
            prefix: full,
            fileIndices: fileIndices.filter { $0.key.utf8.starts(with: full.utf8) }
        )
    }
}

// MARK: Tensors

extension Checkpoint {
    /// The names of all tensors, sorted.
    package var names: [String] {
        fileIndices.keys.map { String(Substring($0.utf8.dropFirst(prefix.utf8.count))) }.sorted()
    }

    /// What the header says about a tensor, nil when there is none of this name.
    package func record(_ name: String) -> TensorRecord? {
        let full = nameInFile(name)
        return fileIndices[full].flatMap { files[$0].tensors[full] }
    }

    /// A view of a tensor's elements, nil when there is none of this name.
    ///
    /// See `SafetensorsFile.tensor(_:)` for what it keeps in memory.
    package func tensor(_ name: String) -> Tensor? {
        let full = nameInFile(name)
        return fileIndices[full].flatMap { files[$0].tensor(full) }
    }

    /// The path of the file a tensor is in; the checkpoint's own path when there is none.
    package func file(of name: String) -> String {
        fileIndices[nameInFile(name)].map { files[$0].path } ?? path
    }

    /// The name with what `strippingPrefix` took off.
    package func nameInFile(_ name: String) -> String { prefix + name }

    /// The free-form text of all files; where keys repeat, the first file's counts.
    package var metadata: [String: String] {
        files.reduce(into: [:]) { merged, file in
            merged.merge(file.metadata) { first, _ in first }
        }
    }

    /// Bytes of all tensors.
    package var byteCount: Int {
        fileIndices.reduce(0) { $0 + (files[$1.value].tensors[$1.key]?.range.count ?? 0) }
    }
}

// MARK: Files

extension Checkpoint {
    /// Throws unless all files are still those that were mapped.
    ///
    /// Call it after computing with the tensors: a file cut short reads as zeros until then.
    package func checkUnchanged() throws(CheckpointError) {
        for file in files { try file.checkUnchanged() }
    }

    /// Asks the system to read tensors ahead; returns before they are there.
    ///
    /// Tensors that are not views of this checkpoint's files are passed over.
    package func prefetch(_ tensors: [Tensor]) {
        for tensor in tensors {
            for file in files { file.prefetch(tensor) }
        }
    }

    /// Lets the system drop the tensors' pages from memory; they come back at the next touch.
    ///
    /// Tensors that are not views of this checkpoint's files are passed over.
    package func release(_ tensors: [Tensor]) {
        for tensor in tensors {
            for file in files { file.release(tensor) }
        }
    }
}
