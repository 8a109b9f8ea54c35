import Foundation
import Synchronization
import TestSupport
import Testing

@testable import Krea2CLI

/// What a command line returned and wrote.
struct CommandRun: Sendable {
    var code: Int32
    var output: [UInt8]
    var errors: String

    /// Standard output as text.
    var text: String { String(decoding: output, as: UTF8.self) }
    /// Lines of standard output, without the empty one at the end.
    var lines: [String] { text.split(separator: "\n").map(String.init) }
    /// Whether standard error is one `krea2: …` line.
    var isOneErrorLine: Bool {
        errors.hasPrefix("krea2: ") && errors.hasSuffix("\n")
            && errors.filter(\.isNewline).count == 1
    }
}

extension CommandRun {
    /// Runs a command line inside the test process.
    static func inProcess(
        _ arguments: String...,
        input: String = "",
        environment: [String: String] = [:],
        embeddedFolders: [String] = []
    ) -> CommandRun {
        let written = Recorder()
        let console = Console(
            writeOutput: { bytes in written.output.withLock { $0 += bytes } },
            writeErrors: { bytes in written.errors.withLock { $0 += bytes } },
            readInput: { _ in Array(input.utf8) },
            environment: environment,
            embeddedFolders: embeddedFolders,
            outputIsTerminal: false,
            errorsAreTerminal: false,
            columns: { 80 },
            now: { .zero }
        )
        let code = Krea2Command.run(arguments, console: console)
        return CommandRun(
            code: code.rawValue,
            output: written.output.withLock { $0 },
            errors: String(decoding: written.errors.withLock { $0 }, as: UTF8.self)
        )
    }

    private final class Recorder: Sendable {
        let output = Mutex<[UInt8]>([])
        let errors = Mutex<[UInt8]>([])
    }
}

/// The built `krea2`, run as a process of its own.
final class CommandProcess {
    private let process = Process()
    private let output = Pipe()
    private let errors = Pipe()
    private let watchdog: DispatchWorkItem

    /// A process that runs longer hangs; it is killed, so that its test fails instead of waiting.
    private static let timeoutSeconds = 60.0

    /// The executable beside the test bundle.
    static var executable: URL {
        URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
            .deletingLastPathComponent().appendingPathComponent("krea2")
    }

    /// A copy of the executable as `bin/krea2` in a folder; a link would lead back to the package.
    static func copy(in folder: TemporaryFolder) throws -> URL {
        let copy = URL(fileURLWithPath: folder.file("bin/krea2"))
        try FileManager.default.createDirectory(
            at: copy.deletingLastPathComponent(),
            withIntermediateDirectories: true
        )
        try FileManager.default.copyItem(at: executable, to: copy)
        return copy
    }

    /// Starts a command line in a folder, with nothing of the tester's models in sight and, unless
    /// the environment says otherwise, without a cache.
    init(
        _ arguments: [String],
        in folder: String,
        bytes: [UInt8] = [],
        environment: [String: String] = ["KREA2_CACHE": "off"],
        executable: URL = CommandProcess.executable
    ) throws {
        process.executableURL = executable
        process.arguments = arguments
        process.currentDirectoryURL = URL(fileURLWithPath: folder)
        process.environment = ["HOME": folder, "PATH": "/usr/bin:/bin"].merging(environment) { $1 }
        process.standardOutput = output
        process.standardError = errors
        let pipe = Pipe()
        process.standardInput = pipe
        try process.run()
        let identifier = process.processIdentifier
        watchdog = DispatchWorkItem { kill(identifier, SIGKILL) }
        DispatchQueue.global().asyncAfter(
            deadline: .now() + Self.timeoutSeconds,
            execute: watchdog
        )
        try pipe.fileHandleForWriting.write(contentsOf: Data(bytes))
        try pipe.fileHandleForWriting.close()
    }

    /// Waits until standard error holds `text`, which `finish` then leaves out.
    func waitForError(_ text: String) {
        var seen = ""
        while !seen.contains(text) {
            let data = errors.fileHandleForReading.availableData
            guard !data.isEmpty else { return }
            seen += String(decoding: data, as: UTF8.self)
        }
    }

    func send(_ signal: Int32) {
        kill(process.processIdentifier, signal)
    }

    /// Waits for the end; a death by signal gives the signal's negative number.
    func finish() throws -> CommandRun {
        // Both pipes are drained at once, or a full one would stop the process.
        let errorHandle = errors.fileHandleForReading
        let collected = Mutex(Data())
        let done = DispatchSemaphore(value: 0)
        DispatchQueue.global().async {
            let data = errorHandle.readDataToEndOfFile()
            collected.withLock { $0 = data }
            done.signal()
        }
        let data = output.fileHandleForReading.readDataToEndOfFile()
        done.wait()
        process.waitUntilExit()
        watchdog.cancel()
        let status = process.terminationStatus
        return CommandRun(
            code: process.terminationReason == .exit ? status : -status,
            output: Array(data),
            errors: String(decoding: collected.withLock { $0 }, as: UTF8.self)
        )
    }
}

extension CommandRun {
    /// Runs the built executable to its end.
    static func process(
        _ arguments: [String],
        in folder: String,
        input: String = "",
        environment: [String: String] = ["KREA2_CACHE": "off"]
    ) throws -> CommandRun {
        try CommandProcess(
            arguments,
            in: folder,
            bytes: Array(input.utf8),
            environment: environment
        ).finish()
    }

    /// Runs a line of bash, with `arguments` as `$0`, `$1` and so on.
    static func shell(
        _ line: String,
        _ arguments: [String],
        in folder: String
    ) throws -> CommandRun {
        try CommandProcess(
            ["--norc", "-c", line] + arguments,
            in: folder,
            executable: URL(fileURLWithPath: "/bin/bash")
        ).finish()
    }
}
