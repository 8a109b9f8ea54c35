import Checkpoints
import Compute
import Tensors

/// Rows in a safetensors file, and texts about them: what stored references, moodboards and the
/// cache have in common.
///
/// - `taps`: `[rows, taps, width]`, bfloat16; float32 for prompts.
/// - `kind`: U8 `[rows]`, `ConditioningRows.Kind`.
/// - `mult`: F32 `[rows]`, how many rows each one stands for.
/// - `grid`: I32 `[2]`, rows and columns of a picture's tokens; 0 for several pictures or none.
/// - Metadata: `format`, `version`, `encoder`, `encoder_family`, `template`, `checksum`, which is the
///   digest of the data part, and what each format adds. No pixels, no names of files, no paths.
struct RowContainer {
    enum Format: String {
        case reference = "k2ref"
        case moodboard = "k2board"
        case prompt = "k2text"

        /// Of the taps.
        var elementType: ElementType { self == .prompt ? .float32 : .bfloat16 }
    }

    /// What the tensors hold.
    struct Contents {
        let kinds: [ConditioningRows.Kind]
        let multiplicities: [Float]
        let taps: Tensor
        let grid: (rows: Int, columns: Int)

        /// The rows under a name.
        func rows(key: String) throws(GenerationError) -> ConditioningRows {
            try ConditioningRows(
                key: key,
                taps: taps,
                kinds: kinds,
                multiplicities: multiplicities
            )
        }
    }

    /// The version written, and the only one that is read.
    static let version = "1"
    /// Most rows; more than any picture, prompt or moodboard has.
    static let mostRows = 1024
    /// Counts that rows may stand for.
    private static let multiplicityRange: ClosedRange<Float> = 1e-6...1e6
    /// Bytes of a free text.
    private static let longestText = 1 << 14
    /// Bytes of a header, which has a few texts.
    private static let longestHeader = 1 << 20

    let path: String
    private let format: Format
    private let file: SafetensorsFile
    /// `[rows, taps, width]`.
    private let shape: [Int]

    /// Opens a file and checks its header; elements are not read yet.
    ///
    /// - Parameters:
    ///   - path: The file.
    ///   - format: What it should be.
    /// - Throws: `.model` for a file that is missing, unreadable, cut short or damaged; `.reference`
    ///   for one of another format or version.
    init(path: String, _ format: Format) throws(GenerationError) {
        let file: SafetensorsFile
        do throws(CheckpointError) {
            file = try SafetensorsFile(path: path, longestHeader: Self.longestHeader)
        } catch {
            throw .model(error)
        }
        let (name, version) = (file.metadata["format"], file.metadata["version"])
        guard name == format.rawValue else {
            throw .reference(.otherFormat(path: path, found: name, expected: format.rawValue))
        }
        guard version == Self.version else {
            throw .reference(.otherVersion(path: path, found: version, expected: Self.version))
        }
        let problems = Self.problems(file, format)
        guard problems.isEmpty, let shape = file.tensors["taps"]?.shape else {
            throw .model(.unfit(path: path, problems: problems))
        }
        (self.path, self.format, self.file, self.shape) = (path, format, file, shape)
    }

    /// What is wrong with the tensors' names, types and shapes.
    private static func problems(_ file: SafetensorsFile, _ format: Format) -> [WeightProblem] {
        let rows = file.tensors["taps"]?.shape.first ?? 0
        let parts: [(name: String, type: ElementType, shape: String, isFit: ([Int]) -> Bool)] = [
            (
                "taps", format.elementType, "[rows, taps, width] with 1 to \(mostRows) rows",
                { $0.count == 3 && (1...mostRows).contains($0[0]) && !$0.contains(0) }
            ),
            ("kind", .uint8, "[\(rows)]", { $0 == [rows] }),
            ("mult", .float32, "[\(rows)]", { $0 == [rows] }),
            ("grid", .int32, "[2]", { $0 == [2] }),
        ]
        var problems: [WeightProblem] = []
        for part in parts {
            guard let record = file.tensors[part.name] else {
                problems.append(.missing(tensor: part.name, file: file.path))
                continue
            }
            guard record.elementType == part.type, part.isFit(record.shape) else {
                problems.append(
                    .invalid(
                        tensor: part.name,
                        file: file.path,
                        found: "\(record.elementType.rawValue) \(record.shape)",
                        expected: "\(part.type.rawValue) \(part.shape)"
                    )
                )
                continue
            }
        }
        let known = parts.map(\.name)
        return problems
            + file.tensors.keys.filter { !known.contains($0) }.sorted().map {
                .surplus(tensor: $0, file: file.path)
            }
    }
}

