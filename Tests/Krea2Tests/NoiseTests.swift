import Testing

@testable import Krea2

struct NoiseTests {
    @Test func equalsTheReferenceToTheLastBit() throws {
        let fixture = try SamplingFixture("noise.safetensors")
        let names = fixture.names.filter { !$0.hasPrefix("1.twice") }
        #expect(names.count == 25)
        for name in names {
            let seed = try #require(UInt64(name.prefix { $0 != "." }))
            let expected = try fixture.elements(name)
            let values = Noise.normal(count: expected.count, seed: seed)
            #expect(haveEqualBits(values, expected), "\(name)")
        }
    }

    @Test func drawsContinueTheStream() throws {
        let fixture = try SamplingFixture("noise.safetensors")
        var noise = Noise(seed: 1)
        for name in ["1.twice.first", "1.twice.second"] {
            let expected = try fixture.elements(name)
            #expect(haveEqualBits(noise.normal(count: expected.count), expected), "\(name)")
        }
    }

    @Test func onlyTheLowerHalfOfTheSeedCounts() {
        #expect(Noise.normal(count: 32, seed: 5) == Noise.normal(count: 32, seed: 1 << 32 + 5))
        #expect(Noise.normal(count: 32, seed: 5) != Noise.normal(count: 32, seed: 6))
    }

    /// `torch.randn(n)` after `manual_seed(7)`, PyTorch 2.13.
    @Test func otherLengthsEqualTheReference() {
        let short: [UInt32] = [
            0xBE16_5174, 0x3F49_408E, 0x3F72_62E7, 0xBF8E_A2D3, 0x3FD8_6BD0, 0xBF65_1371,
            0xBEB6_147C, 0x3F9D_BED1, 0x3E0D_7D22, 0xBFD7_5248, 0x3EA2_A6BB, 0x3E07_FE8D,
            0x3E0C_9EB0, 0x3E76_51B9, 0x3FB2_9E22,
        ]
        for count in 0..<16 {
            let values = Noise.normal(count: count, seed: 7)
            #expect(values.map(\.bitPattern) == Array(short.prefix(count)))
        }
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

    /// Draws of 3, 17 and 4 numbers in a row, the same way.
    @Test func shortDrawsKeepTheSecondOfAPair() {
        var noise = Noise(seed: 7)
        let first = noise.normal(count: 3).map(\.bitPattern)
        let second = noise.normal(count: 17).prefix(2).map(\.bitPattern)
        let third = noise.normal(count: 4).map(\.bitPattern)
        #expect(first == [0xBE16_5174, 0x3F49_408E, 0x3F72_62E7])
        #expect(second == [0xBE34_AC25, 0xBF9B_C458])
        #expect(third == [0xBF8E_A2D3, 0x3F8A_C6A8, 0x3E21_D97C, 0xBF8E_8F8C])
    }
}
