import Krea2

/// Makes pictures and writes each as soon as it is finished.
final class PictureWriter {
    private let files: [PictureFile]
    private let settings: GenerateSettings
    private let reporter: Reporter
    private let console: Console
    private var written = 0

    /// Takes the places of all pictures, in their order.
    init(
        _ files: [PictureFile],
        _ settings: GenerateSettings,
        _ reporter: Reporter,
        _ console: Console
    ) {
        (self.files, self.settings, self.reporter, self.console) =
            (files, settings, reporter, console)
    }

    /// Makes the pictures of a request, which follow those of the one before.
    ///
    /// - Throws: A failure that says how many pictures are written.
    func run(_ request: GenerationRequest, _ pipeline: Pipeline, _ dump: Dump?) throws(Failure) {
        defer { reporter.endProgress() }
        var begin = console.now()
        do {
            try pipeline.generate(
                request,
                messages: reporter.message,
                progress: reporter.progress,
                isCancelled: { Interruption.isRequested },
                dump: dump
            ) { image throws(Failure) in
                let file = files[written]
                try file.write(image, overwrites: settings.overwrites, console)
                written += 1
                let end = console.now()
                try reporter.result(
                    image,
                    path: file.path,
                    seconds: (end - begin) / .seconds(1),
                    isJSON: settings.isJSON
                )
                begin = end
            }
        } catch {
            var failure =
                switch error {
                case .generation(let error): Failure(error)
                case .receiver(let failure): failure
                }
            failure.message +=
                written == 0
                ? "; no picture is written" : "; \(written) of \(files.count) pictures written"
            throw failure
        }
    }
}
