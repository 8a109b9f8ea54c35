/// Values of sliders drawn at random, apart from the noise.
public enum SliderDraws {
    /// Draws a value for each slider.
    ///
    /// - Parameters:
    ///   - names: Sliders; their order does not matter.
    ///   - seed: Seed of the request.
    ///   - image: Picture, from 0.
    /// - Returns: Values from −100 to 100, the same for the same arguments.
    public static func values(_ names: [String], seed: UInt64, image: Int) -> [String: Int] {
        var generator = SplitMix(state: seed)
        // The picture's generator begins where the request's has got to.
        for _ in 0...image { generator = SplitMix(state: generator.next() ^ 0x736C_6964_6572_7321) }
        let count = UInt64(SliderManifest.range.count)
        return names.sorted().reduce(into: [:]) { values, name in
            let drawn = generator.next().multipliedFullWidth(by: count).high
            values[name] = SliderManifest.range.lowerBound + Int(drawn)
        }
    }

    /// Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
    private struct SplitMix {
        var state: UInt64

        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var z = state
            z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
            return z ^ z >> 31
        }
    }
}
