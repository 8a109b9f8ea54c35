import Glibc

/// What is at a path.
enum FileKind: Equatable, Sendable {
    case file
    case folder
    /// A device, a pipe, a socket or a link.
    case other

    /// Looks at the file system, links followed; `nil` when there is nothing.
    init?(of path: String) {
        var facts = stat()
        guard unsafe stat(path, &facts) == 0 else { return nil }
        self.init(facts)
    }

    /// Looks at the path itself: a link is `other`, wherever it leads.
    init?(ofLink path: String) {
        var facts = stat()
        guard unsafe lstat(path, &facts) == 0 else { return nil }
        self.init(facts)
    }

    private init(_ facts: stat) {
        switch facts.st_mode & S_IFMT {
        case S_IFREG: self = .file
        case S_IFDIR: self = .folder
        default: self = .other
        }
    }
}

extension String {
    /// The folder a path is in; `.` for a bare name.
    var folder: String {
        guard let slash = lastIndex(of: "/") else { return "." }
        return slash == startIndex ? "/" : String(self[..<slash])
    }

    /// What follows the last slash.
    var lastComponent: String {
        lastIndex(of: "/").map { String(self[index(after: $0)...]) } ?? self
    }
}
