import Tensors

/// The bytes of a safetensors file with this header text and so many bytes of data.
///
/// - Parameters:
///   - header: The JSON, right or wrong.
///   - data: Bytes after the header, counting up from 0.
///   - length: The header's length, where it is not to be the right one.
/// - Returns: Length, header and data.
func safetensors(_ header: String, data: Int = 0, length: UInt64? = nil) -> [UInt8] {
    let text = Array(header.utf8)
    let prefix = length ?? UInt64(text.count)
    return (0..<8).map { UInt8(truncatingIfNeeded: prefix >> (8 * $0)) } + text
        + (0..<data).map { UInt8(truncatingIfNeeded: $0) }
}

/// One tensor's entry in a header.
func entry(_ name: String, _ type: String, _ shape: [Int], _ from: Int, _ to: Int) -> String {
    "\"\(name)\":{\"dtype\":\"\(type)\",\"shape\":\(shape),\"data_offsets\":[\(from),\(to)]}"
}

/// The elements of a tensor of any type, as bytes.
func bytes(of tensor: Tensor) -> [UInt8] {
    Array(tensor.storage.bytes[tensor.byteOffset..<tensor.byteOffset + tensor.byteCount])
}
