import TestSupport
import Tensors
import Testing

@testable import Compute

/// Low-rank and other changes that are added while a layer computes.
struct LinearUpdateTests {
    /// Sums of float32 in another order; observed at most 8e-7.
    static let limit = 3e-6

    /// Sizes of a layer: several tiles and panels, none of them whole; both have divisors.
    static let (outputs, inputs) = (300, 24)

    /// Every kind of difference, in every form that it is computed in.
    enum Kind: String, CaseIterable {
        case lowRank, lowRankOfHighRank, hadamard, hadamardOfHighRank
        case kroneckerOfLowRank, kronecker, kroneckerPart, smallKronecker, kroneckerOfProducts
        case difference

        /// The form that its sizes lead to.
        var form: WeightDifference.Form {
            switch self {
            case .lowRank: .factors(rank: 5)
            case .hadamard: .factors(rank: 12)
            case .kroneckerOfLowRank: .factors(rank: 3)
            case .kroneckerOfProducts: .factors(rank: 2)
            case .kronecker, .kroneckerPart: .blocks
            case .lowRankOfHighRank, .hadamardOfHighRank, .smallKronecker, .difference: .dense
            }
        }

        func make(_ random: inout Random, _ type: ElementType = .float32) -> WeightDifference {
            func matrix(_ rows: Int, _ columns: Int) -> Tensor {
                random.weight(rows, columns, type)
            }
            func full(_ rows: Int, _ columns: Int) -> WeightDifference.Factor {
                .full(matrix(rows, columns))
            }
            func product(_ rows: Int, _ rank: Int, _ columns: Int) -> WeightDifference.Factor {
                .product(matrix(rows, rank), matrix(rank, columns))
            }
            let (outputs, inputs) = (LinearUpdateTests.outputs, LinearUpdateTests.inputs)
            func lowRank(_ rank: Int) -> WeightDifference {
                .lowRank(down: matrix(rank, inputs), up: matrix(outputs, rank))
            }
            func hadamard(_ first: Int, _ second: Int) -> WeightDifference {
                .hadamard(
                    a: matrix(outputs, first),
                    b: matrix(first, inputs),
                    c: matrix(outputs, second),
                    d: matrix(second, inputs)
                )
            }
            return switch self {
            case .lowRank: lowRank(5)
            case .lowRankOfHighRank: lowRank(25)
            case .hadamard: hadamard(4, 3)
            case .hadamardOfHighRank: hadamard(5, 5)
            case .kroneckerOfLowRank: .kronecker(full(3, 4), product(100, 1, 6), rows: 0..<300)
            case .kronecker: .kronecker(full(3, 4), full(100, 6), rows: 0..<300)
            case .kroneckerPart: .kronecker(full(7, 4), full(70, 6), rows: 90..<390)
            case .smallKronecker: .kronecker(full(150, 12), full(2, 2), rows: 0..<300)
            case .kroneckerOfProducts:
                .kronecker(product(30, 1, 3), product(10, 2, 8), rows: 0..<300)
            case .difference: .difference(matrix(outputs, inputs))
            }
        }
    }

    enum Lengths: CaseIterable { case none, rows, columns }

    /// Makes changes of a layer, one after the other.
    struct Changes {
        var random: Random

        mutating func change(
            _ kind: Kind,
            _ lengths: Lengths = .none,
            strength: Float = 0.7,
            type: ElementType = .float32,
            hasBias: Bool = false
        ) -> LayerChange {
            let difference = kind.make(&random, type)
            let magnitude: LayerChange.Magnitude? =
                switch lengths {
                case .none: nil
                case .rows: .rows(random.weight(1, outputs, type).reshaped(outputs))
                case .columns: .columns(random.weight(1, inputs, type).reshaped(inputs))
                }
            return LayerChange(
                difference: difference,
                scale: 0.3,
                strength: strength,
                magnitude: magnitude,
                bias: hasBias ? random.tensor(outputs) : nil,
                biasScale: 0.5
            )
        }
    }

    private func makeWeight(
        _ random: inout Random,
        _ type: ElementType = .float32,
        rotation: Int? = nil
    ) -> WeightMatrix {
        WeightMatrix(
            random.weight(Self.outputs, Self.inputs, type),
            scale: type == .int8 ? random.tensor(Self.outputs, range: 0.02) : nil,
            rotation: rotation,
            origin: .init(name: "layer")
        )
    }

