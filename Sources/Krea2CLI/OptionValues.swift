// Readers of option values; each refuses with words that follow the option's name.

extension FixedWidthInteger {
    /// Reads a whole number in decimal digits.
    static func whole(
        _ text: String,
        in range: ClosedRange<Self>
    ) throws(ValueError) -> Self {
        guard let number = Self(text), range.contains(number) else {
            throw ValueError(
                reason: "'\(text)' is not a whole number from \(range.lowerBound) to "
                    + "\(range.upperBound)"
            )
        }
        return number
    }
}

extension BinaryFloatingPoint where Self: LosslessStringConvertible {
    /// Reads a decimal number.
    static func decimal(
        _ text: String,
        in range: ClosedRange<Self>
    ) throws(ValueError) -> Self {
        // The standard library also reads hexadecimal; on a command line that would be a surprise.
        let isDecimal = !text.contains { $0 == "x" || $0 == "X" }
        guard isDecimal, let number = Self(text), range.contains(number) else {
            throw ValueError(
                reason: "'\(text)' is not a number from \(range.lowerBound.short) to "
                    + "\(range.upperBound.short)"
            )
        }
        return number
    }
}

extension RawRepresentable where Self: CaseIterable, RawValue == String {
    /// Reads one of several words.
    static func choice(_ text: String) throws(ValueError) -> Self {
        guard let word = Self(rawValue: text) else {
            let words = allCases.map(\.rawValue).joined(separator: ", ")
            throw ValueError(reason: "'\(text)' is not one of \(words)")
        }
        return word
    }
}

extension String {
    /// Reads a path: anything but nothing.
    static func path(_ text: String) throws(ValueError) -> String {
        guard !text.isEmpty else { throw ValueError(reason: "an empty path") }
        return text
    }
}
