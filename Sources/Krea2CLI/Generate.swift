import Images
import Krea2

/// `krea2 generate`: text to PNG files.
enum Generate {
    static let command = Command(
        GenerateSettings.table,
        summary: "text to PNG",
        synopsis: "[options] PROMPT",
        notes: """

            Built-in recommendations of the checkpoint come first, then the --config file, then \
            flags. Standard output carries one line per picture, its path; everything else goes to \
            standard error.

            Several pictures need different names: a pattern with {seed}, {index} or %03d gives \
            them, otherwise name.png is followed by name_2.png, name_3.png and so on. {index} and \
            %03d count from 0. Files that exist are replaced only with --force.
            """,
        body: run
    )

    private static func run(
        _ scan: OptionTable<GenerateSettings>.Scan,
        _ console: Console
    ) throws(Failure) {
        try run(settings(from: scan), console)
    }

    /// What a command line and the `--config` file it names ask for; flags win over the file.
    static func settings(
        from scan: OptionTable<GenerateSettings>.Scan
    ) throws(Failure) -> GenerateSettings {
        let table = GenerateSettings.table
        var settings = GenerateSettings()
        if let path = scan.value("config") {
            try table.apply(ConfigFile.read(path, for: table), to: &settings)
        }
        // What may be repeated adds up, but flags do not add to the file.
        let (loras, sliders) = (settings.loras, settings.sliders)
        let (references, moodboards) = (settings.references, settings.moodboards)
        (settings.loras, settings.sliders) = ([], [:])
        (settings.references, settings.moodboards) = ([], [])
        try table.apply(scan.given, to: &settings)
        if settings.loras.isEmpty { settings.loras = loras }
        if settings.references.isEmpty { settings.references = references }
        if settings.moodboards.isEmpty { settings.moodboards = moodboards }
        settings.sliders.merge(sliders) { flag, _ in flag }
        if let prompt = scan.positionals.first {
            guard scan.value("prompt") == nil else {
                throw wrongUsage("the prompt is given twice, as an argument and with --prompt")
            }
            settings.prompt = prompt
        }
        return settings
    }

    /// Longest prompt read from standard input, in bytes: that of an argument, too.
    static let promptByteLimit = 1 << 17

    private static func run(
        _ settings: GenerateSettings,
        _ console: Console
    ) throws(Failure) {
        let reporter = Reporter(settings.progress, isQuiet: settings.isQuiet, console)
        try InitialPicture.check(settings)
        let seed = try firstSeed(settings)
        let outputs = try checkOutputs(settings, seed: seed, console)
        let prompt = try prompt(settings, console)
        Interruption.listen()

        let discovery = ModelDiscovery(console)
        let (pipeline, library) = try openPipeline(settings, discovery, console)
        let size = size(settings, pipeline, reporter)
        let initial = try InitialPicture(settings, size, tell: reporter.message)
        let plain = request(settings, prompt: prompt, seed: seed, size, initial)
        let (wiring, selections) = try Failure.mapping { () throws(GenerationError) in
            let loras = LoRAFinder(settings, pipeline, library)
            let wiring = try loras.wiring()
            return (wiring, try loras.selections(seed: seed, wiring))
        }
        let finder = try ReferenceFinder(settings, pipeline, wiring, size, tell: reporter.message)
        var request = try planned(plain, selections[0], finder, pipeline)
        let (resolved, plan) = try Failure.mapping { () throws(GenerationError) in
            (try pipeline.resolve(request), try pipeline.plan(request, encoding: finder.pictures))
        }
        guard settings.dump == nil || selections.count == 1 else {
            throw wrongUsage("--dump and --random-sliders take one picture together")
        }
        guard settings.negativePrompt == nil || resolved.guidance > 0 else {
            throw wrongUsage(
                "--negative-prompt needs guidance, which is off here (cfg 0); give --cfg too"
            )
        }
        if settings.isPlan {
            let report = try planReport(plan, resolved, pipeline, settings, reporter, console)
            try console.print(settings.isJSON ? JSONText.pretty(report) : report.text)
            return
        }
        let references = try finder.selection(reporter)
        request.groups = references.groups
        let files = try files(outputs, settings) { index in
            GenerationRecord(
                resolved,
                request,
                pipeline.summary,
                selections[min(index, selections.count - 1)],
                references,
                initial?.record,
                imageIndex: index
            )
        }
        reporter.start(
            resolved,
            pipeline.summary,
            plan: settings.isVerbose
                ? try planReport(plan, resolved, pipeline, settings, reporter, console) : nil,
            threads: threads(settings)
        )
        references.lines.forEach(reporter.message)
        let writer = PictureWriter(files, settings, reporter, console)
        try run(request, selections, pipeline, settings, reporter, writer)
    }

