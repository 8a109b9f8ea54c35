import Krea2
import References
import TestSupport
import Testing

@testable import Krea2CLI

/// What `--style-reference` and `--moodboard` come to.
struct ReferenceOptionsTests {
    private func choice(_ text: String) throws -> ReferenceChoice {
        try ReferenceChoice(parsing: text)
    }

    @Test(arguments: [
        ("a.png", "a.png", Float(0.6)), ("a.png:1", "a.png", 1), ("a:-2", "a", -2),
        ("a:0", "a", 0), ("a,b.png", "a,b.png", 0.6), ("a,b:c.png:0.5", "a,b:c.png", 0.5),
        ("a,1=2:1", "a,1=2", 1), ("a=b", "a=b", 0.6), ("a:.5,side=200", "a", 0.5),
        (",side=200", ",side=200", 0.6), ("a,=2", "a,=2", 0.6),
    ])
    func pathsMayHaveColonsAndCommas(text: String, path: String, strength: Float) throws {
        guard !text.hasPrefix(",") else {
            #expect(throws: ValueError.self) { try choice(text) }
            return
        }
        let found = try choice(text)
        #expect(found.path == path && found.strength == strength)
    }

    @Test func everyKeyReachesItsSetting() throws {
        let found = try choice(
            "a.png:0.3,prep=tiles,side=192,window=0.25-0.75,taps=1/0.5/-2,blocks=7-27,caption=0.5"
        )
        #expect(found.path == "a.png" && found.strength == 0.3)
        #expect(found.treatment == .tiles && found.side == 192)
        #expect(found.window == 0.25...0.75 && found.blocks == 7...27)
        #expect(found.tapGains == [1, 0.5, -2] && found.captionShare == 0.5)
        let plain = try choice("a.png")
        #expect(plain.treatment == nil && plain.side == nil && plain.blocks == nil)
        #expect(plain.window == 0...1 && plain.tapGains.isEmpty && plain.captionShare == 0)
        #expect(try choice("a,blocks=3").blocks == 3...3)
    }

    @Test func windowsHaveNames() throws {
        #expect(try choice("a,window=all").window == 0...1)
        #expect(try choice("a,window=late").window == 0...0.8)
        let early = try choice("a,window=early").window
        #expect(early.upperBound == 1 && early.lowerBound > 0.8 && !early.contains(0.8))
    }

    /// A preset gives way to other keys, wherever it stands.
    @Test func presetsSetSeveral() throws {
        #expect(try choice("a,preset=full") == choice("a"))
        #expect(try choice("a,preset=look") == choice("a,window=late"))
        #expect(try choice("a,preset=palette") == choice("a,prep=palette"))
        #expect(try choice("a,preset=style") == choice("a,prep=tiles,caption=0.5"))
        let mixed = try choice("a,prep=tiles,caption=0.5,side=200")
        #expect(try choice("a,caption=0.5,side=200,preset=style") == mixed)
        #expect(try choice("a,preset=style,caption=0").captionShare == 0)
        #expect(try choice("a,caption=0,preset=style").captionShare == 0)
    }

    @Test func messagesNameTheKey() {
        for (text, reason) in [
            ("a,side=1", "side: '1' is not a whole number from 192 to 1024"),
            ("a,prep=x", "prep: 'x' is not one of none, soft, palette, tiles"),
            (
                "a,siide=1",
                "siide: no such setting; there are preset, prep, side, window, taps, blocks, caption"
            ),
            ("a,side=200,side=200", "side is given twice in 'a,side=200,side=200'"),
            ("a:3", "'3' is not a number from -2 to 2"),
        ] {
            #expect(throws: ValueError(reason: reason)) { try choice(text) }
        }
    }

    @Test func tenAtMost() throws {
        let table = GenerateSettings.table
        let many = (0...10).flatMap { ["--style-reference", "a\($0)"] }
        var settings = GenerateSettings()
        try table.apply(table.scan(Array(many.prefix(20))).given, to: &settings)
        #expect(settings.references.count == 10)
        let error = #expect(throws: Failure.self) {
            var settings = GenerateSettings()
            try table.apply(table.scan(many).given, to: &settings)
        }
        #expect(error?.code == .wrongUsage)
        #expect(error?.message.contains("more than 10 references") == true)
    }

    @Test func moodboardsHaveADefault() throws {
        #expect(try MoodboardChoice(parsing: "d").strength == 0.35)
        #expect(try MoodboardChoice(parsing: "d:-1").strength == -1)
        #expect(try MoodboardChoice(parsing: "d,x=1:1").path == "d,x=1")
    }

    // MARK: Cache

    private func console(_ environment: [String: String]) -> Console {
        var console = Console.process()
        console.environment = environment
        return console
    }

    @Test func theEnvironmentDecidesOnTheCache() throws {
        func cache(_ environment: [String: String], isOff: Bool = false) throws -> EncodingCache? {
            try CachePlace.cache(console(environment), isOff: isOff, of: "generate")
        }
        let home = try #require(try cache(["HOME": "/h"]))
        #expect(home.folder == "/h/.cache/krea2/encodings")
        #expect(home.byteLimit == EncodingCache.usualByteLimit)
        let xdg = try cache(["HOME": "/h", "XDG_CACHE_HOME": "/x", "KREA2_CACHE": "1MiB"])
        #expect(xdg?.folder == "/x/krea2/encodings" && xdg?.byteLimit == 1 << 20)
        #expect(try cache([:]) == nil)
        #expect(try cache(["HOME": "/h"], isOff: true) == nil)
        #expect(try cache(["HOME": "/h", "KREA2_CACHE": "off"]) == nil)
        let error = #expect(throws: Failure.self) {
            try cache(["HOME": "/h", "KREA2_CACHE": "much"])
        }
        #expect(error?.code == .wrongUsage && error?.message.contains("KREA2_CACHE") == true)
    }
}
