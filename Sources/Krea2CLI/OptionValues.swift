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

extension Int {
    /// Reads an amount of memory, such as `8GiB`, `2.5GiB`, `900MB` or a plain number of bytes.
    ///
    /// KiB to TiB count in powers of 1024 and KB to TB in powers of 1000, in either case of
    /// letters; fractions of a byte are dropped.
    static func byteCount(_ text: String) throws(ValueError) -> Int {
        let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let isWhole = !number.contains(".")
        let unit = unitByteCount(text.dropFirst(number.count).uppercased())
        guard let unit, let value = Double(number), isWhole || unit > 1,
            // Digits alone are read as they are, since not every integer is a Double.
            let count = unit == 1 ? Int(number) : Int(exactly: (value * unit).rounded(.down)),
            count > 0
        else {
            throw ValueError(reason: "'\(text)' is not an amount such as 8GiB, 900MB or 4096")
        }
        return count
    }

    /// Bytes a unit stands for, nil where there is no such unit.
    private static func unitByteCount(_ unit: String) -> Double? {
        if unit.isEmpty || unit == "B" { return 1 }
        var binary = 1.0
        var decimal = 1.0
        for letter in ["K", "M", "G", "T"] {
            binary *= 1024
            decimal *= 1000
            if unit == letter + "IB" { return binary }
            if unit == letter + "B" { return decimal }
        }
        return nil
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
    /// Reads `PATH` or `PATH:NUMBER`; what stands after the last colon is the number, if it is one.
    static func pathAndNumber(
        _ text: String,
        in range: ClosedRange<Float>
    ) throws(ValueError) -> (path: String, number: Float?) {
        if let colon = text.lastIndex(of: ":") {
            let end = String(text[text.index(after: colon)...])
            if Float(end) != nil {
                return (try path(String(text[..<colon])), try Float.decimal(end, in: range))
            }
        }
        return (try path(text), nil)
    }

    /// Reads a path: anything but nothing.
    static func path(_ text: String) throws(ValueError) -> String {
        guard !text.isEmpty else { throw ValueError(reason: "an empty path") }
        return text
    }
}

/// Reads values with commas between them, none of them twice.
func list<Value: Equatable>(
    _ text: String,
    _ read: (String) throws(ValueError) -> Value
) throws(ValueError) -> [Value] {
    var values: [Value] = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
        let value = try read(String(part))
        guard !values.contains(value) else {
            throw ValueError(reason: "'\(part)' is there twice")
        }
        values.append(value)
    }
    return values
}