    /// Makes the pictures, all together or one by one where each has other LoRAs or sliders.
    private static func run(
        _ request: GenerationRequest,
        _ selections: [LoRASelection],
        _ pipeline: Pipeline,
        _ settings: GenerateSettings,
        _ reporter: Reporter,
        _ writer: PictureWriter
    ) throws(Failure) {
        let dump = settings.dump.map { _ in Dump(imageCount: settings.imageCount) }
        let rows = try Failure.mapping { () throws(GenerationError) in
            try pipeline.encode(
                texts: selections.flatMap(\.texts),
                messages: reporter.message,
                isCancelled: { Interruption.isRequested }
            )
        }
        for (index, selection) in selections.enumerated() {
            let isOneOfMany = selections.count > 1
            if isOneOfMany { reporter.message("picture \(index + 1) of \(selections.count)") }
            selection.lines.forEach(reporter.message)
            var single = request
            single.loras = selection.uses
            single.groups += try Failure.mapping { () throws(GenerationError) in
                try selection.groups(rows)
            }
            if isOneOfMany { (single.seed, single.imageCount) = (request.seed + UInt64(index), 1) }
            try writer.run(single, pipeline, dump)
        }
        guard let dump, let path = settings.dump else { return }
        try Failure.mapping { () throws(GenerationError) in
            try dump.write(to: path, overwriting: settings.overwrites)
        }
    }

    /// A usage failure of this subcommand.
    static func wrongUsage(_ message: String) -> Failure {
        .usage(message, of: "generate")
    }
}

// MARK: Before the model is opened

extension Generate {
    /// The given seed, or one from the system's generator.
    ///
    /// Random seeds stay below 2³²: the noise generator reads no more bits, and names stay short.
    private static func firstSeed(_ settings: GenerateSettings) throws(Failure) -> UInt64 {
        guard let seed = settings.seed else { return UInt64(UInt32.random(in: .min ... .max)) }
        let last = UInt64(Int64.max)
        guard seed <= last - UInt64(settings.imageCount - 1) else {
            throw wrongUsage(
                "--seed: \(seed) leaves no room for \(settings.imageCount) pictures, "
                    + "the last seed is \(last)"
            )
        }
        return seed
    }

    /// The paths of all pictures, each of them writable; `-` is standard output.
    private static func checkOutputs(
        _ settings: GenerateSettings,
        seed: UInt64,
        _ console: Console
    ) throws(Failure) -> [String] {
        let names: OutputNames
        do {
            names = try OutputNames(settings.output)
        } catch {
            throw wrongUsage("--output: \(error.reason)")
        }
        let paths = names.paths(seed: seed, count: settings.imageCount)
        guard !settings.isPlan else { return paths }
        if names.isStandardOutput {
            guard settings.imageCount == 1 else {
                throw wrongUsage("--output - takes one picture, not \(settings.imageCount)")
            }
            guard !settings.isJSON else {
                throw wrongUsage("--output - and --json both want standard output")
            }
            guard !console.outputIsTerminal else {
                throw wrongUsage("--output -: standard output is a terminal; redirect it")
            }
        }
        try OutputNames.check(
            (names.isStandardOutput ? [] : paths) + (settings.dump.map { [$0] } ?? []),
            overwrites: settings.overwrites
        )
        return paths
    }

    /// The prompt's text, from standard input when it is `-`.
    private static func prompt(
        _ settings: GenerateSettings,
        _ console: Console
    ) throws(Failure) -> String {
        guard let prompt = settings.prompt else {
            throw wrongUsage("a prompt is missing (\"\" is an empty one, - reads standard input)")
        }
        guard prompt == "-" else { return prompt }
        let bytes = try console.readInput(promptByteLimit)
        guard var text = String(validating: bytes, as: UTF8.self) else {
            throw Failure(.badData, "standard input: the prompt is not UTF-8")
        }
        if let last = text.last, last.isNewline { text.removeLast() }
        return text
    }
}

