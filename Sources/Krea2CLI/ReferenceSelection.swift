import Images
import Krea2
import References

/// The references and moodboards of a run, encoded.
struct ReferenceSelection {
    fileprivate(set) var groups: [ConditioningGroup] = []
    fileprivate(set) var references: [GenerationRecord.Reference] = []
    fileprivate(set) var moodboards: [GenerationRecord.Moodboard] = []
    /// What is said of them, one line each.
    fileprivate(set) var lines: [String] = []
}

/// Opens the references and moodboards that the settings of a run name, and then encodes them.
struct ReferenceFinder {
    /// A reference or moodboard: stored, or still to be encoded.
    private enum Origin {
        case picture(ReferencePicture)
        case reference(ReferenceFile)
        case pictures([ReferencePicture])
        case moodboard(MoodboardFile)

        var pictures: [ReferencePicture] {
            switch self {
            case .picture(let picture): [picture]
            case .pictures(let pictures): pictures
            case .reference, .moodboard: []
            }
        }
    }

    /// References beyond which the time they take is worth a remark.
    private static let many = 4

    private let pipeline: Pipeline
    private let identity: EncoderIdentity
    private var references: [(choice: ReferenceChoice, origin: Origin)] = []
    private var moodboards: [(choice: MoodboardChoice, origin: Origin)] = []
    private var lines: [String] = []
    /// References that stand in the transformer's sequence; nil where none do.
    private let wired: WiredPictures?

    /// Opens files and reads pictures; those of strength 0 are not looked at.
    ///
    /// - Parameters:
    ///   - settings: What the user asks for.
    ///   - pipeline: Whose text encoder is to see the pictures.
    ///   - wiring: How references stand in the transformer's sequence; nil for beside it.
    ///   - size: Of the picture to make.
    ///   - tell: Receives remarks for the user.
    /// - Throws: Exit code 66, 65, or 64 for settings that do not fit a file.
    init(
        _ settings: GenerateSettings,
        _ pipeline: Pipeline,
        _ wiring: WiringSelection?,
        _ size: PictureSize,
        tell: (String) -> Void
    ) throws(Failure) {
        self.pipeline = pipeline
        identity = pipeline.encoderIdentity
        guard settings.referenceBoost == nil || wiring?.wiring == .frameT else {
            throw Generate.wrongUsage("--reference-boost needs --reference-wiring frame_t")
        }
        if let wiring {
            wired = try WiredPictures(settings, wiring, size, tell: tell)
        } else {
            wired = nil
        }
        for choice in wiring == nil ? settings.references : [] {
            guard choice.strength != 0 else {
                lines.append("reference \(choice.path): strength 0, not used")
                continue
            }
            let origin = try open(choice, settings, tell)
            references.append((choice, origin))
        }
        for choice in settings.moodboards {
            guard choice.strength != 0 else {
                lines.append("moodboard \(choice.path): strength 0, not used")
                continue
            }
            let origin = try open(choice, settings, tell)
            moodboards.append((choice, origin))
        }
    }

    private func open(
        _ choice: ReferenceChoice,
        _ settings: GenerateSettings,
        _ tell: (String) -> Void
    ) throws(Failure) -> Origin {
        if let side = choice.side, !ReferenceSize.sides.contains(side) {
            throw Generate.wrongUsage(
                "--style-reference \(choice.path): side \(side), expected at most "
                    + "\(ReferenceSize.sides.upperBound) without a wiring"
            )
        }
        guard choice.path.hasSuffix(".k2ref") else {
            return .picture(
                try ReferencePicture(
                    path: choice.path,
                    treatment: choice.treatment ?? .untreated,
                    side: choice.side ?? ReferenceChoice.usualSide,
                    tell: tell
                )
            )
        }
        let file = try Failure.mapping { () throws(GenerationError) in
            try ReferenceFile(
                path: choice.path,
                for: identity,
                isLenient: settings.allowsOtherEncoder
            )
        }
        let (treatment, side) = (file.source.treatment, file.source.side)
        guard choice.treatment.map({ $0.rawValue == treatment }) ?? true,
            choice.side.map({ $0 == side }) ?? true
        else {
            throw Generate.wrongUsage(
                "--style-reference \(choice.path): encoded with prep=\(treatment), side=\(side), "
                    + "which cannot be changed any more"
            )
        }
        return .reference(file)
    }

    private func open(
        _ choice: MoodboardChoice,
        _ settings: GenerateSettings,
        _ tell: (String) -> Void
    ) throws(Failure) -> Origin {
        if FileKind(of: choice.path) == .folder {
            return .pictures(try ReferencePicture.moodboard([choice.path], tell: tell))
        }
        return .moodboard(
            try Failure.mapping { () throws(GenerationError) in
                try MoodboardFile(
                    path: choice.path,
                    for: identity,
                    isLenient: settings.allowsOtherEncoder
                )
            }
        )
    }
}

// MARK: Groups

extension ReferenceFinder {
    /// References that stand in the transformer's sequence; nil for none.
    var sequence: WiredReferences? {
        wired.flatMap { $0.references.pictures.isEmpty ? nil : $0.references }
    }

    /// Groups of the right sizes, to plan with and to check settings; nothing is encoded.
    func planned() throws(GenerationError) -> [ConditioningGroup] {
        var groups: [ConditioningGroup] = []
        for (choice, origin) in references {
            groups.append(choice.group(try plannedRows(origin)))
        }
        for (choice, origin) in moodboards {
            let rows = try plannedRows(origin)
            groups.append(ConditioningGroup(rows, strength: choice.strength))
        }
        return groups
    }

