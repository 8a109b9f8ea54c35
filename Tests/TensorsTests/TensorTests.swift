import Testing

@testable import Tensors

struct TensorTests {
    private let tensor = Tensor((0..<24).map(Float.init), shape: [2, 3, 4])

    @Test func describesItself() {
        #expect(tensor.count == 24)
        #expect(tensor.byteCount == 96)
        #expect(tensor.rows == 2)
        #expect(tensor.rowCount == 12)
        let scalar = Tensor([7], shape: [])
        #expect(scalar.count == 1 && scalar.elements == [7])
    }

    @Test func viewsRows() {
        #expect(tensor.rows(1..<2).shape == [1, 3, 4])
        #expect(tensor.rows(1..<2).elements == (12..<24).map(Float.init))
        #expect(tensor.row(1).row(2).shape == [4])
        #expect(tensor.row(1).row(2).elements == [20, 21, 22, 23])
        #expect(tensor.rows(2..<2).count == 0)
    }

    @Test func viewsWithOtherSizes() {
        #expect(tensor.reshaped(6, 4).row(5).elements == [20, 21, 22, 23])
        #expect(tensor.reshaped([24]).elements == tensor.elements)
    }

    @Test func viewsShareElements() {
        let other = Tensor(zeros: [2, 3])
        other.reshaped(3, 2).row(1).write([5, 6])
        #expect(other.elements == [0, 0, 5, 6, 0, 0])
    }

    @Test func copiesElements() {
        let other = Tensor(zeros: [24])
        other.copy(from: tensor)
        tensor.row(0).write([Float](repeating: -1, count: 12))
        #expect(other.elements == (0..<24).map(Float.init))
    }

    @Test func keepsStorageAlive() {
        let row = Tensor((0..<1 << 20).map(Float.init), shape: [1 << 10, 1 << 10]).row(1023)
        #expect(row.elements.last == Float((1 << 20) - 1))
    }

    @Test func startsZeroedAndPageAligned() {
        let storage = Storage(byteCount: 10_000)
        #expect(UInt(bitPattern: storage.bytes.baseAddress) % 4096 == 0)
        #expect(storage.bytes.allSatisfy { $0 == 0 })
        #expect(Storage(byteCount: 0).bytes.count == 0)
    }

    @Test func trapsOnViewsPastTheEnd() async {
        await #expect(processExitsWith: .failure) {
            _ = Tensor(zeros: [2, 3]).rows(1..<3)
        }
        await #expect(processExitsWith: .failure) {
            _ = Tensor(zeros: [2, 3]).reshaped(7)
        }
        await #expect(processExitsWith: .failure) {
            _ = Tensor(
                Storage(byteCount: 24),
                byteOffset: 4,
                shape: [6],
                elementType: .float32
            )
        }
    }
}
