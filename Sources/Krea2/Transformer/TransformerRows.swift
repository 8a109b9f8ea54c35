import Compute
import Tensors

/// Where a token stands on the three axes that the transformer's rotary embedding knows.
struct RotaryPosition: Equatable, Sendable {
    /// 0 for text and the image; other pictures have numbers of their own.
    var frame = 0.0
    var row = 0.0
    var column = 0.0

    /// Text, which has no position.
    static func text(tokens: Int) -> [RotaryPosition] {
        [RotaryPosition](repeating: RotaryPosition(), count: tokens)
    }

    /// A grid of tokens, row by row, whose first one stands at `origin`.
    static func grid(
        height: Int,
        width: Int,
        from origin: RotaryPosition = RotaryPosition()
    ) -> [RotaryPosition] {
        (0..<height).flatMap { row in
            (0..<width).map { column in
                RotaryPosition(
                    frame: origin.frame,
                    row: origin.row + Double(row),
                    column: origin.column + Double(column)
                )
            }
        }
    }
}

/// A clean latent whose tokens stand beside those of the image, as rows with a place and a time of
/// their own.
struct LatentRows {
    /// Packed: `[tokens, tokenWidth]`.
    let tokens: Tensor
    /// Angles of the tokens.
    let rotary: RotaryTable
    /// Whether they are modulated with time 0, at which latents are clean, and not with the image's.
    let isStill: Bool
    /// Logarithm of how often each of them counts where image rows attend to it.
    let logBoost: Float
}

/// Rows that a branch's text and image rows see beside each other, with a weight.
struct BranchGroup {
    /// The group after text fusion: `[rows, width]`.
    let rows: Tensor
    /// A latent whose tokens belong to the group, behind its rows.
    var latent: LatentRows?
    /// How often each row counts where the group attends to itself: `[rows]`; nil for once, and
    /// with a latent.
    let keyLogs: Tensor?
    /// Logarithm of what the rows' exponentials are multiplied by where others attend to them.
    let logMass: Float
    /// What is limited together.
    let family: ConditioningGroup.Family
    /// Weight in each block; 0 where nobody sees the group.
    let weights: [Float]

    /// Whether a block after this one sees what this one makes of the group.
    func isSeen(after block: Int) -> Bool { weights.dropFirst(block + 1).contains { $0 != 0 } }
}

/// Where the rows of an evaluation lie: the branches' text rows, image rows and latents, branch after
/// branch, then the rows of their groups.
///
/// Where a row stands is said by its rotary angles; its place among the rows has no meaning.
struct TransformerRows {
    /// Text and image rows and latents of each branch.
    let sequences: [Range<Int>]
    /// Image rows of each branch.
    let images: [Range<Int>]
    /// Latents in sequences and in groups, and their places.
    let latents: [(latent: LatentRows, place: Range<Int>)]
    /// How often keys of a sequence count for its image rows; nil where it is once for each.
    private let imageLogs: [Tensor?]
    /// Groups of each branch.
    private let groups: [[PlacedGroup]]
    /// All rows.
    let count: Int

    /// Places the rows.
    ///
    /// - Parameters:
    ///   - branches: Text rows, latents and groups of each branch.
    ///   - imageTokens: Image rows of each.
    init(_ branches: [TransformerBranch], imageTokens: Int) {
        var (sequences, images, end): ([Range<Int>], [Range<Int>], Int) = ([], [], 0)
        var (imageLogs, latents): ([Tensor?], [(latent: LatentRows, place: Range<Int>)]) = ([], [])
        func place(_ latent: LatentRows) {
            latents.append((latent, end..<end + latent.tokens.rows))
            end += latent.tokens.rows
        }
        for branch in branches {
            let (start, middle) = (end, end + branch.text.rows)
            images.append(middle..<middle + imageTokens)
            end = middle + imageTokens
            branch.latents.forEach(place)
            sequences.append(start..<end)
            imageLogs.append(
                Self.keyLogs(plain: branch.text.rows + imageTokens, branch.latents)
            )
        }
        var groups: [[PlacedGroup]] = []
        for branch in branches {
            groups.append([])
            for group in branch.groups {
                precondition(group.latent == nil || group.keyLogs == nil)
                let start = end
                end += group.rows.rows
                if let latent = group.latent { place(latent) }
                let logs = group.latent.flatMap { Self.keyLogs(plain: group.rows.rows, [$0]) }
                groups[groups.count - 1].append(
                    PlacedGroup(
                        rows: start..<end,
                        group: group,
                        imageLogs: logs ?? group.keyLogs
                    )
                )
            }
        }
        (self.sequences, self.images, self.groups, count) = (sequences, images, groups, end)
        (self.imageLogs, self.latents) = (imageLogs, latents)
    }

