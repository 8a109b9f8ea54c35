/// ‖a − b‖ / ‖b‖, infinite when the lengths differ or a value is not finite.
package func relativeError(_ a: [Float], _ b: [Float]) -> Double {
    guard a.count == b.count else { return .infinity }
    let difference = zip(a, b).reduce(0.0) {
        $0 + (Double($1.0) - Double($1.1)) * (Double($1.0) - Double($1.1))
    }
    let size = b.reduce(0.0) { $0 + Double($1) * Double($1) }
    guard difference > 0 else { return difference == 0 ? 0 : .infinity }
    return (difference / size).squareRoot()
}

/// Largest |a − b|, infinite when the lengths differ or a value is not a number.
package func largestDifference(_ a: [Float], _ b: [Float]) -> Float {
    guard a.count == b.count else { return .infinity }
    return zip(a, b).reduce(0) {
        let difference = abs($1.0 - $1.1)
        return difference.isNaN ? .infinity : max($0, difference)
    }
}
