import FoundationEssentials
import Krea2

/// `krea2 convert`: a checkpoint in another storage type.
enum Convert {
    static let command = Command(
        ConvertSettings.table,
        summary: "write a checkpoint in another storage type",
        synopsis: "[options] MODEL --to FORM -o PATH",
        notes: """

            MODEL is a transformer or a text encoder (a safetensors file, an index of shards, or a \
            folder with either), a model's folder, or a name that krea2 models list shows.

            fp8_scaled and int8_convrot store the large matrices of the blocks in a byte an \
            element, with scales, in files that ComfyUI reads; norms, modulation, biases, \
            embeddings, first and last layers stay as they are. bf16 and f16 concern the same \
            matrices, and the embeddings and vision tower of a text encoder; f32 all tensors. \
            What is quantised in another form is dequantised first.

            The file is written tensor by tensor as PATH.krea2-partial and gets its name when it \
            is complete. A run that was stopped returns 75; the same command goes on where it was, \
            unless MODEL has changed. A notice of the licence is written beside the file.
            """,
        body: run
    )

    private static func run(
        _ scan: OptionTable<ConvertSettings>.Scan,
        _ console: Console
    ) throws(Failure) {
        var settings = ConvertSettings()
        try ConvertSettings.table.apply(scan.given, to: &settings)
        guard let format = settings.format else { throw wrongUsage("--to is missing") }
        guard let output = settings.output else { throw wrongUsage("--output is missing") }
        Interruption.listen()

        let discovery = ModelDiscovery(environment: console.environment, disk: .real)
        let model = try discovery.resolve(scan.positionals[0])
        let parts: [ConversionPart?] = settings.part?.parts ?? [nil]
        let isFolder = output.hasSuffix("/") || FileKind(of: output) == .folder
        guard isFolder || parts.count == 1 else {
            throw wrongUsage("--part both needs a folder as --output; \(output) is none")
        }
        // All is looked at before the first part, which may take minutes, is written.
        var jobs: [(conversion: Conversion, path: String)] = []
        for part in parts {
            let conversion = try Failure.mapping(of: "convert") { () throws(GenerationError) in
                let path = try Conversion.locate(
                    model.path,
                    part: part,
                    searchFolders: discovery.searchFolders
                )
                return try Conversion(path: path, to: format)
            }
            let path = try isFolder ? file(conversion, in: output) : output
            try OutputNames.check([path], overwrites: settings.overwrites)
            jobs.append((conversion, path))
        }
        for job in jobs {
            try run(job.conversion, to: job.path, settings, console)
        }
    }

    /// The path in a folder where ComfyUI looks for the part; makes the folder.
    private static func file(
        _ conversion: Conversion,
        in folder: String
    ) throws(Failure) -> String {
        let path = folder.path(of: conversion.suggestedPath)
        let parent = String(path.dropLast(path.lastComponent.count + 1))
        do {
            try FileManager.default.createDirectory(
                atPath: parent,
                withIntermediateDirectories: true
            )
        } catch {
            throw Failure(.cannotWrite, "\(parent): the folder cannot be made")
        }
        return path
    }

    /// A usage failure of this subcommand.
    private static func wrongUsage(_ message: String) -> Failure {
        .usage(message, of: "convert")
    }
}

// MARK: One file

extension Convert {
    private static func run(
        _ conversion: Conversion,
        to path: String,
        _ settings: ConvertSettings,
        _ console: Console
    ) throws(Failure) {
        let reporter = ConvertReporter(settings, console)
        reporter.start(conversion, path: path)
        let begin = console.now()
        var last: ConversionProgress?
        let notice: String
        do {
            notice = try conversion.run(
                to: path,
                overwriting: settings.overwrites,
                threads: settings.threads ?? Engine.physicalCores,
                progress: { progress in
                    reporter.progress(progress)
                    last = progress
                },
                isCancelled: { Interruption.isRequested }
            )
        } catch {
            reporter.endProgress()
            guard error == .cancelled else { throw Failure(error, of: "convert") }
            let done = last.map { "\($0.finishedTensors) of \($0.tensors) tensors" } ?? "nothing"
            throw Failure(
                .resumable,
                "\(Interruption.failure.message); \(done) are in \(path).krea2-partial, "
                    + "the same command goes on from there"
            )
        }
        reporter.endProgress()
        let result = ConvertResult(
            path: path,
            notice: notice,
            part: conversion.part.rawValue,
            format: conversion.format.rawValue,
            tensors: conversion.tensorCount,
            converted: conversion.convertedCount,
            bytes: conversion.byteCount,
            seconds: (console.now() - begin) / .seconds(1)
        )
        try console.print(settings.isJSON ? JSONText.line(result) : path)
    }
}

/// One line of `--json`.
private struct ConvertResult: Encodable {
    let path: String
    let notice: String
    let part: String
    let format: String
    let tensors: Int
    let converted: Int
    let bytes: Int
    let seconds: Double
}
