import Checkpoints

/// Folders in which LoRAs and sliders are found by name.
public struct LoRALibrary: Sendable {
    /// In the order in which they are looked at.
    public let folders: [String]

    /// Lists the folders for a model: `loras/` beside it and in other trees, then its own.
    ///
    /// - Parameters:
    ///   - model: File or folder of the model.
    ///   - searchFolders: Tops of ComfyUI trees.
    /// - Throws: `.model` when there is no such model.
    public init(model: String, searchFolders: [String]) throws(GenerationError) {
        let homes = try TransformerPlace(model).homes
        folders = (homes + searchFolders).map { PathText.inside($0, "loras") } + homes
    }

    /// The path of a LoRA.
    ///
    /// - Parameter name: A path, or the name of a file in one of the folders, with or without
    ///   `.safetensors`.
    /// - Returns: A path that leads to a file.
    /// - Throws: `.model` with every folder looked at.
    public func lora(_ name: String) throws(GenerationError) -> String {
        if PathText.kind(name) != nil { return name }
        let names = name.hasSuffix(".safetensors") ? [name] : [name + ".safetensors", name]
        for folder in folders where !name.hasPrefix("/") {
            for name in names {
                let path = PathText.inside(folder, name)
                if PathText.kind(path) == .file { return path }
            }
        }
        guard !name.hasPrefix("/") else { throw .model(.missing(path: name)) }
        throw .model(
            .missingCompanion(part: "LoRA \(name)", option: "--lora PATH", lookedAt: folders)
        )
    }

    /// The manifest of a slider.
    ///
    /// - Parameter name: What it is called.
    /// - Returns: That of `NAME.slider.json`, or in the header of `NAME.safetensors`, in the first
    ///   folder that has one; texts for the names of the hosted service's sliders where none has.
    /// - Throws: `.missingSlider` with every folder looked at, `.model` for a damaged manifest.
    public func slider(_ name: String) throws(GenerationError) -> SliderManifest {
        for folder in SliderManifest.isName(name) ? folders : [] {
            let path = PathText.inside(folder, name)
            if PathText.kind(path + SliderManifest.suffix) == .file {
                return try slider(name, at: path + SliderManifest.suffix)
            }
            if PathText.kind(path + ".safetensors") == .file,
                try hasManifest(path + ".safetensors")
            {
                return try slider(name, at: path + ".safetensors")
            }
        }
        guard let builtIn = SliderManifest(builtIn: name) else {
            throw .missingSlider(name: name, lookedAt: folders)
        }
        return builtIn
    }

    /// The hosted service's sliders, and all that have a `NAME.slider.json`; names that are found
    /// twice count once.
    ///
    /// - Throws: `.model` for a damaged manifest, or a folder that cannot be listed.
    public func sliders() throws(GenerationError) -> [SliderManifest] {
        var names = Set(SliderPoles.builtIn.keys)
        for folder in folders {
            for name in try PathText.names(in: folder) where name.hasSuffix(SliderManifest.suffix) {
                names.insert(String(name.dropLast(SliderManifest.suffix.count)))
            }
        }
        var sliders: [SliderManifest] = []
        for name in names.sorted() { sliders.append(try slider(name)) }
        return sliders
    }

    private func hasManifest(_ path: String) throws(GenerationError) -> Bool {
        do {
            return try SafetensorsFile(path: path).metadata["slider.format"] != nil
        } catch {
            throw .model(error)
        }
    }

    /// Reads a manifest; fails where it is of another slider than the file's name says.
    private func slider(
        _ name: String,
        at path: String
    ) throws(GenerationError) -> SliderManifest {
        let manifest = try SliderManifest(path: path)
        guard manifest.name == name else {
            throw .model(
                .damaged(
                    path: path,
                    tensor: nil,
                    found: "a manifest of the slider \(manifest.name)",
                    expected: "one of \(name), as the file's name says"
                )
            )
        }
        return manifest
    }
}
