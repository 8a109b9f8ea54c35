import Checkpoints
import Compute
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// Moodboards: many pictures' rows, brought down to few.
struct MoodboardTests {
    private let folder: TemporaryFolder
    private var fixture = ReferenceFixture()
    private let projector: [Float] = [0.5, -1, 0.25]

    init() throws {
        folder = try TemporaryFolder()
    }

    private func board(_ pictures: [ReferenceFile], threads: Int = 1) throws -> MoodboardFile {
        try MoodboardFile(pictures, projector: projector, threads: threads)
    }

    private mutating func pictures(_ count: Int, rows: Int = 2, columns: Int = 3) throws
        -> [ReferenceFile]
    {
        try (0..<count).map {
            try fixture.reference("pixels-sha256:\(1000 + $0)", rows: rows, columns: columns)
        }
    }

    /// Whether both have the same rows, bit by bit.
    private func same(_ a: ConditioningRows, _ b: ConditioningRows) -> Bool {
        a == b && a.bits == b.bits
    }

    // MARK: Identities

    @Test mutating func onePictureIsAReference() throws {
        let picture = try fixture.reference(rows: 8, columns: 8)
        let board = try board([picture])
        #expect(same(board.rows, picture.rows))
        #expect(board.source == picture.source && board.pictureCount == 1)
        // Also one of more rows than several pictures would keep.
        let large = try fixture.reference(rows: 18, columns: 16, side: 768)
        #expect(try same(self.board([large]).rows, large.rows))
    }

    @Test mutating func copiesAndOrderDoNotMatter() throws {
        let pictures = try pictures(9, rows: 8, columns: 8)
        let board = try board(pictures)
        #expect(board.rows.kinds.count { $0 == .image } == 256)
        let others: [[ReferenceFile]] = [
            pictures.reversed(), pictures + pictures, pictures.shuffled(using: &fixture.random),
        ]
        for other in others {
            #expect(try same(self.board(other).rows, board.rows))
        }
        #expect(try same(self.board(pictures, threads: 2).rows, board.rows))
        #expect(try !same(self.board(Array(pictures.dropFirst())).rows, board.rows))
        let one = [ReferenceFile](repeating: pictures[3], count: 40)
        #expect(try same(self.board(one).rows, pictures[3].rows))
    }

    @Test mutating func fewRowsStayAsTheyAre() throws {
        let pictures = try [
            fixture.reference("b", rows: 2, columns: 2),
            fixture.reference("a", rows: 1, columns: 4),
            fixture.reference("c", rows: 2, columns: 1),
        ]
        let board = try board(pictures)
        let ordered = [pictures[1], pictures[0], pictures[2]]
        let images = ordered.flatMap { picture in
            let count = picture.rows.kinds.count { $0 == .image }
            return Array(picture.rows.bits[24..<24 * (1 + count)])
        }
        #expect(board.rows.kinds == ReferenceFixture.kinds(10))
        #expect(Array(board.rows.bits[24..<24 * 11]) == images)
        // Each picture counts as much as any other: 10 / (3 · 4) a row, and 10 / (3 · 2).
        let counts = board.rows.multiplicities
        #expect(counts[0] == 1 && counts.suffix(6).allSatisfy { $0 == 1 })
        #expect(largestDifference(Array(counts[1...8]), .init(repeating: 10 / 12, count: 8)) < 1e-6)
        #expect(largestDifference(Array(counts[9...10]), [10 / 6, 10 / 6]) < 1e-6)
    }

    @Test mutating func pictureOfOneSizeCountOnceEach() throws {
        let board = try board(pictures(4))
        #expect(board.rows.multiplicities == .init(repeating: 1, count: 4 * 6 + 7))
    }

    @Test mutating func theRowsAroundPicturesAreTheirMean() throws {
        let pictures = try pictures(3)
        let rows = try board(pictures).rows
        let mean = { (index: Int, places: [Int]) in
            let values = zip(pictures, places).map { picture, place in
                converted(picture.rows.taps.row(place)).elements[index]
            }
            return values.reduce(0, +) / 3
        }
        let (start, end) = (
            converted(rows.taps.row(0)), converted(rows.taps.row(rows.kinds.count - 1))
        )
        for index in 0..<24 {
            #expect(abs(start.elements[index] - mean(index, [0, 0, 0])) < 0.01)
            #expect(abs(end.elements[index] - mean(index, [12, 12, 12])) < 0.01)
        }
    }

    // MARK: Merging

    @Test mutating func manyPicturesKeepToTheBudget() throws {
        let board = try board(pictures(40, rows: 8, columns: 8))
        let rows = board.rows
        #expect(rows.kinds == ReferenceFixture.kinds(256))
        let masses = rows.multiplicities[1...256].map { Double($0) / (40 * 64) }
        #expect(abs(masses.reduce(0, +) - 1) < 1e-5)
        #expect(masses.allSatisfy { $0 > 0 })
        #expect(rows.multiplicities[0] == 1 && rows.multiplicities[262] == 1)
    }

