/// What a shell offers after an option or in place of an argument.
enum Completion: Equatable, Sendable {
    case nothing
    case files
    case words([String])
}

/// One option of a subcommand: the single source of parsing, help and shell completion.
struct Option<Settings: Sendable>: Sendable {
    /// Long name without the dashes; also the key in a `--config` file.
    let name: String
    let short: Character?
    /// What the help calls the value; `nil` for a flag, which takes none.
    let value: String?
    let help: String
    let completion: Completion
    /// Options that may not stand beside this one.
    let excludes: [String]
    /// Whether a `--config` file may give it.
    let isConfigurable: Bool
    /// Whether it may be given several times.
    let isRepeatable: Bool
    /// Checks a value (empty for a flag) and puts it in place.
    let apply: @Sendable (inout Settings, String) throws(ValueError) -> Void

    init(
        _ name: String,
        short: Character? = nil,
        value: String? = nil,
        completion: Completion = .nothing,
        excludes: [String] = [],
        isConfigurable: Bool = true,
        isRepeatable: Bool = false,
        help: String,
        apply: @escaping @Sendable (inout Settings, String) throws(ValueError) -> Void
    ) {
        self.name = name
        self.short = short
        self.value = value
        self.help = help
        self.completion = completion
        self.excludes = excludes
        self.isConfigurable = isConfigurable
        self.isRepeatable = isRepeatable
        self.apply = apply
    }
}

/// Why a value is refused, in words that follow the option's name.
struct ValueError: Error, Equatable {
    var reason: String
}

/// What a subcommand takes besides options.
struct Positional: Sendable, Equatable {
    /// What the help calls it: `PROMPT`, `FILE…`.
    var name: String
    var counts: ClosedRange<Int>
    var completion: Completion = .nothing
}

/// One subcommand's options and arguments.
struct OptionTable<Settings: Sendable>: Sendable {
    let command: String
    let positional: Positional?
    let options: [Option<Settings>]

    /// An option as it was given.
    struct Given: Sendable {
        let option: Option<Settings>
        let value: String
        /// Where it was given, for messages: `--steps`, `-t`, `run.json: steps`.
        let spelling: String
    }

    /// A command line taken apart, not yet applied.
    struct Scan: Sendable {
        var given: [Given] = []
        var positionals: [String] = []
        /// `--help` or `-h` was met; nothing else was checked.
        var wantsHelp = false

        /// The value given for an option.
        func value(_ name: String) -> String? {
            given.first { $0.option.name == name }?.value
        }
    }
}