    /// How often keys count for image rows: some of them once, and then latents.
    private static func keyLogs(plain: Int, _ latents: [LatentRows]) -> Tensor? {
        guard latents.contains(where: { $0.logBoost != 0 }) else { return nil }
        let logs = latents.flatMap { [Float](repeating: $0.logBoost, count: $0.tokens.rows) }
        return Tensor([Float](repeating: 0, count: plain) + logs, shape: [plain + logs.count])
    }

    /// Whether some rows are modulated with time 0.
    var hasStillRows: Bool { latents.contains { $0.latent.isStill } }

    /// What modulates the rows: time 1 of an evaluation those of clean latents, time 0 all others.
    private var times: [TimedRows] {
        var times: [TimedRows] = []
        func add(_ rows: Range<Int>, _ time: Int) {
            guard let last = times.last, last.time == time else {
                if !rows.isEmpty { times.append(TimedRows(rows: rows, time: time)) }
                return
            }
            let joined = last.rows.lowerBound..<rows.upperBound
            times[times.count - 1] = TimedRows(rows: joined, time: time)
        }
        var end = 0
        for (latent, place) in latents where latent.isStill {
            add(end..<place.lowerBound, 0)
            add(place, 1)
            end = place.upperBound
        }
        add(end..<count, 0)
        return times
    }

    /// Copies the groups' rows to their places in the residual stream: `[count, width]`.
    func copyGroups(to x: Tensor) {
        for place in groups.joined() {
            let (first, rows) = (place.rows.lowerBound, place.group.rows)
            x.rows(first..<first + rows.rows).copy(from: rows)
        }
    }

    /// What attends to what in a block.
    ///
    /// - Parameters:
    ///   - index: Number of the block.
    ///   - wantsText: Whether anybody reads what the block makes of the text rows and latents.
    ///   - rotary: Angles of all rows, or of more.
    /// - Returns: The rows; groups that nobody sees any more are not wanted.
    func block(_ index: Int, wantsText: Bool, rotary: RotaryTable) -> BlockRows {
        let all = sequences.indices.map { branch in
            let own = groups[branch].filter { $0.group.isSeen(after: index) }.map {
                let keys = AttentionGroup(keys: $0.rows, weight: 1, keyLogs: $0.group.keyLogs)
                return AttentionSpan($0.rows, families: [AttentionFamily([keys])])
            }
            let spans = queries(branch, wantsText: wantsText).map { rows in
                let isImage = rows == images[branch]
                return AttentionSpan(
                    rows,
                    families: families(groups[branch], index, isImage: isImage),
                    keyLogs: isImage ? imageLogs[branch] : nil
                )
            }
            return BlockSequence(sequences[branch], spans: spans + own)
        }
        return BlockRows(all, rotary: rotary, times: times)
    }

    /// Wanted rows of a sequence, those of the image apart where other keys count for them.
    private func queries(_ branch: Int, wantsText: Bool) -> [Range<Int>] {
        let (all, image) = (sequences[branch], images[branch])
        guard wantsText else { return [image] }
        let isBoosted = imageLogs[branch] != nil || groups[branch].contains(where: \.isBoosted)
        guard isBoosted else { return [all] }
        return [all.lowerBound..<image.lowerBound, image, image.upperBound..<all.upperBound]
            .filter { !$0.isEmpty }
    }

    /// The groups that text and image rows see in a block.
    private func families(
        _ groups: [PlacedGroup],
        _ block: Int,
        isImage: Bool
    ) -> [AttentionFamily] {
        ConditioningGroup.Family.allCases.compactMap { family in
            let seen = groups.filter { $0.group.family == family && $0.group.weights[block] != 0 }
            guard !seen.isEmpty else { return nil }
            return AttentionFamily(
                seen.map {
                    AttentionGroup(
                        keys: $0.rows,
                        weight: $0.group.weights[block],
                        logMass: $0.group.logMass,
                        keyLogs: isImage ? $0.imageLogs : $0.group.keyLogs
                    )
                }
            )
        }
    }
}

/// A group with its place.
private struct PlacedGroup {
    let rows: Range<Int>
    let group: BranchGroup
    /// How often its keys count for image rows; nil for once.
    let imageLogs: Tensor?

    /// Whether they count differently for other rows.
    var isBoosted: Bool { group.latent != nil && imageLogs != nil }
}
