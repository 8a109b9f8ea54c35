import Images
import Krea2
import References

/// What `--reference-wiring` can say.
enum WiringChoice: String, CaseIterable {
    case off = "none"
    case indexT0 = "index_t0"
    case frameT = "frame_t"

    var wiring: ReferenceWiring? { ReferenceWiring(rawValue: rawValue) }
}

/// How the references of a run stand in the transformer's sequence, and who says so.
struct WiringSelection {
    let wiring: ReferenceWiring
    let boost: Float
    /// What says so, for messages.
    let source: String
    /// Paths of the LoRAs that fade out with the references.
    let loras: Set<String>
    /// What the scales of these are multiplied by.
    let loraFactor: Float

    /// Goes by the user's words, or else by what is said beside the LoRAs; nil where references
    /// stand in no sequence.
    ///
    /// - Parameters:
    ///   - settings: The user's words.
    ///   - loras: Paths of all LoRAs of the run, but for those of sliders.
    ///   - manifests: What is said beside them, by their paths.
    /// - Throws: `.request` when manifests contradict each other.
    init?(
        _ settings: GenerateSettings,
        loras: [String],
        _ manifests: [String: LoRAManifest]
    ) throws(GenerationError) {
        let said = Set(manifests.values.compactMap(\.wiring))
        guard settings.wiring != nil || said.count < 2 else {
            let words = said.map(\.rawValue).sorted().joined(separator: " and ")
            throw .request("LoRAs for \(words) together; choose with --reference-wiring")
        }
        guard let wiring = settings.wiring.map(\.wiring) ?? said.first else { return nil }
        let own = manifests.filter { $0.value.wiring == wiring }
        let boosts = Set(own.values.map(\.boost))
        guard settings.referenceBoost != nil || boosts.count < 2 else {
            throw .request("LoRAs with different boosts; choose with --reference-boost")
        }
        self.wiring = wiring
        boost = settings.referenceBoost ?? boosts.first ?? 1
        source =
            settings.wiring != nil
            ? "--reference-wiring" : own.values.map(\.path).sorted().joined(separator: ", ")
        self.loras = Set(own.isEmpty ? loras : Array(own.keys))
        // Without any reference the LoRA is one like others.
        let strengths = settings.references.map(\.strengthInSequence)
        loraFactor = strengths.isEmpty ? 1 : WiredReferences.loraFactor(strengths: strengths)
    }
}

extension ReferenceChoice {
    /// How strongly it acts where it stands in the sequence: as the LoRA was trained, unless the
    /// user says something else.
    var strengthInSequence: Float { isStrengthGiven ? strength : 1 }

    /// Largest area of the latent's picture, squared.
    fileprivate var latentSide: Int { side ?? LatentSize.usualSide }

    /// A setting that has no meaning there.
    fileprivate var foreignSetting: String? {
        if treatment != nil { return "prep" }
        if window != 0...1 { return "window" }
        if blocks != nil { return "blocks" }
        if !tapGains.isEmpty { return "taps" }
        return captionShare != 0 ? "caption" : nil
    }
}

/// The style references of a run that stand in the transformer's sequence, read and resized.
struct WiredPictures {
    private(set) var references: WiredReferences
    private(set) var records: [GenerationRecord.Reference] = []
    /// What is said of them, one line each.
    private(set) var lines: [String] = []

    /// Longest side of a picture for the text encoder, with `frame_t`; as it was trained.
    private static let longestSide = 768

    /// Reads pictures; those of strength 0 are not looked at.
    ///
    /// - Parameters:
    ///   - settings: Name them.
    ///   - selection: How they stand in the sequence.
    ///   - size: Of the picture to make.
    ///   - tell: Receives remarks for the user.
    /// - Throws: Exit code 66 or 65, or 64 for settings that have no meaning here.
    init(
        _ settings: GenerateSettings,
        _ selection: WiringSelection,
        _ size: PictureSize,
        tell: (String) -> Void
    ) throws(Failure) {
        references = WiredReferences(selection.wiring, [], boost: selection.boost)
        let boost = selection.boost == 1 ? "" : ", boost \(selection.boost.short)"
        let name = selection.wiring.rawValue
        guard !settings.references.isEmpty else {
            lines.append("wiring \(name) (\(selection.source)): there is no reference for it")
            return
        }
        lines.append("wiring \(name)\(boost) (\(selection.source))")
        for choice in settings.references {
            if let key = choice.foreignSetting {
                throw Generate.wrongUsage(
                    "--style-reference \(choice.path): \(key) has no meaning with the wiring \(name)"
                )
            }
            guard choice.strengthInSequence != 0 else {
                lines.append("reference \(choice.path): strength 0, not used")
                continue
            }
            try add(choice, size, tell)
        }
    }

    private mutating func add(
        _ choice: ReferenceChoice,
        _ size: PictureSize,
        _ tell: (String) -> Void
    ) throws(Failure) {
        guard !choice.path.hasSuffix(".k2ref") else {
            throw Generate.wrongUsage(
                "--style-reference \(choice.path): the wiring \(references.wiring.rawValue) needs "
                    + "the picture itself"
            )
        }
        let picture = try Self.read(choice, references.wiring, size, tell)
        references.pictures.append(picture)
        records.append(
            GenerationRecord.Reference(
                content: picture.seen.source.content,
                strength: picture.strength,
                prep: picture.seen.source.treatment,
                side: choice.latentSide,
                window: [0, 1]
            )
        )
        let unit = GenerationRequest.sideMultiple
        lines.append(
            "reference \(choice.path): \(picture.height / unit) x \(picture.width / unit) tokens "
                + "of the latent, strength \(picture.strength.short)"
        )
    }

    /// Reads a picture and resizes it for the autoencoder and for the text encoder.
    private static func read(
        _ choice: ReferenceChoice,
        _ wiring: ReferenceWiring,
        _ size: PictureSize,
        _ tell: (String) -> Void
    ) throws(Failure) -> WiredReferences.Picture {
        let picture = try PixelImage.read(choice.path, tell: tell)
        let isFrame = wiring == .frameT
        let seenSide = isFrame ? longestSide : ReferenceChoice.usualSide
        do {
            let latentSize = try LatentSize(
                width: picture.width,
                height: picture.height,
                side: choice.latentSide,
                limit: isFrame ? (size.width, size.height) : nil
            )
            let seenSize =
                isFrame
                ? try ReferenceSize(picture, longest: seenSide)
                : try ReferenceSize(picture, side: seenSide)
            let latent = try picture.resized(width: latentSize.width, height: latentSize.height)
            let seen = try PreparedReference(picture, size: seenSize, treatment: .untreated)
            return WiredReferences.Picture(
                width: latent.width,
                height: latent.height,
                rgb: latent.rgb,
                seen: ReferencePicture(seen, side: seenSide, treatment: .untreated),
                strength: choice.strengthInSequence
            )
        } catch {
            // It does not know the file.
            throw Failure(.badData, "\(choice.path): \(error)")
        }
    }
}
