import Testing

@testable import Tokenization

/// Agreement with what diffusers feeds the text encoder.
struct PromptTemplateTests {
    @Test func agreesWithThePipeline() throws {
        let template = try PromptTemplate(Fixture.tokenizer())
        let cases = try Fixture.cases().template
        #expect(cases.count >= 20)
        #expect(cases.contains { $0.truncated > 0 })
        for example in cases {
            let encoding = template.encode(example.prompt)
            #expect(encoding.ids == example.ids, "\(example.prompt.debugDescription)")
            #expect(encoding.truncatedTokens == example.truncated)
            #expect(encoding.ids.count - PromptTemplate.sliceStart == example.conditioningRows)
        }
    }

    @Test func cutsAtTheLimitAndKeepsTheSuffix() throws {
        let tokenizer = try Fixture.tokenizer()
        let template = try PromptTemplate(tokenizer)
        let fits = template.encode(String(repeating: "7", count: 507))
        #expect(fits.ids.count == 546)
        #expect(fits.truncatedTokens == 0)
        let cut = template.encode(String(repeating: "7", count: 510))
        #expect(cut.ids == fits.ids)
        #expect(cut.truncatedTokens == 3)
        #expect(Array(cut.ids.suffix(5)) == tokenizer.encode(PromptTemplate.suffix))
    }

    @Test func emptyPromptIsPrefixAndSuffix() throws {
        let tokenizer = try Fixture.tokenizer()
        let encoding = try PromptTemplate(tokenizer).encode("")
        #expect(
            encoding.ids == tokenizer.encode(PromptTemplate.prefix)
                + tokenizer.encode(PromptTemplate.suffix)
        )
    }

    @Test func leadingLineFeedMergesWithThePrefix() throws {
        let tokenizer = try Fixture.tokenizer()
        let template = try PromptTemplate(tokenizer)
        let twoLineFeeds = try #require(tokenizer.encode("\n\n").first)
        let merged = template.encode("\nhello")
        #expect(merged.ids[PromptTemplate.sliceStart - 1] == twoLineFeeds)
        #expect(merged.ids.count == template.encode("hello").ids.count)
    }

    @Test func refusesAnotherTokenizer() throws {
        let tiny = try TinyTokenizer().load()
        let count = tiny.encode(PromptTemplate.prefix).count
        #expect(
            throws: TokenizerError.unfitTemplate(
                path: "tiny.json",
                part: "prefix",
                tokenCount: count,
                expected: 34
            )
        ) { try PromptTemplate(tiny) }
    }
}
