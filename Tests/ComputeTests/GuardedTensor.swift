import Foundation
import Tensors

/// Memory for one tensor that ends where a page without access begins.
///
/// Reading or writing past the end, or far before the start, crashes; what is written just before
/// the start is found when the memory is given back.
final class GuardedPages {
    let bytes: UnsafeMutableRawBufferPointer
    private let mapping: UnsafeMutableRawBufferPointer
    private static let canary: UInt8 = 0xA5

    init(byteCount: Int) {
        let page = Int(getpagesize())
        let inner = (byteCount + page - 1) / page * page
        let flags = MAP_PRIVATE | MAP_ANONYMOUS
        guard let address = mmap(nil, inner + 2 * page, PROT_NONE, flags, -1, 0),
            address != MAP_FAILED, mprotect(address + page, inner, PROT_READ | PROT_WRITE) == 0
        else { preconditionFailure("cannot map \(byteCount) bytes") }
        mapping = UnsafeMutableRawBufferPointer(start: address, count: inner + 2 * page)
        let gap = page + inner - byteCount
        bytes = UnsafeMutableRawBufferPointer(rebasing: mapping[gap..<page + inner])
        memset(address + page, Int32(Self.canary), gap - page)
    }

    deinit {
        let page = Int(getpagesize())
        let gap = UnsafeRawBufferPointer(
            rebasing: mapping[page..<mapping.count - page - bytes.count]
        )
        if let start = gap.baseAddress, let first = gap.first {
            // All bytes equal the first if each equals the next.
            let isUntouched = first == Self.canary && memcmp(start, start + 1, gap.count - 1) == 0
            precondition(isUntouched, "written before the start of a tensor")
        }
        munmap(mapping.baseAddress, mapping.count)
    }
}

extension Tensor {
    /// Zeros that end where a page without access begins.
    init(guarded shape: [Int], elementType: ElementType = .float32) {
        let pages = GuardedPages(byteCount: shape.reduce(elementType.byteCount, *))
        let storage = Storage(borrowing: pages.bytes, from: pages)
        self.init(storage, byteOffset: 0, shape: shape, elementType: elementType)
    }

    /// Elements that end where a page without access begins.
    init(guarded elements: [Float], _ shape: Int...) {
        self.init(guarded: shape)
        write(elements)
    }

    /// A guarded copy of float32 elements.
    func guardedCopy() -> Tensor {
        let copy = Tensor(guarded: shape)
        copy.copy(from: self)
        return copy
    }

    /// The elements of any type that weights have, exactly.
    var exactElements: [Double] {
        let halves = address.assumingMemoryBound(to: UInt16.self)
        return (0..<count).map { i in
            switch elementType {
            case .float16: Double(Float16(bitPattern: halves[i]))
            case .bfloat16: Double(Float(bitPattern: UInt32(halves[i]) << 16))
            case .int8: Double(address.assumingMemoryBound(to: Int8.self)[i])
            case .float8E4M3: Self.float8(address, i, exponentBits: 4)
            case .float8E5M2: Self.float8(address, i, exponentBits: 5)
            default: Double(floats[i])
            }
        }
    }

    /// A float8 number by its definition; E4M3 has no infinities.
    private static func float8(
        _ address: UnsafeMutableRawPointer,
        _ index: Int,
        exponentBits: Int
    ) -> Double {
        let bits = Int(address.assumingMemoryBound(to: UInt8.self)[index])
        let mantissaBits = 7 - exponentBits
        let (bias, last) = (1 << (exponentBits - 1) - 1, 1 << exponentBits - 1)
        let (exponent, mantissa) = (bits >> mantissaBits & last, bits & (1 << mantissaBits - 1))
        let sign = bits & 0x80 == 0 ? 1.0 : -1.0
        if exponentBits == 4, bits & 0x7F == 0x7F { return .nan }
        if exponentBits == 5, exponent == last { return mantissa == 0 ? sign * .infinity : .nan }
        let fraction = Double(mantissa) / Double(1 << mantissaBits)
        return exponent == 0
            ? sign * fraction * pow(2, Double(1 - bias))
            : sign * (1 + fraction) * pow(2, Double(exponent - bias))
    }
}
