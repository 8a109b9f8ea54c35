import Images

/// Where pictures go: a path with places for the seed and the number of the picture.
///
/// - `{seed}` is the picture's own seed, `{index}` counts from 0, `%d` and `%03d` are the index as in
///   C (padded with zeros to the width), `%%` is a percent sign. Other uses of `%` are refused.
/// - Several pictures without a place for either get `name.png`, `name_2.png`, `name_3.png`, as from
///   stable-diffusion.cpp.
struct OutputNames: Equatable, Sendable {
    private enum Piece: Equatable {
        case text(String)
        case seed
        case index(width: Int)
    }

    private let pieces: [Piece]
    /// Whether the picture goes to standard output.
    let isStandardOutput: Bool

    /// Reads a pattern.
    init(_ pattern: String) throws(ValueError) {
        guard !pattern.isEmpty else { throw ValueError(reason: "an empty path") }
        isStandardOutput = pattern == "-"
        var pieces: [Piece] = []
        var text = ""
        var rest = Substring(pattern)
        while let character = rest.first {
            if rest.hasPrefix("{seed}") || rest.hasPrefix("{index}") {
                pieces += [.text(text), rest.hasPrefix("{seed}") ? .seed : .index(width: 1)]
                text = ""
                rest = rest.dropFirst(rest.hasPrefix("{seed}") ? 6 : 7)
            } else if rest.hasPrefix("%%") {
                text += "%"
                rest = rest.dropFirst(2)
            } else if character == "%" {
                pieces += [.text(text), .index(width: try Self.indexWidth(&rest))]
                text = ""
            } else {
                text.append(character)
                rest = rest.dropFirst()
            }
        }
        pieces.append(.text(text))
        self.pieces = pieces.filter { $0 != .text("") }
        try refuseOtherFormats()
    }

    /// Takes `%d` or `%03d` from the front and returns the least number of digits.
    private static func indexWidth(_ rest: inout Substring) throws(ValueError) -> Int {
        let digits = rest.dropFirst().prefix { ("0"..."9").contains($0) }
        let end = rest.dropFirst(1 + digits.count)
        let isPlain = digits.isEmpty
        let isPadded = digits.count == 2 && digits.first == "0" && digits.last != "0"
        guard end.first == "d", isPlain || isPadded, let width = Int("0" + digits) else {
            throw ValueError(
                reason: "'\(rest.prefix(2 + digits.count))' is not understood; "
                    + "use %d, %03d, {index}, {seed}, or %% for a percent sign"
            )
        }
        rest = end.dropFirst()
        return max(width, 1)
    }

    /// A name that promises another format would hold a PNG all the same.
    private func refuseOtherFormats() throws(ValueError) {
        guard case .text(let end) = pieces.last, let point = end.lastIndex(of: ".") else { return }
        let suffix = end[point...].lowercased()
        let others = [
            ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jxl", ".heic",
        ]
        guard !others.contains(suffix) else {
            throw ValueError(reason: "'\(suffix)' cannot be written; pictures are PNG files")
        }
    }

    /// The path of each picture.
    ///
    /// - Parameters:
    ///   - seed: Seed of the first picture; the next ones add one each.
    ///   - count: Number of pictures.
    /// - Returns: As many different paths as there are pictures.
    func paths(seed: UInt64, count: Int) -> [String] {
        let isPattern = pieces.contains { piece in
            if case .text = piece { false } else { true }
        }
        return (0..<count).map { index in
            let path = pieces.map { piece in
                switch piece {
                case .text(let text): text
                case .seed: String(seed &+ UInt64(index))
                case .index(let width): String(index).paddedWithZeros(to: width)
                }
            }.joined()
            return isPattern || index == 0 ? path : path.insertingBeforeSuffix("_\(index + 1)")
        }
    }
}

extension OutputNames {
    /// Checks every file that a run will write, before it computes anything.
    ///
    /// - Parameters:
    ///   - paths: Files to write.
    ///   - overwrites: Whether existing files are replaced.
    /// - Throws: Exit code 73 with the first path that cannot be written.
    static func check(_ paths: [String], overwrites: Bool) throws(Failure) {
        var seen: Set<String> = []
        for path in paths {
            guard seen.insert(path).inserted else {
                throw Failure(.cannotWrite, "\(path): two outputs have this name")
            }
            do {
                try checkWritable(path, overwriting: overwrites)
            } catch .alreadyExists {
                throw Failure(.cannotWrite, "\(path): exists; --force replaces it")
            } catch {
                throw Failure(error)
            }
        }
    }
}

extension String {
    fileprivate func paddedWithZeros(to width: Int) -> String {
        String(repeating: "0", count: max(0, width - count)) + self
    }

    /// The path with `text` before its suffix: `a/b.png` and `_2` give `a/b_2.png`.
    fileprivate func insertingBeforeSuffix(_ text: String) -> String {
        let start = lastIndex(of: "/").map { index(after: $0) } ?? startIndex
        guard let point = self[start...].lastIndex(of: "."), point != start else {
            return self + text
        }
        return self[..<point] + text + self[point...]
    }
}
