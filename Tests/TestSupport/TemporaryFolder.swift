import Foundation

/// A new, empty folder that is removed with its content when the object goes away.
package final class TemporaryFolder: Sendable {
    /// Absolute path without a slash at the end.
    package let path: String

    /// Makes the folder among the system's temporary files.
    package init() throws {
        let url = FileManager.default.temporaryDirectory
            .appendingPathComponent("krea2-test-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: false)
        path = url.path
    }

    deinit {
        // A folder that stays behind among temporary files is no reason to fail a test.
        try? FileManager.default.removeItem(atPath: path)
    }

    /// The path of a file in the folder.
    package func file(_ name: String) -> String { "\(path)/\(name)" }

    /// Writes a file and returns its path.
    @discardableResult
    package func write(_ bytes: [UInt8], to name: String) throws -> String {
        try Data(bytes).write(to: URL(fileURLWithPath: file(name)))
        return file(name)
    }

    /// Writes a text file and returns its path.
    @discardableResult
    package func write(_ text: String, to name: String) throws -> String {
        try write(Array(text.utf8), to: name)
    }

    /// Names of everything in the folder, hidden files too, sorted.
    package func names() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: path).sorted()
    }
}
