import Glibc

exit(
    Krea2Command.run(Array(CommandLine.arguments.dropFirst()), console: .process()).rawValue
)
