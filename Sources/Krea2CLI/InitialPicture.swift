import Images
import Krea2

/// A picture to begin with, read from the files that the user names.
struct InitialPicture {
    let image: InitialImage
    let record: GenerationRecord.InitialImage

    /// Refuses a mask or a strength without a picture.
    static func check(_ settings: GenerateSettings) throws(Failure) {
        guard settings.initialImage == nil else { return }
        for (option, isGiven) in [
            ("--strength", settings.strength != nil), ("--mask", settings.mask != nil),
        ] where isGiven {
            throw Generate.wrongUsage("\(option) needs --init-image")
        }
    }

    /// Reads the files; nil where none is named.
    ///
    /// - Parameters:
    ///   - settings: Name them.
    ///   - size: Of the picture to make; others are stretched to it.
    ///   - tell: Receives a line for each file that is stretched, and what else is to be known.
    /// - Throws: Exit code 65 or 66.
    init?(
        _ settings: GenerateSettings,
        _ size: PictureSize,
        tell: (String) -> Void
    ) throws(Failure) {
        guard let path = settings.initialImage else { return nil }
        let strength = settings.strength ?? InitialImage.usualStrength
        let picture = try Self.read(path, size, tell)
        var mask: (grey: [UInt8], digest: String)?
        if let path = settings.mask {
            mask = (try Self.read(path, size, tell).grey, try Self.digest(path))
        }
        image = InitialImage(
            width: size.width,
            height: size.height,
            rgb: picture.rgb,
            strength: strength,
            mask: mask?.grey
        )
        record = GenerationRecord.InitialImage(
            digest: try Self.digest(path),
            strength: strength,
            maskDigest: mask?.digest
        )
    }

    private static func digest(_ path: String) throws(Failure) -> String {
        do throws(GenerationError) {
            return try Engine.digest(ofFile: path)
        } catch {
            throw Failure(error)
        }
    }

    /// Reads a picture and stretches it, as the reference does.
    private static func read(
        _ path: String,
        _ size: PictureSize,
        _ tell: (String) -> Void
    ) throws(Failure) -> PixelImage {
        let picture = try PixelImage.read(path, tell: tell)
        if (picture.width, picture.height) != (size.width, size.height) {
            tell(
                "\(path): \(picture.width)x\(picture.height) is stretched to "
                    + "\(size.width)x\(size.height)"
            )
        }
        do throws(ImageError) {
            return try picture.resized(width: size.width, height: size.height, filter: .lanczos)
        } catch {
            throw Failure(error)
        }
    }
}

extension PixelImage {
    /// The brightness of each pixel, as PIL converts RGB to L: `[height, width]`.
    var grey: [UInt8] {
        (0..<width * height).map { pixel in
            let (red, green, blue) = (
                Int(rgb[3 * pixel]), Int(rgb[3 * pixel + 1]), Int(rgb[3 * pixel + 2])
            )
            return UInt8((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)
        }
    }
}

extension GenerateSettings {
    /// Image to image, and inpainting.
    static let initialImageOptions: [Option<GenerateSettings>] = [
        .path(
            "init-image",
            value: "FILE",
            help: "picture to begin with, stretched to the size; the prompt says what it becomes",
            \.initialImage
        ),
        Option(
            "strength",
            value: "X",
            help: "how much of the schedule is run on it, 0 to 1: little keeps its shapes, 1 "
                + "nothing of it; default \(InitialImage.usualStrength.short)"
        ) { (settings, text) throws(ValueError) in
            settings.strength = try .decimal(text, in: InitialImage.strengthRange)
        },
        .path(
            "mask",
            value: "FILE",
            help: "picture of what to paint anew in it: white is painted, black is kept",
            \.mask
        ),
    ]
}
