import Testing

@testable import Checkpoints

struct SHA256Tests {
    private func digest(_ pieces: [[UInt8]]) -> String {
        var hash = SHA256()
        for piece in pieces { piece.withUnsafeBytes { hash.update($0) } }
        return hash.digest()
    }

    /// Vectors of FIPS 180-4's examples and of the NIST example file for the empty message.
    @Test(arguments: [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
        (
            "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
                + "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"
        ),
    ])
    func agreesWithPublishedVectors(message: String, expected: String) {
        #expect(digest([Array(message.utf8)]) == expected)
    }

    @Test func joinsPieces() {
        let pieces = ["", "ab", "", "c"].map { Array($0.utf8) }
        #expect(hexDigest(of: pieces) == digest([Array("abc".utf8)]))
        #expect(hexDigest(of: []) == digest([]))
    }

    @Test func agreesOnAHundredThousandLetters() {
        // The standard's third example is ten times as long; this value is coreutils'.
        let message = [UInt8](repeating: UInt8(ascii: "a"), count: 100_000)
        #expect(
            digest([message])
                == "6d1cf22d7cc09b085dfc25ee1a1f3ae0265804c607bc2074ad253bcc82fd81ee"
        )
    }

    @Test func doesNotDependOnThePieces() {
        let message = (0..<300).map { UInt8(truncatingIfNeeded: $0) }
        let whole = digest([message])
        for cut in 0...300 {
            #expect(digest([Array(message[..<cut]), Array(message[cut...])]) == whole, "\(cut)")
        }
        #expect(digest(message.map { [$0] }) == whole)
    }
}
