// Numbers as people read them.

extension BinaryFloatingPoint where Self: CustomStringConvertible {
    /// At most six decimals, and none that say nothing: `3.5`, `0`, `0.90625`.
    var short: String {
        guard magnitude < 1e6 else { return description }
        let millionths = Int((Double(magnitude) * 1e6).rounded())
        let whole = String(millionths / 1_000_000)
        var decimals = String(String(1_000_000 + millionths % 1_000_000).dropFirst())
        while decimals.hasSuffix("0") { decimals.removeLast() }
        let sign = self < 0 && millionths > 0 ? "-" : ""
        return sign + whole + (decimals.isEmpty ? "" : "." + decimals)
    }
}

/// Bytes as people read them: `512 B`, `1.5 MiB`.
func byteText(_ count: Int) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"]
    var value = Double(count)
    var unit = 0
    while value >= 1024, unit + 1 < units.count {
        value /= 1024
        unit += 1
    }
    return "\(unit == 0 ? String(count) : ((value * 10).rounded() / 10).short) \(units[unit])"
}

/// Seconds as `0:07`, `12:34` or `3:02:01`.
func clock(_ seconds: Double) -> String {
    let whole = seconds.isNaN ? 0 : Int(min(max(seconds.rounded(), 0), 1e9))
    let minutes = whole / 60 % 60
    let padded = { (number: Int) in number < 10 ? "0\(number)" : String(number) }
    return whole >= 3600
        ? "\(whole / 3600):\(padded(minutes)):\(padded(whole % 60))"
        : "\(minutes):\(padded(whole % 60))"
}

/// Seconds of something that may be short: `0.08 s`, `7.5 s`, `42 s`, `12:34`.
func secondsText(_ seconds: Double) -> String {
    guard seconds < 99.5 else { return clock(seconds) }
    let digits = seconds < 1 ? 100.0 : seconds < 10 ? 10 : 1
    return "\(((seconds * digits).rounded() / digits).short) s"
}