// MARK: Elements

extension RowContainer {
    /// Reads all elements into memory and checks them.
    ///
    /// - Throws: `.model` with `.unfit` for values that make no sense, `.damaged` for others than
    ///   were written, and when the file changes.
    func contents() throws(GenerationError) -> Contents {
        let taps = try copy("taps")
        let multiplicities = try copy("mult").elements
        let codes = try copy("kind").values(as: UInt8.self)
        let grid = try copy("grid").values(as: Int32.self).map(Int.init)
        let digest: String
        do throws(CheckpointError) {
            digest = try file.dataDigest()
        } catch {
            throw .model(error)
        }
        let kinds = codes.compactMap(ConditioningRows.Kind.init(rawValue:))
        guard kinds.count == codes.count else {
            throw invalid("kind", "a number that stands for nothing", "1 to 5")
        }
        guard multiplicities.allSatisfy(Self.multiplicityRange.contains) else {
            throw invalid("mult", "a number out of range", "1e-6 to 1e6")
        }
        guard taps.isFinite else { throw invalid("taps", "NaN or infinity", "numbers") }
        guard kinds.contains(format == .prompt ? .text : .image) else {
            let subject = format == .prompt ? "text" : "picture"
            throw invalid("kind", "no row of a \(subject)", "one or more")
        }
        let images = kinds.count { $0 == .image }
        // Both fit 32 bits, so the product fits.
        let isPicture = grid.allSatisfy { $0 >= 0 } && grid[0] * grid[1] == images
        guard isPicture || format != .reference && grid == [0, 0] else {
            throw invalid("grid", "\(grid)", "sides for \(images) rows of a picture")
        }
        guard file.metadata["checksum"] == digest else {
            throw damaged("checksum", "\(digest), that of its data; is the file damaged?")
        }
        return Contents(
            kinds: kinds,
            multiplicities: multiplicities,
            taps: taps,
            grid: (grid[0], grid[1])
        )
    }

    private func copy(_ name: String) throws(GenerationError) -> Tensor {
        guard let view = file.tensor(name) else {
            throw .model(.unfit(path: path, problems: [.missing(tensor: name, file: path)]))
        }
        let copy = Tensor(
            Storage(byteCount: view.byteCount),
            byteOffset: 0,
            shape: view.shape,
            elementType: view.elementType
        )
        copy.copy(from: view)
        return copy
    }

    private func invalid(
        _ name: String,
        _ found: String,
        _ expected: String
    ) -> GenerationError {
        let problem = WeightProblem.invalid(
            tensor: name,
            file: path,
            found: found,
            expected: expected
        )
        return .model(.unfit(path: path, problems: [problem]))
    }
}

// MARK: Texts

extension RowContainer {
    /// What made the rows.
    func encoder() throws(GenerationError) -> EncoderIdentity {
        EncoderIdentity(
            family: try word("encoder_family"),
            digest: try word("encoder"),
            template: try word("template"),
            taps: shape[1],
            width: shape[2]
        )
    }

    /// A text that has to be there: a name or a number.
    func word(_ key: String) throws(GenerationError) -> String {
        let text = file.metadata[key] ?? ""
        guard Self.isWord(text) else { throw damaged(key, Self.wordRule) }
        return text
    }

    private static let wordRule = "up to 200 visible ASCII characters"

    private static func isWord(_ text: String) -> Bool {
        (1...200).contains(text.utf8.count) && text.utf8.allSatisfy { 0x21...0x7E ~= $0 }
    }

