import Testing

@testable import Krea2CLI

/// Parsing by an option table, with a small one of its own.
struct OptionTableTests {
    struct Settings: Equatable {
        var name: String?
        var count = 0
        var level: Float = 0
        var isLoud = false
        var isSoft = false
    }

    let table = OptionTable<Settings>(
        command: "try",
        positional: Positional(name: "FILE", counts: 0...2),
        options: [
            Option("name", short: "n", value: "TEXT", help: "") { $0.name = $1 },
            Option("count", short: "c", value: "N", help: "") {
                (settings, text) throws(ValueError) in
                settings.count = try .whole(text, in: -5...5)
            },
            Option("level", value: "X", help: "") { (settings, text) throws(ValueError) in
                settings.level = try .decimal(text, in: -1...1)
            },
            Option("loud", excludes: ["soft"], help: "") { settings, _ in settings.isLoud = true },
            Option("soft", help: "") { settings, _ in settings.isSoft = true },
        ]
    )

    private func parse(_ arguments: [String]) throws(Failure) -> (Settings, [String]) {
        let scan = try table.scan(arguments)
        var settings = Settings()
        try table.apply(scan.given, to: &settings)
        return (settings, scan.positionals)
    }

    @Test(arguments: [
        (["--name", "a b", "--count", "3"], Settings(name: "a b", count: 3), []),
        (["--name=a=b", "-c", "-3"], Settings(name: "a=b", count: -3), []),
        (["-n", "-", "x"], Settings(name: "-"), ["x"]),
        (["--name="], Settings(name: ""), []),
        (["--name=--loud"], Settings(name: "--loud"), []),
        (["--level", "-.5", "--loud"], Settings(level: -0.5, isLoud: true), []),
        (["x", "--loud", "y"], Settings(isLoud: true), ["x", "y"]),
        (["--loud", "--", "--soft", "-c"], Settings(isLoud: true), ["--soft", "-c"]),
        (["-", "-7"], Settings(), ["-", "-7"]),
    ])
    func accepts(_ arguments: [String], settings: Settings, positionals: [String]) throws {
        let (parsed, rest) = try parse(arguments)
        #expect(parsed == settings)
        #expect(rest == positionals)
    }

    @Test(arguments: [
        (["--nome", "x"], "unknown option --nome (did you mean --name?)"),
        (["--nam", "x"], "unknown option --nam (did you mean --name?)"),
        (["--cuont", "1"], "unknown option --cuont (did you mean --count?)"),
        (["--other"], "unknown option --other"),
        (["-nvalue"], "unknown option -nvalue"),
        (["-x"], "unknown option -x"),
        (["--name"], "--name needs a value, TEXT"),
        (
            ["--name", "--loud"],
            "--name needs a value, TEXT; one that begins with a dash is written --name=--loud"
        ),
        (["--loud=yes"], "--loud takes no value"),
        (["--count", "six"], "--count: 'six' is not a whole number from -5 to 5"),
        (["--count", "6"], "--count: '6' is not a whole number from -5 to 5"),
        (["--count", "1.0"], "--count: '1.0' is not a whole number from -5 to 5"),
        (
            ["-c", "99999999999999999999"],
            "-c: '99999999999999999999' is not a whole number from -5 to 5"
        ),
        (["--level", "nan"], "--level: 'nan' is not a number from -1 to 1"),
        (["--level", "0x1"], "--level: '0x1' is not a number from -1 to 1"),
        (["--level="], "--level: '' is not a number from -1 to 1"),
        (["--loud", "--loud"], "--loud: --loud is given twice"),
        (["-n", "a", "--name", "b"], "--name: --name is given twice"),
        (["--loud", "--soft"], "--loud and --soft exclude each other"),
        (["--soft", "--loud"], "--loud and --soft exclude each other"),
        (["a", "b", "c"], "unexpected argument 'c' (quote text that has blanks)"),
    ])
    func refuses(_ arguments: [String], message: String) {
        #expect(throws: Failure(.wrongUsage, "\(message); see krea2 try --help")) {
            try parse(arguments)
        }
    }

    @Test func helpStopsTheScan() throws {
        #expect(try table.scan(["--loud", "--help", "--unknown"]).wantsHelp)
        #expect(try table.scan(["-h"]).wantsHelp)
        #expect(try !table.scan(["--", "-h"]).wantsHelp)
        #expect(try !table.scan(["--name=--help"]).wantsHelp)
    }
}
