import Tensors

/// When the residual stream of a picture's rows is tapped after one of the first layers, which are
/// followed by an addition to these rows.
enum TapConvention: String, Sendable, CaseIterable {
    /// Before the addition: as transformers 5 records it, and as reference LoRAs were trained.
    case beforeDeepstack = "pre"
    /// After the addition: as transformers 4.57 reports it, and as ComfyUI does.
    case afterDeepstack = "post"
}

/// Where a token stands on the three axes that the text encoder's rotary embedding knows.
struct TokenPosition: Equatable, Sendable {
    /// Counts tokens, and a picture's all as one.
    let time: Int
    /// The same for text; grows from row to row of a picture.
    let row: Int
    /// The same for text; grows from column to column of a picture.
    let column: Int
}

/// Token ids for the text encoder, and the pictures among them.
struct TokenSequence {
    /// Ids of all tokens; those in a picture's place count for nothing.
    let ids: [Int32]
    /// In order, and not overlapping.
    let pictures: [PlacedPicture]

    /// Text alone, or with pictures.
    ///
    /// - Parameters:
    ///   - ids: Ids of all tokens.
    ///   - pictures: In order; they stand within the ids and do not overlap.
    init(_ ids: [Int32], pictures: [PlacedPicture] = []) {
        var end = 0
        for picture in pictures {
            precondition(picture.firstToken >= end, "pictures overlap")
            end = picture.firstToken + picture.grid.tokens
        }
        precondition(end <= ids.count, "pictures reach beyond \(ids.count) tokens")
        (self.ids, self.pictures) = (ids, pictures)
    }

    /// The position of each token.
    ///
    /// Text counts on; the tokens of a picture lie in a square of positions, and what follows goes on
    /// behind its longer side. Source: `get_rope_index` in transformers 5.23 `modeling_qwen3_vl.py`.
    var positions: [TokenPosition] {
        var positions: [TokenPosition] = []
        var next = 0
        func addText(until end: Int) {
            while positions.count < end {
                positions.append(TokenPosition(time: next, row: next, column: next))
                next += 1
            }
        }
        for picture in pictures {
            addText(until: picture.firstToken)
            for row in 0..<picture.grid.tokenRows {
                for column in 0..<picture.grid.tokenColumns {
                    positions.append(
                        TokenPosition(time: next, row: next + row, column: next + column)
                    )
                }
            }
            next += max(picture.grid.tokenRows, picture.grid.tokenColumns)
        }
        addText(until: ids.count)
        return positions
    }
}

/// A picture's place in a sequence, and what the vision tower makes of it.
struct PlacedPicture {
    /// Index of its first token.
    let firstToken: Int
    let grid: VisionGrid
    /// Takes the place of the tokens' embeddings: `[tokens, width]`, float32.
    let features: Tensor
    /// Is added to the picture's rows after the first layers, one for each: `[tokens, width]`.
    let deepstack: [Tensor]

    /// Its rows where the sequence begins at row `first`.
    func rows(from first: Int) -> Range<Int> {
        first + firstToken..<first + firstToken + grid.tokens
    }
}
