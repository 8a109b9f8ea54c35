/// Text of a file between quotes on one line, shortened when long.
package func quoted(_ text: String) -> String {
    let limit = 160
    let shown = String(text.unicodeScalars.prefix(limit)).debugDescription
    return text.unicodeScalars.count > limit ? shown + "…" : shown
}
