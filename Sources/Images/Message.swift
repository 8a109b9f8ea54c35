/// The buffer that a C function writes its reason of failure to.
struct Message {
    private var buffer = [CChar](repeating: 0, count: 160)

    /// What was written, up to the final NUL.
    var text: String {
        String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    /// Hands address and capacity to `body`.
    ///
    /// - Parameter body: Writes at most that many bytes, the last one a NUL.
    /// - Returns: What `body` returns.
    mutating func withBuffer<Result>(
        _ body: (UnsafeMutablePointer<CChar>, Int) -> Result
    ) -> Result {
        unsafe buffer.withUnsafeMutableBufferPointer { bytes in
            guard let start = bytes.baseAddress else { preconditionFailure("no message buffer") }
            return unsafe body(start, bytes.count)
        }
    }
}
