import FoundationEssentials

/// Where the small checkpoint that comes with the package may be.
///
/// It is the folder `weights/mini` in one of the folders above the executable, as `.build/release`
/// is inside the package, or else in the current folder.
enum EmbeddedModel {
    /// The folder's path in the package.
    static let place = "weights/mini"

    /// All places, for messages.
    static let inWords = "\(place) above the executable and in the current folder"

    /// Folders that may be it, the nearest first.
    ///
    /// - Parameters:
    ///   - executable: Real path of the running program; nil where the system does not say.
    ///   - currentFolder: The process's own folder.
    /// - Returns: Absolute paths, whether something is there or not.
    static func folders(executable: String?, currentFolder: String) -> [String] {
        var above = (executable ?? "").split(separator: "/").dropLast()
        var roots: [String] = []
        while !above.isEmpty {
            roots.append("/" + above.joined(separator: "/"))
            above.removeLast()
        }
        if !roots.contains(currentFolder) { roots.append(currentFolder) }
        return roots.map { $0.hasSuffix("/") ? $0 + place : "\($0)/\(place)" }
    }

    /// The folders for this process.
    static func folders() -> [String] {
        folders(
            executable: try? FileManager.default.destinationOfSymbolicLink(
                atPath: "/proc/self/exe"
            ),
            currentFolder: FileManager.default.currentDirectoryPath
        )
    }
}
