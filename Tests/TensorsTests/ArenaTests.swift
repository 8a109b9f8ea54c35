import Testing

@testable import Tensors

struct ArenaTests {
    /// Buffers of a small stage.
    private func cut(_ arena: inout Arena) -> [Tensor] {
        [arena.tensor("latent", 16, 5, 3), arena.tensor("one", 1), arena.tensor("none", 0, 4)]
            + [arena.tensor("hidden", 1025, 2)]
    }

    @Test func measuresWhatItCuts() {
        var measuring = Arena.measuring()
        _ = cut(&measuring)
        var arena = Arena(Storage(byteCount: measuring.byteCount))
        _ = cut(&arena)
        #expect(arena.byteCount == measuring.byteCount)
        #expect(arena.buffers == measuring.buffers)
        #expect(arena.byteCount == 4096 + 4096 + 0 + 12288)
        #expect(arena.buffers.map(\.name) == ["latent", "one", "none", "hidden"])
        #expect(arena.buffers.map(\.byteCount) == [960, 4, 0, 8200])
        #expect(arena.buffers[0].shape == [16, 5, 3])
    }

    @Test func buffersDoNotOverlap() {
        var arena = Arena(Storage(byteCount: 32768))
        let buffers = cut(&arena)
        for (index, buffer) in buffers.enumerated() {
            buffer.write([Float](repeating: Float(index + 1), count: buffer.count))
        }
        for (index, buffer) in buffers.enumerated() {
            #expect(buffer.elements.allSatisfy { $0 == Float(index + 1) })
            #expect(buffer.byteOffset % 4096 == 0)
        }
    }

    @Test func trapsWhenTheBlockIsTooSmall() async {
        await #expect(processExitsWith: .failure) {
            var arena = Arena(Storage(byteCount: 4096))
            _ = arena.tensor("first", 1)
            _ = arena.tensor("second", 1)
        }
    }
}