    /// The same operators with updates of `layer`; what depends on the weight is read from it.
    private func updated(
        _ operators: Operators,
        _ weight: WeightMatrix,
        _ changes: [LayerChange],
        name: String = "layer",
        usualScratch: Int = 1 << 20
    ) -> Operators {
        let changes = changes.map { change in
            var change = change
            guard change.magnitude != nil else { return change }
            var lengths = ChangedLengths(change, operators)
            // In two pieces, as large matrices come.
            for rows in [0..<130, 130..<weight.rows] { lengths.add(weight.rows(rows)) }
            change.setFactors(by: lengths)
            return change
        }
        let type: ElementType = operators.activations == .bfloat16 ? .bfloat16 : .float32
        let update = LinearUpdate(changes, storedAs: type, operators)
        return Operators(
            sharing: operators,
            updates: LinearUpdates([name: update], usualScratch: usualScratch)
        )
    }

    // MARK: Kinds

    @Test func sizesLeadToForms() {
        var random = Random(1)
        for kind in Kind.allCases {
            #expect(kind.make(&random).form(isScaled: false) == kind.form, "\(kind)")
        }
    }

    @Test(arguments: ["scalar", "generic", "avx2", "avx512"], Lengths.allCases)
    func everyKindEqualsTheMergedWeight(level: String, lengths: Lengths) throws {
        let operators = try operators(level)
        var changes = Changes(random: Random(2))
        let (x, weight) = (changes.random.tensor(45, Self.inputs), makeWeight(&changes.random))
        for kind in Kind.allCases {
            let change = changes.change(kind, lengths, hasBias: kind == .lowRank)
            let y = Tensor(guarded: [45, Self.outputs])
            updated(operators, weight, [change]).linear(x, weight, into: y)
            let expected = try MergedWeight(weight, [change]).products(x)
            expectClose(y.elements, expected, limit: Self.limit, "\(kind), \(lengths)")
        }
    }

    @Test(arguments: Lengths.allCases)
    func severalChangesAddUp(lengths: Lengths) throws {
        let operators = try operators("avx512")
        var changes = Changes(random: Random(3))
        let (x, weight) = (changes.random.tensor(45, Self.inputs), makeWeight(&changes.random))
        let types = [ElementType.float32, .bfloat16, .float16]
        let all = Kind.allCases.enumerated().flatMap { index, kind in
            [
                changes.change(kind, lengths, strength: -0.4, type: types[index % 3]),
                changes.change(kind, strength: 1.5, hasBias: true),
            ]
        }
        let y = Tensor(guarded: [45, Self.outputs])
        updated(operators, weight, all).linear(x, weight, into: y)
        let expected = try MergedWeight(weight, all).products(x)
        expectClose(y.elements, expected, limit: Self.limit)
    }

    /// Factors of rows and columns, of two files, multiply.
    @Test func lengthsOfRowsAndColumnsAreBothKept() throws {
        let operators = try operators("scalar")
        var random = Random(11)
        let (x, weight) = (random.tensor(5, Self.inputs), makeWeight(&random))
        let none = WeightDifference.difference(Tensor(zeros: [Self.outputs, Self.inputs]))
        func change(_ magnitude: LayerChange.Magnitude) -> LayerChange {
            LayerChange(difference: none, scale: 1, strength: 1, magnitude: magnitude)
        }
        let (rows, columns) = (
            change(.rows(random.tensor(Self.outputs))), change(.columns(random.tensor(Self.inputs)))
        )
        let y = Tensor(guarded: [5, Self.outputs])
        updated(operators, weight, [rows, columns]).linear(x, weight, into: y)
        let (base, first, second) = (
            MergedWeight(weight), MergedWeight(weight, [rows]), MergedWeight(weight, [columns])
        )
        var both = base
        for i in both.values.indices {
            both.values[i] = first.values[i] * second.values[i] / base.values[i]
        }
        expectClose(y.elements, try both.products(x), limit: Self.limit)
    }

    @Test(arguments: [
        ElementType.float32, .float16, .bfloat16, .float8E4M3, .float8E5M2, .int8,
    ])
    func basesOfEveryTypeStayAsTheyAre(type: ElementType) throws {
        let operators = try operators("avx512")
        for rotation in type == .int8 ? [nil, 4] : [nil] {
            for lengths in Lengths.allCases {
                var changes = Changes(random: Random(4))
                let weight = makeWeight(&changes.random, type, rotation: rotation)
                let x = changes.random.tensor(13, Self.inputs)
                let change = changes.change(.lowRank, lengths)
                let y = Tensor(guarded: [13, Self.outputs])
                updated(operators, weight, [change]).linear(x, weight, into: y)
                let expected = try MergedWeight(weight, [change]).products(x)
                expectClose(y.elements, expected, limit: Self.limit, "\(lengths)")
            }
        }
    }

