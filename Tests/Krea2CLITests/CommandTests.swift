import Checkpoints
import Images
import Krea2
import TestSupport
import Testing

@testable import Krea2CLI

/// Choosing a subcommand, help, and the shape of errors.
struct CommandTests {
    @Test func versionIsOneLine() {
        let run = CommandRun.inProcess("--version")
        #expect(run.code == 0)
        #expect(run.text == "krea2 \(Engine.version)\n")
        #expect(run.errors.isEmpty)
    }

    @Test(arguments: [["--help"], ["-h"], ["help"]])
    func overviewNamesEveryCommand(_ arguments: [String]) {
        let run = CommandRun.inProcess(arguments[0])
        #expect(run.code == 0)
        for command in Krea2Command.all {
            #expect(run.text.contains("\n  \(command.name) "))
        }
    }

    @Test func noArgumentsShowTheOverviewAsAnError() {
        let run = CommandRun.inProcess()
        #expect(run.code == 64)
        #expect(run.output.isEmpty)
        #expect(run.errors.hasPrefix(Krea2Command.overview))
        #expect(run.errors.hasSuffix("krea2: a subcommand is missing; see krea2 --help\n"))
    }

    @Test func helpListsEveryOption() {
        for command in Krea2Command.all {
            let run = CommandRun.inProcess(command.name, "--help")
            #expect(run.code == 0)
            #expect(run.text == CommandRun.inProcess("help", command.name).text)
            for option in command.options {
                #expect(run.text.contains("--\(option.name)"), "\(command.name)")
            }
            for line in run.lines {
                #expect(line.count <= 80, "\(line)")
            }
        }
    }

    /// A subcommand or an option that is not built does not exist.
    @Test(arguments: [
        "verify", "expand", "batch", "serve",
        "Generate", "", "-x", "--generate",
    ])
    func unknownCommandsAreRefused(_ name: String) {
        let run = CommandRun.inProcess(name)
        #expect(run.code == 64)
        #expect(run.isOneErrorLine)
        #expect(run.errors.contains("'\(name)'"))
    }

    @Test(arguments: [
        ["help", "verify"], ["help", "info", "x"], ["info", "x"], ["info", "--colour"],
        ["models"], ["models", "delete"], ["models", "list", "x"], ["inspect"], ["completion"],
        ["completion", "tcsh"], ["generate"], ["generate", "a", "b"],
        ["generate", "a", "-p", "b"], ["generate", "a", "--cfg"],
        ["generate", "a", "-s", "9223372036854775807", "--num-images", "2"],
        ["generate", "a", "-o", "-", "--num-images", "2"], ["generate", "a", "-o", "-", "--json"],
    ])
    func wrongUsageIsOneLine(_ arguments: [String]) throws {
        let folder = try TemporaryFolder()
        let run = try CommandRun.process(arguments, in: folder.path)
        #expect(run.code == 64)
        #expect(run.output.isEmpty)
        #expect(run.isOneErrorLine, "\(run.errors)")
        #expect(run.errors.contains("see krea2 "), "\(run.errors)")
        #expect(run.errors.hasSuffix("--help\n"), "\(run.errors)")
        #expect(try folder.names().isEmpty)
    }

    @Test func controlCharactersStayOnTheLine() {
        let failure = Failure(.noInput, "a\nb\r\t\u{1B}[31m\u{85}é")
        #expect(failure.line == #"krea2: a\nb\r\t\u{1b}[31m\u{85}é"#)
    }

    @Test func pictureErrorsHaveTheirCodes() {
        let cases: [(ImageError, ExitCode)] = [
            (.missingFile(path: "a"), .noInput),
            (.damaged(path: "a", reason: "b"), .badData),
            (.diskFull(path: "a", reason: "b"), .cannotWrite),
            (.alreadyExists(path: "a"), .cannotWrite),
        ]
        for (error, code) in cases {
            #expect(Failure(error) == Failure(code, error.description))
        }
    }