    private func plannedRows(_ origin: Origin) throws(GenerationError) -> ConditioningRows {
        switch origin {
        case .reference(let file): file.rows
        case .moodboard(let file): file.rows
        case .picture, .pictures: try pipeline.placeholder(origin.pictures)
        }
    }

    /// The pictures that are not encoded yet.
    var pictures: [ReferencePicture] {
        (references.map(\.origin) + moodboards.map(\.origin)).flatMap(\.pictures)
    }

    /// Encodes what is not encoded yet.
    ///
    /// - Parameter reporter: Shows remarks for the user, and how far it is.
    /// - Returns: Groups for the request, and what the record says of them.
    /// - Throws: Exit codes of the engine's errors.
    func selection(_ reporter: Reporter) throws(Failure) -> ReferenceSelection {
        let tell = reporter.message
        return try Failure.mapping { () throws(GenerationError) -> ReferenceSelection in
            let encoded = try pipeline.encode(pictures, reporter)
            var files: [ReferenceFile.Source: ReferenceFile] = [:]
            for file in encoded { files[file.source] = file }
            var selection = ReferenceSelection()
            selection.lines = (wired?.lines ?? []) + lines
            selection.references = wired?.records ?? []
            if references.count > Self.many {
                selection.lines.append(
                    "\(references.count) references; each makes steps a few percent slower"
                )
            }
            for (choice, origin) in references {
                switch origin {
                case .reference(let file): try add(file, choice, &selection, tell)
                default:
                    for picture in origin.pictures {
                        guard let file = files[picture.source] else { continue }
                        try add(file, choice, &selection, tell)
                    }
                }
            }
            for (choice, origin) in moodboards {
                switch origin {
                case .moodboard(let file): try add(file, choice, &selection, tell)
                default:
                    let files = origin.pictures.compactMap { files[$0.source] }
                    try add(try pipeline.moodboard(files), choice, &selection, tell)
                }
            }
            return selection
        }
    }

    private func add(
        _ file: ReferenceFile,
        _ choice: ReferenceChoice,
        _ selection: inout ReferenceSelection,
        _ tell: (String) -> Void
    ) throws(GenerationError) {
        var share: Float = 0
        if let caption = file.caption, choice.captionShare > 0 {
            share = choice.captionShare
            let text = try rows(of: caption, tell)
            selection.groups.append(
                choice.group(
                    text,
                    share: share,
                    mass: ConditioningGroup.textMass
                )
            )
        }
        if share < 1 { selection.groups.append(choice.group(file.rows, share: 1 - share)) }
        selection.references.append(
            GenerationRecord.Reference(
                content: file.source.content,
                strength: choice.strength,
                prep: file.source.treatment,
                side: file.source.side,
                window: [choice.window.lowerBound, choice.window.upperBound],
                blocks: choice.blocks.map { [$0.lowerBound, $0.upperBound] },
                taps: choice.tapGains.isEmpty ? nil : choice.tapGains.map(Double.init),
                caption: share > 0 ? share : nil,
                encoder: foreign(file.encoder)
            )
        )
        let caption =
            choice.captionShare > 0 && share == 0
            ? "; no description in it, so all goes to the picture" : ""
        selection.lines.append(
            "reference \(choice.path): \(file.gridRows) x \(file.gridColumns) tokens, strength "
                + choice.strength.short + caption + warning(file.encoder)
        )
    }

    private func add(
        _ file: MoodboardFile,
        _ choice: MoodboardChoice,
        _ selection: inout ReferenceSelection,
        _ tell: (String) -> Void
    ) throws(GenerationError) {
        selection.groups.append(ConditioningGroup(file.rows, strength: choice.strength))
        let wanted = ([file.profile].compactMap(\.self) + file.keywords).joined(separator: ", ")
        let texts = [
            (wanted, choice.strength), (file.avoids.joined(separator: ", "), -choice.strength),
        ]
        for (text, strength) in texts where !text.isEmpty {
            let rows = try rows(of: text, tell)
            selection.groups.append(
                ConditioningGroup(rows, strength: strength, mass: ConditioningGroup.textMass)
            )
        }
        selection.moodboards.append(
            GenerationRecord.Moodboard(
                content: file.source.content,
                pictures: file.pictureCount,
                strength: choice.strength,
                encoder: foreign(file.encoder)
            )
        )
        selection.lines.append(
            "moodboard \(choice.path): \(file.pictureCount.counted("picture")), "
                + "\(file.rows.kinds.count { $0 == .image }) tokens, strength "
                + choice.strength.short + warning(file.encoder)
        )
    }

    private func rows(
        of text: String,
        _ tell: (String) -> Void
    ) throws(GenerationError) -> ConditioningRows {
        try pipeline.encode(
            text: text,
            messages: tell,
            isCancelled: { Interruption.isRequested }
        )
    }

    /// The digest of an encoder, unless it is the model's.
    private func foreign(_ encoder: EncoderIdentity) -> String? {
        encoder == identity ? nil : encoder.digest
    }

    private func warning(_ encoder: EncoderIdentity) -> String {
        foreign(encoder).map { "; made by other files of the text encoder, \($0)" } ?? ""
    }
}

extension ReferenceChoice {
    /// Rows with the settings of this reference.
    ///
    /// - Parameters:
    ///   - rows: Of the picture, or of a description.
    ///   - share: Part of the strength.
    ///   - mass: How many rows they count for.
    /// - Returns: A group for the request.
    fileprivate func group(
        _ rows: ConditioningRows,
        share: Float = 1,
        mass: Float = ConditioningGroup.pictureMass
    ) -> ConditioningGroup {
        ConditioningGroup(
            rows,
            strength: share * strength,
            window: window,
            blocks: blocks,
            tapGains: tapGains,
            mass: mass
        )
    }
}
