/// The merges of a byte-level BPE tokenizer.
struct BytePairMerges: Sendable {
    /// What becomes of a pair of neighbouring tokens.
    private struct Merge {
        /// Position in the file: lower goes first.
        let rank: Int
        /// The token both become.
        let id: Int32
    }

    private let merges: [Pair: Merge]

    /// Qwen's list has 151,387 merges.
    private static let mergeLimit = 1 << 20

    /// Two neighbouring tokens.
    private struct Pair: Hashable {
        let left: Int32
        let right: Int32
    }

    /// Checks the merges of a file and finds the ids of their tokens.
    ///
    /// - Parameters:
    ///   - pairs: Tokens to merge, most urgent first.
    ///   - vocabulary: Where the ids come from.
    ///   - path: The file, for messages.
    /// - Throws: `tooLarge`, `unknownMergeToken`, `duplicateMerge`.
    init(
        _ pairs: [TokenPair],
        vocabulary: Vocabulary,
        path: String
    ) throws(TokenizerError) {
        guard pairs.count <= Self.mergeLimit else {
            throw .tooLarge(
                path: path,
                what: "merges",
                count: pairs.count,
                limit: Self.mergeLimit
            )
        }
        var merges: [Pair: Merge] = [:]
        merges.reserveCapacity(pairs.count)
        for (rank, pair) in pairs.enumerated() {
            func id(_ token: String) throws(TokenizerError) -> Int32 {
                guard let id = vocabulary.ids[token] else {
                    throw .unknownMergeToken(path: path, token: token, merge: rank + 1)
                }
                return id
            }
            let key = Pair(left: try id(pair.left), right: try id(pair.right))
            let merge = Merge(rank: rank, id: try id(pair.left + pair.right))
            guard merges.updateValue(merge, forKey: key) == nil else {
                throw .duplicateMerge(
                    path: path,
                    left: pair.left,
                    right: pair.right,
                    merge: rank + 1
                )
            }
        }
        self.merges = merges
    }

    /// Merges the tokens of one word until no two neighbours can be merged.
    ///
    /// The pair of lowest rank goes first, the leftmost of equal ones; this is what the `tokenizers`
    /// library does. Where every merge ranks behind those that make its parts, as in any trained
    /// list, it is the same as merging all occurrences of the lowest pair at once. A queue of
    /// candidates keeps the cost at n log n.
    ///
    /// - Parameter tokens: Ids of the word's bytes; replaced by those of its tokens.
    func apply(to tokens: inout [Int32]) {
        guard tokens.count > 1 else { return }
        // Tokens stay at the position of their first byte, linked to their neighbours. One that was
        // merged into its left neighbour becomes −1, which no pair contains.
        let end = tokens.count
        var next = Array(1...end)
        var previous = Array(-1..<end - 1)
        var candidates = MinHeap<Candidate>()
        func mergeOfPair(at left: Int) -> Merge? {
            let right = next[left]
            return right < end ? merges[Pair(left: tokens[left], right: tokens[right])] : nil
        }
        func addCandidate(at left: Int) {
            guard let merge = mergeOfPair(at: left) else { return }
            candidates.insert(Candidate(rank: merge.rank, position: left))
        }

        for position in 0..<end - 1 { addCandidate(at: position) }
        while let candidate = candidates.popFirst() {
            // A candidate is stale when one of its tokens was merged meanwhile.
            let left = candidate.position
            guard let merge = mergeOfPair(at: left), merge.rank == candidate.rank else { continue }

            let right = next[left]
            tokens[left] = merge.id
            tokens[right] = -1
            next[left] = next[right]
            if next[left] < end { previous[next[left]] = left }

            if previous[left] >= 0 { addCandidate(at: previous[left]) }
            addCandidate(at: left)
        }
        tokens.removeAll { $0 < 0 }
    }
}

/// A pair that can be merged, the more urgent the smaller.
private struct Candidate: Comparable {
    /// Rank of the pair's merge.
    let rank: Int
    /// Position of the pair's left token.
    let position: Int

    static func < (a: Candidate, b: Candidate) -> Bool {
        (a.rank, a.position) < (b.rank, b.position)
    }
}
