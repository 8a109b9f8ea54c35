import Krea2
import References

/// `krea2 style`: pictures as style references, encoded once.
enum StyleCommand {
    static let command = Command(
        EncodingSettings.styleTable,
        summary: "encode pictures once, to use them as style references",
        synopsis: "encode PICTURE... [-o FILE.k2ref|FOLDER] [options]",
        notes: """

            A .k2ref file holds what the text encoder makes of a picture, about 9 MB at the usual \
            size: no pixels, no names. generate --style-reference takes it in place of the picture, \
            with the same result. It is for one text encoder.
            """,
        body: run
    )

    /// Ending of the files.
    static let suffix = ".k2ref"

    private static func run(
        _ scan: OptionTable<EncodingSettings>.Scan,
        _ console: Console
    ) throws(Failure) {
        var settings = EncodingSettings()
        try EncodingSettings.styleTable.apply(scan.given, to: &settings)
        guard scan.positionals[0] == "encode" else {
            throw .usage("'\(scan.positionals[0])' is not encode", of: "style")
        }
        let paths = Array(scan.positionals.dropFirst())
        let outputs = try outputs(paths, settings.output)
        try OutputNames.check(outputs, overwrites: settings.overwrites)
        Interruption.listen()

        let reporter = Reporter(settings.progress, isQuiet: settings.isQuiet, console)
        let pipeline = try settings.pipeline(console, of: "style")
        var pictures: [ReferencePicture] = []
        for path in paths {
            let picture = try ReferencePicture(
                path: path,
                treatment: settings.treatment,
                side: settings.side,
                tell: reporter.message
            )
            pictures.append(picture)
        }
        let files = try Failure.mapping(of: "style") { () throws(GenerationError) in
            try pipeline.encode(pictures, reporter)
        }
        for (file, path) in zip(files, outputs) {
            try Failure.mapping(of: "style") { () throws(GenerationError) in
                var file = file
                file.caption = settings.caption
                file.creator = "krea2 \(Engine.version)"
                try file.write(to: path, overwriting: settings.overwrites)
            }
            let result = EncodingResult(path, file.source, pictures: 1, file.rows, file.encoder)
            try console.print(settings.isJSON ? JSONText.line(result) : path)
        }
    }

    /// Where the file of each picture goes.
    private static func outputs(
        _ paths: [String],
        _ output: String?
    ) throws(Failure) -> [String] {
        guard let output, !output.hasSuffix("/"), FileKind(of: output) != .folder else {
            let names = paths.map { $0.lastComponent.withoutSuffix + suffix }
            return output.map { folder in names.map(folder.path(of:)) } ?? names
        }
        guard paths.count == 1 else {
            throw .usage(
                "--output: several pictures need a folder; '\(output)' is none",
                of: "style"
            )
        }
        guard output.hasSuffix(suffix) else {
            throw .usage("--output: '\(output)' does not end in \(suffix)", of: "style")
        }
        return [output]
    }
}

/// `krea2 moodboard`: the look of many pictures in one file.
enum MoodboardCommand {
    static let command = Command(
        EncodingSettings.moodboardTable,
        summary: "bring the look of many pictures into one file",
        synopsis: "create PICTURE|DIR... -o FILE.k2board [options]",
        notes: """

            A .k2board file holds what the text encoder makes of 1 to 200 pictures, brought down to \
            256 rows that stand for all: no pixels, no names. Neither the order of the pictures \
            matters nor whether one is there twice. generate --moodboard takes it.
            """,
        body: run
    )

    /// Ending of the files.
    static let suffix = ".k2board"

    private static func run(
        _ scan: OptionTable<EncodingSettings>.Scan,
        _ console: Console
    ) throws(Failure) {
        var settings = EncodingSettings()
        try EncodingSettings.moodboardTable.apply(scan.given, to: &settings)
        guard scan.positionals[0] == "create" else {
            throw .usage("'\(scan.positionals[0])' is not create", of: "moodboard")
        }
        guard let output = settings.output else {
            throw .usage("--output is missing", of: "moodboard")
        }
        guard output.hasSuffix(suffix) else {
            throw .usage("--output: '\(output)' does not end in \(suffix)", of: "moodboard")
        }
        try OutputNames.check([output], overwrites: settings.overwrites)
        Interruption.listen()

        let reporter = Reporter(settings.progress, isQuiet: settings.isQuiet, console)
        let pipeline = try settings.pipeline(console, of: "moodboard")
        let paths = Array(scan.positionals.dropFirst())
        let pictures = try ReferencePicture.moodboard(paths, tell: reporter.message)
        let file = try Failure.mapping(of: "moodboard") { () throws(GenerationError) in
            var file = try pipeline.moodboard(try pipeline.encode(pictures, reporter))
            file.creator = "krea2 \(Engine.version)"
            try file.write(to: output, overwriting: settings.overwrites)
            return file
        }
        let result = EncodingResult(
            output,
            file.source,
            pictures: file.pictureCount,
            file.rows,
            file.encoder
        )
        try console.print(settings.isJSON ? JSONText.line(result) : output)
    }
}

extension String {
    /// The name of a file without what follows its last dot; that at the start is part of the name.
    fileprivate var withoutSuffix: String {
        guard let dot = lastIndex(of: "."), dot != startIndex else { return self }
        return String(self[..<dot])
    }
}
