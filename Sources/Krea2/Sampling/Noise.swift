/// Normally distributed numbers, the same as `torch.randn` draws on the CPU with this seed.
///
/// Follows PyTorch 2.13 on processors with AVX2 or AVX-512, bit for bit and on every processor:
/// `at::CPUGeneratorImpl` for the draws, `normal_fill_AVX2` with the logarithm and the sine of
/// `avx_mathfun.h`. All arithmetic is in float32, with fused multiply-adds where the reference has
/// them.
enum Noise {
    /// Numbers that the vector code makes at once.
    private static let blockLength = 16
    /// 2π rounded to the nearest; twice `Float.pi` is less.
    private static let fullTurn: Float = 6.283185307179586

    /// The first numbers of the stream of a seed, as one draw.
    ///
    /// - Parameters:
    ///   - count: At least 16, below which the reference draws in another way.
    ///   - seed: Only its lower 32 bits count.
    /// - Returns: `[count]`, mean 0, deviation 1.
    static func normal(count: Int, seed: UInt64) -> [Float] {
        precondition(count >= blockLength, "\(count) numbers, expected at least \(blockLength)")
        var source = MersenneTwister(seed: UInt32(truncatingIfNeeded: seed))
        var values: [Float] = []
        values.reserveCapacity(count)
        for _ in 0..<count { values.append(source.nextUniform()) }
        for start in stride(from: 0, through: count - blockLength, by: blockLength) {
            transform(&values, from: start)
        }
        if count % blockLength != 0 {
            // The last block is drawn anew and overlaps the one before.
            let start = count - blockLength
            for index in start..<count { values[index] = source.nextUniform() }
            transform(&values, from: start)
        }
        return values
    }

    /// Box-Muller on the 16 uniform numbers from `start`, in place.
    private static func transform(_ values: inout [Float], from start: Int) {
        let half = blockLength / 2
        for index in start..<start + half {
            let radius = (-2 * logarithm(1 - values[index])).squareRoot()
            let (sine, cosine) = sineAndCosine(fullTurn * values[index + half])
            // The sum turns −0 into 0.
            values[index] = radius * cosine + 0
            values[index + half] = radius * sine + 0
        }
    }

    /// The natural logarithm of `x`, from 2⁻²⁴ to 1.
    private static func logarithm(_ x: Float) -> Float {
        var exponent = Float(Int32(x.exponentBitPattern) - 126)
        var m = x.significand / 2
        if m < 0.707106781186547524 {
            exponent -= 1
            m = (m - 1) + m
        } else {
            m -= 1
        }
        let square = m * m
        var y: Float = 7.0376836292e-2
        y = fused(y, m, -1.1514610310e-1)
        y = fused(y, m, 1.1676998740e-1)
        y = fused(y, m, -1.2420140846e-1)
        y = fused(y, m, 1.4249322787e-1)
        y = fused(y, m, -1.6668057665e-1)
        y = fused(y, m, 2.0000714765e-1)
        y = fused(y, m, -2.4999993993e-1)
        y = fused(y, m, 3.3333331174e-1)
        y *= m
        y = fused(y, square, exponent * -2.12194440e-4)
        y = fused(square, -0.5, y)
        return fused(exponent, 0.693359375, m + y)
    }

    /// Sine and cosine of `angle`, from 0 to 2π.
    private static func sineAndCosine(_ angle: Float) -> (sine: Float, cosine: Float) {
        // The nearest even number of eighths of a turn is taken off in three parts.
        let octant = (Int32(angle * 1.27323954473516) + 1) & ~1
        var x = fused(Float(octant), -0.78515625, angle)
        x = fused(Float(octant), -2.4187564849853515625e-4, x)
        x = fused(Float(octant), -3.77489497744594108e-8, x)
        let z = x * x

        var c: Float = 2.443315711809948e-5
        c = fused(c, z, -1.388731625493765e-3)
        c = fused(c, z, 4.166664568298827e-2)
        c *= z
        c = fused(c, z, -(z * 0.5)) + 1

        var s: Float = -1.9515295891e-4
        s = fused(s, z, 8.3321608736e-3)
        s = fused(s, z, -1.6666654611e-1)
        s *= z
        s = fused(s, x, x)

        let (sine, cosine) = octant & 2 == 0 ? (s, c) : (c, s)
        return (octant & 4 == 0 ? sine : -sine, (octant - 2) & 4 == 0 ? -cosine : cosine)
    }

    /// `a · b + c`, rounded once.
    private static func fused(_ a: Float, _ b: Float, _ c: Float) -> Float {
        c.addingProduct(a, b)
    }
}

// MARK: Generator

/// The generator MT19937 of Matsumoto and Nishimura, seeded with one number.
private struct MersenneTwister: Sendable {
    private static let length = 624
    private static let offset = 397

    private var state: [UInt32] = []
    private var position = length

    init(seed: UInt32) {
        state.reserveCapacity(Self.length)
        var word = seed
        for index in 0..<UInt32(Self.length) {
            if index > 0 { word = 1_812_433_253 &* (word ^ word >> 30) &+ index }
            state.append(word)
        }
    }

    /// The next 32 random bits.
    mutating func next() -> UInt32 {
        if position == Self.length { refill() }
        var word = state[position]
        position += 1
        word ^= word >> 11
        word ^= word << 7 & 0x9D2C_5680
        word ^= word << 15 & 0xEFC6_0000
        return word ^ word >> 18
    }

    /// A number from 0 to below 1, of 24 random bits.
    mutating func nextUniform() -> Float {
        Float(next() & 0xFF_FFFF) * 0x1p-24
    }

    private mutating func refill() {
        for index in 0..<Self.length {
            let following = index + 1 < Self.length ? index + 1 : 0
            let far = index + Self.offset
            let bits = state[index] & 0x8000_0000 | state[following] & 0x7FFF_FFFF
            let twist: UInt32 = bits & 1 == 0 ? 0 : 0x9908_B0DF
            state[index] = state[far < Self.length ? far : far - Self.length] ^ bits >> 1 ^ twist
        }
        position = 0
    }
}
