/// A dense, row-major view of elements: storage, offset, shape and element type.
///
/// There are no strides and there is no broadcasting. Copying the struct copies the view, not the
/// elements: two views of one storage see each other's writes.
@safe package struct Tensor: Sendable {
    /// Sizes from the slowest axis to the fastest.
    package let shape: [Int]
    /// How the elements are stored.
    package let elementType: ElementType
    /// Memory that holds the elements.
    package let storage: Storage
    /// Bytes from the start of the storage to the first element.
    package let byteOffset: Int

    /// Views part of a storage; traps when the view would reach past its end.
    package init(_ storage: Storage, byteOffset: Int, shape: [Int], elementType: ElementType) {
        let byteCount = shape.reduce(elementType.byteCount, *)
        precondition(
            byteOffset >= 0 && byteOffset + byteCount <= storage.bytes.count,
            "view of \(shape) at byte \(byteOffset) in \(storage.bytes.count) bytes"
        )
        self.storage = storage
        self.byteOffset = byteOffset
        self.shape = shape
        self.elementType = elementType
    }

    /// Allocates zeroed float32 elements.
    package init(zeros shape: [Int]) {
        self.init(
            Storage(byteCount: shape.reduce(4, *)),
            byteOffset: 0,
            shape: shape,
            elementType: .float32
        )
    }

    /// Allocates float32 elements and fills them.
    ///
    /// - Parameters:
    ///   - elements: Row-major values, as many as the shape holds.
    ///   - shape: Sizes from the slowest axis to the fastest.
    package init(_ elements: [Float], shape: [Int]) {
        self.init(zeros: shape)
        write(elements)
    }

    /// Allocates bytes, as one axis.
    package init(bytes: [UInt8]) {
        self.init(
            Storage(byteCount: bytes.count),
            byteOffset: 0,
            shape: [bytes.count],
            elementType: .uint8
        )
        storage.bytes.copyBytes(from: bytes)
    }

    /// Number of elements.
    package var count: Int { shape.reduce(1, *) }

    /// Number of bytes the elements take.
    package var byteCount: Int { count * elementType.byteCount }

    /// Length of the first axis.
    package var rows: Int { shape[0] }

    /// Elements in one entry of the first axis.
    package var rowCount: Int { shape.dropFirst().reduce(1, *) }
}

// MARK: Views

extension Tensor {
    /// The same elements with other sizes; traps when the counts differ.
    package func reshaped(_ shape: Int...) -> Tensor { reshaped(shape) }

    /// The same elements with other sizes; traps when the counts differ.
    package func reshaped(_ shape: [Int]) -> Tensor {
        precondition(shape.reduce(1, *) == count, "cannot view \(self.shape) as \(shape)")
        return Tensor(storage, byteOffset: byteOffset, shape: shape, elementType: elementType)
    }

    /// Entries `range` of the first axis.
    package func rows(_ range: Range<Int>) -> Tensor {
        precondition(range.lowerBound >= 0 && range.upperBound <= rows, "rows \(range) of \(rows)")
        return Tensor(
            storage,
            byteOffset: byteOffset + range.lowerBound * rowCount * elementType.byteCount,
            shape: [range.count] + shape.dropFirst(),
            elementType: elementType
        )
    }

    /// Entry `index` of the first axis, which is dropped.
    package func row(_ index: Int) -> Tensor {
        rows(index..<index + 1).reshaped(Array(shape.dropFirst()))
    }
}

// MARK: Elements

extension Tensor {
    /// Address of the first element, for operators and file access.
    package var address: UnsafeMutableRawPointer {
        guard let base = storage.bytes.baseAddress else { preconditionFailure("empty storage") }
        return base + byteOffset
    }

    /// Address of the first float32 element; traps on another element type.
    package var floats: UnsafeMutablePointer<Float> {
        precondition(elementType == .float32, "\(elementType) elements, expected float32")
        return address.assumingMemoryBound(to: Float.self)
    }

    /// A copy of the float32 elements in row-major order.
    package var elements: [Float] {
        Array(UnsafeBufferPointer(start: floats, count: count))
    }

    /// A copy of the elements as numbers of a Swift type that has as many bytes; for few of them.
    package func values<Element: FixedWidthInteger & BitwiseCopyable>(
        as type: Element.Type
    ) -> [Element] {
        precondition(MemoryLayout<Element>.stride == elementType.byteCount, "\(elementType)")
        return (0..<count).map {
            address.loadUnaligned(
                fromByteOffset: $0 * MemoryLayout<Element>.stride,
                as: Element.self
            )
        }
    }

    /// Overwrites all float32 elements.
    ///
    /// - Parameter elements: Row-major values, as many as the tensor holds.
    package func write(_ elements: [Float]) {
        precondition(elements.count == count, "\(elements.count) values for shape \(shape)")
        floats.update(from: elements, count: count)
    }

    /// Copies all elements of `source`, which has the same count and element type.
    package func copy(from source: Tensor) {
        precondition(source.count == count && source.elementType == elementType)
        address.copyMemory(from: source.address, byteCount: byteCount)
    }
}
