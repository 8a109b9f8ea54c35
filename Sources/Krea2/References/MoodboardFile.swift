import Checkpoints
import Compute

/// The look of several pictures as the transformer is to see it: what a `.k2board` file holds.
///
/// All pictures together count as much as one reference. A moodboard of one picture has the rows, and
/// the key, of a reference to it, however many these are.
public struct MoodboardFile: Sendable, Equatable {
    /// What it was made of: the only picture, or a digest of the names of all pictures' contents, and
    /// how they were prepared.
    public let source: ReferenceFile.Source
    /// Pictures of different content that it was made of.
    public let pictureCount: Int
    /// What encoded the pictures.
    public let encoder: EncoderIdentity
    /// What goes beside a prompt.
    public let rows: ConditioningRows
    /// A description of the look, in words; nil for none.
    public var profile: String?
    /// Words for what is to be in every picture.
    public var keywords: [String] = []
    /// Words for what is to be avoided.
    public var avoids: [String] = []
    /// Who or what made the file; nil where it does not say.
    public var creator: String?

    private let grid: (rows: Int, columns: Int)

    /// Pictures that it can be made of.
    public static let pictureCounts = 1...200
    /// Side at which its pictures are encoded.
    public static let side = 256

    /// Makes a moodboard.
    ///
    /// Neither the order of the pictures matters nor whether one of them is there twice.
    ///
    /// - Parameters:
    ///   - pictures: Encoded by the same encoder at the same side, prepared in the same way.
    ///   - projector: Weight of each tap in text fusion.
    ///   - threads: Threads to compute with, 1 or more.
    /// - Throws: `.request` when there are too many or too few, or they do not fit together.
    public init(
        _ pictures: [ReferenceFile],
        projector: [Float],
        threads: Int
    ) throws(GenerationError) {
        var contents: Set<String> = []
        let distinct = pictures.sorted { $0.source.content < $1.source.content }
            .filter { contents.insert($0.source.content).inserted }
        guard let first = distinct.first, Self.pictureCounts.contains(distinct.count) else {
            throw .request("a moodboard of \(distinct.count) pictures, expected 1 to 200")
        }
        let (treatment, side) = (first.source.treatment, first.source.side)
        guard
            pictures.allSatisfy({
                ($0.source.treatment, $0.source.side, $0.encoder)
                    == (treatment, side, first.encoder)
            })
        else { throw .request("the moodboard's pictures were not encoded in the same way") }
        let names = distinct.map(\.source.content).joined(separator: "\n")
        source =
            distinct.count == 1
            ? first.source
            : ReferenceFile.Source(
                content: "pictures-sha256:" + hexDigest(of: [Array(names.utf8)]),
                treatment: treatment,
                side: side
            )
        grid = distinct.count == 1 ? (first.gridRows, first.gridColumns) : (0, 0)
        (pictureCount, encoder) = (distinct.count, first.encoder)
        guard threads > 0 else { throw .request("\(threads) threads, expected 1 or more") }
        let prototypes = try Prototypes(
            distinct.map(\.rows),
            projector: projector,
            most: distinct.count > 1 ? Prototypes.most : .max,
            Operators(kernels: try Engine.kernels(), threads: threads)
        )
        rows = try ConditioningRows(
            key: source.key(encoder),
            taps: prototypes.taps,
            kinds: prototypes.kinds,
            multiplicities: prototypes.multiplicities
        )
    }

    /// Whether both have the same pictures, rows and words.
    public static func == (a: MoodboardFile, b: MoodboardFile) -> Bool {
        (a.source, a.pictureCount, a.encoder, a.rows) == (
            b.source, b.pictureCount, b.encoder, b.rows
        )
            && (a.profile, a.keywords, a.avoids, a.creator)
                == (b.profile, b.keywords, b.avoids, b.creator)
    }
}

// MARK: Files

extension MoodboardFile {
    /// Reads a file; all of it is checked.
    ///
    /// - Parameters:
    ///   - path: A `.k2board` file.
    ///   - encoder: The model's text encoder, which the rows are for.
    ///   - isLenient: Whether rows by other files of the same encoder will do.
    /// - Throws: `.model` for a file that is missing or damaged, `.reference` for one of another
    ///   format, version or encoder.
    public init(
        path: String,
        for encoder: EncoderIdentity,
        isLenient: Bool = false
    ) throws(GenerationError) {
        let container = try RowContainer(path: path, .moodboard)
        self.encoder = try container.encoder()
        try encoder.check(self.encoder, path: path, isLenient: isLenient)
        source = try ReferenceFile.Source(container)
        pictureCount = try container.number("pictures", in: Self.pictureCounts)
        profile = try container.text("profile")
        keywords = try container.text("keywords").map(Self.words) ?? []
        avoids = try container.text("avoids").map(Self.words) ?? []
        creator = try container.text("creator")
        let contents = try container.contents()
        grid = contents.grid
        rows = try contents.rows(key: source.key(self.encoder))
    }

    /// Writes a file under a temporary name and moves it to `path` when it is complete.
    ///
    /// - Parameters:
    ///   - path: Where it goes; the folder exists.
    ///   - isOverwriting: Whether a file at `path` is replaced.
    /// - Throws: `.model` with `.exists` or `.cannotWrite`, `.request` for names or texts that would
    ///   not be read.
    public func write(to path: String, overwriting isOverwriting: Bool) throws(GenerationError) {
        try RowContainer.write(
            rows,
            grid: grid,
            by: encoder,
            words: source.words.merging(["pictures": "\(pictureCount)"]) { word, _ in word },
            texts: [
                "profile": profile, "creator": creator,
                "keywords": keywords.isEmpty ? nil : keywords.joined(separator: "\n"),
                "avoids": avoids.isEmpty ? nil : avoids.joined(separator: "\n"),
            ],
            as: .moodboard,
            to: path,
            overwriting: isOverwriting
        )
    }

    /// The words of a text that has one in each line.
    private static func words(_ text: String) -> [String] {
        text.split(separator: "\n").map(String.init)
    }
}
