import Testing

@testable import JSON

/// JSON by the letter of RFC 8259, faults with their place.
struct JSONParserTests {
    private func parse(_ text: String) throws -> JSONValue {
        try JSONParser.parse(Array(text.utf8))
    }

    /// The fault of a text; nil when there is none.
    private func failure(_ bytes: [UInt8]) -> JSONParser.Failure? {
        do throws(JSONParser.Failure) {
            _ = try JSONParser.parse(bytes)
            return nil
        } catch {
            return error
        }
    }

    @Test func readsEveryKindOfValue() throws {
        let text = """
            \t{"a" : [null,true , false],"b":{ },"c":[\r\n], "":"x",
            "numbers":[0,-0,-12,1.5,1e2,-2.5E-1,9223372036854775807,9223372036854775808]}
            """
        #expect(
            try parse(text)
                == .object([
                    "a": .array([.null, .bool(true), .bool(false)]),
                    "b": .object([:]),
                    "c": .array([]),
                    "": .string("x"),
                    "numbers": .array([
                        .integer(0), .number(-0.0), .integer(-12), .number(1.5), .number(100),
                        .number(-0.25), .integer(.max), .number(9_223_372_036_854_775_808),
                    ]),
                ])
        )
        #expect(try parse("7") == .integer(7))
    }

    @Test func readsEscapes() throws {
        #expect(
            try parse(#""\"\\\/\b\f\n\r\t\u0041\u00e9\uD83D\uDE00é😀\u0000""#)
                == .string("\"\\/\u{8}\u{C}\n\r\tAé😀é😀\u{0}")
        )
    }

    @Test(arguments: [
        ("", 0), (" ", 1), ("tru", 0), ("nul", 0), ("True", 0), ("{", 1), ("[", 1), ("[1", 2),
        ("[1,]", 3), ("[1 2]", 3), ("{\"a\"}", 4), ("{\"a\":}", 5), ("{\"a\":1,}", 7),
        ("{a:1}", 1), ("1x", 1), ("1 2", 2), ("01", 1), ("-", 1), ("1.", 2), (".5", 0), ("1e", 2),
        ("+1", 0), ("\"", 1), ("\"\\", 2), ("\"\\x\"", 2), ("\"\\u12", 5), ("\"\\u12g4\"", 5),
        ("\"\\ud800\"", 2), ("\"\\ud800\\n\"", 2), ("\"\\ud800\\u0041\"", 2), ("\"\\udc00\"", 2),
        ("\"\n\"", 1), ("\"\u{1F}\"", 1), ("\u{FEFF}1", 0), ("'a'", 0), ("{\"a\":1,\"a\":1}", 7),
        ("//", 0), ("NaN", 0), ("[,1]", 1), ("{,}", 1), ("{1:2}", 1), ("{\"a\":1 \"b\":2}", 7),
        ("-01", 2), ("1e+", 3), ("0x10", 1), ("Infinity", 0), ("{} {}", 3), ("\u{A0}1", 0),
        ("\"\\u\u{FF11}234\"", 3), ("\"\\udd8a\\ud83e\"", 2), ("{\"\":1,\"\":2}", 6),
        (#"[{"x":{"a":1,"\u0061":2}}]"#, 13),
    ])
    func saysWhereTheFaultIs(text: String, position: Int) {
        #expect(failure(Array(text.utf8))?.position == position, "\(text.debugDescription)")
    }

    @Test func refusesWhatIsNotUTF8() {
        for bytes: [UInt8] in [[0xFF], [0xC3], [0xED, 0xA0, 0x80], [0xC0, 0x80]] {
            #expect(
                failure([0x22] + bytes + [0x22])
                    == .init(position: 1, problem: "a string that is not valid UTF-8")
            )
        }
        #expect(failure([0xFF]) != nil)
    }

    @Test func allows128LevelsOfNesting() throws {
        func nested(_ depth: Int) -> String {
            String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        }
        _ = try parse(nested(128))
        #expect(failure(Array(nested(129).utf8))?.position == 128)
        // What comes after a value is no deeper than the value itself.
        _ = try parse("[" + Array(repeating: nested(127), count: 3).joined(separator: ",") + "]")
        for open in ["[", "{\"a\":"] {
            let text = String(repeating: open, count: 1_000_000)
            #expect(failure(Array(text.utf8))?.problem == "more than 128 levels of nesting")
        }
    }
}