    /// A whole number that has to be there.
    func number(_ key: String, in range: ClosedRange<Int>) throws(GenerationError) -> Int {
        guard let number = file.metadata[key].flatMap({ Int($0) }), range.contains(number) else {
            throw damaged(key, "a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// A free text; nil where there is none.
    func text(_ key: String) throws(GenerationError) -> String? {
        guard let text = file.metadata[key] else { return nil }
        guard text.utf8.count <= Self.longestText else {
            throw damaged(key, "at most \(Self.longestText) bytes")
        }
        return text
    }

    private func damaged(_ key: String, _ expected: String) -> GenerationError {
        let found = file.metadata[key].map { "\(key) \"\($0.prefix(80))\"" } ?? "no \(key)"
        return .model(.damaged(path: path, tensor: nil, found: found, expected: expected))
    }
}

// MARK: Writing

extension RowContainer {
    /// Writes a file under a temporary name and moves it to `path` when it is complete.
    ///
    /// - Parameters:
    ///   - rows: With taps of the format's type.
    ///   - grid: Rows and columns of a picture's tokens; 0 for several pictures or none.
    ///   - encoder: What made the rows.
    ///   - words: What the format adds to the metadata, to be read as `word` or `number`.
    ///   - texts: The same, to be read as `text`; nil is left out.
    ///   - format: What it is.
    ///   - path: Where it goes; the folder exists.
    ///   - isOverwriting: Whether a file at `path` is replaced.
    ///   - isPrivate: Whether only the user may read the file.
    /// - Throws: `.request` for texts that would not be read, `.model` with `.exists` or
    ///   `.cannotWrite`.
    static func write(
        _ rows: ConditioningRows,
        grid: (rows: Int, columns: Int) = (0, 0),
        by encoder: EncoderIdentity,
        words: [String: String],
        texts: [String: String?] = [:],
        as format: Format,
        to path: String,
        overwriting isOverwriting: Bool,
        isPrivate: Bool = false
    ) throws(GenerationError) {
        precondition(rows.taps.elementType == format.elementType, "\(rows.taps.elementType)")
        var words = words
        words["format"] = format.rawValue
        words["version"] = version
        words["encoder"] = encoder.digest
        words["encoder_family"] = encoder.family
        words["template"] = encoder.template
        for (key, word) in words where !isWord(word) {
            throw .request("\(key) \"\(oneLine(word))\", expected \(wordRule)")
        }
        let texts = texts.compactMapValues(\.self)
        for (key, text) in texts where text.utf8.count > longestText {
            throw .request("\(key) of \(text.utf8.count) bytes, expected at most \(longestText)")
        }
        var writer = SafetensorsWriter(metadata: words.merging(texts) { word, _ in word })
        let count = rows.kinds.count
        writer.add("taps", rows.taps)
        writer.add("kind", rows.kinds.map(\.rawValue), as: .uint8, shape: [count])
        writer.add("mult", rows.multiplicities, as: .float32, shape: [count])
        let sides = [Int32(clamping: grid.rows), Int32(clamping: grid.columns)]
        writer.add("grid", sides, as: .int32, shape: [2])
        writer.metadata["checksum"] = writer.dataDigest
        do throws(CheckpointError) {
            try writer.write(to: path, overwriting: isOverwriting, isPrivate: isPrivate)
        } catch {
            throw .model(error)
        }
    }
}

extension ConditioningRows {
    /// The same rows as a file gives them back: rounded to bfloat16.
    ///
    /// Fresh rows are rounded, too, so that a picture does not depend on where they come from.
    ///
    /// - Throws: `.notFinite` where a value is too large for it.
    func rounded() throws(GenerationError) -> ConditioningRows {
        guard taps.elementType != .bfloat16 else { return self }
        let halves = Tensor(
            Storage(byteCount: 2 * taps.count),
            byteOffset: 0,
            shape: taps.shape,
            elementType: .bfloat16
        )
        guard narrow(taps, into: halves, threads: 1) else {
            throw .notFinite(stage: "text encoder", place: "taps in bfloat16")
        }
        return try ConditioningRows(
            key: key,
            taps: halves,
            kinds: kinds,
            multiplicities: multiplicities
        )
    }
}
