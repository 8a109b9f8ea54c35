import Krea2

/// Width and height of a picture in pixels.
struct PictureSize: Equatable, Sendable {
    var width: Int
    var height: Int

    /// Sides the engine accepts.
    static let sides = GenerationRequest.sideRange
    /// What both sides are rounded up to multiples of.
    static let multiple = GenerationRequest.sideMultiple

    /// The size with both sides rounded up to the next multiple of 16.
    var rounded: PictureSize {
        PictureSize(width: Self.roundedUp(width), height: Self.roundedUp(height))
    }

    /// The resolution class a file states, kept where every shape of it has accepted sides.
    fileprivate static func usable(resolutionClass: Int) -> Int {
        min(max(resolutionClass, 128), 2048)
    }

    private static func roundedUp(_ side: Int) -> Int {
        (side + multiple - 1) / multiple * multiple
    }
}

/// The documented shapes of a picture.
///
/// Source: the size table of the Krea 2 model card.
enum AspectRatio: String, CaseIterable, Sendable {
    case square = "1:1"
    case fourToThree = "4:3"
    case threeToTwo = "3:2"
    case sixteenToNine = "16:9"
    case cinema = "2.35:1"
    case fourToFive = "4:5"
    case twoToThree = "2:3"
    case nineToSixteen = "9:16"

    /// The size in pixels for a checkpoint's resolution class: its square's side.
    ///
    /// The table is written for 1024; other classes scale it, and 512 halves it exactly.
    func size(resolutionClass: Int) -> PictureSize {
        let side = PictureSize.usable(resolutionClass: resolutionClass)
        let full =
            switch self {
            case .square: PictureSize(width: 1024, height: 1024)
            case .fourToThree: PictureSize(width: 1184, height: 896)
            case .threeToTwo: PictureSize(width: 1248, height: 832)
            case .sixteenToNine: PictureSize(width: 1376, height: 768)
            case .cinema: PictureSize(width: 1568, height: 672)
            case .fourToFive: PictureSize(width: 928, height: 1152)
            case .twoToThree: PictureSize(width: 832, height: 1248)
            case .nineToSixteen: PictureSize(width: 768, height: 1376)
            }
        return PictureSize(
            width: full.width * side / 1024,
            height: full.height * side / 1024
        ).rounded
    }
}

/// What the user said about the size.
enum SizeChoice: Equatable, Sendable {
    case aspect(AspectRatio)
    /// A side that was not given takes the checkpoint's resolution class.
    case sides(width: Int?, height: Int?)

    /// The choice with another width; an aspect ratio is dropped.
    func with(width: Int) -> SizeChoice {
        guard case .sides(_, let height) = self else { return .sides(width: width, height: nil) }
        return .sides(width: width, height: height)
    }

    /// The choice with another height; an aspect ratio is dropped.
    func with(height: Int) -> SizeChoice {
        guard case .sides(let width, _) = self else { return .sides(width: nil, height: height) }
        return .sides(width: width, height: height)
    }

    /// The size before rounding.
    func size(resolutionClass: Int) -> PictureSize {
        switch self {
        case .aspect(let ratio): ratio.size(resolutionClass: resolutionClass)
        case .sides(let width, let height):
            PictureSize(
                width: width ?? PictureSize.usable(resolutionClass: resolutionClass),
                height: height ?? PictureSize.usable(resolutionClass: resolutionClass)
            )
        }
    }

    /// Reads `WIDTHxHEIGHT`.
    init(parsing text: String) throws(ValueError) {
        let sides = text.lowercased().split(
            separator: "x",
            maxSplits: 1,
            omittingEmptySubsequences: false
        )
        guard sides.count == 2 else {
            throw ValueError(reason: "'\(text)' is not WIDTHxHEIGHT, such as 1024x768")
        }
        self = .sides(
            width: try .whole(String(sides[0]), in: PictureSize.sides),
            height: try .whole(String(sides[1]), in: PictureSize.sides)
        )
    }
}
