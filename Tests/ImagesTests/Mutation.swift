import Foundation
import TestSupport

/// How many inputs a mutation test tries.
let mutationCount =
    ProcessInfo.processInfo.environment["KREA2_LONG_TESTS"] != nil ? 100_000 : 2000

extension [UInt8] {
    /// Changes, removes or inserts one to four bytes, or cuts off the end.
    mutating func damage(_ random: inout SeededGenerator) {
        for _ in 0..<Int.random(in: 1...4, using: &random) where !isEmpty {
            let place = Int.random(in: 0..<count, using: &random)
            switch Int.random(in: 0..<6, using: &random) {
            case 0: removeSubrange(place...)
            case 1: remove(at: place)
            case 2: insert(UInt8.random(in: 0...255, using: &random), at: place)
            case 3: self[place] = [0, 1, 0x7F, 0x80, 0xFF].randomElement(using: &random) ?? 0
            case 4: self[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            default: self[place] = UInt8.random(in: 0...255, using: &random)
            }
        }
    }
}
