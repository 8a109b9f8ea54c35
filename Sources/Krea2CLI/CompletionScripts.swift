/// What `krea2 completion` can be told: nothing but the shell.
struct CompletionSettings: Equatable, Sendable {
    static let table = OptionTable<CompletionSettings>(
        command: "completion",
        positional: Positional(
            name: "bash|zsh|fish",
            counts: 1...1,
            completion: .words(["bash", "zsh", "fish"])
        ),
        options: []
    )
}

/// `krea2 completion`: scripts for shells, generated from the option tables.
enum CompletionScripts {
    static let command = Command(
        CompletionSettings.table,
        summary: "shell completion for bash, zsh or fish",
        synopsis: "bash|zsh|fish",
        notes: """

            For bash: source <(krea2 completion bash)
            For zsh: krea2 completion zsh > a file _krea2 in a folder of $fpath
            For fish: krea2 completion fish > ~/.config/fish/completions/krea2.fish
            """,
        body: run
    )

    private static func run(
        _ scan: OptionTable<CompletionSettings>.Scan,
        _ console: Console
    ) throws(Failure) {
        switch scan.positionals[0] {
        case "bash": try console.print(bash(Krea2Command.all))
        case "zsh": try console.print(zsh(Krea2Command.all))
        case "fish": try console.print(fish(Krea2Command.all))
        case let shell:
            throw .usage("'\(shell)' is not one of bash, zsh, fish", of: "completion")
        }
    }
}

// MARK: bash

extension CompletionScripts {
    /// The script for bash 4 and later.
    static func bash(_ commands: [Command]) -> String {
        """
        # krea2 completion for bash; made by: krea2 completion bash
        _krea2_offer() {
            mapfile -t COMPREPLY < <(compgen "$@" -- "$current")
        }
        _krea2() {
            local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
            COMPREPLY=()
            # bash makes a word of its own of the sign in --option=value.
            if [[ $current == = ]]; then
                current=
            elif [[ $previous == = ]]; then
                previous=${COMP_WORDS[COMP_CWORD-2]}
            fi
            if [[ $COMP_CWORD -eq 1 ]]; then
                _krea2_offer -W '\(names(commands)) help --help --version'
                return
            fi
            case ${COMP_WORDS[1]} in
            help) _krea2_offer -W '\(names(commands))' ;;
        \(commands.map(bashBranch).joined(separator: "\n"))
            esac
        }
        complete -o filenames -F _krea2 krea2
        """
    }

    private static func names(_ commands: [Command]) -> String {
        commands.map(\.name).joined(separator: " ")
    }

    private static func bashBranch(_ command: Command) -> String {
        var lines = ["    \(command.name))", "        case $previous in"]
        for option in command.options where option.value != nil {
            let spellings = [option.short.map { "-\($0)" }, "--\(option.name)"].compactMap(\.self)
            let reply = bashReply(option.completion)
            lines.append("        \(spellings.joined(separator: "|"))) \(reply); return ;;")
        }
        let options = command.options.map { "--\($0.name)" }.joined(separator: " ")
        lines += [
            "        esac",
            "        if [[ $current == -* ]]; then",
            "            _krea2_offer -W '\(options)'",
            "        else",
            "            \(bashReply(command.positional?.completion ?? .nothing))",
            "        fi ;;",
        ]
        return lines.joined(separator: "\n")
    }

    private static func bashReply(_ completion: Completion) -> String {
        switch completion {
        case .nothing: ":"
        case .files: "_krea2_offer -f"
        case .words(let words): "_krea2_offer -W '\(words.joined(separator: " "))'"
        }
    }
}

// MARK: zsh