extension OptionTable {
    /// Takes a command line apart without applying any value.
    ///
    /// - `--name value`, `--name=value`, `-n value`; `--` ends the options.
    /// - A value may begin with a dash only when it is `-` alone, a negative number, or joined by `=`.
    func scan(_ arguments: [String]) throws(Failure) -> Scan {
        var scan = Scan()
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            if argument == "--" {
                scan.positionals += rest
                break
            }
            guard argument.hasPrefix("-"), argument != "-", !argument.looksLikeNegativeNumber else {
                scan.positionals.append(argument)
                continue
            }
            if argument == "--help" || argument == "-h" {
                scan.wantsHelp = true
                return scan
            }
            scan.given.append(try take(argument, &rest))
        }
        try checkCombination(scan.given)
        try checkCount(scan.positionals)
        return scan
    }

    /// Applies what a scan has found, in order.
    func apply(_ given: [Given], to settings: inout Settings) throws(Failure) {
        for item in given {
            do {
                try item.option.apply(&settings, item.value)
            } catch {
                throw .usage("\(item.spelling): \(error.reason)", of: command)
            }
        }
    }

    /// Refuses options given twice and options that exclude each other.
    func checkCombination(_ given: [Given]) throws(Failure) {
        var spellings: [String: String] = [:]
        for item in given {
            let name = item.option.name
            guard spellings[name] == nil || item.option.isRepeatable else {
                throw .usage("\(item.spelling): --\(name) is given twice", of: command)
            }
            spellings[name] = item.spelling
        }
        for item in given {
            for other in item.option.excludes {
                guard let spelling = spellings[other] else { continue }
                throw .usage("\(item.spelling) and \(spelling) exclude each other", of: command)
            }
        }
    }

    private func checkCount(_ positionals: [String]) throws(Failure) {
        guard let positional else {
            guard positionals.isEmpty else {
                throw .usage("unexpected argument '\(positionals[0])'", of: command)
            }
            return
        }
        guard positionals.count <= positional.counts.upperBound else {
            let surplus = positionals[positional.counts.upperBound]
            let quoting = surplus.hasPrefix("-") ? "" : " (quote text that has blanks)"
            throw .usage("unexpected argument '\(surplus)'\(quoting)", of: command)
        }
        guard positionals.count >= positional.counts.lowerBound else {
            throw .usage("\(positional.name) is missing", of: command)
        }
    }

    /// Reads one option and its value.
    private func take(
        _ argument: String,
        _ rest: inout ArraySlice<String>
    ) throws(Failure) -> Given {
        var spelling = argument
        var joined: String?
        if argument.hasPrefix("--"), let equals = argument.firstIndex(of: "=") {
            spelling = String(argument[..<equals])
            joined = String(argument[argument.index(after: equals)...])
        }
        guard let option = option(spelled: spelling) else {
            throw .usage("unknown option \(spelling)\(suggestion(for: spelling))", of: command)
        }
        guard let valueName = option.value else {
            guard joined == nil else {
                throw .usage("\(spelling) takes no value", of: command)
            }
            return Given(option: option, value: "", spelling: spelling)
        }
        if let joined {
            return Given(option: option, value: joined, spelling: spelling)
        }
        guard let next = rest.first else {
            throw .usage("\(spelling) needs a value, \(valueName)", of: command)
        }
        guard !next.hasPrefix("-") || next == "-" || next.looksLikeNegativeNumber else {
            throw .usage(
                "\(spelling) needs a value, \(valueName); "
                    + "one that begins with a dash is written --\(option.name)=\(next)",
                of: command
            )
        }
        rest.removeFirst()
        return Given(option: option, value: next, spelling: spelling)
    }

    /// The option with this spelling, dashes included.
    private func option(spelled spelling: String) -> Option<Settings>? {
        options.first { option in
            spelling == "--\(option.name)" || option.short.map { spelling == "-\($0)" } == true
        }
    }

    /// ` (did you mean --steps?)` when a known name is one slip away.
    private func suggestion(for spelling: String) -> String {
        guard spelling.hasPrefix("--") else { return "" }
        let name = Array(spelling.dropFirst(2).unicodeScalars)
        let near = options.map(\.name).filter { name.isOneSlip(from: Array($0.unicodeScalars)) }
        return near.first.map { " (did you mean --\($0)?)" } ?? ""
    }
}

extension String {
    /// Whether it is a dash and then a digit or a point: `-1`, `-.5`.
    fileprivate var looksLikeNegativeNumber: Bool {
        guard first == "-", let second = dropFirst().first else { return false }
        return ("0"..."9").contains(second) || second == "."
    }
}

extension [Unicode.Scalar] {
    /// Whether one inserted, dropped or replaced character, or a swap of two neighbours, or one name
    /// being the start of the other, leads to `other`.
    fileprivate func isOneSlip(from other: [Unicode.Scalar]) -> Bool {
        guard !isEmpty else { return false }
        let common = zip(self, other).prefix { $0 == $1 }.count
        let mine = self[common...]
        let theirs = other[common...]
        if mine.isEmpty && common >= 3 { return true }
        if mine.dropFirst().elementsEqual(theirs.dropFirst()) { return true }
        if mine.dropFirst().elementsEqual(theirs) || mine.elementsEqual(theirs.dropFirst()) {
            return true
        }
        return mine.count >= 2 && theirs.count >= 2
            && mine[common] == theirs[common + 1] && mine[common + 1] == theirs[common]
            && mine.dropFirst(2).elementsEqual(theirs.dropFirst(2))
    }
}
