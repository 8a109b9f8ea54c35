import Glibc
import Tensors

/// Zeros that stand in for a tensor that cannot be had.
///
/// The pages are never written, so they take address space only. Sendable because nothing changes
/// after `init`.
final class Placeholder: @unchecked Sendable {
    private let bytes: UnsafeMutableRawBufferPointer

    /// Makes float32 zeros that must not be written to.
    ///
    /// - Parameter shape: Sizes, which may come from a hostile file.
    /// - Returns: The zeros; where there cannot be as many elements, as many axes of size 0.
    static func tensor(_ shape: [Int]) -> Tensor {
        let byteCount = shape.reduce(Optional(MemoryLayout<Float>.size)) { product, size in
            let next = product?.multipliedReportingOverflow(by: size)
            return next.flatMap { $0.overflow || size < 0 ? nil : $0.partialValue }
        }
        guard let byteCount, let zeros = Placeholder(byteCount: byteCount) else {
            return Tensor(zeros: shape.map { _ in 0 })
        }
        return Tensor(
            Storage(borrowing: zeros.bytes, from: zeros),
            byteOffset: 0,
            shape: shape,
            elementType: .float32
        )
    }

    private init?(byteCount: Int) {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        let address = mmap(nil, max(byteCount, 1), PROT_READ, flags, -1, 0)
        guard let address, address != MAP_FAILED else { return nil }
        bytes = UnsafeMutableRawBufferPointer(start: address, count: byteCount)
    }

    deinit {
        munmap(bytes.baseAddress, max(bytes.count, 1))
    }
}