    /// Each picture has rows of a direction of its own, so each becomes one prototype.
    @Test mutating func everyPictureHasTheSameMass() throws {
        let shapes = [(1, 1), (2, 3), (8, 8), (3, 1), (4, 5)]
        let files = try shapes.enumerated().map { index, shape in
            let kinds = ReferenceFixture.kinds(shape.0 * shape.1)
            var values = Tensor.random([kinds.count, 3, 8], &fixture.random).elements
            for i in values.indices {
                values[i] = i % 8 == index ? 5 + values[i] / 2 : values[i] / 50
            }
            return try fixture.reference(
                "\(index)",
                taps: Tensor(values, shape: [kinds.count, 3, 8]),
                rows: shape.0,
                columns: shape.1
            )
        }
        let found = try Prototypes(
            files.map(\.rows),
            projector: [1, 1, 1],
            most: 5,
            Operators(threads: 1)
        )
        let counts = found.multiplicities[1...5]
        // 94 rows in all.
        #expect(counts.allSatisfy { abs($0 - 94 / 5) < 1e-4 }, "\(counts)")
    }

    @Test mutating func equalRowsBecomeOneOfTheirMass() throws {
        let single = try pictures(3, rows: 1, columns: 5)
        // The same rows, four times each.
        let files = try single.enumerated().map { index, picture in
            let taps = converted(picture.rows.taps)
            let rows = [0] + (1...5).flatMap { [$0, $0, $0, $0] } + [6, 7, 8, 9, 10, 11]
            let values = rows.flatMap { taps.row($0).elements }
            return try fixture.reference(
                "\(index)",
                taps: Tensor(values, shape: [rows.count, 3, 8]),
                rows: 4,
                columns: 5
            )
        }
        let found = try Prototypes(
            files.map(\.rows),
            projector: projector,
            most: 50,
            Operators(threads: 1)
        )
        #expect(found.kinds == ReferenceFixture.kinds(15))
        #expect(found.multiplicities[1...15].allSatisfy { abs($0 - 4) < 1e-5 })
        let bits = { (taps: Tensor, row: Int) in
            Array(taps.values(as: UInt16.self)[24 * row..<24 * (row + 1)])
        }
        let merged = Set((1...15).map { bits(found.taps, $0) })
        let originals = Set(single.flatMap { file in (1...5).map { bits(file.rows.taps, $0) } })
        #expect(merged == originals)
    }

    /// The rule again, in float64 and plain loops.
    @Test(arguments: [3, 10, 40])
    mutating func agreesWithPlainLoops(_ most: Int) throws {
        let files = try pictures(5, rows: 3, columns: 4)
        let found = try Prototypes(
            files.map(\.rows),
            projector: projector,
            most: most,
            Operators(threads: 1)
        )
        let plain = PlainPrototypes(files.map(\.rows), projector.map(Double.init), most: most)
        #expect(plain.masses.count == most)
        let taps = converted(found.taps).rows(1..<most + 1).elements
        let error = relativeError(taps, plain.rows.flatMap { $0.map { Float($0) } })
        // Bfloat16 rounds to 8 bits: 2^-9 at most; 0.0017 was seen.
        #expect(error < 0.003, "\(error)")
        let masses = plain.masses.map { Float($0 * 60) }
        #expect(relativeError(Array(found.multiplicities[1...most]), masses) < 1e-5)
    }

    // MARK: Files

