import Glibc

/// What is at a path.
enum FileKind: Equatable, Sendable {
    case file
    case folder
    /// A device, a pipe or a socket.
    case other

    /// Looks at the file system, links followed; `nil` when there is nothing.
    init?(of path: String) {
        var facts = stat()
        guard unsafe stat(path, &facts) == 0 else { return nil }
        switch facts.st_mode & S_IFMT {
        case S_IFREG: self = .file
        case S_IFDIR: self = .folder
        default: self = .other
        }
    }
}

extension String {
    /// The path of something in this folder.
    func path(of name: String) -> String { hasSuffix("/") ? self + name : "\(self)/\(name)" }

    /// What follows the last slash.
    var lastComponent: String {
        lastIndex(of: "/").map { String(self[index(after: $0)...]) } ?? self
    }

    /// The last component without `.safetensors`.
    var stem: String {
        var path = self
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        let name = path.lastComponent
        let suffix = ".safetensors"
        return name.hasSuffix(suffix) ? String(name.dropLast(suffix.count)) : name
    }
}
