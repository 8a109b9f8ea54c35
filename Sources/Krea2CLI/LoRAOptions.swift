import Krea2

/// A LoRA as the user asks for it.
struct LoRAChoice: Equatable, Sendable {
    /// A path, or a name in one of the `loras` folders.
    var name: String
    var scale: Float = 1

    /// Scales that can be asked for.
    static let scaleRange: ClosedRange<Float> = -4...4

    /// Reads `PATH` or `PATH:SCALE`; a number after the last colon is the scale.
    init(parsing text: String) throws(ValueError) {
        let (path, number) = try String.pathAndNumber(text, in: Self.scaleRange)
        (name, scale) = (path, number ?? 1)
    }
}

extension GenerateSettings {
    /// The hosted service's sliders, which have options of their own.
    private static let namedSliders = [
        ("intensity", "from muted (-100) to intensely stylised (100)"),
        ("complexity", "from minimal to dense"),
        ("movement", "from static to strong movement"),
    ]

    /// LoRAs and sliders.
    static let loraOptions: [Option<GenerateSettings>] =
        [
            Option(
                "lora",
                value: "PATH[:SCALE]",
                completion: .files,
                isRepeatable: true,
                help: "apply this LoRA, a path or the name of a file in loras/ beside the model or "
                    + "in KREA2_MODELS; scale -4 to 4, default 1; may be repeated"
            ) { (settings, text) throws(ValueError) in
                settings.loras.append(try LoRAChoice(parsing: text))
            },
            .flag(
                "lora-lenient",
                help: "leave out what LoRA files have for other parts than the transformer's "
                    + "layers, instead of refusing them",
                \.isLoRALenient
            ),
        ]
        + namedSliders.map { name, help in
            Option(name, value: "N", help: "slider \(help); default 0") {
                (settings, text) throws(ValueError) in
                try settings.setSlider(name, text)
            }
        } + [
            Option(
                "slider",
                value: "NAME=N",
                isRepeatable: true,
                help: "any slider, -100 to 100; may be repeated"
            ) { (settings, text) throws(ValueError) in
                guard let sign = text.firstIndex(of: "="), sign != text.startIndex else {
                    throw ValueError(reason: "'\(text)' is not NAME=N")
                }
                let value = String(text[text.index(after: sign)...])
                try settings.setSlider(String(text[..<sign]), value)
            },
            Option(
                "slider-file",
                value: "FILE",
                completion: .files,
                isRepeatable: true,
                help:
                    "a slider's manifest, besides those found as NAME.slider.json where LoRAs are "
                    + "looked for; may be repeated"
            ) { (settings, path) throws(ValueError) in
                settings.sliderFiles.append(try .path(path))
            },
            .flag(
                "random-sliders",
                help: "draw the values of the three above and of all sliders that are found, anew "
                    + "for each picture; values that are given stay",
                \.hasRandomSliders
            ),
        ]

    private mutating func setSlider(_ name: String, _ text: String) throws(ValueError) {
        let value = try Int.whole(text, in: SliderManifest.range)
        guard sliders.updateValue(value, forKey: name) == nil else {
            throw ValueError(reason: "the slider \(name) is given twice")
        }
    }
}
