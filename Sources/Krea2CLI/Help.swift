/// Column at which the descriptions begin.
private let descriptionColumn = 29
/// Columns a line of help may fill.
private let lineWidth = 80

extension Krea2Command {
    /// What `krea2 --help` prints.
    static var overview: String {
        var lines = [
            "krea2 makes pictures from text with the Krea 2 models.",
            "",
            "usage: krea2 COMMAND [options]",
            "",
        ]
        for command in all {
            lines += helpRow("  \(command.name)", command.summary)
        }
        lines += [
            "",
            "krea2 COMMAND --help tells more; krea2 --version prints the version.",
        ]
        return lines.joined(separator: "\n")
    }
}

/// The help of one subcommand, without a line break at its end.
func helpText(
    command: String,
    summary: String,
    synopsis: String,
    options: [OptionDescription],
    notes: String
) -> String {
    var lines = [
        "krea2 \(command): \(summary)",
        "",
        "usage: krea2 \(command) \(synopsis)",
        "",
    ]
    for option in options {
        var head = option.short.map { "  -\($0), " } ?? "      "
        head += "--\(option.name)"
        if let value = option.value { head += " \(value)" }
        lines += helpRow(head, option.help)
    }
    for paragraph in notes.split(separator: "\n", omittingEmptySubsequences: false)
    where !notes.isEmpty {
        lines += paragraph.isEmpty ? [""] : wrapped(paragraph, width: lineWidth)
    }
    return lines.joined(separator: "\n")
}

/// A name in the left column and its description, wrapped, in the right one.
private func helpRow(_ head: String, _ description: String) -> [String] {
    let indent = String(repeating: " ", count: descriptionColumn)
    var lines = wrapped(description[...], width: lineWidth - descriptionColumn).map { indent + $0 }
    let gap = descriptionColumn - head.count
    if gap >= 2, let first = lines.first {
        lines[0] = head + first.dropFirst(head.count)
    } else {
        lines.insert(head, at: 0)
    }
    return lines
}

/// Breaks text at blanks; leading blanks are kept as the indent of every line.
private func wrapped(_ text: Substring, width: Int) -> [String] {
    let indent = String(text.prefix { $0 == " " })
    var lines: [String] = []
    var line = indent
    for word in text.split(separator: " ") {
        if line.count > indent.count, line.count + 1 + word.count > width {
            lines.append(line)
            line = indent
        }
        line += (line.count > indent.count ? " " : "") + word
    }
    lines.append(line)
    return lines
}
