import Testing

@testable import Checkpoints

struct JSONScannerTests {
    private func scan<Value>(
        _ text: String,
        _ read: (inout JSONScanner) throws(JSONError) -> Value
    ) throws(JSONError) -> Value {
        var scanner = JSONScanner(Array(text.utf8))
        let value = try read(&scanner)
        try scanner.end()
        return value
    }

    private func skip(_ text: String) throws(JSONError) {
        try scan(text) { scanner throws(JSONError) in try scanner.skipValue() }
    }

    private func string(_ text: String) throws(JSONError) -> String {
        try scan(text) { scanner throws(JSONError) in try scanner.string() }
    }

    private func integer(_ text: String) throws(JSONError) -> Int {
        try scan(text) { scanner throws(JSONError) in try scanner.unsignedInteger() }
    }

    // MARK: Values

    @Test(arguments: [
        "{}", "[]", " {\t\"a\"\r:\n[1 , 2] } ", "true", "false", "null", "\"\"", "0", "-0",
        "-1.5e+10",
        "1E5", "0.25", "123456789012345678901234567890", #"{"a":{"b":[{"c":null}]}}"#,
    ])
    func acceptsJSON(text: String) throws {
        try skip(text)
    }

    @Test(arguments: [
        "", " ", "{", "}", "[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "{\"a\"}", "{\"a\":}",
        "{\"a\":1,}", "{,}", "{a:1}", "{1:2}", "{\"a\":1 \"b\":2}", "tru", "True", "nul", "01", "-",
        "-01", "1.", ".5", "1e", "1e+", "+1", "0x10", "NaN", "Infinity", "\"", "\"a", "1 2",
        "{} {}",
        "'a'", "/**/1", "\u{FEFF}{}", "\"\u{1}\"", "\"a\nb\"", "\u{A0}1",
    ])
    func refusesWhatIsNotJSON(text: String) {
        #expect(throws: JSONError.self) { try skip(text) }
    }

    @Test func decodesStrings() throws {
        #expect(try string(#""blocks.0""#) == "blocks.0")
        #expect(try string(#""a\"\\\/\b\f\n\r\t\u0041\u00e9""#) == "a\"\\/\u{8}\u{c}\n\r\tAé")
        #expect(try string(#""\ud83e\udd8a é 狐 🦊""#) == "🦊 é 狐 🦊")
        #expect(try string(#""\u0000""#) == "\0")
    }

    @Test(arguments: [
        #""\x""#, #""\u12""#, #""\u12g4""#, #""\ud83e""#, #""\ud83ex""#, #""\ud83e\u0041""#,
        #""\udd8a""#, #""\udd8a\ud83e""#, #""\"#, #""\u"#, "\"\\u\u{FF11}234\"",
    ])
    func refusesBadEscapes(text: String) {
        #expect(throws: JSONError.self) { try string(text) }
    }

    @Test(
        arguments: [
            [0xFF], [0xC3], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80],
            [0xE2, 0x82, 0x5C, 0x6E],
        ] as [[UInt8]]
    )
    func refusesStringsThatAreNotUTF8(content: [UInt8]) {
        var scanner = JSONScanner([UInt8(ascii: "\"")] + content + [UInt8(ascii: "\"")])
        let error = #expect(throws: JSONError.self) { _ = try scanner.string() }
        #expect(error?.expected == "UTF-8")
    }

    @Test func readsWholeNumbersOnly() throws {
        #expect(try integer("0") == 0)
        #expect(try integer(" 9223372036854775807 ") == Int.max)
        for text in [
            "9223372036854775808", "18446744073709551616", "-1", "-0", "1.0", "1e3", "\"1\"",
            "null",
            "", "99999999999999999999999999999999",
        ] {
            #expect(throws: JSONError.self, "\(text)") { try integer(text) }
        }
    }

    // MARK: Objects and arrays

    @Test func refusesRepeatedKeysAnywhere() {
        for text in [
            #"{"a":1,"a":1}"#, #"{"a":1,"b":2,"\u0061":3}"#, #"[{"x":{"a":1,"a":2}}]"#,
            #"{"":1,"":2}"#,
        ] {
            let error = #expect(throws: JSONError.self) { try skip(text) }
            #expect(error?.found == "its key twice", "\(text)")
        }
        #expect(throws: Never.self) { try skip(#"{"a":{"a":1},"b":{"a":1}}"#) }
    }

    @Test func errorsNameTheKeys() {
        var scanner = JSONScanner(Array(#"{"a":{"b":[1,x]}}"#.utf8))
        let error = #expect(throws: JSONError.self) {
            try scanner.object { _, scanner throws(JSONError) in
                try scanner.object { _, scanner throws(JSONError) in
                    try scanner.array { _, scanner throws(JSONError) in
                        _ = try scanner.unsignedInteger()
                    }
                }
            }
        }
        #expect(
            error
                == JSONError(
                    keys: ["a", "b"],
                    found: "\"x\" at byte 13",
                    expected: "a whole number, 0 or more"
                )
        )
    }

    @Test func boundsNesting() throws {
        func nested(_ levels: Int) -> String {
            String(repeating: "[", count: levels) + String(repeating: "]", count: levels)
        }
        try skip(nested(JSONScanner.deepestLevel))
        try skip(
            "[\(nested(JSONScanner.deepestLevel - 1)),\(nested(JSONScanner.deepestLevel - 1))]"
        )
        for levels in [JSONScanner.deepestLevel + 1, 1_000_000] {
            #expect(throws: JSONError.self) { try skip(nested(levels)) }
            #expect(throws: JSONError.self) {
                try skip(String(repeating: "{\"a\":", count: levels))
            }
        }
    }
}
