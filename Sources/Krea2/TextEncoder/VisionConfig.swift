import Checkpoints
import Compute

/// Sizes of the text encoder's vision tower.
///
/// Source: transformers 5.23 `Qwen3VLVisionConfig`.
struct VisionConfig: Sendable, Equatable {
    /// Width of the residual stream.
    var width: Int
    var blocks: Int
    var heads: Int
    /// Width of the feed-forward network.
    var feedForwardWidth: Int
    /// Pixels along the side of a patch.
    var patch: Int
    /// Frames that a patch spans; all are the same for a still picture.
    var frames: Int
    /// Patches along the side of a token.
    var merge: Int
    /// Rows and columns of the table of positions.
    var tableSide: Int
    /// Width of what goes to the language model.
    var outputWidth: Int
    /// Blocks whose output goes to the language model's first layers, from 0, ascending.
    var deepstackBlocks: [Int]
    /// Base of the rotary frequencies.
    var theta: Float

    /// Added to the variance in every norm.
    static let epsilon: Float = 1e-6
    /// Elements of a head in the released model, for files without settings.
    private static let releasedHeadSize = 64

    /// Elements of a head.
    var headSize: Int { width / heads }
    /// Values of a patch of one frame.
    var patchWidth: Int { 3 * patch * patch }
    /// Width of the patches of one token together.
    var mergedWidth: Int { merge * merge * width }

    /// Takes sizes from `config.json` where there is one, and from the tensors' shapes.
    ///
    /// What shapes do not tell is as in the released model: the size of a head, and that
    /// deepstack takes the stream at equal distances.
    ///
    /// - Parameters:
    ///   - checkpoint: Tensors under the names of the vision tower, from `patch_embed` on.
    ///   - file: The whole `config.json`.
    /// - Throws: When a size is in neither, or the sizes contradict each other.
    init(_ checkpoint: Checkpoint, _ file: ConfigurationFile?) throws(CheckpointError) {
        let settings = try file?.object("vision_config")
        let sizes = SizeReader(checkpoint, settings)
        let (kernel, table) = ("patch_embed.proj.weight", "pos_embed.weight")
        width = try sizes.read("hidden_size", or: table, 1)
        blocks = try sizes.count("depth", or: "blocks.")
        let releasedHeads = max(1, width / Self.releasedHeadSize)
        heads = try settings?.integer("num_heads") ?? releasedHeads
        let hidden = "blocks.0.mlp.linear_fc1.weight"
        feedForwardWidth = try sizes.read("intermediate_size", or: hidden, 0)
        patch = try sizes.read("patch_size", or: kernel, -1)
        frames = try sizes.read("temporal_patch_size", or: kernel, 2)
        if let value = try settings?.integer("spatial_merge_size") {
            merge = value
        } else {
            merge = Self.root(try sizes.length("merger.linear_fc1.weight", 1) / width)
        }
        let positions = try sizes.read("num_position_embeddings", or: table, 0)
        tableSide = Self.root(positions)
        outputWidth = try sizes.read("out_hidden_size", or: "merger.linear_fc2.weight", 0)
        let mergers = checkpoint.numbers(after: "deepstack_merger_list.").count
        if let list = try settings?.integers("deepstack_visual_indexes") {
            deepstackBlocks = list
        } else {
            let count = blocks
            deepstackBlocks = (0..<mergers).map { ($0 + 1) * count / (mergers + 1) - 1 }
        }
        let rotary = try settings?.object("rope_parameters")
        theta = try SizeReader(checkpoint, rotary).number("rope_theta", default: 10_000)

        let isAscending = zip(deepstackBlocks, deepstackBlocks.dropFirst()).allSatisfy { $0 < $1 }
        let hasDeepstack =
            isAscending && deepstackBlocks.first ?? 0 >= 0 && deepstackBlocks.last ?? 0 < blocks
        guard hasDeepstack, patch <= 256, frames <= 16, (1...16).contains(merge),
            tableSide * tableSide == positions, width.isMultiple(of: heads),
            headSize.isMultiple(of: 4), headSize <= Operators.largestNormedHead,
            max(mergedWidth, feedForwardWidth, patchWidth) <= Operators.longestRow
        else {
            throw .damaged(
                path: file?.path ?? checkpoint.path,
                tensor: nil,
                found: "a vision tower with \(heads) heads, width \(width), feed-forward "
                    + "\(feedForwardWidth), \(blocks) blocks, patches of \(patch), \(merge) to a "
                    + "token's side, \(positions) positions, deepstack after \(deepstackBlocks)",
                expected: "heads of a multiple of 4 up to \(Operators.largestNormedHead), a "
                    + "square of positions, ascending blocks, and no width above "
                    + "\(Operators.longestRow)"
            )
        }
    }

    /// The whole root of a number that is not negative, rounded down.
    private static func root(_ value: Int) -> Int { Int(Double(value).squareRoot()) }
}
