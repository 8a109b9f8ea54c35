import Testing

@testable import Krea2

struct EngineTests {
    @Test func knowsTheKernelsOfThisMachine() {
        #expect(Engine.kernelLevels.contains(Engine.kernelLevel))
        #expect(Engine.kernelLevels.contains("scalar"))
    }

    @Test func measuresItsSpeed() throws {
        // From the slowest kernels on a busy machine to many fast cores.
        #expect((1e7...1e14).contains(try Engine.measureSpeed(threads: 1)))
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
