import Testing

@testable import Krea2

struct EngineTests {
    @Test func knowsTheKernelsOfThisMachine() {
        #expect(Engine.kernelLevels.contains(Engine.kernelLevel))
        #expect(Engine.kernelLevels.contains("scalar"))
    }

    @Test(arguments: [
        (
            "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz:  fast \nmodel name\t: Other",
            "Some CPU @ 2 GHz: fast"
        ),
        ("model name\t: ", nil), ("model name", nil), ("", nil), ("CPU part\t: 0xd0c\n", nil),
    ])
    func readsTheProcessorsName(_ facts: String, name: String?) {
        #expect(Engine.processor(in: facts) == name)
    }

    @Test func usesTheCoresItMay() {
        #expect(Engine.physicalCores >= 1)
    }

    @Test(arguments: [
        ("0-3,8", [0, 1, 2, 3, 8]), ("5", [5]), ("", []), ("3-1", []), ("a-b", []), ("-", []),
        ("0-99999999", []),
    ])
    func readsListsOfProcessors(_ list: String, processors: [Int]) {
        #expect(Engine.processors(in: list[...]) == processors)
    }
}
