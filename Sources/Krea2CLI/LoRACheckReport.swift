import Krea2

/// What `krea2 lora check` says of one file.
struct LoRACheckReport {
    private let check: LoRACheck
    /// As the user names it; nil for the released models' sizes.
    private let model: String?

    init(_ check: LoRACheck, model: String?) {
        (self.check, self.model) = (check, model)
    }

    /// Problems that are listed.
    private static let listedProblems = 20

    /// Several lines for people.
    var text: String {
        var lines = ["\(check.path): \(check.outline?.title ?? "no LoRA")"]
        func add(_ name: String, _ value: String) {
            lines.append("  " + name.padded(to: 12) + value)
        }
        if let outline = check.outline {
            for (name, value) in outline.rows { add(name, value) }
        }
        if check.layerCount > 0 {
            let alphas = check.alphas.map(\.short).joined(separator: ", ")
            let scales = check.scales.map(\.short).joined(separator: ", ")
            add("alpha", (alphas.isEmpty ? "none" : alphas) + ", which makes scale \(scales)")
        }
        let place = model ?? "the released models"
        let vectors = check.vectorCount.counted("norm or table", "norms and tables")
        let others = check.vectorCount > 0 ? ", and \(vectors)" : ""
        add("layers", "\(check.layerCount) of \(check.modelLayerCount) of \(place)\(others)")
        for hint in check.outline?.hints ?? [] { add("trained", hint.line) }
        for problem in check.problems.prefix(Self.listedProblems) {
            add(problem.isHarmless ? "ignored" : "wrong", problem.description)
        }
        let more = check.problems.count - Self.listedProblems
        if more > 0 { add("", "and \(more) more") }
        for block in check.blocks {
            let layers = block.layerCount.counted("layer")
            add("effect", "\(block.name.padded(to: 30)) \(block.norm.significant), \(layers)")
        }
        add("verdict", verdict)
        return lines.map(\.escapingControls).joined(separator: "\n")
    }

    /// What comes of the file, in words.
    var verdict: String {
        switch check.verdict {
        case .applies: "can be used"
        case .appliesLeniently: "can be used with --lora-lenient, without what is ignored"
        case .hasNoEffect: "changes nothing: all its differences are zero"
        case .isRefused where check.layerCount + check.vectorCount == 0:
            "cannot be used: it changes no layer"
        case .isRefused: "cannot be used: it is not applied in part"
        }
    }

    /// One line for programs.
    var json: String {
        let outline = check.outline
        return JSONText.line(
            Facts(
                file: check.path,
                digest: check.digest,
                dialects: outline?.dialects ?? [],
                methods: outline?.methods ?? [:],
                ranks: outline?.ranks ?? [],
                otherModel: outline?.otherModel,
                alphas: check.alphas,
                scales: check.scales,
                layers: check.layerCount,
                modelLayers: check.modelLayerCount,
                vectors: check.vectorCount,
                hints: (outline?.hints ?? []).reduce(into: [:]) { $0[$1.key] = $1.value },
                problems: check.problems.map {
                    .init(text: $0.description, isHarmless: $0.isHarmless)
                },
                blocks: check.blocks.map {
                    .init(name: $0.name, layers: $0.layerCount, norm: $0.norm)
                },
                verdict: check.verdict.rawValue,
                isUsable: check.isUsable
            )
        )
    }

    private struct Facts: Encodable {
        struct Problem: Encodable {
            let text: String
            let isHarmless: Bool
        }

        struct Block: Encodable {
            let name: String
            let layers: Int
            let norm: Double
        }

        let file: String
        let kind = "lora"
        let digest: String
        let dialects: [String]
        let methods: [String: Int]
        let ranks: [Int]
        let otherModel: String?
        let alphas: [Double]
        let scales: [Float]
        let layers: Int
        let modelLayers: Int
        let vectors: Int
        let hints: [String: String]
        let problems: [Problem]
        let blocks: [Block]
        let verdict: String
        let isUsable: Bool
    }
}

extension Double {
    /// Four significant digits, for sizes that are not known beforehand.
    fileprivate var significant: String {
        guard isFinite, self != 0 else { return "\(self)" }
        var unit = 1.0
        while magnitude / unit >= 10_000 { unit *= 10 }
        while magnitude / unit < 1_000, unit > 1e-300 { unit /= 10 }
        let rounded = (self / unit).rounded() * unit
        return (0.001..<1e6).contains(rounded) ? rounded.short : "\(Float(rounded))"
    }
}
