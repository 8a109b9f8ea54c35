import Testing

@testable import Tensors

struct ElementTypeTests {
    @Test func takesAsManyBytesAsItsNameSays() throws {
        for type in ElementType.allCases where type != .bool {
            let digits = type.rawValue.split(separator: "_")[0].filter(\.isNumber)
            #expect(Int(digits) == 8 * type.byteCount, "\(type)")
        }
        #expect(ElementType.bool.byteCount == 1)
    }

    @Test func computesWithFloatsOf16And32Bits() {
        let computable = ElementType.allCases.filter(\.isComputable)
        #expect(computable == [.float32, .float16, .bfloat16])
    }
}
