import TestSupport
import Testing

@testable import Tokenization

/// The tokenizer of models of random weights.
struct PlainTokenizerTests {
    @Test func fitsTheTemplate() throws {
        let folder = try TemporaryFolder()
        let path = try folder.write(PlainTokenizer.json(), to: "tokenizer.json")
        let tokenizer = try Tokenizer(path: path)
        let template = try PromptTemplate(tokenizer)
        #expect(template.encode("").ids.count == 34 + 5)
        // A byte each.
        #expect(template.encode("zzz é").ids.count == 34 + 6 + 5)
        let ids = template.encode("Describe the image, é!").ids
        #expect(ids.allSatisfy { (0..<Int32(PlainTokenizer.idCount)).contains($0) })
    }
}
