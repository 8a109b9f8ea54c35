import Foundation
import FoundationXML
import Testing

@testable import Images

/// Texts from every script and of every awkward kind.
let awkwardTexts = [
    "", " ", "a fox walking in the snow", "Füchse über Ströme: ¡sí! ÿ", "fu\u{308}chse",
    "雪の中を歩く狐", "🦊❄️👩‍👩‍👧‍👦", "she said \"hi\", then: 'bye' \\ / \\n", "line\nline\n\nline\n",
    "\n\nleading", "carriage\r\nreturn", "tab\there", "bell\u{7}", "<xml>&amp;</xml>",
    "Steps: 3, Seed: 5", "\u{80}\u{9F}\u{A0}", "\u{7F}", "\u{FEFF}bom", "\u{202E}right to left",
    String(repeating: "long ", count: 20_000),
]

/// A small file around the given chunks.
private func file(_ texts: [PNGFile.Chunk], after: [PNGFile.Chunk] = []) -> [UInt8] {
    PNGFile([.header(width: 2, height: 3)] + texts + [.somePicture] + after + [.end]).bytes
}

/// The reason why `bytes` are refused, nil where they are not.
private func refusal(_ bytes: [UInt8]) -> String? {
    do {
        _ = try PNG.readText(bytes)
        return nil
    } catch .damaged(nil, .png, let reason) {
        return reason
    } catch {
        return "another error: \(error)"
    }
}

/// The scalars, since equal strings may have different ones.
private func scalars(_ text: String?) -> [Unicode.Scalar] {
    Array((text ?? "nothing").unicodeScalars)
}

struct PNGTextTests {
    @Test(arguments: awkwardTexts)
    func readsBackWhatItWrites(text: String) throws {
        let image = try randomImage(width: 1, height: 1)
        let bytes = try PNG.encode(image, texts: [PNG.Text(keyword: "about", value: text)])
        let found = try PNG.readText(bytes)
        #expect(scalars(found.text("about")) == scalars(text))
        #expect(found.texts.count == 1)
        #expect(found.text("About") == nil)
    }

    @Test(arguments: [
        ("plain", true), ("two\nlines", true), ("ÿ é £", true), ("e\u{301}", false),
        ("狐", false), ("🦊", false), ("a\tb", false), ("a\rb", false), ("\u{85}", false),
        ("€", false),
    ])
    func choosesTheChunk(text: String, isLatin1: Bool) throws {
        let image = try randomImage(width: 1, height: 1)
        let bytes = try PNG.encode(image, texts: [PNG.Text(keyword: "key", value: text)])
        let file = try #require(PNGFile(bytes))
        let latin1 = Array("key".utf8) + [0] + text.unicodeScalars.map { UInt8($0.value & 0xFF) }
        let utf8 = Array("key".utf8) + [0, 0, 0, 0, 0] + Array(text.utf8)
        #expect(file.data("tEXt") == (isLatin1 ? [latin1] : []))
        #expect(file.data("iTXt") == (isLatin1 ? [] : [utf8]))
    }

