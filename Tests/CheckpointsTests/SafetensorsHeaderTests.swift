import Tensors
import TestSupport
import Testing

@testable import Checkpoints

struct SafetensorsHeaderTests {
    private func header(_ bytes: [UInt8]) throws -> SafetensorsHeader {
        try bytes.withUnsafeBytes { try SafetensorsHeader($0, path: "m.safetensors") }
    }

    /// The error of a file that must be refused as damaged, without the path.
    private func refusal(
        of bytes: [UInt8],
        _ location: SourceLocation = #_sourceLocation
    ) -> (tensor: String?, text: String) {
        let error = #expect(throws: CheckpointError.self, sourceLocation: location) {
            try header(bytes)
        }
        guard case .damaged("m.safetensors", let tensor, let found, let expected) = error else {
            Issue.record("\(String(describing: error))", sourceLocation: location)
            return (nil, "")
        }
        return (tensor, "\(found), expected \(expected)")
    }

    private let a = entry("a", "F32", [2, 3], 0, 24)

    // MARK: Accepted

    @Test func readsTensorsAndMetadata() throws {
        let text =
            #"{"__metadata__":{"format":"pt","n":"1"},"b":{"data_offsets":[24,30],"shape":[3],"#
            + #""dtype":"BF16"},\#(a),\#(entry("scalar", "F64", [], 30, 38))}   "#
        let header = try header(safetensors(text, data: 38))
        let start = 8 + text.utf8.count
        #expect(header.metadata == ["format": "pt", "n": "1"])
        #expect(header.dataStart == start)
        #expect(
            header.tensors == [
                "a": TensorRecord(
                    elementType: .float32,
                    shape: [2, 3],
                    range: start..<start + 24
                ),
                "b": TensorRecord(
                    elementType: .bfloat16,
                    shape: [3],
                    range: start + 24..<start + 30
                ),
                "scalar": TensorRecord(
                    elementType: .float64,
                    shape: [],
                    range: start + 30..<start + 38
                ),
            ]
        )
    }

    @Test(arguments: ElementType.allCases)
    func readsEveryElementType(type: ElementType) throws {
        let text = "{\(entry("t", type.rawValue, [5], 0, 5 * type.byteCount))}"
        let header = try header(safetensors(text, data: 5 * type.byteCount))
        #expect(header.tensors["t"]?.elementType == type)
    }

    @Test func acceptsTensorsWithoutElements() throws {
        let text = [
            entry("none", "F32", [0], 0, 0), a, entry("middle", "F32", [7, 0, 4], 24, 24),
            entry("b", "U8", [1], 24, 25), entry("last", "I64", [0, 0], 25, 25),
        ]
        let header = try header(safetensors("{\(text.joined(separator: ","))}", data: 25))
        #expect(header.tensors.count == 5)
        #expect(try self.header(safetensors("{}")).tensors.isEmpty)
    }

    @Test func passesOverUnknownKeys() throws {
        let text = #"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"note":{"x":[1,null]}}}"#
        #expect(try header(safetensors(text, data: 1)).tensors["a"]?.shape == [1])
    }

    // MARK: Length

    @Test func refusesFilesShorterThanTheLength() {
        #expect(refusal(of: [1, 2, 3]).text == "3 bytes, expected at least 8")
    }

    @Test func refusesTruncatedHeaders() {
        let whole = safetensors("{\(a)}", data: 24)
        let length = "{\(a)}".utf8.count
        #expect(
            refusal(of: Array(whole[..<40])).text
                == "a header of \(length) bytes in a file of 40, "
                + "expected a header that ends inside the file"
        )
        for count in 0..<whole.count { _ = refusal(of: Array(whole[..<count])) }
    }

    @Test(arguments: [100_000_001, 1 << 40, UInt64(Int64.max), UInt64(Int64.max) + 1, .max])
    func refusesOversizedHeaders(length: UInt64) {
        #expect(
            refusal(of: safetensors("{\(a)}", data: 24, length: length)).text
                == "a header of \(length) bytes, expected at most 100000000"
        )
    }

    @Test func namesOtherFormats() {
        let pointer = Array("version https://git-lfs.github.com/spec/v1\noid sha256:00\n".utf8)
        #expect(refusal(of: pointer).text.hasPrefix("a Git LFS pointer in place of the file, "))
        let gguf = Array("GGUF".utf8) + [3, 0, 0, 0, 1, 0, 0, 0]
        #expect(refusal(of: gguf).text.hasPrefix("a GGUF file, "))
        let archive = Array("PK".utf8) + [3, 4, 0, 0, 8, 8, 0, 0]
        #expect(refusal(of: archive).text.hasPrefix("a zip archive such as PyTorch writes, "))
    }

    @Test func refusesHeadersThatAreNoObject() {
        for text in ["", " {}", "[]", "\"a\"", "null", "\u{FEFF}{}", "{}x", "{} {}", "{\u{1}}"] {
            #expect(refusal(of: safetensors(text)).tensor == nil)
        }
        #expect(
            refusal(of: safetensors("{} \0")).text
                == "something follows the value at byte 3, expected JSON"
        )
    }

    // MARK: Entries

    @Test func refusesRepeatedKeys() {
        for (text, key, position) in [
            ("{\(a),\(a)}", "a", a.utf8.count + 2),
            (#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"shape":[1]}}"#, "shape", 52),
            (#"{"__metadata__":{"k":"v","k":"v"}}"#, "k", 25),
            (#"{"__metadata__":{},"__metadata__":{}}"#, "__metadata__", 19),
        ] {
            #expect(
                refusal(of: safetensors(text, data: 24)).text
                    == "key \"\(key)\" is there twice at byte \(position), expected JSON"
            )
        }
    }

    @Test(arguments: ["F7", "f32", "F8_E4M3FNUZ", "", "F32 ", "C64"])
    func refusesUnknownTypes(type: String) {
        let refusal = refusal(of: safetensors("{\(entry("a.b", type, [1], 0, 4))}", data: 4))
        #expect(refusal.tensor == "a.b")
        #expect(refusal.text.hasPrefix("type \"\(type)\", expected one of F64 F32 F16 BF16 "))
    }

    @Test(arguments: [
        "[-1]", "[1.5]", "[1e2]", "[\"4\"]", "4", "null", "[[4]]", "[9223372036854775808]",
        "[true]", "{}", "[-0]",
    ])
    func refusesMalformedShapes(shape: String) {
        let text = #"{"a":{"dtype":"U8","shape":\#(shape),"data_offsets":[0,4]}}"#
        let refusal = refusal(of: safetensors(text, data: 4))
        #expect(refusal.tensor == "a")
        #expect(refusal.text.hasPrefix("shape ") && refusal.text.hasSuffix("whole numbers from 0"))
    }

    @Test func refusesShapesWhoseProductOverflows() {
        for shape in [
            [1 << 62, 4], [Int.max], [Int.max, 0], [0, 1 << 31, 1 << 31, 2], [1 << 61],
        ] {
            let refusal = refusal(of: safetensors("{\(entry("big", "F32", shape, 0, 0))}"))
            #expect(refusal.tensor == "big")
            #expect(refusal.text == "shape \(shape), expected fewer than 2^63 bytes")
        }
        let long = refusal(
            of: safetensors("{\(entry("a", "U8", [Int](repeating: 1, count: 65), 0, 1))}", data: 1)
        )
        #expect(long.text == "shape of 65 numbers, expected at most 64")
    }

    @Test(arguments: [
        "[0]", "[]", "[24,0]", "[0,24,24]", "[0,-1]", "[0,2.4e1]", "null", "[0,null]",
    ])
    func refusesMalformedOffsets(offsets: String) {
        let text = #"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":\#(offsets)}}"#
        let refusal = refusal(of: safetensors(text, data: 24))
        #expect(refusal.tensor == "a")
        #expect(refusal.text.contains("data_offsets"))
    }

    @Test func refusesOffsetsPastTheEnd() {
        let short = refusal(of: safetensors("{\(a)}", data: 23))
        #expect(short.tensor == "a")
        #expect(
            short.text == "data up to byte 24, "
                + "expected at most the 23 bytes after the header; is the file cut short?"
        )
        let far = entry("a", "F32", [2, 3], Int.max - 24, Int.max)
        #expect(refusal(of: safetensors("{\(far)}", data: 24)).tensor == "a")
    }

    @Test func refusesWrongByteCounts() {
        for end in [0, 20, 28] {
            let refusal = refusal(
                of: safetensors("{\(entry("a", "F32", [2, 3], 0, end))}", data: 28)
            )
            #expect(refusal.tensor == "a")
            #expect(refusal.text == "\(end) bytes of data, expected 24 for shape [2, 3] of F32")
        }
    }

    @Test func refusesIncompleteEntries() {
        for (text, key) in [
            (#"{"shape":[1],"data_offsets":[0,1]}"#, "dtype"),
            (#"{"dtype":"U8","data_offsets":[0,1]}"#, "shape"),
            (#"{"dtype":"U8","shape":[1]}"#, "data_offsets"), ("{}", "dtype"),
        ] {
            let refusal = refusal(of: safetensors(#"{"a":\#(text)}"#, data: 1))
            #expect(refusal.tensor == "a" && refusal.text == "no \(key), expected one")
        }
        #expect(refusal(of: safetensors(#"{"a":[]}"#)).tensor == "a")
    }

    @Test(arguments: [#""x""#, "null", #"{"a":1}"#, #"{"a":null}"#, #"{"a":{}}"#, #"{"a":["b"]}"#])
    func refusesMetadataThatIsNotText(metadata: String) {
        let refusal = refusal(of: safetensors(#"{"__metadata__":\#(metadata)}"#))
        #expect(refusal.tensor == nil)
        #expect(refusal.text.contains("__metadata__"))
    }

    // MARK: Layout

    @Test func refusesOverlaps() {
        let b = entry("b", "U8", [4], 20, 24)
        let inside = refusal(of: safetensors("{\(a),\(b)}", data: 24))
        #expect(inside.tensor == "b")
        #expect(
            inside.text == "data from byte 20, an overlap, expected byte 24, where tensor a ends"
        )
        let same = entry("b", "F32", [6], 0, 24)
        #expect(refusal(of: safetensors("{\(a),\(same)}", data: 24)).tensor == "b")
        let empty = entry("none", "F32", [0], 8, 8)
        #expect(refusal(of: safetensors("{\(a),\(empty)}", data: 24)).tensor == "none")
    }

    @Test func refusesHolesAndBytesLeftOver() {
        let b = entry("b", "U8", [4], 25, 29)
        let hole = refusal(of: safetensors("{\(b),\(a)}", data: 29))
        #expect(hole.tensor == "b")
        #expect(
            hole.text == "data from byte 25, after a hole, expected byte 24, where tensor a ends"
        )
        let first = refusal(of: safetensors("{\(entry("b", "U8", [4], 1, 5))}", data: 5))
        #expect(first.text.hasSuffix("expected byte 0, where the data starts"))
        let rest = refusal(of: safetensors("{\(a)}", data: 25))
        #expect(rest.tensor == nil)
        #expect(rest.text == "25 bytes of data, expected the 24 bytes that the header describes")
    }

    // MARK: Text

    @Test func errorsAreOneLine() {
        let name = #"a\nb\u2028c\u001b[1m"# + String(repeating: "x", count: 5000)
        let error = #expect(throws: CheckpointError.self) {
            try header(safetensors("{\(entry(name, "F7", [1], 0, 1))}", data: 1))
        }
        let text = error?.description ?? ""
        #expect(text.hasPrefix(#"m.safetensors: tensor a\nb\u{2028}c\u{1B}[1mxxx"#))
        #expect(text.allSatisfy { !$0.isNewline })
        #expect(text.count < 800)
    }

    @Test func manyTensorsAreReadInOrder() throws {
        let count = 2000
        let entries = (0..<count).map { entry("t\($0)", "U8", [1], count - 1 - $0, count - $0) }
        let header = try header(safetensors("{\(entries.joined(separator: ","))}", data: count))
        #expect(header.tensors.count == count)
        #expect(header.tensors["t0"]?.range.lowerBound == header.dataStart + count - 1)
    }
}
