import TestSupport
import Testing

@testable import Tokenization

/// The steps from a text to tokens, one by one.
struct EncodingTests {
    /// Words of a text as strings.
    private func words(_ text: String) -> [String] {
        let scalars = Array(text.unicodeScalars)
        return WordSplitter(scalars).words().map {
            String(String.UnicodeScalarView(scalars[$0]))
        }
    }

    // MARK: Words

    @Test func splitsContractions() {
        #expect(words("it's we'LL I'd") == ["it", "'s", " we", "'LL", " I", "'d"])
        #expect(words("'sx 'ſ 'r 'lx") == ["'s", "x", " '", "ſ", " '", "r", " '", "lx"])
        #expect(words("don'ſ") == ["don", "'ſ"])
        #expect(words("a'") == ["a", "'"])
    }

    @Test func lettersTakeOneSignInFront() {
        #expect(words("(word") == ["(word"])
        #expect(words("((word") == ["((", "word"])
        #expect(words("\tword\u{A0}né") == ["\tword", "\u{A0}né"])
        #expect(words("\nword") == ["\n", "word"])
        #expect(words("e\u{301}a") == ["e", "\u{301}a"])
    }

    @Test func numbersStandAlone() {
        #expect(words("12 ½Ⅷ٣") == ["1", "2", " ", "½", "Ⅷ", "٣"])
    }

    @Test func symbolsTakeLineBreaksBehind() {
        #expect(words("a !!\r\n\nb") == ["a", " !!\r\n\n", "b"])
        #expect(words("😀 😀") == ["😀", " 😀"])
        #expect(words("a\u{1C}b \u{1F}") == ["a", "\u{1C}b", " \u{1F}"])
    }

    @Test func blanksLeaveTheLastForTheWord() {
        #expect(words("a   b") == ["a", "  ", " b"])
        #expect(words("a  1") == ["a", " ", " ", "1"])
        #expect(words("a \n\n  b") == ["a", " \n\n", " ", " b"])
        #expect(words("a  ") == ["a", "  "])
        #expect(words("\u{85}\u{2028}\n\u{3000}") == ["\u{85}\u{2028}\n", "\u{3000}"])
    }

    // MARK: Normal form

    @Test func composesAndReorders() {
        func composedValues(_ text: String) -> [UInt32] { composed(text).map(\.value) }
        #expect(composedValues("e\u{301}") == [0xE9])
        #expect(composedValues("a\u{301}\u{316}") == [0xE1, 0x316])
        #expect(composedValues("\u{1100}\u{1161}\u{11A8}") == [0xAC01])
        #expect(composedValues("\u{212B}\u{FB01}") == [0xC5, 0xFB01])
        // Two vowel signs: each becomes two marks, then equal marks come together.
        #expect(composedValues("\u{F73}\u{F73}") == [0xF71, 0xF71, 0xF72, 0xF72])
    }

    @Test func leavesWhatUnicode9Lacks() {
        // U+1ACC is of Unicode 14: marks do not move across it, nothing composes with it.
        #expect(composed("e\u{1ACC}\u{316}\u{301}").map(\.value) == [0x65, 0x1ACC, 0x316, 0x301])
        #expect(composed("e\u{316}\u{301}").map(\.value) == [0xE9, 0x316])
        // U+105D2 U+0307 compose from Unicode 16 on.
        #expect(composed("\u{105D2}\u{307}").map(\.value) == [0x105D2, 0x307])
    }

    // MARK: Added tokens

    @Test func cutsAtTheLeftmostLongestToken() throws {
        let vocabulary = try Vocabulary(byteVocabulary(), path: "")
        let entries = ["<a>", "<a><b>", "b><", "<é>"].enumerated().map { index, content in
            AddedToken(id: 300 + index, content: content)
        }
        let tokens = try AddedTokens(entries, vocabulary: vocabulary, path: "")
        func split(_ text: String) -> [AddedTokens.Piece] { tokens.split(Array(text.utf8)) }
        #expect(split("") == [])
        #expect(split("plain") == [.text(0..<5)])
        #expect(split("<a><b><") == [.token(301), .text(6..<7)])
        #expect(split("<a><<b><a") == [.token(300), .text(3..<5), .token(302), .text(8..<9)])
        #expect(split("x<é>") == [.text(0..<1), .token(303)])
        #expect(split("<e\u{301}>") == [.text(0..<5)])
    }

    // MARK: Merging

    /// Ids of the 256 bytes.
    private func byteVocabulary() -> [String: Int] {
        Dictionary(uniqueKeysWithValues: Vocabulary.byteTokens.enumerated().map { ($1, $0) })
    }

