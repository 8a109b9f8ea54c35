import Synchronization
package import Tensors

/// A safetensors file, mapped, with its header checked before any element is used.
package final class SafetensorsFile: Sendable {
    /// Path the file was opened with.
    package let path: String
    /// The free-form text in the header.
    package let metadata: [String: String]
    /// The tensors by name.
    package let tensors: [String: TensorRecord]
    /// Bytes before the data part: the header and its length.
    package let headerByteCount: Int

    let file: MappedFile
    private let storage: Storage
    private let copies = Mutex<[String: Tensor]>([:])

    /// Most bytes of misaligned tensors in one file, which `tensor(_:)` would have to copy.
    package static let mostMisalignedBytes = 4 << 30

    /// Longest header read, the reference implementation's limit.
    package static let longestHeader = 100_000_000

    /// Maps a file and checks its whole header.
    ///
    /// - Parameters:
    ///   - path: Path of a `.safetensors` file.
    ///   - longestHeader: Bytes of a header beyond which the file is not read.
    ///   - mostMisalignedBytes: Bytes of misaligned tensors beyond which it is refused.
    /// - Throws: `.missing`, `.unreadable` or `.damaged`.
    package init(
        path: String,
        longestHeader: Int = SafetensorsFile.longestHeader,
        mostMisalignedBytes: Int = SafetensorsFile.mostMisalignedBytes
    ) throws(CheckpointError) {
        do throws(MappingError) {
            file = try MappedFile(path: path)
        } catch {
            throw CheckpointError(error)
        }
        let header = try file.withBytes { bytes throws(CheckpointError) in
            try SafetensorsHeader(bytes, path: path, longest: longestHeader)
        }
        self.path = path
        metadata = header.metadata
        tensors = header.tensors
        headerByteCount = header.dataStart
        storage = file.storage()
        let misaligned = tensors.values.reduce(0) { $0 + ($1.isAligned ? 0 : $1.range.count) }
        guard misaligned <= mostMisalignedBytes else {
            throw .damaged(
                path: path,
                tensor: nil,
                found: "\(misaligned) bytes in tensors that do not start at multiples of their "
                    + "element's size",
                expected: "at most \(mostMisalignedBytes); the safetensors library writes none"
            )
        }
    }

    /// A view of the elements of one tensor, nil when the file has no such tensor.
    ///
    /// The view reads the mapping and keeps it alive. The format does not promise that elements
    /// start at multiples of their size, which operators rely on; a tensor that does not is copied
    /// to memory of its own at the first call, and stays there as long as this object. Files by
    /// common writers never need that; `init` refuses those that would need too much.
    package func tensor(_ name: String) -> Tensor? {
        guard let record = tensors[name] else { return nil }
        let view = Tensor(
            storage,
            byteOffset: record.range.lowerBound,
            shape: record.shape,
            elementType: record.elementType
        )
        guard !record.isAligned else { return view }
        return copies.withLock { copies in
            if let copy = copies[name] { return copy }
            let copy = Tensor(
                Storage(byteCount: record.range.count),
                byteOffset: 0,
                shape: record.shape,
                elementType: record.elementType
            )
            copy.copy(from: view)
            copies[name] = copy
            return copy
        }
    }

    /// The last part of the path.
    var name: String { path.split(separator: "/").last.map(String.init) ?? path }

    /// Throws unless the file is still the one that was mapped.
    ///
    /// Call it after computing with the tensors: a file cut short reads as zeros until then.
    package func checkUnchanged() throws(CheckpointError) {
        do throws(MappingError) {
            try file.checkUnchanged()
        } catch {
            throw CheckpointError(error)
        }
    }

    /// The bytes of the file that a tensor views, nil for tensors of other origin.
    func range(of tensor: Tensor) -> Range<Int>? {
        guard tensor.storage === storage else { return nil }
        return tensor.byteOffset..<tensor.byteOffset + tensor.byteCount
    }

    /// Asks the system to read a tensor's bytes ahead; does nothing for tensors of other origin.
    package func prefetch(_ tensor: Tensor) {
        if let range = range(of: tensor) { file.prefetch(range) }
    }

    /// Lets the system drop a tensor's pages from memory; they come back at the next touch.
    ///
    /// Does nothing for tensors of other origin, and leaves pages shared with neighbours.
    package func release(_ tensor: Tensor) {
        if let range = range(of: tensor) { file.release(range) }
    }
}
