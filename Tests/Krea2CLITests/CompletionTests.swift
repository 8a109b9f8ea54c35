import Foundation
import TestSupport
import Testing

@testable import Krea2CLI

/// Completion scripts say what the option tables say.
struct CompletionTests {
    @Test(arguments: ["bash", "zsh", "fish"])
    func namesEveryCommandAndOption(_ shell: String) {
        let run = CommandRun.inProcess("completion", shell)
        #expect(run.code == 0)
        for command in Krea2Command.all {
            #expect(run.text.contains(command.name))
            for option in command.options {
                let long = shell == "fish" ? "-l \(option.name)" : "--\(option.name)"
                #expect(run.text.contains(long), "\(command.name) \(option.name)")
                if let short = option.short {
                    let spelling = shell == "fish" ? "-s \(short) -l" : "-\(short)"
                    // In bash only options with values have branches of their own.
                    #expect(
                        run.text.contains(spelling) || (shell == "bash" && option.value == nil),
                        "\(command.name) \(option.name)"
                    )
                }
            }
        }
        for word in ["turbo raw", "1:1", "auto plain json none", "list path ensure"] {
            let escaped = word.replacingOccurrences(of: ":", with: "\\:")
            #expect(run.text.contains(shell == "zsh" ? escaped : word), "\(word)")
        }
    }

    /// What bash offers for some words, the last of which is being typed.
    @Test(arguments: [
        ("krea2 gen", "generate"),
        ("krea2 generate --ste", "--steps"),
        ("krea2 style --pre", "--prep --precision"),
        ("krea2 generate --reference-mode e", "exact"),
        ("krea2 generate --variant t", "turbo"),
        ("krea2 generate --variant = r", "raw"),
        ("krea2 models e", "ensure"),
        ("krea2 completion z", "zsh"),
        ("krea2 lora trial --sca", "--scales"),
        ("krea2 info --j", "--json"),
        ("krea2 generate --model a.saf", "a.safetensors"),
        ("krea2 inspect two", "two words"),
        ("krea2 generate --steps ", ""),
    ])
    func bashOffers(_ typed: String, offer: String) throws {
        let folder = try TemporaryFolder()
        try folder.write("", to: "a.safetensors")
        try folder.write("", to: "two words")
        let script = try folder.write(
            CommandRun.inProcess("completion", "bash").text,
            to: "completion.sh"
        )
        let words = typed.split(separator: " ", omittingEmptySubsequences: false)
        let program = """
            source \(script)
            COMP_WORDS=(\(words.map { "'\($0)'" }.joined(separator: " ")))
            COMP_CWORD=\(words.count - 1)
            _krea2
            printf '%s' "${COMPREPLY[*]}"
            """
        let run = try CommandRun.shell(program, [], in: folder.path)
        #expect(run.code == 0)
        #expect(run.text == offer)
        #expect(run.errors.isEmpty)
    }
}
