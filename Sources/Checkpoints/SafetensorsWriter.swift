package import Tensors

/// Collects tensors and writes them as a safetensors file.
///
/// The data part starts at a multiple of 8 bytes; in it wider element types come first and names
/// are in order within a type, so every tensor starts at a multiple of its element's size.
package struct SafetensorsWriter {
    /// Free-form text for `__metadata__`, which is left out when there is none.
    package var metadata: [String: String]
    private var tensors: [String: Tensor] = [:]

    /// Starts with no tensors.
    ///
    /// - Parameter metadata: Free-form text for `__metadata__`.
    package init(metadata: [String: String] = [:]) {
        self.metadata = metadata
    }

    /// Adds a tensor; its elements are read when the file is written.
    ///
    /// - Parameters:
    ///   - name: Name in the file; neither taken yet nor `__metadata__`.
    ///   - tensor: Elements of any type, written as they are.
    package mutating func add(_ name: String, _ tensor: Tensor) {
        precondition(name != "__metadata__", "\(name) is not a tensor's name")
        precondition(tensors[name] == nil, "tensor \(name) added twice")
        tensors[name] = tensor
    }

    /// Adds a copy of elements.
    ///
    /// - Parameters:
    ///   - name: Name in the file; neither taken yet nor `__metadata__`.
    ///   - elements: Row-major values, as many as the shape holds.
    ///   - elementType: What they are in the file; of the same size as `Element`.
    ///   - shape: Sizes from the slowest axis to the fastest.
    package mutating func add<Element: BitwiseCopyable>(
        _ name: String,
        _ elements: [Element],
        as elementType: ElementType,
        shape: [Int]
    ) {
        let byteCount = elements.count * elementType.byteCount
        precondition(MemoryLayout<Element>.stride == elementType.byteCount, "\(Element.self)")
        precondition(shape.reduce(1, *) == elements.count, "\(elements.count) for \(shape)")
        let storage = Storage(byteCount: byteCount)
        elements.withUnsafeBytes { storage.bytes.copyMemory(from: $0) }
        add(name, Tensor(storage, byteOffset: 0, shape: shape, elementType: elementType))
    }

    /// Writes the file under a temporary name beside `path` and moves it there when it is complete.
    ///
    /// On failure nothing is left behind and what was at `path` stays.
    ///
    /// - Parameters:
    ///   - path: Path of the new file; its folder exists.
    ///   - isOverwriting: Whether a file at `path` is replaced.
    ///   - isPrivate: Whether only the user may read the file.
    /// - Throws: `.exists` where a file is not to be overwritten, `.cannotWrite` for all that the
    ///   system refuses.
    package func write(
        to path: String,
        overwriting isOverwriting: Bool = false,
        isPrivate: Bool = false
    ) throws(CheckpointError) {
        let layout = SafetensorsLayout(
            inOrder.map { .init($0.key, $0.value.elementType, $0.value.shape) },
            metadata: metadata
        )
        try layout.checkHeader(path)
        let file = try NewFile(path: path, overwriting: isOverwriting, isPrivate: isPrivate)
        try layout.header.span.withUnsafeBytes { bytes throws(CheckpointError) in
            try file.write(bytes)
        }
        for (_, tensor) in inOrder where tensor.count > 0 {
            try file.write(UnsafeRawBufferPointer(start: tensor.address, count: tensor.byteCount))
        }
        try file.finish()
    }

    /// The digest that `SafetensorsFile.dataDigest()` gives for the file.
    package var dataDigest: String {
        var hash = SHA256()
        for (_, tensor) in inOrder where tensor.count > 0 {
            hash.update(UnsafeRawBufferPointer(start: tensor.address, count: tensor.byteCount))
        }
        return "sha256:" + hash.digest()
    }

    /// The tensors in the order of the data part.
    private var inOrder: [(key: String, value: Tensor)] {
        tensors.sorted {
            ($1.value.elementType.byteCount, $0.key) < ($0.value.elementType.byteCount, $1.key)
        }
    }
}
