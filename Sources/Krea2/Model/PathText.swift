import Checkpoints
import FoundationEssentials
import Glibc

/// Parts of paths, and what is at them.
enum PathText {
    /// What a path leads to.
    enum Kind: Equatable {
        case file
        case folder
        /// A device, a pipe or a socket.
        case other
    }

    /// Folders that hold transformers, inside the model's own folder.
    static let transformerFolders: Set = ["transformer", "diffusion_models", "unet"]

    /// What is at a path, links followed; nil when there is nothing.
    static func kind(_ path: String) -> Kind? {
        var facts = stat()
        guard !path.utf8.contains(0), unsafe stat(path, &facts) == 0 else { return nil }
        switch facts.st_mode & S_IFMT {
        case S_IFREG: return .file
        case S_IFDIR: return .folder
        default: return .other
        }
    }

    /// The names in a folder, sorted; none when there is no folder at this path.
    ///
    /// - Throws: `.model(.unreadable)`.
    static func names(in folder: String) throws(GenerationError) -> [String] {
        guard kind(folder) == .folder else { return [] }
        do {
            return try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
        } catch {
            throw .model(.unreadable(path: folder, reason: "the folder cannot be listed"))
        }
    }

    /// A path inside a folder.
    static func inside(_ folder: String, _ name: String) -> String {
        folder.hasSuffix("/") ? folder + name : "\(folder)/\(name)"
    }

    /// The folder that a file or a folder is in.
    static func parent(_ path: String) -> String {
        var rest = Substring(path)
        while rest.count > 1, rest.last == "/" { rest.removeLast() }
        let name = rest.split(separator: "/").last
        if name == nil || name == "." || name == ".." { return inside(String(rest), "..") }
        guard let slash = rest.lastIndex(of: "/") else { return "." }
        return slash == rest.startIndex ? "/" : String(rest[..<slash])
    }

    /// The names from the root to a file or a folder, whose path may be relative.
    static func components(_ path: String) -> [String] {
        let folder = path.hasPrefix("/") ? "" : FileManager.default.currentDirectoryPath
        return "\(folder)/\(path)".split(separator: "/").reduce(into: []) { names, name in
            switch name {
            case ".": break
            case "..": _ = names.popLast()
            default: names.append(String(name))
            }
        }
    }
}