    @Test mutating func keepsEveryBit() throws {
        var board = try board(pictures(6, rows: 8, columns: 8))
        board.profile = "calm,\nwide"
        board.keywords = ["fog, mist", "\"quoted\""]
        board.avoids = ["neon"]
        board.creator = "somebody"
        let path = folder.file("a.k2board")
        try board.write(to: path, overwriting: false)
        let found = try MoodboardFile(path: path, for: ReferenceFixture.encoder)
        #expect(found == board)
        #expect(found.rows.bits == board.rows.bits)
        #expect(throws: GenerationError.model(.exists(path: path))) {
            try board.write(to: path, overwriting: false)
        }
        let parts = try RowParts(path)
        #expect(
            Set(parts.metadata.keys) == [
                "format", "version", "encoder", "encoder_family", "template", "content", "prep",
                "side", "pictures", "profile", "keywords", "avoids", "creator", "checksum",
            ]
        )
        #expect(parts.metadata["format"] == "k2board" && parts.metadata["pictures"] == "6")
    }

    @Test mutating func aBoardIsNoReference() throws {
        let board = try board(pictures(2))
        let path = folder.file("a")
        try board.write(to: path, overwriting: false)
        let other = GenerationError.reference(
            .otherFormat(path: path, found: "k2board", expected: "k2ref")
        )
        #expect(throws: other) { try ReferenceFile(path: path, for: ReferenceFixture.encoder) }
        for grid in [[-1, -12], [1, 2], [0, 9], [.max, .max]] as [[Int32]] {
            var parts = try RowParts(path)
            parts.setIntegers("grid", grid)
            try parts.write(to: folder.file("b"))
            let error = #expect(throws: GenerationError.self) {
                try MoodboardFile(path: folder.file("b"), for: ReferenceFixture.encoder)
            }
            #expect(error?.description.contains("grid") == true)
        }
        for pictures in ["0", "201", "two", nil] {
            var parts = try RowParts(path)
            parts.metadata["pictures"] = pictures
            try parts.write(to: folder.file("b"))
            let error = #expect(throws: GenerationError.self) {
                try MoodboardFile(path: folder.file("b"), for: ReferenceFixture.encoder)
            }
            #expect(error?.category == .unfitFile)
        }
    }

    @Test mutating func refusesWhatDoesNotFitTogether() throws {
        let one = try fixture.reference("a")
        let others = try [
            fixture.reference("b", treatment: "tiles"), fixture.reference("b", side: 384),
            fixture.reference(
                "b",
                encoder: EncoderIdentity(
                    family: "qwen3-vl-test",
                    digest: "sha256:9",
                    template: "sha256:4567",
                    taps: 3,
                    width: 8
                )
            ),
        ]
        for other in others {
            let error = #expect(throws: GenerationError.self) { try board([one, other]) }
            #expect(error?.category == .request)
        }
        #expect(throws: GenerationError.self) { try board([]) }
        let many = try pictures(201, rows: 1, columns: 1)
        #expect(throws: GenerationError.self) { try board(many) }
        #expect(try board(Array(many.dropLast())).pictureCount == 200)
        #expect(throws: GenerationError.self) {
            try MoodboardFile([one], projector: [1, 2], threads: 1)
        }
    }
}

/// The reduction in float64: directions, farthest-point start, three rounds of Lloyd's algorithm.
private struct PlainPrototypes {
    private(set) var rows: [[Double]] = []
    private(set) var masses: [Double] = []

    init(_ pictures: [ConditioningRows], _ projector: [Double], most: Int) {
        var all: [[Double]] = []
        var weights: [Double] = []
        for picture in pictures {
            let images = picture.kinds.indices.filter { picture.kinds[$0] == .image }
            for row in images {
                all.append(converted(picture.taps.row(row)).elements.map(Double.init))
                weights.append(1 / Double(pictures.count * images.count))
            }
        }
        let (taps, width) = (projector.count, all[0].count / projector.count)
        let sizes = (0..<taps).map { tap in
            let values = all.flatMap { $0[tap * width..<(tap + 1) * width] }
            return (values.reduce(0) { $0 + $1 * $1 } / Double(values.count)).squareRoot()
        }
        let x = all.map { row in
            let sum = (0..<width).map { column in
                (0..<taps).reduce(0.0) { $0 + projector[$1] * row[$1 * width + column] / sizes[$1] }
            }
            let length = sum.reduce(0) { $0 + $1 * $1 }.squareRoot()
            return sum.map { $0 / length }
        }
        func distance(_ a: [Double], _ b: [Double]) -> Double {
            zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
        }
        func mean(_ members: [Int], of values: [[Double]]) -> [Double] {
            let mass = members.reduce(0) { $0 + weights[$1] }
            return values[0].indices.map { column in
                members.reduce(0) { $0 + weights[$1] * values[$1][column] } / mass
            }
        }
        let center = mean(Array(x.indices), of: x)
        var seeds = [x.indices.min { distance(x[$0], center) < distance(x[$1], center) } ?? 0]
        while seeds.count < most {
            let far = x.indices.map { row in seeds.map { distance(x[row], x[$0]) }.min() ?? 0 }
            seeds.append(far.indices.max { far[$0] < far[$1] } ?? 0)
        }
        var centers = seeds.map { x[$0] }
        var clusters: [[Int]] = []
        for _ in 0..<3 {
            clusters = centers.map { _ in [] }
            for row in x.indices {
                let nearest = centers.indices.min {
                    distance(x[row], centers[$0]) < distance(x[row], centers[$1])
                }
                clusters[nearest ?? 0].append(row)
            }
            for (index, members) in clusters.enumerated() where !members.isEmpty {
                centers[index] = mean(members, of: x)
            }
        }
        for members in clusters where !members.isEmpty {
            rows.append(mean(members, of: all))
            masses.append(members.reduce(0) { $0 + weights[$1] })
        }
    }
}
