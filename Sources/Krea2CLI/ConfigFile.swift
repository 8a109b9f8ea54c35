import FoundationEssentials
import JSON

/// A `--config` file: a JSON object whose keys are the long names of the options.
enum ConfigFile {
    /// Largest file that is read.
    static let byteLimit = 1 << 20

    /// Reads a file as if its entries had stood on the command line.
    ///
    /// - Numbers and text are values; `true` gives a flag and `false` leaves it out. What may be
    ///   given several times may be a list.
    /// - Returns: The entries in the order of the table.
    /// - Throws: Exit code 66 when the file cannot be read, 64 when its content is not understood.
    static func read<Settings>(
        _ path: String,
        for table: OptionTable<Settings>
    ) throws(Failure) -> [OptionTable<Settings>.Given] {
        let entries = try decode(contents(of: path), path: path)
        let known = table.options.filter(\.isConfigurable)
        for name in entries.keys.sorted() where !known.contains(where: { $0.name == name }) {
            throw .usage("\(path): unknown key \"\(name)\"", of: table.command)
        }
        var given: [OptionTable<Settings>.Given] = []
        for option in known {
            guard let value = entries[option.name] else { continue }
            let spelling = "\(path): \(option.name)"
            var values = [value]
            if case .array(let elements) = value, option.isRepeatable { values = elements }
            for value in values {
                if let text = try text(value, option.value != nil, spelling, table.command) {
                    given.append(.init(option: option, value: text, spelling: spelling))
                }
            }
        }
        try table.checkCombination(given)
        return given
    }

    /// What would stand on the command line; nil for a flag that is left out.
    private static func text(
        _ value: JSONValue,
        _ takesValue: Bool,
        _ spelling: String,
        _ command: String
    ) throws(Failure) -> String? {
        switch (value, takesValue) {
        case (.bool(true), false): return ""
        case (.bool(false), false): return nil
        case (.string(let text), true): return text
        case (.integer(let number), true): return String(number)
        case (.number(let number), true): return String(number)
        default:
            let expected = takesValue ? "a text or a number" : "true or false"
            throw .usage("\(spelling): expected \(expected)", of: command)
        }
    }

    private static func contents(of path: String) throws(Failure) -> Data {
        guard FileKind(of: path) != .folder, let data = FileManager.default.contents(atPath: path)
        else {
            throw Failure(.noInput, "\(path): no such file, or not readable")
        }
        guard data.count <= byteLimit else {
            throw Failure(.badData, "\(path): more than \(byteLimit) bytes for a configuration")
        }
        return data
    }

    private static func decode(
        _ data: Data,
        path: String
    ) throws(Failure) -> [String: JSONValue] {
        let value: JSONValue
        do {
            value = try JSONParser.parse([UInt8](data))
        } catch {
            throw Failure(
                .badData,
                "\(path): not valid JSON: \(error.problem) at byte \(error.position)"
            )
        }
        guard case .object(let entries) = value else {
            throw Failure(.badData, "\(path): expected a JSON object of option names and values")
        }
        return entries
    }
}
