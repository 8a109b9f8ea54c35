/// One block of memory that a stage's buffers are cut from.
///
/// A stage lists its buffers once, in an initialiser that takes an arena. Run on a measuring arena
/// the same code gives the size and the list that `--plan` and `--verbose` print; run on a real one
/// it gives the tensors. Stages that follow each other cut from the same block.
package struct Arena {
    /// One buffer of the plan.
    package struct Buffer: Sendable, Equatable {
        /// What the buffer holds.
        package let name: String
        /// Its sizes.
        package let shape: [Int]
        /// Bytes it takes.
        package let byteCount: Int
    }

    /// Buffers handed out so far, in order.
    package private(set) var buffers: [Buffer] = []
    /// Bytes from the start of the block to the end of the furthest buffer.
    package private(set) var byteCount = 0
    /// Bytes from the start of the block to where the next buffer begins.
    ///
    /// Set it back to an earlier value to let buffers that are never in use together share memory.
    package var position = 0

    private let storage: Storage?
    /// Bytes that the places of buffers are multiples of.
    package static let alignment = 4096

    /// An arena that only measures: its tensors must not be read or written.
    package static func measuring() -> Arena { Arena(storage: nil) }

    /// An arena that cuts from `storage`.
    package init(_ storage: Storage) { self.init(storage: storage) }

    private init(storage: Storage?) { self.storage = storage }

    /// Cuts the next buffer; traps when the block is too small.
    ///
    /// - Parameters:
    ///   - name: What the buffer holds, for the printed plan.
    ///   - shape: Sizes from the slowest axis to the fastest.
    ///   - elementType: How the elements are stored.
    /// - Returns: A view that lives as long as the block; its contents are whatever was there.
    package mutating func tensor(
        _ name: String,
        _ shape: Int...,
        elementType: ElementType = .float32
    ) -> Tensor {
        let size = shape.reduce(elementType.byteCount, *)
        let offset = position
        position += (size + Self.alignment - 1) / Self.alignment * Self.alignment
        byteCount = max(byteCount, position)
        buffers.append(Buffer(name: name, shape: shape, byteCount: size))
        return Tensor(
            storage ?? Storage(byteCount: size),
            byteOffset: storage == nil ? 0 : offset,
            shape: shape,
            elementType: elementType
        )
    }
}
