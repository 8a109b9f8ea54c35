import Images
import Krea2

/// `krea2 lora trial`: the same pictures with a LoRA at several scales, on one sheet.
struct LoRATrial {
    private let settings: LoRACommandSettings
    private let console: Console
    private let prompts: [String]
    private let sheetPath: String
    private let tablePath: String

    /// One model with the LoRA opened for it.
    private struct Model {
        let name: String
        let pipeline: Pipeline
        let lora: LoRAFile
        let size: PictureSize
    }

    /// Sides of pictures on the sheet are at most this.
    private static let largestSide = 384

    init(_ lora: String, _ settings: LoRACommandSettings, _ console: Console) throws(Failure) {
        (self.settings, self.console) = (settings, console)
        prompts =
            settings.prompts.isEmpty ? LoRACommandSettings.usualPrompts : settings.prompts
        sheetPath = settings.output ?? "\(lora.stem)-trial.png"
        let stem = sheetPath.hasSuffix(".png") ? String(sheetPath.dropLast(4)) : sheetPath
        tablePath = stem + ".csv"
        try OutputNames.check([sheetPath, tablePath], overwrites: settings.overwrites)
    }

    /// Makes the pictures and writes sheet and table.
    ///
    /// - Parameter lora: A path, or the name of a file in a `loras` folder.
    /// - Throws: What hinders a picture; then neither sheet nor table is written.
    func run(_ lora: String) throws(Failure) {
        Interruption.listen()
        let models = try models(lora)
        let (largest, rowCount) = (
            models.map { max($0.size.width, $0.size.height) }.max() ?? 1,
            models.count * prompts.count * settings.seeds.count
        )
        let factor = (largest + Self.largestSide - 1) / Self.largestSide
        var sheet = ContactSheet(
            columns: settings.scales.map { "scale \($0.short)" },
            cell: PictureSize(
                width: (models.map(\.size.width).max() ?? 1) / factor,
                height: (models.map(\.size.height).max() ?? 1) / factor
            )
        )
        let size = sheet.size(rows: rowCount)
        guard PixelImage.isPossible(width: size.width, height: size.height) else {
            throw .usage("a sheet of \(size.width)x\(size.height) pixels is too large", of: "lora")
        }
        var table = ["model,variant,prompt,seed,scale,steps,cfg,width,height,change,seconds"]
        for prompt in prompts {
            for seed in settings.seeds {
                for model in models {
                    let row = try row(model, prompt, seed, shrinkingBy: factor, &table)
                    sheet.rows.append(row)
                }
            }
        }
        do {
            let picture = try PNG.encode(try sheet.image(), metadata: nil)
            try writeFile(picture, to: sheetPath, overwriting: settings.overwrites)
            let text = table.joined(separator: "\n") + "\n"
            try writeFile(Array(text.utf8), to: tablePath, overwriting: settings.overwrites)
        } catch {
            throw Failure(error)
        }
        for path in [sheetPath, tablePath] { try console.print(path) }
    }

    // MARK: Models

    /// The models, those of both variants unless others are named; the LoRA fits all of them.
    private func models(_ lora: String) throws(Failure) -> [Model] {
        let discovery = ModelDiscovery(console)
        var found: [ModelDiscovery.Found] = []
        for name in settings.models { found.append(try discovery.resolve(name)) }
        if found.isEmpty {
            for variant in Variant.allCases {
                let model = try discovery.resolve(nil, variant: variant)
                if !found.contains(model) { found.append(model) }
            }
        }
        var models: [Model] = []
        for model in found {
            do throws(GenerationError) {
                models.append(try open(model, lora, discovery.searchFolders))
            } catch {
                throw Failure(error, of: "lora")
            }
        }
        return models
    }

    private func open(
        _ found: ModelDiscovery.Found,
        _ lora: String,
        _ folders: [String]
    ) throws(GenerationError) -> Model {
        let pipeline = try Pipeline(
            try ModelFiles.locate(found.path, searchFolders: folders),
            options: PipelineOptions(
                threads: settings.threads ?? Engine.defaultThreads,
                variant: found.origin.variant,
                memoryByteCount: settings.memory
            )
        )
        let library = try LoRALibrary(model: found.path, searchFolders: folders)
        let file = try pipeline.openLoRA(
            path: library.lora(lora),
            isLenient: settings.isLoRALenient
        )
        let size = (settings.size ?? .aspect(.square)).size(
            resolutionClass: pipeline.summary.resolutionClass
        ).rounded
        return Model(name: found.name, pipeline: pipeline, lora: file, size: size)
    }

    // MARK: Pictures

    /// The pictures of all scales, and their lines in the table.
    private func row(
        _ model: Model,
        _ prompt: String,
        _ seed: UInt64,
        shrinkingBy factor: Int,
        _ table: inout [String]
    ) throws(Failure) -> ContactSheet.Row {
        var request = GenerationRequest(
            prompt: prompt,
            width: model.size.width,
            height: model.size.height,
            steps: settings.steps,
            seed: seed
        )
        var row = ContactSheet.Row(label: "\(model.name), seed \(seed): \(prompt)")
        // What the others are compared with, whether it is shown or not.
        let plain = try picture(request, model)
        for scale in settings.scales {
            request.loras = [LoRAUse(model.lora, scale: scale)]
            let (image, seconds) = scale == 0 ? plain : try picture(request, model)
            let change = image.difference(to: plain.image).inHundredths
            do throws(GenerationError) {
                let resolved = try model.pipeline.resolve(request)
                table.append(
                    [
                        model.name.quotedForTable, resolved.variant.rawValue,
                        prompt.quotedForTable, "\(seed)", scale.short, "\(resolved.steps)",
                        resolved.guidance.short, "\(image.width)", "\(image.height)", change,
                        seconds.inHundredths,
                    ].joined(separator: ",")
                )
            } catch {
                throw Failure(error, of: "lora")
            }
            console.note(
                "krea2: \(model.name), seed \(seed), scale \(scale.short): changed by \(change), "
                    + secondsText(seconds)
            )
            do {
                let pixels = try PixelImage(
                    width: image.width,
                    height: image.height,
                    rgb: image.rgb
                )
                row.pictures.append(try pixels.shrunk(by: factor))
            } catch {
                throw Failure(error)
            }
        }
        return row
    }

    private func picture(
        _ request: GenerationRequest,
        _ model: Model
    ) throws(Failure) -> (image: GeneratedImage, seconds: Double) {
        let start = console.now()
        do throws(GenerationError) {
            let images = try model.pipeline.generate(
                request,
                isCancelled: { Interruption.isRequested }
            )
            return (images[0], (console.now() - start) / .seconds(1))
        } catch {
            throw Failure(error, of: "lora")
        }
    }
}

extension GeneratedImage {
    /// The root of the mean square of differences between bytes, 0 to 255.
    fileprivate func difference(to other: GeneratedImage) -> Double {
        let sum = zip(rgb, other.rgb).reduce(0) { sum, pair in
            let difference = Int(pair.0) - Int(pair.1)
            return sum + difference * difference
        }
        return (Double(sum) / Double(max(1, rgb.count))).squareRoot()
    }
}

extension Double {
    /// Two decimals at most.
    fileprivate var inHundredths: String { ((self * 100).rounded() / 100).short }
}

extension String {
    /// As RFC 4180 writes it between commas.
    fileprivate var quotedForTable: String {
        "\"" + split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"")
            + "\""
    }
}