    @Test func writesXMPAlways() throws {
        let image = try randomImage(width: 1, height: 1)
        for metadata in [nil, sampleRecord(prompt: "a fox")] {
            let bytes = try PNG.encode(image, metadata: metadata)
            let found = try PNG.readText(bytes)
            let packet = try #require(found.text("XML:com.adobe.xmp"))
            let data = try #require(PNGFile(bytes)?.data("iTXt"))
            #expect(
                data == [Array("XML:com.adobe.xmp".utf8) + [0, 0, 0, 0, 0] + Array(packet.utf8)]
            )
            #expect(
                packet.contains(
                    "<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/"
                        + "digitalsourcetype/trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>"
                )
            )
            let tool = "<xmp:CreatorTool>krea2 0.1.0</xmp:CreatorTool>"
            #expect(packet.contains(tool) == (metadata != nil))
            #expect(packet.hasPrefix("<?xpacket begin=\"\u{FEFF}\" id="))
            #expect(packet.hasSuffix("<?xpacket end=\"r\"?>"))
            #expect(XMLParser(data: Data(packet.utf8)).parse())
        }
        #expect(try PNG.readText(PNG.encode(image, metadata: nil)).texts.count == 1)
    }

    @Test func escapesXML() {
        let packet = XMPPacket(creatorTool: "<1> & \"2\"").text
        #expect(packet.contains("<xmp:CreatorTool>krea2 &lt;1&gt; &amp; \"2\"</xmp:CreatorTool>"))
    }

    @Test func readsEveryKindOfTextBeforeAndAfterThePicture() throws {
        let texts: [PNGFile.Chunk] = [
            .text("one", [0x61, 0xE9]), .compressedText("two", zlib: zlibStored([0x62, 0xE8])),
            .internationalText("three", Array("狐".utf8)),
        ]
        let after: [PNGFile.Chunk] = [
            .internationalText("four", zlibStored(Array("🦊".utf8)), isCompressed: true),
            .text("one", [0x7A]),
            .compressedText("bomb", zlib: zlibBomb(count: 1000)),
        ]
        let found = try PNG.readText(file(texts, after: after))
        let expected: [PNG.Text] = [
            .init(keyword: "one", value: "aé", storage: .latin1),
            .init(keyword: "two", value: "bè", storage: .latin1),
            .init(keyword: "three", value: "狐", storage: .international),
            .init(keyword: "four", value: "🦊", storage: .international),
            .init(keyword: "one", value: "z", storage: .latin1),
            .init(
                keyword: "bomb",
                value: String(repeating: "A", count: 258_001),
                storage: .latin1
            ),
        ]
        #expect(found.texts == expected)
        #expect(found.text("one") == "aé")
        #expect(found.width == 2 && found.height == 3 && found.bitDepth == 8)
        #expect(found.colorType == .rgb)
    }

    @Test func passesOverEverythingElse() throws {
        // 9 MB in one chunk: more than a text may have, and with a wrong CRC.
        var picture = PNGFile.Chunk(type: "IDAT", data: []).bytes
        picture.replaceSubrange(0..<4, with: bigEndian(9_000_000))
        picture.insert(contentsOf: [UInt8](repeating: 0, count: 9_000_000), at: 8)
        let start = PNGFile([
            .header(width: 1, height: 1, bitDepth: 4, colorType: 3),
            .init(type: "gAMA", data: [1]), .init(type: "PLTE", data: [1, 2, 3]),
            .init(type: "iCCP", data: [0, 0, 0]), .init(type: "prIv", data: [1]),
        ])
        let end = PNGFile([.somePicture, .text("k", [0x76]), .end])
        let found = try PNG.readText(start.bytes + picture + end.bytes.dropFirst(8) + [1, 2, 3])
        #expect(found.texts == [.init(keyword: "k", value: "v", storage: .latin1)])
        #expect(found.colorType == .palette && found.bitDepth == 4)
        #expect(found.text("krea2") == nil)
        #expect(try found.record() == nil)
    }

    @Test func refusesWhatIsNotPNG() {
        #expect(refusal([]) == "it does not start like one")
        #expect(refusal(Array("GIF89a, of all things".utf8)) == "it does not start like one")
        #expect(refusal(PNG.signature) == "the file ends too early")
        let palette = PNGFile.Chunk(type: "PLTE", data: []).bytes
        #expect(refusal(PNG.signature + palette) == "the file ends too early")
        #expect(refusal(PNGFile([.end]).bytes) != nil)
        #expect(refusal(PNGFile([.header(width: 1, height: 1), .end]).bytes) != nil)
        #expect(refusal(PNGFile([.header(width: 1, height: 1), .somePicture]).bytes) != nil)
        #expect(refusal(PNGFile([.text("a", [0x61]), .header(width: 1, height: 1)]).bytes) != nil)
    }

    @Test func refusesDamagedTexts() throws {
        #expect(refusal(file([.text("", [0x61])]))?.contains("0 characters") == true)
        let long = String(repeating: "k", count: 80)
        #expect(refusal(file([.text(long, [0x61])]))?.contains("80 characters") == true)
        #expect(refusal(file([.compressedText("", zlib: zlibStored([1]))])) == "zTXt: bad keyword")
        #expect(refusal(file([.compressedText("k", zlib: [1, 2, 3])])) != nil)
        #expect(refusal(file([.compressedText("k", zlib: [])])) == "zTXt: truncated")
        let stream = zlibStored(Array("text".utf8))
        #expect(refusal(file([.compressedText("k", zlib: stream.dropLast(6))])) != nil)
        #expect(refusal(file([.compressedText("k", zlib: stream + [0])])) != nil)
        #expect(refusal(file([.internationalText("k", [0xFF, 0xFE])]))?.contains("UTF-8") == true)
        #expect(
            refusal(file([.internationalText("k", stream.dropLast(), isCompressed: true)])) != nil
        )
        #expect(refusal(file([.init(type: "iTXt", data: [0x6B, 0, 0, 0])])) == "iTXt: truncated")

        var wrong = file([.text("key", Array("value".utf8))])
        let place = try #require(wrong.firstRange(of: Array("value".utf8))).lowerBound
        wrong[place] ^= 1
        #expect(refusal(wrong) == "tEXt: CRC error")
    }

    @Test func refusesBombs() {
        let bomb = zlibBomb(count: 40_000)  // 65 kB that inflate to 10.3 MB
        #expect(refusal(file([.compressedText("k", zlib: bomb)])) != nil)
        #expect(refusal(file([.internationalText("k", bomb, isCompressed: true)])) != nil)
        // Each within the limit of a text, together beyond that of a file.
        let charge = PNGFile.Chunk.compressedText("k", zlib: zlibBomb(count: 30_000))
        #expect(refusal(file([charge])) == nil)
        #expect(
            refusal(file([PNGFile.Chunk](repeating: charge, count: 9)))
                == "its texts need more than 64 MiB of memory"
        )
    }

    @Test func refusesTooMuchText() {
        let small = PNGFile.Chunk.text("k", [0x61])
        #expect(refusal(file([PNGFile.Chunk](repeating: small, count: 250))) == nil)
        #expect(refusal(file([PNGFile.Chunk](repeating: small, count: 251))) != nil)
        let long = PNGFile.Chunk.text("k", [UInt8](repeating: 0x61, count: 8_000_000))
        #expect(refusal(file([long])) == "tEXt: chunk data is too large")
    }

    @Test func doesNotDropATextThatNoLongerFits() {
        // libpng only warns when it is the copy of a text that memory does not suffice for.
        let text = PNGFile.Chunk.text("k", [UInt8](repeating: 0x61, count: 280_000)).bytes
        var bytes = PNGFile([.header(width: 1, height: 1)]).bytes
        for _ in 0..<250 { bytes += text }
        bytes += PNGFile([.somePicture, .end]).bytes.dropFirst(8)
        #expect(refusal(bytes) == "its texts need more than 64 MiB of memory")
    }

    @Test(arguments: [12, 8_000_000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF] as [UInt32])
    func refusesWrongLengths(length: UInt32) {
        var bytes = file([])
        var text = PNGFile.Chunk.text("k", [0x61]).bytes
        text.replaceSubrange(0..<4, with: bigEndian(length))
        bytes.insert(contentsOf: text, at: 8 + 25)
        #expect(refusal(bytes) != nil)
    }

    @Test func refusesToWriteWhatCannotBeStored() throws {
        let image = try randomImage(width: 1, height: 1)
        let unwritable = [
            PNG.Text(keyword: "", value: "a"), PNG.Text(keyword: "ключ", value: "a"),
            PNG.Text(keyword: String(repeating: "k", count: 80), value: "a"),
            PNG.Text(keyword: "k", value: "a\0b"),
            PNG.Text(keyword: "k", value: String(repeating: "a", count: 8_000_000)),
        ]
        for text in unwritable {
            let error = #expect(throws: ImageError.self) { try PNG.encode(image, texts: [text]) }
            guard case .invalidText(text.keyword, _) = error else {
                Issue.record("\(String(describing: error))")
                continue
            }
        }
        let longest = String(repeating: "a", count: PNG.largestTextByteCount)
        let keyword = String(repeating: "k", count: 79)
        let text = PNG.Text(keyword: keyword, value: longest, storage: .international)
        #expect(try PNG.readText(PNG.encode(image, texts: [text])).texts == [text])
    }
}
