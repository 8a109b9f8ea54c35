// Normal form C is not in the standard library's public interface, and Foundation, which has it,
// would add 45 MB to the program. The library's own implementation, on which comparing strings
// rests, is behind this SPI; if a compiler drops it, this file is the one to change.
@_spi(_Unicode) private import Swift

/// The scalars of a text in normal form C, as Unicode 9 has it.
///
/// The tables of the `tokenizers` library are that old. What it does not know stays as it is, and
/// nothing is reordered or composed across it.
func composed(_ text: String) -> [Unicode.Scalar] {
    var result: [Unicode.Scalar] = []
    var known: [Unicode.Scalar] = []
    for scalar in text.unicodeScalars {
        if scalar.isAssigned(by: 9) {
            known += partsOfVowel(scalar) ?? [scalar]
        } else {
            result += composed(known)
            known = []
            result.append(scalar)
        }
    }
    return result + composed(known)
}

extension Unicode.Scalar {
    /// Whether a version of Unicode, given by its major number, has the scalar.
    func isAssigned(by version: Int) -> Bool {
        properties.age.map { $0.major <= version } ?? false
    }
}

/// Normal form C of scalars that Unicode 9 has.
///
/// Marks are put in canonical order first, which does not change the result: the library's own sort
/// of them is quadratic.
private func composed(_ scalars: [Unicode.Scalar]) -> [Unicode.Scalar] {
    let classes = scalars.map(\.properties.canonicalCombiningClass)
    var ordered = String.UnicodeScalarView()
    var start = 0
    while start < scalars.count {
        var end = start + 1
        if classes[start] != .notReordered {
            while end < scalars.count, classes[end] != .notReordered { end += 1 }
        }
        let order = (start..<end).sorted { (classes[$0], $0) < (classes[$1], $1) }
        ordered.append(contentsOf: order.map { scalars[$0] })
        start = end
    }
    return Array(String(ordered)._nfc)
}

/// The two marks that each of three Tibetan vowel signs is made of.
///
/// The signs are not reordered themselves, their marks are; the library forgets to. Unicode
/// promises that no more such characters will come.
private func partsOfVowel(_ scalar: Unicode.Scalar) -> [Unicode.Scalar]? {
    switch scalar {
    case "\u{F73}": ["\u{F71}", "\u{F72}"]
    case "\u{F75}": ["\u{F71}", "\u{F74}"]
    case "\u{F81}": ["\u{F71}", "\u{F80}"]
    default: nil
    }
}
