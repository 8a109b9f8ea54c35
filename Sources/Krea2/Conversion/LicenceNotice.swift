/// What the licences ask for beside a converted file.
///
/// Source: Krea 2 Community License, v.1 of 2026-06-22, sections 3.1 and 3.2; Apache License 2.0,
/// section 4.
enum LicenceNotice {
    /// The text of the notice.
    ///
    /// - Parameters:
    ///   - conversion: What was converted.
    ///   - name: Name of the new file.
    /// - Returns: Whole lines.
    static func text(_ conversion: Conversion, name: String) -> String {
        let licence =
            switch conversion.part {
            case .transformer:
                """
                Krea 2 is licensed under the Krea 2 Community License Agreement. For more \
                information, visit https://krea.ai/krea-2-licensing.
                """
            case .textEncoder:
                """
                Qwen3-VL-4B-Instruct is licensed under the Apache License, Version 2.0; see \
                https://www.apache.org/licenses/LICENSE-2.0.
                """
            }
        return """
            \(licence)

            \(name) is a modified copy, made by krea2 \(Engine.version) convert: \
            \(conversion.convertedCount) of its \(conversion.tensorCount) tensors were converted to \
            \(conversion.format.rawValue), which rounds what it cannot hold. No other value was \
            changed. It was made from \(conversion.digest). The makers of the model do not endorse \
            the modification.

            """
    }

    /// The path of the notice for a file.
    static func path(for output: String) -> String {
        let suffix = ".safetensors"
        return (output.hasSuffix(suffix) ? String(output.dropLast(suffix.count)) : output)
            + ".NOTICE.txt"
    }
}
