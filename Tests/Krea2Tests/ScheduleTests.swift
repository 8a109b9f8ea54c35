import Testing

@testable import Krea2

struct ScheduleTests {
    @Test func equalsTheReferenceToTheLastBit() throws {
        let fixture = try SamplingFixture("schedules.safetensors")
        let names = fixture.names.filter { $0.hasSuffix(".sigmas") }
        #expect(names.count == 600)
        for name in names {
            // Such as mu=-0.25.10.sigmas or tokens=256.10.sigmas.
            let parts = name.split(separator: ".").dropLast()
            let steps = try #require(parts.last.flatMap { Int($0) })
            let kind = parts.dropLast().joined(separator: ".")
            let schedule = Schedule(steps: steps, shift: try shift(kind))
            let sigmas = try fixture.elements(name)
            let times = try fixture.elements("\(kind).\(steps).times")
            #expect(haveEqualBits(schedule.sigmas, sigmas), "\(name)")
            #expect(haveEqualBits(schedule.times, times), "times of \(name)")
        }
    }

    /// The shift that the front of a fixture's name tells.
    private func shift(_ kind: String) throws -> Double {
        let value = try #require(kind.split(separator: "=").last)
        if kind.hasPrefix("mu=") { return try #require(Double(value)) }
        return ShiftRule().shift(imageTokens: try #require(Int(value)))
    }

    @Test func shiftGrowsWithTheTokens() {
        let rule = ShiftRule()
        #expect(rule.shift(imageTokens: 256) == 0.5)
        #expect(rule.shift(imageTokens: 4096) == 0.90625)
        #expect(abs(rule.shift(imageTokens: 6400) - 1.15) < 1e-15)
        #expect(rule.shift(imageTokens: 16) < 0.5)
        #expect(rule.shift(imageTokens: 16384) > 1.15)
        let other = ShiftRule(baseShift: 0, maxShift: 2, baseTokens: 100, maxTokens: 200)
        #expect(other.shift(imageTokens: 150) == 1)
    }

    @Test(arguments: [Schedule.shiftRange.lowerBound, 0, Schedule.shiftRange.upperBound])
    func fallsFromOneToZero(shift: Double) {
        for steps in [1, 2, 8, 1000] {
            let sigmas = Schedule(steps: steps, shift: shift).sigmas
            #expect(sigmas.count == steps + 1)
            #expect(sigmas.first == 1 && sigmas.last == 0)
            #expect(zip(sigmas, sigmas.dropFirst()).allSatisfy { $0 >= $1 })
        }
    }

    @Test func stepsAreEqualWithoutShift() {
        #expect(Schedule(steps: 4, shift: 0).sigmas == [1, 0.75, 0.5, 0.25, 0])
    }
}