// MARK: With the model open

extension Generate {
    /// Threads to compute with.
    static func threads(_ settings: GenerateSettings) -> Int {
        settings.threads ?? Engine.defaultThreads
    }

    private static func planReport(
        _ plan: GenerationPlan,
        _ resolved: ResolvedRequest,
        _ pipeline: Pipeline,
        _ settings: GenerateSettings,
        _ reporter: Reporter,
        _ console: Console
    ) throws(Failure) -> PlanReport {
        let calibration = try StoredCalibration.current(
            threads: threads(settings),
            weights: pipeline.summary.parts.first { $0.name == "transformer" }?.path,
            console,
            of: "generate",
            tell: reporter.message
        )
        return PlanReport(plan, resolved, calibration)
    }

    private static func openPipeline(
        _ settings: GenerateSettings,
        _ discovery: ModelDiscovery,
        _ console: Console
    ) throws(Failure) -> (Pipeline, LoRALibrary) {
        let cache = try CachePlace.cache(console, isOff: settings.isCacheOff, of: "generate")
        let found = try discovery.resolve(settings.model, variant: settings.variant)
        return try Failure.mapping { () throws(GenerationError) in
            let folders = discovery.searchFolders
            let library = try LoRALibrary(model: found.path, searchFolders: folders)
            let files = try ModelFiles.locate(
                found.path,
                textEncoder: settings.textEncoder,
                autoencoder: settings.autoencoder,
                tokenizer: settings.tokenizer,
                searchFolders: folders
            )
            let pipeline = try Pipeline(
                files,
                options: PipelineOptions(
                    threads: threads(settings),
                    variant: settings.variant ?? found.origin.variant,
                    precision: settings.precision,
                    memoryByteCount: settings.memory,
                    cache: cache
                )
            )
            return (pipeline, library)
        }
    }

    /// The size of the pictures, rounded.
    private static func size(
        _ settings: GenerateSettings,
        _ pipeline: Pipeline,
        _ reporter: Reporter
    ) -> PictureSize {
        let wanted = (settings.size ?? .aspect(.square)).size(
            resolutionClass: pipeline.summary.resolutionClass
        )
        let size = wanted.rounded
        if size != wanted {
            reporter.message(
                "size \(wanted.width)x\(wanted.height) is rounded up to "
                    + "\(size.width)x\(size.height), multiples of \(PictureSize.multiple)"
            )
        }
        return size
    }

    /// The request in the engine's terms.
    private static func request(
        _ settings: GenerateSettings,
        prompt: String,
        seed: UInt64,
        _ size: PictureSize,
        _ initial: InitialPicture?
    ) -> GenerationRequest {
        GenerationRequest(
            prompt: prompt,
            negativePrompt: settings.negativePrompt,
            width: size.width,
            height: size.height,
            steps: settings.steps,
            guidance: settings.guidance?.official,
            shift: settings.shift,
            seed: seed,
            imageCount: settings.imageCount,
            groupMode: settings.referenceMode,
            initialImage: initial?.image
        )
    }

    /// The request with LoRAs, sliders and references, whose rows are still to be encoded.
    private static func planned(
        _ request: GenerationRequest,
        _ selection: LoRASelection,
        _ finder: ReferenceFinder,
        _ pipeline: Pipeline
    ) throws(Failure) -> GenerationRequest {
        var request = request
        request.loras = selection.uses
        request.wired = finder.sequence
        request.groups = try Failure.mapping { () throws(GenerationError) in
            let blanks = try pipeline.placeholder(texts: selection.texts)
            return try finder.planned() + selection.groups(blanks)
        }
        return request
    }

    /// The files to write, each with its record.
    private static func files(
        _ paths: [String],
        _ settings: GenerateSettings,
        record: (Int) -> GenerationRecord
    ) throws(Failure) -> [PictureFile] {
        let files = paths.indices.map {
            PictureFile(path: paths[$0], record: settings.hasMetadata ? record($0) : nil)
        }
        // The last record has the longest numbers.
        try PictureFile.check(files.last?.record)
        return files
    }
}
