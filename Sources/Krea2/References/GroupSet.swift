import Checkpoints
import Compute
import Glibc
import Tensors

/// The groups of a run in a fixed order: equal rows are one member, and what cancels is not there.
///
/// So neither the order in a request nor splitting a strength changes a bit.
struct GroupSet {
    /// Rows that take part in a run.
    struct Member {
        /// One of the groups that it was made of; its own strength, window and blocks do not count.
        let group: ConditioningGroup
        /// Strengths other than 0, each with another window or other blocks.
        fileprivate(set) var uses: [Use]

        /// Rows that go to the transformer.
        var injectedRows: [Int] {
            let (kinds, injected) = (group.rows.kinds, group.injected)
            return kinds.indices.filter { injected.contains(kinds[$0]) }
        }
    }

    /// Where and how strongly a member acts.
    struct Use: Equatable {
        let window: ClosedRange<Double>
        let blocks: ClosedRange<Int>
        var strength: Float
    }

    /// One member as a step sees it.
    struct Active: Equatable {
        /// Place among the members.
        let member: Int
        /// In each block.
        let weights: [Float]
    }

    /// One evaluation with a member at strength 1.
    struct Term: Equatable {
        /// Factor of what it changes.
        let strength: Float
        let active: Active
    }

    let members: [Member]
    let mode: ConditioningGroup.Mode
    private let blockCount: Int

    /// Brings the groups of a request into order.
    ///
    /// - Parameters:
    ///   - groups: What a request wants.
    ///   - mode: How they act.
    ///   - config: Sizes of the model.
    /// - Throws: `.request` for values out of range, and for rows that do not fit the model.
    init(
        _ groups: [ConditioningGroup],
        _ mode: ConditioningGroup.Mode,
        _ config: TransformerConfig
    ) throws(GenerationError) {
        for group in groups { try group.validate(config) }
        var members: [Member] = []
        for group in groups.sorted(by: Self.precedes) {
            let use = Use(
                window: group.window,
                blocks: group.blocks ?? 0...config.blocks - 1,
                strength: group.strength
            )
            guard let last = members.last, last.group.hasSameRows(as: group) else {
                members.append(Member(group: group, uses: [use]))
                continue
            }
            guard last.group.rows == group.rows else {
                throw .request("two references \(oneLine(group.rows.key)) that differ")
            }
            let old = last.uses.firstIndex { ($0.window, $0.blocks) == (use.window, use.blocks) }
            if let old {
                members[members.count - 1].uses[old].strength += use.strength
            } else {
                members[members.count - 1].uses.append(use)
            }
        }
        for index in members.indices { members[index].uses.removeAll { $0.strength == 0 } }
        self.members = members.filter { !$0.uses.isEmpty }
        (self.mode, blockCount) = (mode, config.blocks)
    }

    /// An order in which groups of equal rows are next to each other.
    private static func precedes(_ a: ConditioningGroup, _ b: ConditioningGroup) -> Bool {
        func numbers(_ group: ConditioningGroup) -> [Double] {
            let kinds = group.injected.map { Double($0.rawValue) }.sorted()
            let gains = group.tapGains.map(Double.init)
            let blocks = group.blocks.map { [$0.lowerBound, $0.upperBound] } ?? []
            return [Double(group.family.rawValue), Double(group.mass), Double(kinds.count)] + kinds
                + [Double(gains.count)] + gains
                + [group.window.lowerBound, group.window.upperBound] + blocks.map(Double.init)
                // Strengths, too, so that sums are always the same.
                + [Double(group.strength)]
        }
        guard a.rows.key == b.rows.key else { return a.rows.key < b.rows.key }
        return numbers(a).lexicographicallyPrecedes(numbers(b))
    }
}

extension ConditioningGroup {
    /// Whether the transformer would see the same rows in the same way.
    fileprivate func hasSameRows(as other: ConditioningGroup) -> Bool {
        rows.key == other.rows.key && family == other.family && mass == other.mass
            && injected == other.injected && tapGains == other.tapGains
    }
}

