import Foundation
import TestSupport
import Testing

@testable import Krea2CLI

/// Names of pictures and the checks before a run.
struct OutputNamesTests {
    @Test(arguments: [
        ("a.png", 1, ["a.png"]),
        ("a.png", 3, ["a.png", "a_2.png", "a_3.png"]),
        ("dir.d/a", 2, ["dir.d/a", "dir.d/a_2"]),
        (".hidden", 2, [".hidden", ".hidden_2"]),
        ("krea2-{seed}.png", 2, ["krea2-41.png", "krea2-42.png"]),
        ("{index}-{seed}.png", 2, ["0-41.png", "1-42.png"]),
        ("a%d.png", 2, ["a0.png", "a1.png"]),
        ("a%03d.png", 2, ["a000.png", "a001.png"]),
        ("100%%/{other}.png", 1, ["100%/{other}.png"]),
        ("100%%.png", 2, ["100%.png", "100%_2.png"]),
        ("-", 1, ["-"]),
    ])
    func expands(_ pattern: String, count: Int, paths: [String]) throws {
        #expect(try OutputNames(pattern).paths(seed: 41, count: count) == paths)
    }

    @Test(arguments: [
        "%s.png", "%", "a%", "%3d.png", "%-3d.png", "%00d.png", "%012d.png", "%0d.png", "%i",
        "%1$d",
        "%٣d", "", "a.jpg", "b/{seed}.WEBP",
    ])
    func refuses(_ pattern: String) {
        #expect(throws: ValueError.self) { try OutputNames(pattern) }
    }

    @Test func seedsReachTheLastOne() throws {
        let last = UInt64(Int64.max)
        #expect(try OutputNames("{seed}").paths(seed: last, count: 1) == ["9223372036854775807"])
    }

    @Test func checksEveryPathFirst() throws {
        let folder = try TemporaryFolder()
        let taken = try folder.write("x", to: "taken.png")
        #expect(throws: Never.self) {
            try OutputNames.check([folder.file("new.png")], overwrites: false)
            try OutputNames.check([taken], overwrites: true)
        }
        let cases = [
            ([folder.file("new.png"), taken], "\(taken): exists; --force replaces it"),
            (
                [folder.file("no/new.png")],
                "\(folder.file("no/new.png")): there is no folder \(folder.file("no")); "
                    + "create it first"
            ),
            (
                ["\(taken)/new.png"],
                "\(taken)/new.png: there is no folder \(taken); create it first"
            ),
            (
                [folder.path + "/"],
                "\(folder.path)/: is not a regular file, so nothing is written there"
            ),
            (
                [folder.file("a.png"), folder.file("a.png")],
                "\(folder.file("a.png")): two outputs have this name"
            ),
        ]
        let link = folder.file("link.png")
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: "nowhere")
        for overwrites in [false, true] {
            #expect(throws: Failure.self) {
                try OutputNames.check([link], overwrites: overwrites)
            }
        }
        for (paths, message) in cases {
            #expect(throws: Failure(.cannotWrite, message)) {
                try OutputNames.check(paths, overwrites: false)
            }
        }
    }
}
