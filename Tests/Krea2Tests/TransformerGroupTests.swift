import Compute
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// Groups in one evaluation of a small transformer.
struct TransformerGroupTests {
    private let transformer: Transformer
    private let text: Tensor
    private let groups: [Tensor]
    private let image: Tensor
    /// Image tokens are a square.
    private static let side = 4

    init() throws {
        let path = FixtureModel.path("head16/turbo.safetensors")
        transformer = try Transformer(TransformerFiles(path: path))
        let config = transformer.config
        var random = SeededGenerator(seed: 9)
        text = Tensor.random([7, config.width], &random)
        groups = [5, 3].map { Tensor.random([$0, config.width], &random) }
        image = Tensor.random([Self.side * Self.side, config.tokenWidth], &random)
    }

    /// The velocity with some text rows and groups.
    private func velocity(
        _ text: Tensor,
        _ groups: [BranchGroup] = [],
        _ policy: ArithmeticPolicy = .float32
    ) throws -> [Float] {
        let operators = Operators(threads: 1, policy: policy)
        let tokens = groups.reduce(0) { $0 + $1.rows.rows }
        func scratch(_ arena: inout Arena) -> TransformerScratch {
            TransformerScratch(
                transformer.config,
                textTokens: [text.rows],
                imageTokens: image.rows,
                groupTokens: tokens,
                operators.activations,
                &arena
            )
        }
        var measuring = Arena.measuring()
        _ = scratch(&measuring)
        var arena = Arena(Storage(byteCount: measuring.byteCount))
        let order = transformer.order(policy)
        let branch = TransformerBranch(
            text: text,
            velocity: Tensor(zeros: image.shape),
            groups: groups
        )
        let rotary = transformer.rotaryTable(
            textTokens: text.rows,
            gridHeight: Self.side,
            gridWidth: Self.side
        )
        let still = transformer.rotaryTable(textTokens: 8, gridHeight: 0, gridWidth: 0)
        try transformer.forward(
            image,
            [branch],
            rotary: RotaryTable(joining: [rotary, still]),
            time: 0.7,
            supply: MatrixSupply(order, operators: operators),
            scratch: scratch(&arena),
            operators: operators,
            watch: Watch(stage: "test", checkpoint: order.checkpoint) {}
        )
        return branch.velocity.elements
    }

    private func group(
        _ index: Int,
        _ weights: [Float] = [1, 1],
        logMass: Float = 0
    ) -> BranchGroup {
        BranchGroup(
            rows: groups[index],
            keyLogs: nil,
            logMass: logMass,
            family: .references,
            weights: weights
        )
    }

    private func joined(_ tensors: [Tensor]) -> Tensor {
        let rows = tensors.reduce(0) { $0 + $1.rows }
        return Tensor(tensors.flatMap(\.elements), shape: [rows, transformer.config.width])
    }

    /// At weight 1 and with their own masses, rows of a group are rows of the text; observed 3.5e-7
    /// and 0.003.
    @Test(arguments: [(ArithmeticPolicy.float32, 1.4e-6), (.bfloat16, 0.012)])
    func weightOneIsTextBesideThePrompt(_ policy: ArithmeticPolicy, _ limit: Double) throws {
        let found = try velocity(text, [group(0)], policy)
        let expected = try velocity(joined([text, groups[0]]), [], policy)
        let error = relativeError(found, expected)
        #expect(error < limit, "\(error)")
        #expect(try relativeError(found, velocity(text)) > 0.01)
    }

    /// A group that only the first block shows is not computed any further, which nobody notices.
    @Test func laterBlocksDoNotMatterUnlessTheyLook() throws {
        let (first, second) = (
            try velocity(text, [group(0, [1, 0])]), try velocity(text, [group(0, [0, 1])])
        )
        let (none, both) = (try velocity(text), try velocity(text, [group(0)]))
        #expect(Set([none, first, second, both]).count == 4)
    }

    /// Groups see neither each other nor what others weigh.
    @Test func groupsDoNotSeeEachOther() throws {
        let alone = try velocity(text, [group(0)])
        #expect(try velocity(text, [group(0), group(1, [0, 0])]) == alone)
        let masses = try [Float(0), 3].map {
            try velocity(text, [group(0, [1, 1], logMass: $0)])
        }
        #expect(masses[0] == alone && masses[1] != alone)
    }
}
