/// How the latents of reference pictures stand in the transformer's sequence.
///
/// The released models know neither; LoRAs teach them one or the other. Nothing in such a LoRA's
/// names or shapes says which.
public enum ReferenceWiring: String, Sendable, CaseIterable {
    /// Reference i is at frame i of the rotary embedding, rows and columns from 0, and modulated
    /// with time 0. The text encoder sees the pictures as "Picture 1: " and so on.
    ///
    /// Source: `Krea2` with its edit mode in ai-toolkit.
    case indexT0 = "index_t0"
    /// Reference i is at frame i, centred on the image, and modulated with the image's time.
    ///
    /// Source: `krea2_edit_forward` of comfyui-krea2edit.
    case frameT = "frame_t"
}

/// Pictures whose latents stand in the transformer's sequence, for LoRAs that were trained so.
///
/// The text encoder sees them in front of the prompt, and of the negative prompt. A picture of
/// strength 1 simply stands in the sequence. What others do, rows of the latent and of the text
/// encoder together, is scaled in each attention by the rule of `ConditioningGroup`; a negative
/// strength leads away. Pictures of strength 0 are not there: those behind them move up.
public struct WiredReferences: Sendable, Equatable {
    /// A reference picture.
    public struct Picture: Sendable, Equatable {
        /// Pixels in a row, a multiple of 16.
        public var width: Int
        /// Rows, a multiple of 16.
        public var height: Int
        /// As the autoencoder sees it: `[height, width, 3]`, sRGB.
        public var rgb: [UInt8]
        /// As the text encoder sees it.
        public var seen: ReferencePicture
        /// How strongly it acts; 1 as the LoRA was trained.
        public var strength: Float

        /// Takes pixels.
        ///
        /// - Parameters:
        ///   - width: Pixels in a row, a multiple of 16.
        ///   - height: Rows, a multiple of 16.
        ///   - rgb: `[height, width, 3]`, sRGB.
        ///   - seen: The same picture as the text encoder sees it.
        ///   - strength: How strongly it acts.
        public init(
            width: Int,
            height: Int,
            rgb: [UInt8],
            seen: ReferencePicture,
            strength: Float = 1
        ) {
            (self.width, self.height, self.rgb) = (width, height, rgb)
            (self.seen, self.strength) = (seen, strength)
        }
    }

    /// How the latents stand in the sequence.
    public var wiring: ReferenceWiring
    /// In the order in which the text encoder sees them.
    public var pictures: [Picture]
    /// How often each token of a reference counts where the image attends to it, with `frameT`; 1
    /// as the LoRA was trained.
    public var boost: Float

    /// Most pictures.
    public static let most = 10
    /// Most pixels of a picture for the autoencoder.
    public static let mostPixels = 1 << 20
    /// Boosts that can be asked for.
    public static let boostRange: ClosedRange<Float> = 0.01...100
    /// Strength below which LoRAs fade out together with their references.
    private static let fadingStrength: Float = 0.25

    /// Puts pictures into the sequence.
    ///
    /// - Parameters:
    ///   - wiring: How the latents stand there.
    ///   - pictures: In the order in which the text encoder sees them.
    ///   - boost: How often each token of a reference counts for the image.
    public init(_ wiring: ReferenceWiring, _ pictures: [Picture], boost: Float = 1) {
        (self.wiring, self.pictures, self.boost) = (wiring, pictures, boost)
    }

    /// What the scale of a LoRA for references is multiplied by.
    ///
    /// It goes to 0 with the strongest reference, so that weak ones do not meet a LoRA that expects
    /// them.
    ///
    /// - Parameter strengths: Of all references.
    /// - Returns: 0 to 1; 0 where all strengths are 0, or there are none.
    public static func loraFactor(strengths: [Float]) -> Float {
        min(1, (strengths.map(abs).max() ?? 0) / fadingStrength)
    }
}

extension WiredReferences {
    /// Fails with one line when a value is out of range.
    func validate() throws(GenerationError) {
        guard pictures.count <= Self.most else {
            throw .request("\(pictures.count) references, expected at most \(Self.most)")
        }
        guard Self.boostRange.contains(boost) else {
            throw .request("reference boost \(boost), expected 0.01 to 100")
        }
        guard boost == 1 || wiring == .frameT else {
            throw .request("a reference boost needs the wiring frame_t")
        }
        for (index, picture) in pictures.enumerated() { try picture.validate("\(index + 1)") }
    }
}

extension WiredReferences.Picture {
    fileprivate func validate(_ name: String) throws(GenerationError) {
        let (range, unit) = (GenerationRequest.sideRange, GenerationRequest.sideMultiple)
        guard range.contains(width), range.contains(height), width.isMultiple(of: unit),
            height.isMultiple(of: unit), width * height <= WiredReferences.mostPixels
        else {
            throw .request(
                "reference \(name): \(width)x\(height) pixels, expected multiples of 16 from 64 "
                    + "to 4096 and at most \(WiredReferences.mostPixels) pixels"
            )
        }
        guard rgb.count == 3 * width * height else {
            throw .request(
                "reference \(name): \(rgb.count) bytes, expected \(3 * width * height)"
            )
        }
        guard ConditioningGroup.strengthRange.contains(strength) else {
            throw .request("reference \(name): strength \(strength), expected −100 to 100")
        }
    }
}

extension ReferenceWiring {
    /// Whether "Picture 1: " and so on stand before the pictures in the text.
    var isLabelled: Bool { self == .indexT0 }

    /// Whether references are modulated with time 0.
    var isStill: Bool { self == .indexT0 }

    /// Where the tokens of a reference stand.
    ///
    /// - Parameters:
    ///   - index: Place among the references, from 0.
    ///   - grid: Tokens of the reference.
    ///   - image: Tokens of the image.
    /// - Returns: A position for each token of the reference.
    func positions(
        _ index: Int,
        _ grid: LatentPacking,
        beside image: LatentPacking
    ) -> [RotaryPosition] {
        var origin = RotaryPosition(frame: Double(index + 1))
        if self == .frameT {
            // Half a token where one of the sides is odd.
            origin.row = Double(image.gridHeight - grid.gridHeight) / 2
            origin.column = Double(image.gridWidth - grid.gridWidth) / 2
        }
        return RotaryPosition.grid(
            height: grid.gridHeight,
            width: grid.gridWidth,
            from: origin
        )
    }
}
