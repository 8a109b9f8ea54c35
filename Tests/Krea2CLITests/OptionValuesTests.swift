import Testing

@testable import Krea2CLI

struct OptionValuesTests {
    @Test(arguments: [
        ("8GiB", 8_589_934_592), ("2.5GiB", 2_684_354_560), ("900MB", 900_000_000), ("1", 1),
        ("64KiB", 65_536), ("1.5kb", 1500), ("0.1KiB", 102), (".5gib", 536_870_912), ("7B", 7),
        ("1TB", 1_000_000_000_000), ("2TiB", 2_199_023_255_552), ("007MiB", 7_340_032),
        ("9223372036854775807", Int.max), ("8388607TiB", 9_223_370_937_343_148_032),
    ])
    func readsAmountsOfMemory(_ text: String, byteCount: Int) throws {
        #expect(try Int.byteCount(text) == byteCount)
    }

    @Test(arguments: [
        "", "GiB", "8 GiB", "8G", "8Gi", "8giga", "-1GiB", "+1", "0", "0.0001KB", "1.5", "1.5B",
        ".",
        "1..5GiB", "1e3", "0x10", "inf", "nan", "½GiB", "٣GiB", "9223372036854775808",
        "8388608TiB", "1e300TiB", "99999999999999999999999999999999TiB",
    ])
    func refusesOtherAmounts(_ text: String) {
        let reason = "'\(text)' is not an amount such as 8GiB, 900MB or 4096"
        #expect(throws: ValueError(reason: reason)) { try Int.byteCount(text) }
    }

    @Test func refusesAmountsBeyondAllNumbers() {
        #expect(throws: ValueError.self) {
            try Int.byteCount(String(repeating: "9", count: 400) + "GiB")
        }
    }
}
