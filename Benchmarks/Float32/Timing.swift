import Glibc

/// Median seconds of several runs of each of `bodies`, in alternation, after one run for warming up.
///
/// Alternating spreads a slow spell of the machine over all of them. The pause before each run lets
/// the threads of the run before stop spinning.
func medianSeconds(_ repetitions: Int, _ bodies: [() -> Void]) -> [Double] {
    for body in bodies { body() }
    var seconds = [[Double]](repeating: [], count: bodies.count)
    for _ in 0..<repetitions {
        for (index, body) in bodies.enumerated() {
            usleep(100_000)
            let clock = ContinuousClock()
            seconds[index].append(clock.measure(body) / .seconds(1))
        }
    }
    return seconds.map { $0.sorted()[$0.count / 2] }
}

/// Repeatable numbers between −1 and 1, quickly.
struct Noise {
    private var state: UInt32 = 12345

    /// The next number.
    mutating func next() -> Float {
        state = state &* 1_664_525 &+ 1_013_904_223
        return Float(Int32(bitPattern: state)) * 0x1p-31
    }
}

extension Double {
    /// The number with one digit after the point, right-aligned in `width` columns.
    func text(_ width: Int, digits: Int = 1) -> String {
        let scale = digits == 1 ? 10.0 : 1000.0
        let whole = (self * scale).rounded() / scale
        let text = String(whole)
        return String(repeating: " ", count: max(0, width - text.count)) + text
    }
}

extension String {
    /// The text followed by spaces up to `width` columns.
    func padded(_ width: Int) -> String {
        self + String(repeating: " ", count: max(0, width - count))
    }
}

/// Ends the program with a message.
func fail(_ message: String) -> Never {
    let line = "float32-benchmark: \(message)\n"
    _ = line.withCString { write(2, $0, strlen($0)) }
    exit(1)
}
