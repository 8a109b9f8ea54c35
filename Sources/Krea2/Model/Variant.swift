import FoundationEssentials

/// The two checkpoints of Krea 2, which differ in their weights alone.
public enum Variant: String, Sendable, CaseIterable {
    /// Distilled for few steps without guidance.
    case turbo
    /// For many steps with guidance.
    case raw
}

/// Tells which checkpoint a model is.
enum VariantChoice {
    /// The variant and what told it, in words for the user.
    ///
    /// Asked in this order: `override`, `is_distilled` of the index, the names of the transformer's
    /// file and of the folders up to the model's. Turbo if none of them tells.
    ///
    /// - Parameters:
    ///   - override: What the user says.
    ///   - index: What `model_index.json` says.
    ///   - transformerPath: File or folder of the transformer.
    /// - Returns: The variant; `source` is part of a sentence, such as "the name turbo.safetensors".
    static func decide(
        override: Variant?,
        index: ModelIndex,
        transformerPath: String
    ) -> (variant: Variant, source: String) {
        if let override { return (override, "asked for") }
        return known(index: index, transformerPath: transformerPath)
            ?? (.turbo, "assumed, since neither model_index.json nor the file's name tells")
    }

    /// The variant and what told it; nil where neither the index nor a name tells.
    static func known(
        index: ModelIndex,
        transformerPath: String
    ) -> (variant: Variant, source: String)? {
        if let isDistilled = index.isDistilled {
            return (isDistilled ? .turbo : .raw, "is_distilled in model_index.json")
        }
        for name in names(transformerPath) {
            if let variant = variant(named: name) { return (variant, "the name \(name)") }
        }
        return nil
    }

    /// The variant whose name is a word of `name`; nil when none is, or both are.
    private static func variant(named name: String) -> Variant? {
        let words = words(name)
        let variants = Variant.allCases.filter { words.contains($0.rawValue) }
        return variants.count == 1 ? variants.first : nil
    }

    /// Runs of letters in lower case; a capital after a small letter starts a new one.
    private static func words(_ name: String) -> Set<String> {
        var words: [String] = [""]
        var previous: Character = "-"
        for character in name {
            if !character.isLetter || (previous.isLowercase && character.isUppercase) {
                words.append("")
            }
            if character.isLetter { words[words.count - 1] += character.lowercased() }
            previous = character
        }
        return Set(words)
    }

    /// The name of the transformer and those of the folders that belong to the model.
    private static func names(_ transformerPath: String) -> [String] {
        let components = Array(PathText.components(transformerPath).reversed())
        guard let name = components.first else { return [] }
        var names = [name]
        var folders = components.dropFirst()
        if !PathText.transformerFolders.contains(name), let folder = folders.popFirst() {
            names.append(folder)
        }
        // The model's folder is one further up from transformer/ and the like.
        if names.last.map(PathText.transformerFolders.contains) ?? false,
            let folder = folders.popFirst()
        {
            names.append(folder)
        }
        // Hugging Face's cache: models--krea--Krea-2-Turbo/snapshots/<revision>.
        if folders.first == "snapshots", let repository = folders.dropFirst().first {
            names.append(repository)
        }
        return names
    }
}
