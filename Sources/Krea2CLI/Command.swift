import Krea2

/// One subcommand as the dispatcher, the help and the completion scripts see it.
struct Command: Sendable {
    let name: String
    /// One line for the list of subcommands.
    let summary: String
    let positional: Positional?
    let options: [OptionDescription]
    /// Runs it with the arguments that follow its name.
    let run: @Sendable ([String], Console) throws(Failure) -> Void

    /// Ties a table of options to what the subcommand does.
    ///
    /// - Parameters:
    ///   - table: Options and arguments.
    ///   - summary: One line for the list of subcommands.
    ///   - synopsis: What follows the name in the usage line.
    ///   - notes: Paragraphs below the options.
    ///   - body: What it does, given the scanned command line.
    init<Settings>(
        _ table: OptionTable<Settings>,
        summary: String,
        synopsis: String,
        notes: String = "",
        body:
            @escaping @Sendable (OptionTable<Settings>.Scan, Console) throws(Failure) -> Void
    ) {
        let options =
            table.options.map(OptionDescription.init)
            + [OptionDescription(name: "help", short: "h", help: "this text")]
        let help = helpText(
            command: table.command,
            summary: summary,
            synopsis: synopsis,
            options: options,
            notes: notes
        )
        self.name = table.command
        self.summary = summary
        self.positional = table.positional
        self.options = options
        self.run = { arguments, console throws(Failure) in
            let scan = try table.scan(arguments)
            if scan.wantsHelp {
                try console.print(help)
            } else {
                try body(scan, console)
            }
        }
    }
}

/// What help and completion need to know of an option.
struct OptionDescription: Sendable, Equatable {
    var name: String
    var short: Character?
    var value: String?
    var help: String
    var completion: Completion = .nothing
}

extension OptionDescription {
    init<Settings>(_ option: Option<Settings>) {
        self.init(
            name: option.name,
            short: option.short,
            value: option.value,
            help: option.help,
            completion: option.completion
        )
    }
}

/// The `krea2` command: chooses a subcommand and turns failures into exit codes.
enum Krea2Command {
    /// Every subcommand, in the order of the help.
    static let all: [Command] = [
        Generate.command, StyleCommand.command, MoodboardCommand.command, LoRACommand.command,
        Bench.command, Inspect.command, Convert.command,
        Models.command, Info.command, CompletionScripts.command,
    ]

    /// Runs a whole command line.
    ///
    /// - Parameters:
    ///   - arguments: What follows the executable's name.
    ///   - console: Where input comes from and output goes.
    /// - Returns: What the process is to return.
    static func run(_ arguments: [String], console: Console) -> ExitCode {
        do {
            try dispatch(arguments, console: console)
            return .done
        } catch {
            console.note(error.line)
            return error.code
        }
    }

    private static func dispatch(_ arguments: [String], console: Console) throws(Failure) {
        guard let first = arguments.first else {
            console.note(overview)
            throw Failure(.wrongUsage, "a subcommand is missing; see krea2 --help")
        }
        let rest = Array(arguments.dropFirst())
        switch first {
        case "--version":
            try console.print("krea2 \(Engine.version)")
        case "--help", "-h":
            try console.print(overview)
        case "help":
            try help(rest, console: console)
        default:
            try command(named: first).run(rest, console)
        }
    }

    private static func help(_ arguments: [String], console: Console) throws(Failure) {
        guard let name = arguments.first else {
            try console.print(overview)
            return
        }
        guard arguments.count == 1 else {
            throw Failure(.wrongUsage, "unexpected argument '\(arguments[1])'; see krea2 --help")
        }
        try command(named: name).run(["--help"], console)
    }

    private static func command(named name: String) throws(Failure) -> Command {
        if let command = all.first(where: { $0.name == name }) { return command }
        let kind = name.hasPrefix("-") ? "option" : "command"
        throw Failure(.wrongUsage, "unknown \(kind) '\(name)'; see krea2 --help")
    }
}