    /// Bases in int8 and bfloat16 compute as they do alone; what is added is rounded to 8 bits.
    @Test(arguments: ["scalar", "avx512bf16"], [ElementType.bfloat16, .int8])
    func otherArithmeticsRoundOnlyWhatIsAdded(level: String, type: ElementType) throws {
        let operators = try operators(level, policy: .stored)
        for rotation in type == .int8 ? [nil, 4] : [nil] {
            var changes = Changes(random: Random(5))
            let weight = makeWeight(&changes.random, type, rotation: rotation)
            let x = changes.random.tensor(29, Self.inputs)
            let (base, y) = (
                Tensor(guarded: [29, Self.outputs]), Tensor(guarded: [29, Self.outputs])
            )
            operators.linear(x, weight, into: base)
            for kind in Kind.allCases {
                let change = changes.change(kind)
                updated(operators, weight, [change]).linear(x, weight, into: y)
                let (merged, alone) = (MergedWeight(weight, [change]), MergedWeight(weight))
                let added = zip(y.elements, base.elements).map { $0 - $1 }
                let expected = try zip(merged.products(x), alone.products(x)).map { $0 - $1 }
                // Observed at most 0.0032.
                expectClose(added, expected, limit: 0.006, "\(kind)")
            }
        }
    }

    // MARK: Layers

    /// Each result of a layer, with updates and with merged weights.
    @Test(arguments: ["scalar", "generic", "avx2", "avx512"], [1, 3])
    func updatesComeBeforeWhatFollows(level: String, threads: Int) throws {
        let operators = try operators(level, threads: threads)
        var changes = Changes(random: Random(6))
        let first = makeWeight(&changes.random)
        var second = makeWeight(&changes.random, .bfloat16)
        second.origin = .init(name: "other")
        let x = changes.random.tensor(45, Self.inputs)
        let firstChanges = [changes.change(.lowRank), changes.change(.kronecker, .rows)]
        let secondChanges = [changes.change(.hadamard, .columns), changes.change(.lowRank)]
        func update(_ weight: WeightMatrix, _ changes: [LayerChange]) -> LinearUpdate {
            let completed = changes.map { change in
                var change = change
                guard change.magnitude != nil else { return change }
                var lengths = ChangedLengths(change, operators)
                lengths.add(weight)
                change.setFactors(by: lengths)
                return change
            }
            return LinearUpdate(completed, storedAs: .float32, operators)
        }
        let updates = LinearUpdates([
            "layer": update(first, firstChanges), "other": update(second, secondChanges),
        ])
        let merged = (
            MergedWeight(first, firstChanges).matrix, MergedWeight(second, secondChanges).matrix
        )
        let norm = HeadNorm(
            weight: changes.random.tensor(60),
            stored: .minusOne,
            epsilon: 1e-5,
            rotary: nil
        )
        let (bias, gate) = (changes.random.tensor(300), changes.random.tensor(300))
        let rowNorm = RowNorm(
            weight: changes.random.tensor(24),
            stored: .minusOne,
            epsilon: 1e-5,
            scale: changes.random.tensor(24),
            shift: changes.random.tensor(24)
        )
        func run(_ operators: Operators, _ first: WeightMatrix, _ second: WeightMatrix) -> [Tensor]
        {
            let y = (0..<6).map { _ in Tensor(guarded: [45, 300]) }
            operators.linear(
                .normed(x, rowNorm),
                [
                    LinearLayer(first, bias: bias, into: y[0]),
                    LinearLayer(second, addingTo: y[1], gate: gate),
                    LinearLayer(first, heads: norm, into: y[2]),
                    LinearLayer(gate: first, up: second, into: y[3]),
                    // Part of a layer, which begins inside of tiles and blocks.
                    LinearLayer(first.rows(70..<290), into: Tensor(y[4].storage, 220)),
                ]
            )
            operators.linear(
                .gated(x, by: x),
                [LinearLayer(second.rows(7..<207), into: Tensor(y[5].storage, 200))]
            )
            return y
        }
        let found = run(Operators(sharing: operators, updates: updates), first, second)
        let expected = run(operators, merged.0, merged.1)
        for (index, (found, expected)) in zip(found, expected).enumerated() {
            expectClose(found.elements, expected.elements, limit: 4 * Self.limit, "\(index)")
        }
    }

