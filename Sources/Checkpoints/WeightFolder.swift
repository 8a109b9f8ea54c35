import Glibc

/// Finds the file to open for a path that may be a folder.
enum WeightFolder {
    private static let usualNames = ["diffusion_pytorch_model", "model"]
    private static let fileSuffix = ".safetensors"
    private static let indexSuffix = ".safetensors.index.json"

    /// The index or safetensors file for `path`: the path itself, unless it is a folder.
    static func weights(at path: String) throws(CheckpointError) -> String {
        var status = stat()
        guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
            // What else it is, or why it is not there, shows when it is opened.
            return path
        }
        let names = try fileNames(in: path)
        let files = names.filter { $0.hasSuffix(fileSuffix) }
        let indices = names.filter { $0.hasSuffix(indexSuffix) }
        let index = try choice(indices, indexSuffix, path)
        let file = index == nil ? try choice(files, fileSuffix, path) : nil
        guard let name = index ?? file else { throw .noWeights(folder: path) }
        return path.hasSuffix("/") ? path + name : "\(path)/\(name)"
    }

    /// The file with a usual name, else the only one; nil when there is none.
    private static func choice(
        _ names: [String],
        _ suffix: String,
        _ folder: String
    ) throws(CheckpointError) -> String? {
        if let usual = usualNames.map({ $0 + suffix }).first(where: names.contains) { return usual }
        guard names.count <= 1 else { throw .ambiguous(folder: folder, files: names) }
        return names.first
    }

    /// The names in a folder, sorted, without hidden ones.
    private static func fileNames(in folder: String) throws(CheckpointError) -> [String] {
        guard let stream = opendir(folder) else {
            throw .unreadable(path: folder, reason: String(cString: strerror(errno)))
        }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names.sorted()
    }
}