// MARK: Steps

extension GroupSet {
    /// What acts in a step, in the order of sums.
    ///
    /// - Parameter sigma: Noise level at which the step begins.
    /// - Returns: Members that are seen in a block, with the sums of their strengths there.
    func active(sigma: Float) -> [Active] {
        members.indices.compactMap { index in
            let uses = members[index].uses.filter { $0.window.contains(Double(sigma)) }
            let weights = (0..<blockCount).map { block in
                uses.reduce(Float(0)) { $0 + ($1.blocks.contains(block) ? $1.strength : 0) }
            }
            guard weights.contains(where: { $0 != 0 }) else { return nil }
            return Active(member: index, weights: weights)
        }
    }

    /// What acts in a step, one by one.
    func terms(sigma: Float) -> [Term] {
        members.indices.flatMap { index in
            var uses: [Use] = []
            for use in members[index].uses where use.window.contains(Double(sigma)) {
                if let old = uses.firstIndex(where: { $0.blocks == use.blocks }) {
                    uses[old].strength += use.strength
                } else {
                    uses.append(use)
                }
            }
            return uses.filter { $0.strength != 0 }.map { use in
                let weights = (0..<blockCount).map { use.blocks.contains($0) ? Float(1) : 0 }
                return Term(
                    strength: use.strength,
                    active: Active(member: index, weights: weights)
                )
            }
        }
    }
}

// MARK: Sizes

extension GroupSet {
    /// Sizes of one member.
    struct Sizes: Equatable {
        /// Rows that go through text fusion together, part by part.
        let fusedTokens: [Int]
        /// Rows that the transformer sees.
        let tokens: Int
        /// In how many evaluations of a step, on average.
        let evaluations: Double
    }

    /// Sizes of all members.
    ///
    /// - Parameter schedule: The steps.
    /// - Returns: One for each member.
    func sizes(_ schedule: Schedule) -> [Sizes] {
        let steps = schedule.sigmas.dropLast()
        let acting = steps.flatMap { sigma in
            switch mode {
            case .attention: active(sigma: sigma).map(\.member)
            case .exact: terms(sigma: sigma).map(\.active.member)
            }
        }
        return members.enumerated().map { index, member in
            Sizes(
                fusedTokens: member.group.rows.parts.map(\.count),
                tokens: member.injectedRows.count,
                evaluations: Double(acting.count { $0 == index }) / Double(steps.count)
            )
        }
    }

    /// Bytes of the members' taps.
    var byteCount: Int { members.reduce(0) { $0 + $1.group.rows.byteCount } }
}

// MARK: Rows

extension GroupSet.Member {
    /// Copies the taps of some rows, times their gains.
    ///
    /// - Parameters:
    ///   - rows: Which rows.
    ///   - target: `[rows, taps, width]`, float32.
    func copyTaps(of rows: Range<Int>, to target: Tensor) {
        target.copy(from: converted(group.rows.taps.rows(rows)))
        guard !group.tapGains.isEmpty else { return }
        for row in 0..<target.rows {
            for (tap, gain) in group.tapGains.enumerated() {
                let values = target.row(row).row(tap)
                values.write(values.elements.map { gain * $0 })
            }
        }
    }

    /// Logarithms of how many rows each one stands for, of some rows; nil where it is 1 everywhere.
    func keyLogs(of rows: [Int]) -> Tensor? {
        let counts = rows.map { group.rows.multiplicities[$0] }
        guard counts.contains(where: { $0 != 1 }) else { return nil }
        return Tensor(counts.map { logf($0) }, shape: [counts.count])
    }

    /// Logarithm of what brings the injected rows to the group's mass.
    var logMass: Float {
        let count = injectedRows.reduce(Float(0)) { $0 + group.rows.multiplicities[$1] }
        return logf(group.mass / count)
    }
}
