import Compute
import Tensors

/// Asks about a part's result, its place, and the multiplications it took.
typealias AutoencoderCheck = (Tensor, String, Double) throws(GenerationError) -> Void

extension Operators {
    /// Fails when the caller asked to stop or a result of the autoencoder is not finite.
    ///
    /// - Parameters:
    ///   - x: Result of a part.
    ///   - place: Such as "middle block".
    /// - Throws: `.cancelled` or `.notFinite`, in this order, since cancelled operators leave
    ///   anything behind.
    func checkAutoencoder(_ x: Tensor, _ place: String) throws(GenerationError) {
        if isCancelled() { throw .cancelled }
        guard isFinite(x) else { throw .notFinite(stage: "autoencoder", place: place) }
    }
}

extension AutoencoderConfig {
    /// Floating-point operations for one latent, two for each multiplication.
    ///
    /// - Parameters:
    ///   - part: What is run.
    ///   - latentHeight: Rows of the latent.
    ///   - latentWidth: Columns of the latent.
    /// - Returns: Those of convolutions and attention.
    func floatingPointOperations(
        _ part: AutoencoderPart = .decoder,
        latentHeight: Int,
        latentWidth: Int
    ) -> Double {
        let parts = multiplications(part, latentHeight, latentWidth)
        return 2 * (parts.whole + parts.banded)
    }

    /// Multiplications of what runs at the latent's resolution, and of what runs in bands.
    func multiplications(
        _ part: AutoencoderPart,
        _ latentHeight: Int,
        _ latentWidth: Int
    ) -> (whole: Double, banded: Double) {
        let stages = rowStages(part, latentHeight: latentHeight, latentWidth: latentWidth)
        let pixels = latentHeight * latentWidth
        let (blocks, own) =
            switch part {
            case .decoder: (2 + residualBlocks + 1, inputMultiplications)
            case .encoder: (2 + residualBlocks, momentMultiplications)
            }
        let attention = attentionMultiplications(pixels: pixels)
        return (
            Double(pixels) * (own + Double(blocks) * residualMultiplications + attention),
            stages.reduce(0) { $0 + $1.multiplications }
        )
    }

    /// Of the decoder's first two convolutions, for each pixel.
    var inputMultiplications: Double {
        Double(latentChannels * (latentChannels + 9 * middleChannels))
    }

    /// Of the encoder's last two convolutions, for each pixel.
    var momentMultiplications: Double {
        Double(latentChannels * (2 * latentChannels + 2 * 9 * middleChannels))
    }

    /// Of a residual block at the latent's resolution, for each pixel.
    var residualMultiplications: Double {
        Double(18 * middleChannels * middleChannels)
    }

    /// Of the attention, for each pixel.
    func attentionMultiplications(pixels: Int) -> Double {
        Double(middleChannels * (4 * middleChannels + 2 * pixels))
    }
}
