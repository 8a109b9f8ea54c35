import Glibc

/// Memory that holds tensor elements; given back when the last view goes away.
///
/// Writers are responsible for order: two threads never write the same element, and nobody reads
/// what another thread is writing. Only `Compute` writes in parallel, and it splits by element.
@safe package final class Storage: @unchecked Sendable {
    /// The bytes; read-only where they map a file.
    package let bytes: UnsafeMutableRawBufferPointer

    private let owner: AnyObject?

    /// Reserves zeroed, page-aligned memory; pages become resident when they are first touched.
    ///
    /// Exhausted address space is not an input error, so it traps.
    ///
    /// - Parameter byteCount: Bytes to reserve, 0 or more.
    package init(byteCount: Int) {
        let length = max(byteCount, 1)
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        guard
            let address = mmap(nil, length, PROT_READ | PROT_WRITE, flags, -1, 0),
            address != MAP_FAILED
        else {
            preconditionFailure("cannot reserve \(byteCount) bytes of memory")
        }
        if length >= 1 << 22 { madvise(address, length, MADV_HUGEPAGE) }
        bytes = UnsafeMutableRawBufferPointer(start: address, count: byteCount)
        owner = nil
    }

    /// Borrows memory that `owner` keeps alive, such as a file mapping.
    ///
    /// - Parameters:
    ///   - bytes: Memory valid as long as `owner`.
    ///   - owner: Released together with this storage.
    package init(borrowing bytes: UnsafeMutableRawBufferPointer, from owner: AnyObject) {
        self.bytes = bytes
        self.owner = owner
    }

    deinit {
        guard owner == nil, let address = bytes.baseAddress else { return }
        munmap(address, max(bytes.count, 1))
    }
}
