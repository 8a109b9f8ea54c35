import FoundationEssentials
import Images
import Krea2
import References

extension PixelImage {
    /// Reads a picture.
    ///
    /// - Parameters:
    ///   - path: A PNG, JPEG or WebP file.
    ///   - tell: Receives remarks for the user.
    /// - Returns: Its pixels, upright and on white.
    /// - Throws: Exit code 66 or 65.
    static func read(_ path: String, tell: (String) -> Void) throws(Failure) -> PixelImage {
        let loaded: LoadedPicture
        do {
            loaded = try LoadedPicture(path: path)
        } catch {
            throw Failure(error)
        }
        for note in loaded.notes { tell("\(path): \(note)") }
        return loaded.image
    }
}

extension ReferencePicture {
    /// Reads a picture and prepares it for the text encoder.
    ///
    /// - Parameters:
    ///   - path: A PNG, JPEG or WebP file.
    ///   - treatment: What is done to it.
    ///   - side: Its square is the largest area.
    ///   - tell: Receives remarks for the user.
    /// - Throws: Exit code 66 or 65; that of a signal when one has come.
    init(
        path: String,
        treatment: Treatment,
        side: Int,
        tell: (String) -> Void
    ) throws(Failure) {
        guard !Interruption.isRequested else { throw Interruption.failure }
        let picture = try PixelImage.read(path, tell: tell)
        let prepared: PreparedReference
        do {
            prepared = try PreparedReference(picture, side: side, treatment: treatment)
        } catch {
            // It does not know the file.
            throw Failure(.badData, "\(path): \(error)")
        }
        self.init(prepared, side: side, treatment: treatment)
    }

    /// Names a prepared picture.
    ///
    /// - Parameters:
    ///   - prepared: As the text encoder sees it.
    ///   - side: What its size was made for.
    ///   - treatment: What was done to it.
    init(_ prepared: PreparedReference, side: Int, treatment: Treatment) {
        self.init(
            source: .init(
                content: prepared.contentID,
                treatment: treatment.rawValue,
                side: side
            ),
            width: prepared.image.width,
            height: prepared.image.height,
            rgb: prepared.image.rgb
        )
    }

    /// The pictures of a moodboard, read and prepared.
    ///
    /// - Parameters:
    ///   - paths: Pictures, and folders whose pictures are all taken.
    ///   - tell: Receives remarks for the user.
    /// - Returns: As many as there are files.
    /// - Throws: Exit code 66 or 65.
    static func moodboard(
        _ paths: [String],
        tell: (String) -> Void
    ) throws(Failure) -> [ReferencePicture] {
        var files: [String] = []
        for path in paths {
            files += FileKind(of: path) == .folder ? try Self.files(in: path) : [path]
        }
        guard MoodboardFile.pictureCounts.contains(files.count) else {
            let most = MoodboardFile.pictureCounts.upperBound
            throw Failure(
                .badData,
                "\(files.count) pictures for a moodboard, expected 1 to \(most)"
            )
        }
        var pictures: [ReferencePicture] = []
        for file in files {
            let picture = try ReferencePicture(
                path: file,
                treatment: .untreated,
                side: MoodboardFile.side,
                tell: tell
            )
            pictures.append(picture)
        }
        return pictures
    }

    /// The files in a folder whose names promise pictures, in order.
    private static func files(in folder: String) throws(Failure) -> [String] {
        let names: [String]
        do {
            names = try FileManager.default.contentsOfDirectory(atPath: folder)
        } catch {
            throw Failure(.noInput, "\(folder): the folder cannot be read")
        }
        let files = names.sorted().filter { name in
            let suffixes = [".png", ".jpg", ".jpeg", ".webp"]
            return !name.hasPrefix(".") && suffixes.contains { name.lowercased().hasSuffix($0) }
        }
        guard !files.isEmpty else {
            throw Failure(.badData, "\(folder): no PNG, JPEG or WebP file in this folder")
        }
        return files.map(folder.path(of:))
    }
}
