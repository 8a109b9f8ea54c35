/// Capital letters, digits and signs of three by five points, drawn by hand.
enum BitmapFont {
    /// Points of a letter and the gap after it.
    static let (width, height, gap) = (3, 5, 1)

    /// Whether a point of a letter is set; small letters are drawn as capitals, others as a box.
    static func isSet(_ letter: Character, row: Int, column: Int) -> Bool {
        let pattern = patterns[letter] ?? letter.uppercased().first.flatMap { patterns[$0] } ?? box
        return pattern >> (3 * (height - 1 - row) + (width - 1 - column)) & 1 == 1
    }

    private static let box: UInt16 = 0o75557

    /// Each digit is a row, its bits are the points from left to right.
    private static let patterns: [Character: UInt16] = [
        "A": 0o25755, "B": 0o65656, "C": 0o34443, "D": 0o65556, "E": 0o74647, "F": 0o74644,
        "G": 0o34553, "H": 0o55755, "I": 0o72227, "J": 0o11152, "K": 0o55655, "L": 0o44447,
        "M": 0o57755, "N": 0o65555, "O": 0o25552, "P": 0o65644, "Q": 0o25573, "R": 0o65655,
        "S": 0o34216, "T": 0o72222, "U": 0o55557, "V": 0o55552, "W": 0o55775, "X": 0o55255,
        "Y": 0o55222, "Z": 0o71247,
        "0": 0o75557, "1": 0o26227, "2": 0o61247, "3": 0o61216, "4": 0o55711, "5": 0o74616,
        "6": 0o34652, "7": 0o71122, "8": 0o25252, "9": 0o25316,
        " ": 0, ".": 0o00002, ",": 0o00024, ":": 0o02020, ";": 0o02024, "-": 0o00700,
        "+": 0o02720, "=": 0o07070, "/": 0o11244, "(": 0o12221, ")": 0o42224, "'": 0o22000,
        "\"": 0o55000, "!": 0o22202, "?": 0o61202, "_": 0o00007, "#": 0o57575, "%": 0o51245,
        "*": 0o52500,
    ]
}