    /// A vocabulary and merges that make words of a and b, each merge after those it needs.
    private func trainedMerges(
        _ generator: inout SeededGenerator
    ) throws -> (BytePairMerges, ranks: [[Int32]: (rank: Int, id: Int32)]) {
        var vocabulary = byteVocabulary()
        var tokens = ["a", "b", "c"]
        var pairs: [TokenPair] = []
        while pairs.count < 40 {
            let left = tokens[Int.random(in: 0..<tokens.count, using: &generator)]
            let right = tokens[Int.random(in: 0..<tokens.count, using: &generator)]
            guard vocabulary[left + right] == nil, left.count + right.count < 8 else { continue }
            vocabulary[left + right] = vocabulary.count
            tokens.append(left + right)
            pairs.append(TokenPair(left: left, right: right))
        }
        let checked = try Vocabulary(vocabulary, path: "")
        var ranks: [[Int32]: (rank: Int, id: Int32)] = [:]
        for (rank, pair) in pairs.enumerated() {
            let ids = [pair.left, pair.right, pair.left + pair.right].compactMap { checked.ids[$0] }
            ranks[Array(ids[..<2])] = (rank, ids[2])
        }
        return (try BytePairMerges(pairs, vocabulary: checked, path: ""), ranks)
    }

    /// The definition: merge all occurrences of the pair of lowest rank, left to right, and again.
    private func mergedPlainly(
        _ tokens: [Int32],
        _ ranks: [[Int32]: (rank: Int, id: Int32)]
    ) -> [Int32] {
        var tokens = tokens
        while true {
            let pairs = zip(tokens, tokens.dropFirst()).map { [$0, $1] }
            let best = pairs.filter { ranks[$0] != nil }
                .min { ranks[$0]?.rank ?? 0 < ranks[$1]?.rank ?? 0 }
            guard let best, let id = ranks[best]?.id else { return tokens }
            var merged: [Int32] = []
            var index = 0
            while index < tokens.count {
                let isPair = index + 1 < tokens.count && Array(tokens[index...index + 1]) == best
                merged.append(isPair ? id : tokens[index])
                index += isPair ? 2 : 1
            }
            tokens = merged
        }
    }

    @Test func mergesAsThePlainDefinition() throws {
        var generator = SeededGenerator(seed: 5)
        for _ in 0..<20 {
            let (merges, ranks) = try trainedMerges(&generator)
            for length in 0..<40 {
                let bytes = (0..<length).map { _ in Int32.random(in: 97...99, using: &generator) }
                let start = bytes.map { $0 - 33 }
                var tokens = start
                merges.apply(to: &tokens)
                #expect(tokens == mergedPlainly(start, ranks))
            }
        }
    }

    @Test func takesOnePairAtATimeWhereALaterMergeIsMoreUrgent() throws {
        // As in the tokenizers library: after the first "aa" the pair "aa" "a" goes before the
        // second "aa".
        let vocabulary = try Vocabulary(
            byteVocabulary().merging(["aa": 256, "aaa": 257]) { first, _ in first },
            path: ""
        )
        let pairs = [TokenPair(left: "aa", right: "a"), TokenPair(left: "a", right: "a")]
        let merges = try BytePairMerges(pairs, vocabulary: vocabulary, path: "")
        let a = try #require(vocabulary.ids["a"])
        var tokens = [a, a, a, a]
        merges.apply(to: &tokens)
        #expect(tokens == [257, a])
    }

    @Test func encodesLongWordsAndRuns() throws {
        let tokenizer = try Fixture.tokenizer()
        let the = try #require(tokenizer.encode("the").first)
        let letters = tokenizer.encode(String(repeating: "the", count: 70_000))
        #expect(letters == Array(repeating: the, count: 70_000))
        for run in ["<|", " \n", "#", "ab"] {
            #expect(tokenizer.encode(String(repeating: run, count: 10_000)).count > 2_000)
        }
        let marks = "a" + String(repeating: "\u{301}\u{316}", count: 25_000)
        #expect(composed(marks).count == 50_000)
        #expect(composed(marks).first == "á")
    }

    @Test func heapGivesAscendingOrder() {
        var generator = SeededGenerator(seed: 9)
        var heap = MinHeap<Int>()
        let numbers = (0..<500).map { _ in Int.random(in: 0..<100, using: &generator) }
        for number in numbers { heap.insert(number) }
        var popped: [Int] = []
        while let number = heap.popFirst() { popped.append(number) }
        #expect(popped == numbers.sorted())
    }
}