    @Test(arguments: ["scalar", "generic", "avx2", "avx512"])
    func otherLayersKeepTheirBits(level: String) throws {
        let operators = try operators(level)
        var changes = Changes(random: Random(7))
        let (x, weight) = (changes.random.tensor(45, Self.inputs), makeWeight(&changes.random))
        var other = makeWeight(&changes.random)
        other.origin = .init(name: "other")
        let updated = updated(operators, weight, [changes.change(.lowRank)])
        let alone = Tensor(guarded: [45, Self.outputs])
        operators.linear(x, other, into: alone)
        let (y, beside) = (Tensor(guarded: alone.shape), Tensor(guarded: alone.shape))
        updated.linear(.rows(x), [LinearLayer(weight, into: y), LinearLayer(other, into: beside)])
        expectIdentical(beside, alone)
        operators.linear(x, weight, into: alone)
        #expect(y.elements != alone.elements)
    }

    /// Scratch memory for 16 rows, too, is enough; neither it nor threads change a bit.
    @Test(arguments: ["scalar", "generic", "avx2", "avx512", "avx512bf16"])
    func neitherMemoryNorThreadsChangeABit(level: String) throws {
        for policy in [ArithmeticPolicy.float32, .stored] {
            var expected: Tensor?
            for (threads, memory) in [(1, 1 << 20), (3, 1 << 20), (2, 0)] {
                let operators = try operators(level, threads: threads, policy: policy)
                var changes = Changes(random: Random(8))
                let weight = makeWeight(&changes.random, .bfloat16)
                let x = changes.random.tensor(700, Self.inputs)
                let all = [
                    changes.change(.lowRank, .columns), changes.change(.hadamard, .rows),
                    changes.change(.kronecker), changes.change(.difference),
                ]
                let y = Tensor(guarded: [700, Self.outputs])
                updated(operators, weight, all, usualScratch: memory).linear(x, weight, into: y)
                expectIdentical(y, expected ?? y, "\(threads) threads, \(memory) bytes")
                expected = y
            }
        }
    }

    @Test func sumsOfTermsAreUpdated() throws {
        let operators = try operators("scalar")
        var random = Random(9)
        let weight = WeightMatrix(random.tensor(1, 5), origin: .init(name: "layer"))
        let change = LayerChange(
            difference: .lowRank(down: random.tensor(2, 5), up: random.tensor(1, 2)),
            scale: 2,
            strength: 0.5,
            magnitude: .rows(random.tensor(1)),
            bias: random.tensor(1)
        )
        var lengths = ChangedLengths(change, operators)
        lengths.add(weight)
        var completed = change
        completed.setFactors(by: lengths)
        let updates = LinearUpdates([
            "layer": LinearUpdate([completed], storedAs: .float32, operators)
        ])
        let (x, y) = (random.tensor(7, 5, 11), Tensor(guarded: [7, 11]))
        Operators(sharing: operators, updates: updates).weightedSum(x, weight: weight, into: y)
        let merged = MergedWeight(weight, [change])
        for row in 0..<7 {
            let expected = (0..<11).map { column in
                let terms = (0..<5).map { Double(x.row(row).row($0).floats[column]) }
                return Float(zip(terms, merged.values).reduce(merged.bias[0]) { $0 + $1.0 * $1.1 })
            }
            expectClose(y.row(row).elements, expected, limit: Self.limit)
        }
    }

    // MARK: Memory

    @Test func sizesAreThoseOfTheMatrices() throws {
        let operators = try operators("scalar")
        for type in [ElementType.float32, .bfloat16] {
            var changes = Changes(random: Random(10))
            let all = Kind.allCases.map { changes.change($0) }
            let update = LinearUpdate(all, storedAs: type, operators)
            let matrices = [update.down, update.up].compactMap(\.self) + update.blocks.map(\.right)
            let bytes =
                matrices.reduce(0) { $0 + $1.elements.byteCount }
                + update.blocks.reduce(0) { $0 + ($1.left?.byteCount ?? 0) }
            #expect(matrices.allSatisfy { $0.elements.elementType == type })
            #expect(update.size.byteCount == bytes)
        }
    }

    @Test func refusesToUpdateSums() async {
        await #expect(processExitsWith: .failure) {
            let weight = WeightMatrix(Tensor(zeros: [2, 2]), origin: .init(name: "layer"))
            let change = LayerChange(
                difference: nil,
                scale: 1,
                strength: 1,
                bias: Tensor(zeros: [2])
            )
            let operators = Operators(threads: 1)
            let update = LinearUpdate([change], storedAs: .float32, operators)
            Operators(sharing: operators, updates: LinearUpdates(["layer": update]))
                .linear(Tensor(zeros: [1, 2]), weight, into: Tensor(zeros: [1, 2]), adding: true)
        }
    }
}

extension Tensor {
    /// As many rows of 45 as a storage is used for: `[45, width]`.
    fileprivate init(_ storage: Storage, _ width: Int) {
        self.init(storage, byteOffset: 0, shape: [45, width], elementType: .float32)
    }
}
