import Images
import Krea2

/// The LoRAs and sliders of one picture, opened.
struct LoRASelection {
    private(set) var uses: [LoRAUse] = []
    private(set) var loras: [GenerationRecord.LoRA] = []
    private(set) var sliders: [GenerationRecord.Slider] = []
    /// What is said of them, one line each.
    private(set) var lines: [String] = []
    /// Sliders that are made of texts.
    private var poles: [(slider: SliderManifest, value: Int)] = []

    /// Texts that the sliders are made of.
    var texts: [String] { poles.flatMap { $0.slider.poles?.texts ?? [] } }

    /// What stands beside the prompt for the sliders that are made of texts.
    ///
    /// - Parameter rows: Of each text.
    /// - Returns: The groups.
    /// - Throws: `.request` when a text is missing.
    func groups(_ rows: [String: ConditioningRows]) throws(GenerationError) -> [ConditioningGroup] {
        var groups: [ConditioningGroup] = []
        for (slider, value) in poles { groups += try slider.groups(value, rows) }
        return groups
    }

    fileprivate mutating func add(_ use: LoRAUse, _ name: String) {
        uses.append(use)
        loras.append(
            .init(name: use.file.path.stem, digest: use.file.digest, scale: use.scale)
        )
        lines.append("lora \(name): \(use.summary)")
    }

    fileprivate mutating func add(
        _ use: LoRAUse,
        _ slider: SliderManifest,
        _ value: Int,
        isRandom: Bool
    ) {
        uses.append(use)
        note(slider, value, use.file.digest, use.scale, isRandom)
        lines.append("slider \(slider.name) \(value): \(use.file.path): \(use.summary)")
    }

    fileprivate mutating func add(
        _ slider: SliderManifest,
        _ poles: SliderPoles,
        _ value: Int,
        isRandom: Bool
    ) {
        self.poles.append((slider, value))
        let strength = poles.strength(at: value)
        note(slider, value, poles.digest, strength, isRandom)
        lines.append(
            "slider \(slider.name) \(value): approximate, by texts in place of a LoRA, strength "
                + strength.short
        )
    }

    private mutating func note(
        _ slider: SliderManifest,
        _ value: Int,
        _ digest: String,
        _ scale: Float,
        _ isRandom: Bool
    ) {
        sliders.append(
            .init(
                name: slider.name,
                value: value,
                kind: slider.kind.rawValue,
                digest: digest,
                scale: scale,
                window: [slider.window.lowerBound, slider.window.upperBound],
                isRandom: isRandom,
                isApproximate: slider.poles != nil
            )
        )
    }

    fileprivate mutating func note(_ line: String) { lines.append(line) }
}

extension LoRAUse {
    /// How much of the model it changes, and how strongly.
    fileprivate var summary: String {
        let ranks = file.ranks.map(String.init).joined(separator: ", ")
        let rank = ranks.isEmpty ? "" : "rank \(ranks), "
        let vectors = file.vectorCount.counted("norm or table", "norms and tables")
        return "\(file.layerCount) of \(file.modelLayerCount) layers, "
            + (file.vectorCount > 0 ? "\(vectors), " : "") + "\(rank)scale \(scale.short)"
            + (file.ignored.isEmpty ? "" : "; \(file.ignored.count.counted("tensor")) ignored")
    }
}

/// Finds and opens what the settings of a run name; each file once.
final class LoRAFinder {
    private let settings: GenerateSettings
    private let pipeline: Pipeline
    private let library: LoRALibrary
    private var files: [String: LoRAFile] = [:]

    init(
        _ settings: GenerateSettings,
        _ pipeline: Pipeline,
        _ library: LoRALibrary
    ) {
        (self.settings, self.pipeline, self.library) = (settings, pipeline, library)
    }

    /// How references stand in the transformer's sequence; nil where they stand beside it.
    ///
    /// - Throws: What is missing, damaged or contradicts itself.
    func wiring() throws(GenerationError) -> WiringSelection? {
        var (paths, manifests): ([String], [String: LoRAManifest]) = ([], [:])
        for choice in settings.loras where choice.scale != 0 {
            let path = try library.lora(choice.name)
            paths.append(path)
            guard let manifest = try LoRAManifest(beside: path) else { continue }
            try manifest.check(open(path))
            manifests[path] = manifest
        }
        return try WiringSelection(settings, loras: paths, manifests)
    }

    /// The LoRAs and sliders of every picture, or of all together where they have the same.
    ///
    /// - Parameters:
    ///   - seed: Of the request.
    ///   - wiring: Of the references.
    /// - Returns: One, or as many as there are pictures.
    /// - Throws: What is missing or does not fit; before anything is computed.
    func selections(
        seed: UInt64,
        _ wiring: WiringSelection?
    ) throws(GenerationError) -> [LoRASelection] {
        var common = LoRASelection()
        for choice in settings.loras {
            let path = try library.lora(choice.name)
            let isFading = wiring?.loras.contains(path) == true
            let factor = isFading ? wiring?.loraFactor ?? 1 : 1
            if choice.scale == 0 {
                common.note("lora \(path): scale 0, not applied")
            } else if factor == 0 {
                common.note("lora \(path): all references have strength 0, not applied")
            } else {
                common.add(LoRAUse(try open(path), scale: factor * choice.scale), path)
            }
        }
        let manifests = try manifests()
        guard settings.hasRandomSliders else {
            return [try adding(settings.sliders, of: manifests, to: common)]
        }
        var selections: [LoRASelection] = []
        for image in 0..<settings.imageCount {
            let drawn = SliderDraws.values(Array(manifests.keys), seed: seed, image: image)
            let values = drawn.merging(settings.sliders) { $1 }
            selections.append(try adding(values, of: manifests, to: common))
        }
        return selections
    }

    private func adding(
        _ values: [String: Int],
        of manifests: [String: SliderManifest],
        to common: LoRASelection
    ) throws(GenerationError) -> LoRASelection {
        var selection = common
        for (name, value) in values.sorted(by: { $0.key < $1.key }) {
            guard value != 0, let slider = manifests[name] else { continue }
            let isRandom = settings.sliders[name] == nil
            if let poles = slider.poles {
                selection.add(slider, poles, value, isRandom: isRandom)
            } else if let use = try slider.use(value, open: open) {
                selection.add(use, slider, value, isRandom: isRandom)
            }
        }
        return selection
    }

    /// The manifests of all sliders that may be used, by name; those of value 0 are not looked for.
    private func manifests() throws(GenerationError) -> [String: SliderManifest] {
        var manifests: [String: SliderManifest] = [:]
        for path in settings.sliderFiles {
            let manifest = try SliderManifest(path: path)
            manifests[manifest.name] = manifest
        }
        for (name, value) in settings.sliders where value != 0 && manifests[name] == nil {
            manifests[name] = try library.slider(name)
        }
        if settings.hasRandomSliders {
            for slider in try library.sliders() where manifests[slider.name] == nil {
                manifests[slider.name] = slider
            }
        }
        return manifests
    }

    private func open(_ path: String) throws(GenerationError) -> LoRAFile {
        if let file = files[path] { return file }
        let file = try pipeline.openLoRA(path: path, isLenient: settings.isLoRALenient)
        files[path] = file
        return file
    }
}