    @Test func engineErrorsHaveTheirCodes() {
        let cases: [(GenerationError, ExitCode)] = [
            (.model(.missing(path: "a")), .noInput),
            (.model(.changed(path: "a", reason: "cut short")), .badData),
            (.model(.cannotWrite(path: "a", reason: "no room")), .cannotWrite),
            (.request("no"), .wrongUsage),
            (.notFinite(stage: "transformer", place: "block 3"), .notFinite),
            (.cancelled, .interrupted),
        ]
        for (error, code) in cases {
            #expect(Failure(error).code == code)
        }
        let failure = Failure(.notFinite(stage: "transformer", place: "block 3"))
        #expect(failure.message.contains("transformer"))
        #expect(failure.message.contains("block 3"))
    }
}

/// `krea2 info`.
struct InfoTests {
    @Test func readsTheSystemsWords() {
        let report = Info.Report(
            processor: "Some CPU",
            memoryFacts: "MemTotal:       2048 kB\nMemAvailable:   1024 kB\n"
        )
        #expect(report.processor == "Some CPU")
        #expect(report.memoryBytes == 2 << 20)
        #expect(report.availableBytes == 1 << 20)
    }

    @Test(arguments: ["", "MemTotal:", "MemTotal: x kB", "MemTotal: 9223372036854775807 kB"])
    func unreadableFactsAreLeftOut(_ facts: String) {
        let report = Info.Report(processor: nil, memoryFacts: facts)
        #expect(report.processor == "unknown")
        #expect(report.memoryBytes == nil)
    }

    @Test func namesWhatTheIssueReportNeeds() {
        let run = CommandRun.inProcess("info")
        #expect(run.code == 0)
        for word in ["krea2 ", "processor ", "kernels ", "threads ", "memory ", "libraries "] {
            #expect(run.lines.contains { $0.hasPrefix(word) }, "\(word)")
        }
        let json = CommandRun.inProcess("info", "--json")
        #expect(json.code == 0)
        #expect(json.text.contains("\"kernels\" : \"\(Engine.kernelLevel)\""))
    }
}

/// `krea2 models` on real folders.
struct ModelsTests {
    @Test func listsAndPrintsPaths() throws {
        let folder = try TemporaryFolder()
        let file = try folder.write("x", to: "mine-turbo.safetensors")
        let environment = ["KREA2_MODEL": file, "HOME": folder.path]
        let list = CommandRun.inProcess("models", "list", environment: environment)
        #expect(list.text == "mine-turbo  \(file)  (KREA2_MODEL)\n")
        let path = CommandRun.inProcess("models", "path", "turbo", environment: environment)
        #expect(path.text == file + "\n")
        #expect(
            CommandRun.inProcess("models", "path", environment: environment).text == path.text
        )
    }

    @Test func nothingFoundIsNoErrorForTheList() throws {
        let folder = try TemporaryFolder()
        let run = CommandRun.inProcess("models", "list", environment: ["HOME": folder.path])
        #expect(run.code == 0)
        #expect(run.output.isEmpty)
        #expect(run.errors.contains("no model found in KREA2_MODEL (not set)"))
    }

    @Test func ensureNamesEveryPart() {
        let run = CommandRun.inProcess("models", "ensure", fixtureModel)
        #expect(run.code == 0)
        let parts = run.lines.compactMap { $0.split(separator: ":").first }
        #expect(parts == ["transformer", "text encoder", "tokenizer", "autoencoder"])
        #expect(run.lines.allSatisfy { $0.contains(": \(fixtureModel)") })
        let json = CommandRun.inProcess("models", "ensure", fixtureModel, "--json")
        #expect(json.text.contains("\"tokenizer\" : \"\(fixtureModel)"))
    }

    @Test(arguments: ["path", "ensure"])
    func missingModelIsAMissingInput(_ action: String) throws {
        let folder = try TemporaryFolder()
        let run = CommandRun.inProcess("models", action, environment: ["HOME": folder.path])
        #expect(run.code == 66)
        #expect(run.isOneErrorLine)
        #expect(run.errors.contains("scripts/quickstart"))
        let named = CommandRun.inProcess("models", action, "no-such-model")
        #expect(named.code == 66)
        #expect(named.errors.contains("no-such-model"))
    }
}
