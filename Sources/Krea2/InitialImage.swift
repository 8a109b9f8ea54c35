/// A picture that a run begins with, in the place of pure noise.
///
/// The latent of the picture is mixed with noise as strongly as the strength says, and the steps
/// from that noise level on are run. With a mask, what it keeps is put back after each of them, so
/// the rest grows into it; in the end the kept part is the picture's own latent.
///
/// Source: `QwenImageImg2ImgPipeline` and `QwenImageInpaintPipeline`, diffusers 0.42.1.
public struct InitialImage: Sendable, Equatable {
    /// Pixels in a row; those of the request.
    public var width: Int
    /// Rows; those of the request.
    public var height: Int
    /// `[height, width, 3]`, sRGB.
    public var rgb: [UInt8]
    /// Share of the schedule that is run, 0 to 1; 1 leaves nothing of the picture but what a mask
    /// keeps, and so few that no step is left are refused.
    public var strength: Double
    /// `[height, width]`: what is 128 or more is painted anew, the rest is kept; nil to paint all.
    ///
    /// A cell of 8×8 pixels, one place of the latent, follows the pixel in its upper left corner.
    public var mask: [UInt8]?

    /// Strength where nothing else is said, as in the reference.
    public static let usualStrength = 0.6
    /// Strengths that can be asked for.
    public static let strengthRange = 0.0...1.0

    /// Describes a picture to begin with.
    ///
    /// - Parameters:
    ///   - width: Pixels in a row.
    ///   - height: Rows.
    ///   - rgb: `[height, width, 3]`, sRGB.
    ///   - strength: Share of the schedule that is run, 0 to 1.
    ///   - mask: `[height, width]`, painted anew from 128 on; nil to paint all.
    public init(
        width: Int,
        height: Int,
        rgb: [UInt8],
        strength: Double = usualStrength,
        mask: [UInt8]? = nil
    ) {
        self.width = width
        self.height = height
        self.rgb = rgb
        self.strength = strength
        self.mask = mask
    }
}

extension InitialImage {
    /// Fails with one line when it does not fit the request or itself.
    func validate(for request: GenerationRequest) throws(GenerationError) {
        guard (width, height) == (request.width, request.height) else {
            throw .request(
                "an initial image of \(width)x\(height) pixels, expected "
                    + "\(request.width)x\(request.height) as the picture"
            )
        }
        let pixels = width * height
        guard rgb.count == 3 * pixels else {
            throw .request("an initial image of \(rgb.count) bytes, expected \(3 * pixels)")
        }
        if let mask, mask.count != pixels {
            throw .request("a mask of \(mask.count) bytes, expected \(pixels)")
        }
        guard Self.strengthRange.contains(strength) else {
            throw .request("strength \(strength), expected 0 to 1")
        }
    }

    /// The first step of a schedule that is run; as the reference rounds.
    ///
    /// - Parameter steps: Steps of the schedule.
    /// - Returns: 0 for strength 1.
    /// - Throws: `.request` when no step is left.
    func firstStep(of steps: Int) throws(GenerationError) -> Int {
        let count = Double(steps)
        let first = Int(max(count - min(count * strength, count), 0))
        guard first < steps else {
            throw .request("strength \(strength) leaves none of \(steps) steps, expected more")
        }
        return first
    }
}

/// What a run begins with, as its steps need it: packed like the tokens.
struct InitialLatent {
    /// Normalised latent of the picture: `[tokens, token width]`.
    private let clean: [Float]
    /// Whether each element is painted anew; nil where all are.
    private let isPainted: [Bool]?

    /// Packs a latent and a mask.
    ///
    /// - Parameters:
    ///   - latent: `[channels, h, w]`.
    ///   - mask: `[h, w]`, true where the picture is painted anew; nil for everywhere.
    ///   - packing: Sizes.
    init(_ latent: [Float], mask: [Bool]?, _ packing: LatentPacking) {
        clean = packing.pack(latent)
        isPainted = mask.map { mask in
            let plane = mask.map { Float($0 ? 1 : 0) }
            return packing.pack((0..<packing.channels).flatMap { _ in plane }).map { $0 == 1 }
        }
    }

    /// The picture at a noise level: pure noise at 1, itself at 0.
    ///
    /// - Parameters:
    ///   - noise: `[tokens, token width]`, that of the run.
    ///   - sigma: The noise level, 0 to 1.
    /// - Returns: `[tokens, token width]`.
    func mixed(with noise: [Float], sigma: Float) -> [Float] {
        noise.indices.map { mixed($0, with: noise, sigma: sigma) }
    }

    /// Puts back what the mask keeps.
    ///
    /// - Parameters:
    ///   - tokens: After a step: `[tokens, token width]`.
    ///   - noise: As in `mixed`.
    ///   - sigma: Noise level after the step.
    func restore(_ tokens: inout [Float], noise: [Float], sigma: Float) {
        guard let isPainted else { return }
        for i in tokens.indices where !isPainted[i] {
            tokens[i] = mixed(i, with: noise, sigma: sigma)
        }
    }

    private func mixed(_ i: Int, with noise: [Float], sigma: Float) -> Float {
        sigma * noise[i] + (1 - sigma) * clean[i]
    }
}

extension InitialImage {
    /// The mask at the latent's size, where the reference takes the nearest pixel: `[h, w]`.
    var latentMask: [Bool]? {
        guard let mask else { return nil }
        let scale = AutoencoderConfig.scale
        return (0..<height / scale).flatMap { row in
            (0..<width / scale).map { mask[(row * width + $0) * scale] >= 128 }
        }
    }
}
