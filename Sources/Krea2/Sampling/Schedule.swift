import Glibc

/// The noise levels that a picture is denoised along.
///
/// Source: `FlowMatchEulerDiscreteScheduler` with exponential dynamic shifting and
/// `Krea2Pipeline`, diffusers 0.42.1; the same numbers bit for bit.
struct Schedule: Sendable, Equatable {
    /// Noise levels from 1 down to 0, `[steps + 1]`; step i goes from level i to level i + 1.
    let sigmas: [Float]
    /// What the network is told of the noise level, `[steps]`.
    ///
    /// Sigma times 1000, divided by 1000: not always sigma to the last bit, which shows, since the
    /// time embedding multiplies by up to 1000 before it takes the sine.
    let times: [Float]

    /// The shift (mu) of the Turbo model, whatever the picture's size.
    static let turboShift = 1.15
    /// Shifts that can be asked for; noise levels are finite in it.
    static let shiftRange = -10.0...10.0

    /// The schedule of `steps` equal parts of the time, bent by `shift`.
    ///
    /// - Parameters:
    ///   - steps: At least 1.
    ///   - shift: In `shiftRange`; larger means more steps at high noise levels, 0 is none.
    init(steps: Int, shift: Double) {
        precondition(steps >= 1, "\(steps) steps")
        precondition(Self.shiftRange.contains(shift), "shift \(shift)")
        let bend = Float(exp(shift))
        // As numpy's linspace(1, 1 / steps, steps) rounds.
        let last = 1 / Double(steps)
        let stride = steps > 1 ? (last - 1) / Double(steps - 1) : 0
        let levels = (0..<steps).map { index in
            let isLast = steps > 1 && index == steps - 1
            let time = Float(isLast ? last : Double(index) * stride + 1)
            return bend / (bend + (1 / time - 1))
        }
        sigmas = levels + [0]
        times = levels.map { $0 * 1000 / 1000 }
    }
}

/// How the shift grows with the number of image tokens, for the RAW model.
///
/// Source: `calculate_shift` in `Krea2Pipeline`, diffusers 0.42.1; names in
/// `scheduler_config.json` in brackets.
struct ShiftRule: Sendable, Equatable {
    /// Shift at `baseTokens` image tokens (`base_shift`).
    var baseShift = 0.5
    /// Shift at `maxTokens` image tokens (`max_shift`).
    var maxShift = 1.15
    /// Tokens of a small picture (`base_image_seq_len`).
    var baseTokens = 256
    /// Tokens of a large picture (`max_image_seq_len`); not a limit.
    var maxTokens = 6400

    /// The shift for a picture, linear in its number of tokens beyond both ends too.
    func shift(imageTokens: Int) -> Double {
        let slope = (maxShift - baseShift) / Double(maxTokens - baseTokens)
        return Double(imageTokens) * slope + (baseShift - slope * Double(baseTokens))
    }
}