extension CompletionScripts {
    /// The script for zsh.
    static func zsh(_ commands: [Command]) -> String {
        let list = commands.map { "        \(quoted("\($0.name):\($0.summary)"))" }
        return """
            #compdef krea2
            # krea2 completion for zsh; made by: krea2 completion zsh
            _krea2() {
                local -a commands
                commands=(
            \(list.joined(separator: "\n"))
                )
                if (( CURRENT == 2 )); then
                    _describe command commands
                    return
                fi
                local command=$words[2]
                shift words
                (( CURRENT-- ))
                case $command in
                help) _describe command commands ;;
            \(commands.map(zshBranch).joined(separator: "\n"))
                esac
            }
            if [[ $funcstack[1] == _krea2 ]]; then
                _krea2 "$@"
            else
                compdef _krea2 krea2
            fi
            """
    }

    private static func zshBranch(_ command: Command) -> String {
        var specifications = command.options.flatMap(zshSpecifications)
        if let positional = command.positional {
            let name = zshText(positional.name)
            specifications.append(quoted("*:\(name):\(zshAction(positional.completion))"))
        }
        let lines = specifications.map { "        \($0)" }.joined(separator: " \\\n")
        return "    \(command.name)) _arguments -S \\\n\(lines) ;;"
    }

    /// One argument for `_arguments` for each spelling.
    private static func zshSpecifications(_ option: OptionDescription) -> [String] {
        let spellings = [option.short.map { "-\($0)" }, "--\(option.name)"].compactMap(\.self)
        let exclusion = spellings.joined(separator: " ")
        return spellings.map { spelling in
            let separator = option.value != nil && spelling.hasPrefix("--") ? "=" : ""
            let value =
                option.value.map { ":\(zshText($0)):\(zshAction(option.completion))" } ?? ""
            return quoted("(\(exclusion))\(spelling)\(separator)[\(zshText(option.help))]\(value)")
        }
    }

    private static func zshAction(_ completion: Completion) -> String {
        switch completion {
        case .nothing: " "
        case .files: "_files"
        case .words(let words): "(\(words.map(zshText).joined(separator: " ")))"
        }
    }

    /// Text with the characters escaped that mean something to `_arguments`.
    private static func zshText(_ text: String) -> String {
        var result = ""
        for character in text {
            if "[]:\\".contains(character) { result += "\\" }
            result.append(character)
        }
        return result
    }
}

// MARK: fish

extension CompletionScripts {
    /// The script for fish.
    static func fish(_ commands: [Command]) -> String {
        var lines = [
            "# krea2 completion for fish; made by: krea2 completion fish",
            "complete -c krea2 -f",
            "complete -c krea2 -n __fish_use_subcommand -l version -d 'print the version'",
            "complete -c krea2 -n __fish_use_subcommand -a help -d 'help for a command'",
            "complete -c krea2 -n '__fish_seen_subcommand_from help' -a '\(names(commands))'",
        ]
        for command in commands {
            lines.append(
                "complete -c krea2 -n __fish_use_subcommand -a \(command.name) "
                    + "-d \(fishQuoted(command.summary))"
            )
            let condition = "-n '__fish_seen_subcommand_from \(command.name)'"
            if let positional = command.positional {
                lines.append(
                    "complete -c krea2 \(condition)\(fishValues(positional.completion))"
                )
            }
            for option in command.options {
                let short = option.short.map { " -s \($0)" } ?? ""
                let value = option.value == nil ? "" : " -r -f" + fishValues(option.completion)
                lines.append(
                    "complete -c krea2 \(condition)\(short) -l \(option.name)\(value) "
                        + "-d \(fishQuoted(option.help))"
                )
            }
        }
        return lines.joined(separator: "\n")
    }

    private static func fishValues(_ completion: Completion) -> String {
        switch completion {
        case .nothing: ""
        case .files: " -F"
        case .words(let words): " -a \(fishQuoted(words.joined(separator: " ")))"
        }
    }

    private static func fishQuoted(_ text: String) -> String {
        var result = ""
        for character in text {
            if character == "'" || character == "\\" { result += "\\" }
            result.append(character)
        }
        return "'\(result)'"
    }
}

/// Text in single quotes for a POSIX-like shell.
private func quoted(_ text: String) -> String {
    "'" + text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''")
        + "'"
}
