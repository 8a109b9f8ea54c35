import Tokenization

/// What pictures to make.
public struct GenerationRequest: Sendable, Equatable {
    /// Text that describes the picture; may be empty.
    public var prompt: String
    /// Text that guidance leads away from; nil for the empty text.
    ///
    /// Unused without guidance.
    public var negativePrompt: String?
    /// Pixels, a multiple of 16 from 64 to 4096.
    public var width: Int
    /// Pixels, a multiple of 16 from 64 to 4096.
    public var height: Int
    /// Steps from 1 to 1000; nil for the checkpoint's recommendation.
    public var steps: Int?
    /// Guidance g in `conditional + g · (conditional − unconditional)`, 0 for none; nil for the
    /// checkpoint's recommendation.
    public var guidance: Float?
    /// Timestep shift (mu) from −10 to 10; nil for the checkpoint's recommendation.
    public var shift: Double?
    /// Seed of the first picture, up to 2⁶³ − 1; picture i has seed + i.
    public var seed: UInt64
    /// Number of pictures, 1 or more.
    public var imageCount: Int
    /// Applied together; their order does not matter.
    public var loras: [LoRAUse]
    /// Rows beside the prompt, such as style references; their order does not matter.
    public var groups: [ConditioningGroup]
    /// How the groups act.
    public var groupMode: ConditioningGroup.Mode
    /// What to begin with; nil for pure noise.
    public var initialImage: InitialImage?
    /// Pictures in the transformer's sequence, for LoRAs that know them; nil for none.
    public var wired: WiredReferences?

    /// Asks for pictures of a prompt.
    ///
    /// - Parameters:
    ///   - prompt: Text that describes the picture.
    ///   - negativePrompt: Text that guidance leads away from.
    ///   - width: Pixels.
    ///   - height: Pixels.
    ///   - steps: Steps; nil for the recommended number.
    ///   - guidance: Guidance; nil for the recommended one.
    ///   - shift: Timestep shift; nil for the recommended one.
    ///   - seed: Seed of the first picture.
    ///   - imageCount: Number of pictures.
    ///   - loras: Applied together.
    ///   - groups: Rows beside the prompt.
    ///   - groupMode: How the groups act.
    ///   - initialImage: What to begin with; nil for pure noise.
    ///   - wired: Pictures in the transformer's sequence; nil for none.
    public init(
        prompt: String,
        negativePrompt: String? = nil,
        width: Int = 1024,
        height: Int = 1024,
        steps: Int? = nil,
        guidance: Float? = nil,
        shift: Double? = nil,
        seed: UInt64 = 0,
        imageCount: Int = 1,
        loras: [LoRAUse] = [],
        groups: [ConditioningGroup] = [],
        groupMode: ConditioningGroup.Mode = .attention,
        initialImage: InitialImage? = nil,
        wired: WiredReferences? = nil
    ) {
        self.prompt = prompt
        self.negativePrompt = negativePrompt
        self.width = width
        self.height = height
        self.steps = steps
        self.guidance = guidance
        self.shift = shift
        self.seed = seed
        self.imageCount = imageCount
        self.loras = loras
        self.groups = groups
        self.groupMode = groupMode
        self.initialImage = initialImage
        self.wired = wired
    }
}

/// A request with all recommendations filled in.
public struct ResolvedRequest: Sendable, Equatable {
    /// Which checkpoint it is.
    public let variant: Variant
    /// Steps of the schedule.
    public let steps: Int
    /// Steps that are left out at its beginning, for an initial image; 0 without.
    public let skippedSteps: Int
    /// Guidance, 0 for none.
    public let guidance: Float
    /// Timestep shift (mu).
    public let shift: Double
    /// Pixels.
    public let width: Int
    /// Pixels.
    public let height: Int
    /// Seed of the first picture.
    public let seed: UInt64
    /// Number of pictures.
    public let imageCount: Int
    /// Arithmetic of the transformer's blocks; never automatic, and what the processor can do.
    public let precision: Precision
    /// The prompt in its template and, with guidance, the negative prompt.
    let prompts: [PromptTemplate.Encoding]

    /// Steps that are run.
    public var stepsToRun: Int { steps - skippedSteps }
    /// Tokens the transformer sees of the prompt, the template's suffix included.
    public var promptTokens: Int { prompts[0].ids.count - PromptTemplate.sliceStart }
    /// Tokens of the prompt beyond the limit, which are dropped.
    public var truncatedTokens: Int { prompts[0].truncatedTokens }
}

extension GenerationRequest {
    /// Sides the networks accept, in pixels.
    public static let sideRange = 64...4096
    /// What sides are multiples of: the autoencoder's 8 times the transformer's patch of 2.
    public static let sideMultiple = 16
    /// Steps that can be asked for.
    public static let stepRange = 1...1000
    /// Pictures that can be asked for at once.
    public static let imageCountRange = 1...1000
    /// Guidance that can be asked for.
    public static let guidanceRange: ClosedRange<Float> = 0...100

    /// Fails with one line when a value is out of range.
    func validate() throws(GenerationError) {
        for (name, side) in [("width", width), ("height", height)] {
            guard Self.sideRange.contains(side), side.isMultiple(of: Self.sideMultiple) else {
                throw .request("\(name) \(side), expected a multiple of 16 from 64 to 4096")
            }
        }
        if let steps, !Self.stepRange.contains(steps) {
            throw .request("\(steps) steps, expected 1 to 1000")
        }
        if let guidance, !Self.guidanceRange.contains(guidance) {
            throw .request("guidance \(guidance), expected 0 to 100")
        }
        if let shift, !Schedule.shiftRange.contains(shift) {
            throw .request("shift \(shift), expected −10 to 10")
        }
        guard Self.imageCountRange.contains(imageCount) else {
            throw .request("\(imageCount) pictures, expected 1 to 1000")
        }
        guard seed <= UInt64(Int64.max) - UInt64(imageCount - 1) else {
            throw .request("seed \(seed), expected at most 2⁶³ − 1 for the last picture")
        }
        try initialImage?.validate(for: self)
        try wired?.validate()
    }
}
