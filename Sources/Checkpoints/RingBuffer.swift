/// Places in a circular buffer, given back in the order in which they were reserved.
struct RingBuffer: Sendable {
    /// Size of the buffer.
    let byteCount: Int
    /// Bytes from the start to the end of the furthest place ever reserved.
    private(set) var touchedByteCount = 0

    /// Places in use, oldest first.
    private var places: [Range<Int>] = []

    init(byteCount: Int) { self.byteCount = byteCount }

    /// Reserves a place in one piece.
    ///
    /// - Parameter length: Bytes, 1 or more.
    /// - Returns: Where it starts; nil until older places are given back.
    mutating func reserve(_ length: Int) -> Int? {
        guard let start = freeStart(length) else { return nil }
        places.append(start..<start + length)
        touchedByteCount = max(touchedByteCount, start + length)
        return start
    }

    private func freeStart(_ length: Int) -> Int? {
        guard let oldest = places.first?.lowerBound, let end = places.last?.upperBound else {
            return length <= byteCount ? 0 : nil
        }
        // Places in use lie between, or from the oldest round the buffer's end.
        guard end > oldest else { return oldest - end >= length ? end : nil }
        if byteCount - end >= length { return end }
        return oldest >= length ? 0 : nil
    }

    /// Gives back the oldest place; there must be one.
    mutating func freeOldest() { places.removeFirst() }

    /// Gives back all places.
    mutating func freeAll() { places = [] }
}
