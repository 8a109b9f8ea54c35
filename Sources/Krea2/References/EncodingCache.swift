import Checkpoints
import Glibc
import Tensors

/// Keeps what the text encoder has made in a folder, so that the same picture or prompt is encoded
/// once.
///
/// - Files are named by digests; they hold no pixels, no text and no paths.
/// - What was not used for the longest time goes when the files take more than a given number of
///   bytes.
/// - Several processes may use a folder at once: files get their names when they are complete.
/// - What is damaged goes, too, and is as good as not there.
/// - Only the user can read it: what was encoded tells what was asked for.
public struct EncodingCache: Sendable {
    /// The folder, which need not exist.
    public let folder: String
    /// Bytes that the files may take.
    public let byteLimit: Int
    /// What rows depend on besides the encoder's files: precision and kernels.
    var arithmetic = ""

    /// Bytes where nobody chooses otherwise.
    public static let usualByteLimit = 2 << 30

    private static let suffixes = [".k2ref", ".k2text"]
    /// Seconds after which a file that was never completed is nobody's any more.
    private static let abandonedAfter = 86_400

    /// Names a folder.
    ///
    /// - Parameters:
    ///   - folder: The folder, which need not exist.
    ///   - byteLimit: Bytes that the files may take.
    public init(folder: String, byteLimit: Int = EncodingCache.usualByteLimit) {
        (self.folder, self.byteLimit) = (folder, byteLimit)
    }
}

// MARK: References

extension EncodingCache {
    /// The encoded picture, if it is there.
    ///
    /// - Parameters:
    ///   - source: Which picture.
    ///   - encoder: What is to have encoded it.
    /// - Returns: The reference; nil where there is none that can be used.
    func reference(
        _ source: ReferenceFile.Source,
        by encoder: EncoderIdentity
    ) -> ReferenceFile? {
        entry(path(source.key(encoder), ".k2ref")) { path throws(GenerationError) in
            let file = try ReferenceFile(path: path, for: encoder)
            return file.source == source ? file : nil
        }
    }

    /// Keeps an encoded picture.
    ///
    /// - Throws: `.model(.cannotWrite)`, `.request` for a source without proper names.
    func keep(_ reference: ReferenceFile) throws(GenerationError) {
        try keep(path(reference.source.key(reference.encoder), ".k2ref")) {
            path throws(GenerationError) in
            try reference.write(to: path, overwriting: true, isPrivate: true)
        }
    }
}

// MARK: Prompts

extension EncodingCache {
    /// The taps of a prompt, if they are there.
    ///
    /// - Parameters:
    ///   - ids: Token ids of template and prompt.
    ///   - encoder: What is to have encoded it.
    /// - Returns: `[tokens, taps, width]`, float32; nil where there are none that can be used.
    func taps(of ids: [Int32], by encoder: EncoderIdentity) -> Tensor? {
        let content = Self.content(ids)
        return entry(path("\(content) \(encoder.key)", ".k2text")) { path throws(GenerationError) in
            let container = try RowContainer(path: path, .prompt)
            guard try container.encoder() == encoder, try container.word("content") == content
            else { return nil }
            return try container.contents().taps
        }
    }

    /// Keeps the taps of a prompt.
    ///
    /// - Parameters:
    ///   - taps: `[tokens, taps, width]`, float32.
    ///   - ids: Token ids of template and prompt.
    ///   - encoder: What encoded it.
    /// - Throws: `.model(.cannotWrite)`, `.request` when the taps are not finite.
    func keep(
        _ taps: Tensor,
        of ids: [Int32],
        by encoder: EncoderIdentity
    ) throws(GenerationError) {
        let content = Self.content(ids)
        let rows = try ConditioningRows(
            key: content,
            taps: taps,
            kinds: [ConditioningRows.Kind](repeating: .text, count: taps.rows)
        )
        try keep(path("\(content) \(encoder.key)", ".k2text")) { path throws(GenerationError) in
            try RowContainer.write(
                rows,
                by: encoder,
                words: ["content": content],
                as: .prompt,
                to: path,
                overwriting: true,
                isPrivate: true
            )
        }
    }

    /// Names token ids.
    static func content(_ ids: [Int32]) -> String {
        "tokens-sha256:" + hexDigest(of: [Array(ids.map(String.init).joined(separator: " ").utf8)])
    }
}

// MARK: Files

extension EncodingCache {
    /// A path in the folder for what a text names.
    private func path(_ key: String, _ suffix: String) -> String {
        let name = hexDigest(of: [Array("\(key) \(arithmetic)".utf8)])
        return PathText.inside(folder, String(name.prefix(40)) + suffix)
    }

    /// Reads a file and marks it as used; one that cannot be used is removed.
    private func entry<Entry>(
        _ path: String,
        _ read: (String) throws(GenerationError) -> Entry?
    ) -> Entry? {
        do throws(GenerationError) {
            if let entry = try read(path) {
                // One that cannot be marked goes a little earlier.
                unsafe utimensat(AT_FDCWD, path, nil, 0)
                return entry
            }
        } catch .model(.missing), .model(.changed) {
            // It is not there, or another process uses it at this moment.
            return nil
        } catch {
            // Whatever is wrong with it stays so.
        }
        unsafe unlink(path)
        return nil
    }

    /// Writes a file, and removes those that were not used for the longest time.
    private func keep(
        _ path: String,
        _ write: (String) throws(GenerationError) -> Void
    ) throws(GenerationError) {
        do throws(CheckpointError) {
            try makeFolder(folder, isPrivate: true)
        } catch {
            throw .model(error)
        }
        try write(path)
        try shrink()
    }

    /// Removes the files that were not used for the longest time until the others fit.
    private func shrink() throws(GenerationError) {
        var files: [(path: String, byteCount: Int, used: timespec)] = []
        let abandoned = time(nil) - Self.abandonedAfter
        for name in try PathText.names(in: folder) {
            let path = PathText.inside(folder, name)
            var facts = stat()
            guard unsafe lstat(path, &facts) == 0, facts.st_mode & S_IFMT == S_IFREG else {
                continue
            }
            if Self.suffixes.contains(where: name.hasSuffix) {
                files.append((path, Int(facts.st_size), facts.st_mtim))
            } else if name.hasPrefix(".krea2-"), name.hasSuffix(".partial"),
                facts.st_mtim.tv_sec < abandoned
            {
                unsafe unlink(path)
            }
        }
        files.sort { ($0.used.tv_sec, $0.used.tv_nsec) < ($1.used.tv_sec, $1.used.tv_nsec) }
        var total = files.reduce(0) { $0 + $1.byteCount }
        for file in files {
            guard total > byteLimit else { break }
            // Another process may have been faster, which is as well.
            unsafe unlink(file.path)
            total -= file.byteCount
        }
    }
}
