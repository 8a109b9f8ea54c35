import Testing

@testable import Krea2CLI

/// Sizes of pictures.
struct PictureSizeTests {
    @Test func documentedSizesOf1024() {
        let sizes = AspectRatio.allCases.map { ratio in
            let size = ratio.size(resolutionClass: 1024)
            return "\(ratio.rawValue) \(size.width)x\(size.height)"
        }
        #expect(
            sizes == [
                "1:1 1024x1024", "4:3 1184x896", "3:2 1248x832", "16:9 1376x768",
                "2.35:1 1568x672", "4:5 928x1152", "2:3 832x1248", "9:16 768x1376",
            ]
        )
    }

    @Test func documentedSizesOf512() {
        let sizes = AspectRatio.allCases.map { ratio in
            let size = ratio.size(resolutionClass: 512)
            return "\(size.width)x\(size.height)"
        }
        #expect(
            sizes == [
                "512x512", "592x448", "624x416", "688x384", "784x336", "464x576", "416x624",
                "384x688",
            ]
        )
    }

    @Test(arguments: [Int.min, 0, 1, 100, 4096, Int.max])
    func anyResolutionClassGivesUsableSizes(_ resolutionClass: Int) {
        for ratio in AspectRatio.allCases {
            let size = ratio.size(resolutionClass: resolutionClass)
            #expect(size == size.rounded)
            #expect(PictureSize.sides.contains(size.width))
            #expect(PictureSize.sides.contains(size.height))
        }
        let side = SizeChoice.sides(width: 64, height: nil).size(resolutionClass: resolutionClass)
        #expect(PictureSize.sides.contains(side.rounded.height))
    }

    @Test func roundsUpToMultiplesOf16() {
        let size = PictureSize(width: 65, height: 4095).rounded
        #expect(size == PictureSize(width: 80, height: 4096))
        #expect(size.rounded == size)
    }

    @Test func missingSideIsTheResolutionClass() {
        let choice = SizeChoice.aspect(.cinema).with(height: 128)
        #expect(choice.size(resolutionClass: 512) == PictureSize(width: 512, height: 128))
        #expect(
            choice.with(width: 64).size(resolutionClass: 512)
                == PictureSize(width: 64, height: 128)
        )
    }

    @Test func readsSizes() throws {
        #expect(try SizeChoice(parsing: "1024x768") == .sides(width: 1024, height: 768))
        #expect(try SizeChoice(parsing: "64X4096") == .sides(width: 64, height: 4096))
    }

    @Test(arguments: ["1024", "x", "1024x", "63x64", "64x4097", "-64x64", "64x64x64", "64 x 64"])
    func refusesSizes(_ text: String) {
        #expect(throws: ValueError.self) { try SizeChoice(parsing: text) }
    }
}
