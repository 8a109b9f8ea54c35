// The text form of a record that other programs read.

extension GenerationRecord {
    /// The record in the form of AUTOMATIC1111's web interface, for the PNG text `parameters`.
    ///
    /// The prompt, a line `Negative prompt: …` where guidance is on and there is one, and a line of
    /// `Name: value` pairs. A value with a comma, a colon or a line feed is written as a JSON
    /// string; prompts are written as they are, so one with a line that looks like the others can
    /// be misread. The text `krea2` is exact. U+0000, which PNG cannot store, becomes U+FFFD.
    ///
    /// Source: `create_infotext` and `quote` of stable-diffusion-webui 1.10.
    public var parameters: String {
        var lines: [String] = []
        if !prompt.isEmpty { lines.append(prompt) }
        if guidance > 0, let negativePrompt, !negativePrompt.isEmpty {
            lines.append("Negative prompt: " + negativePrompt)
        }
        var pairs = [
            ("Steps", "\(steps)"),
            ("Sampler", "Euler"),
            // Evenly spaced times, bent by `shift`; the name ComfyUI and Forge give them.
            ("Schedule type", "Simple"),
            ("CFG scale", Self.short(cfgScale)),
            ("Seed", "\(seed)"),
            ("Size", "\(width)x\(height)"),
            ("Model hash", Self.shortHash(digests.transformer)),
            ("Model", "krea2-\(checkpoint.rawValue)"),
            ("Mu", Self.short(shift)),
            ("Version", "krea2 \(engineVersion)"),
        ]
        if let loras {
            let hashes = loras.map { "\($0.name): \(Self.shortHash($0.digest))" }
            let scales = loras.map { "\($0.name): \(Self.short($0.scale))" }
            pairs.append(("Lora hashes", hashes.joined(separator: ", ")))
            pairs.append(("Lora scales", scales.joined(separator: ", ")))
        }
        if let sliders {
            let values = sliders.map { "\($0.name): \($0.value)" }
            pairs.append(("Sliders", values.joined(separator: ", ")))
        }
        for (name, pictures) in [
            ("Style references", references?.map { ($0.content, $0.strength) }),
            ("Moodboards", moodboards?.map { ($0.content, $0.strength) }),
        ] {
            guard let pictures else { continue }
            let values = pictures.map { "\(Self.shortHash($0)): \(Self.short($1))" }
            pairs.append((name, values.joined(separator: ", ")))
        }
        if let referenceWiring { pairs.append(("Reference wiring", referenceWiring)) }
        if let initialImage {
            pairs.append(("Denoising strength", Self.short(initialImage.strength)))
        }
        lines.append(pairs.map { "\($0): \(Self.quoted($1))" }.joined(separator: ", "))
        var text = String.UnicodeScalarView()
        for scalar in lines.joined(separator: "\n").unicodeScalars {
            text.append(scalar == "\0" ? "\u{FFFD}" : scalar)
        }
        return String(text)
    }

    /// The first ten digits of a digest, without the name of its kind.
    private static func shortHash(_ digest: String) -> String {
        String(digest.split(separator: ":").last?.prefix(10) ?? "")
    }

    /// A number without a needless fraction.
    private static func short(_ number: some BinaryFloatingPoint) -> String {
        let text = "\(number)"
        return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
    }

    /// A value as it stands between the commas of the last line.
    private static func quoted(_ value: String) -> String {
        let special: Set<Unicode.Scalar> = [",", ":", "\n"]
        guard value.unicodeScalars.contains(where: special.contains) else { return value }
        var quoted = "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": quoted += "\\\""
            case "\\": quoted += "\\\\"
            case "\n": quoted += "\\n"
            case "\u{00}"..."\u{1F}":
                let digits = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}
