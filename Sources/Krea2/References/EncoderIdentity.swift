import Checkpoints

/// Which text encoder made rows, and of what.
public struct EncoderIdentity: Sendable, Equatable {
    /// Models whose rows mean the same, such as `qwen3-vl-4b-instruct`.
    public let family: String
    /// Digest of its files.
    public let digest: String
    /// Digest of the text around what is encoded, and of the choice of taps.
    public let template: String
    /// Taps of a row.
    public let taps: Int
    /// Width of a tap.
    public let width: Int

    /// Names an encoder.
    ///
    /// - Parameters:
    ///   - family: Models whose rows mean the same.
    ///   - digest: Digest of its files.
    ///   - template: Digest of the text around what is encoded, and of the choice of taps.
    ///   - taps: Taps of a row.
    ///   - width: Width of a tap.
    public init(family: String, digest: String, template: String, taps: Int, width: Int) {
        (self.family, self.digest, self.template) = (family, digest, template)
        (self.taps, self.width) = (taps, width)
    }

    /// Names all of it in one text.
    var key: String { "\(family) \(template) \(digest)" }

    /// The family of an encoder of these sizes; only the released model has a name of its own.
    ///
    /// The last of its 36 layers is not used, and some files do without it.
    static func family(layers: Int, width: Int) -> String {
        let isReleased = width == 2560 && (35...36).contains(layers)
        return isReleased ? "qwen3-vl-4b-instruct" : "qwen3-vl-\(layers)x\(width)"
    }

    /// Digest of what is asked of an encoder.
    ///
    /// - Parameters:
    ///   - texts: What stands around a picture or a prompt.
    ///   - taps: Layers whose output is taken, and when.
    /// - Returns: `sha256:` and hexadecimal digits.
    static func template(_ texts: [String], taps: String) -> String {
        "sha256:" + hexDigest(of: (texts + [taps]).map { Array($0.utf8) + [0] })
    }

    /// Fails where rows of a file cannot be used with this encoder.
    ///
    /// - Parameters:
    ///   - found: What made the file.
    ///   - path: The file.
    ///   - isLenient: Whether other files of the same encoder will do.
    /// - Throws: `.reference`.
    func check(
        _ found: EncoderIdentity,
        path: String,
        isLenient: Bool
    ) throws(GenerationError) {
        guard (found.family, found.taps, found.width) == (family, taps, width) else {
            throw .reference(
                .otherFamily(
                    path: path,
                    found: "\(found.family) (\(found.taps) taps of \(found.width))",
                    expected: "\(family) (\(taps) taps of \(width))"
                )
            )
        }
        guard found.template == template else { throw .reference(.otherTemplate(path: path)) }
        guard found.digest == digest || isLenient else {
            throw .reference(
                .otherEncoder(path: path, found: found.digest, expected: digest)
            )
        }
    }
}
