import Krea2

/// Options that several subcommands have.
extension Option {
    /// Where a value goes in the settings.
    typealias Place<Value> = WritableKeyPath<Settings, Value> & Sendable

    /// Threads of the computation.
    static func threads(_ place: any Place<Int?>) -> Self {
        Option(
            "threads",
            short: "t",
            value: "N",
            help: "1 to 1024; default: the physical cores the process may use"
        ) { (settings, text) throws(ValueError) in
            settings[keyPath: place] = try .whole(text, in: 1...1024)
        }
    }

    /// The style of progress; `lines` is what is written where standard error is no terminal.
    static func progress(
        _ place: any Place<ProgressStyle>,
        lines: String
    ) -> Self {
        Option(
            "progress",
            value: "STYLE",
            completion: .words(ProgressStyle.allCases.map(\.rawValue)),
            help: "auto, plain, json or none, on standard error; auto is a bar on a terminal and "
                + "\(lines) otherwise"
        ) { (settings, word) throws(ValueError) in settings[keyPath: place] = try .choice(word) }
    }

    /// The memory ceiling.
    static func memory(
        _ place: any Place<Int?>,
        help: String
    ) -> Self {
        Option("memory", value: "SIZE", help: help) { (settings, text) throws(ValueError) in
            settings[keyPath: place] = try Int.byteCount(text)
        }
    }

    /// A path of a file or folder.
    static func path(
        _ name: String,
        short: Character? = nil,
        value: String = "PATH",
        excludes: [String] = [],
        help: String,
        _ place: any Place<String?>
    ) -> Self {
        Option(
            name,
            short: short,
            value: value,
            completion: .files,
            excludes: excludes,
            help: help
        ) { (settings, path) throws(ValueError) in settings[keyPath: place] = try .path(path) }
    }

    /// An option without a value.
    static func flag(
        _ name: String,
        help: String,
        _ place: any Place<Bool>
    ) -> Self {
        Option(name, help: help) { settings, _ in settings[keyPath: place] = true }
    }
}
