/// A LoRA that a request applies, and how strongly.
public struct LoRAUse: Sendable, Equatable {
    /// The file, opened for the model that it is applied to.
    public let file: LoRAFile
    /// Factor of the change, finite; with 0 nothing of it is applied.
    public let scale: Float
    /// Noise levels, 0 to 1, of the steps that it is applied in.
    ///
    /// A step belongs to the sigma at which it begins. What runs once for all steps, the text
    /// stage, is changed whatever the window is.
    public let window: ClosedRange<Double>

    /// Combines the parts.
    ///
    /// - Parameters:
    ///   - file: The file, opened for the model that it is applied to.
    ///   - scale: Factor of the change.
    ///   - window: Noise levels, 0 to 1, of the steps that it is applied in.
    public init(_ file: LoRAFile, scale: Float = 1, window: ClosedRange<Double> = 0...1) {
        (self.file, self.scale, self.window) = (file, scale, window)
    }
}

extension Pipeline {
    /// Opens a LoRA file for this model; nothing of the model changes.
    ///
    /// - Parameters:
    ///   - path: A safetensors file.
    ///   - isLenient: Whether what is recognised but cannot be applied is left out, and no error.
    /// - Returns: The file, to be put into requests.
    /// - Throws: `.model` when it is no safetensors file, `.lora` with everything that does not fit.
    public func openLoRA(path: String, isLenient: Bool = false) throws(GenerationError) -> LoRAFile
    {
        let targets = LoRATargets(transformer.config)
        return try LoRAFile(path: path, targets: targets, isLenient: isLenient)
    }
}
