/// Turns latents into the transformer's tokens and back: each token is a patch of 2 × 2.
///
/// Source: `_pack_latents` of `Krea2Pipeline`, diffusers 0.42.1.
struct LatentPacking: Sendable {
    /// Channels of the latent.
    let channels: Int
    /// Rows of tokens; the latent has twice as many.
    let gridHeight: Int
    /// Tokens in a row; the latent has twice as many columns.
    let gridWidth: Int

    /// Number of tokens.
    var tokens: Int { gridHeight * gridWidth }

    /// Sizes of the latent.
    var latentShape: [Int] { [channels, 2 * gridHeight, 2 * gridWidth] }

    /// `[channels, 2 · gridHeight, 2 · gridWidth]` to `[tokens, 4 · channels]`, channel by channel.
    func pack(_ latent: [Float]) -> [Float] {
        var packed = latent
        forEach { packed[$0] = latent[$1] }
        return packed
    }

    /// The inverse of `pack`.
    func unpack(_ packed: [Float]) -> [Float] {
        var latent = packed
        forEach { latent[$1] = packed[$0] }
        return latent
    }

    /// Calls `body` with the places of each value among the tokens and in the latent.
    private func forEach(_ body: (_ packed: Int, _ latent: Int) -> Void) {
        let width = 2 * gridWidth
        var packed = 0
        for row in 0..<gridHeight {
            for column in 0..<gridWidth {
                for channel in 0..<channels {
                    let corner = (channel * 2 * gridHeight + 2 * row) * width + 2 * column
                    for latent in [corner, corner + 1, corner + width, corner + width + 1] {
                        body(packed, latent)
                        packed += 1
                    }
                }
            }
        }
    }
}
