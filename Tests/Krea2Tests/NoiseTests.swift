import Testing

@testable import Krea2

struct NoiseTests {
    @Test func equalsTheReferenceToTheLastBit() throws {
        let fixture = try SamplingFixture("noise.safetensors")
        #expect(fixture.names.count == 25)
        for name in fixture.names {
            let seed = try #require(UInt64(name.prefix { $0 != "." }))
            let expected = try fixture.elements(name)
            let values = Noise.normal(count: expected.count, seed: seed)
            #expect(haveEqualBits(values, expected), "\(name)")
        }
    }

    @Test func onlyTheLowerHalfOfTheSeedCounts() {
        #expect(Noise.normal(count: 32, seed: 5) == Noise.normal(count: 32, seed: 1 << 32 + 5))
        #expect(Noise.normal(count: 32, seed: 5) != Noise.normal(count: 32, seed: 6))
    }

    /// `torch.randn(n)` after `manual_seed(7)`, PyTorch 2.13.
    @Test func otherLengthsEqualTheReference() {
        let seventeen: [UInt32] = [
            0xBF51_F456, 0xBEA6_2D99, 0x3FF6_933B, 0xBEA8_F74C, 0x3E4B_352E, 0x3F48_35EA,
            0x3F85_017B, 0xBF39_7989, 0xBF59_5213, 0xBE5C_827D, 0xBFE8_69CC, 0xBEB0_C38E,
            0xC003_EF41, 0x3F2C_91DD, 0xBFA9_6365, 0xBFAE_0CE9, 0xBF5D_E028,
        ]
        #expect(Noise.normal(count: 17, seed: 7).map(\.bitPattern) == seventeen)
        let twentyFour: [UInt32] = [
            0xBF51_F456, 0x3ECA_902B, 0x3F66_1EDE, 0xBFB1_B738, 0xBE2B_0101, 0x3E91_FF2D,
            0xBF24_1E93, 0xBF64_C69A, 0xBF59_5213, 0xBF9B_C458, 0xBDA5_EEA5, 0x3FAE_4525,
            0xBFA6_CFCE, 0x3DB3_27DD, 0xBFB1_466A, 0x3F00_E990, 0xBF5D_E028, 0xBF10_62BE,
            0xC003_9D15, 0xBEB6_A456, 0x3F8C_3BFB, 0x3EF6_F720, 0x3FB3_0FC2, 0x3FB3_F2FD,
        ]
        #expect(Noise.normal(count: 24, seed: 7).map(\.bitPattern) == twentyFour)
    }
}
