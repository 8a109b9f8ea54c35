import FoundationEssentials
import Krea2

/// `krea2 bench`: times stages and kernels.
enum Bench {
    static let command = Command(
        BenchSettings.table,
        summary: "time stages and kernels",
        synopsis: "[options] [GROUP…] | calibrate",
        notes: """

            gemm: products with the matrices of a block; attention: that of the transformer; block: \
            one block with its weights in memory; te: the text encoder and its vision tower on one \
            picture, reading their weights; dit: one evaluation of the transformer, after one that \
            is not counted; vae: the decoder; load: opening and reading the transformer; e2e: whole \
            pictures.

            Without a group: gemm and attention, and with --model or --synthetic also block, te, vae \
            and load. gemm and attention need no model.

            LIST stands for values with commas between them; all lists are crossed. Rows that \
            belong together are repeated in turn. The peak is what instructions of the arithmetic \
            reach on as many threads, measured in between; GB/s are weights, beside what memory \
            gives; peak memory is that of the process during a repetition.

            calibrate measures what generate --plan predicts times from, and keeps it in \
            $XDG_CACHE_HOME/krea2 or ~/.cache/krea2. Of the options it takes --threads, --model (for \
            the speed of its disk), --output and --quiet.
            """,
        body: run
    )

    /// Environment variables that say where random weights go.
    static let variables = ["TMPDIR"]

    private static func run(
        _ scan: OptionTable<BenchSettings>.Scan,
        _ console: Console
    ) throws(Failure) {
        var settings = BenchSettings()
        try BenchSettings.table.apply(scan.given, to: &settings)
        if scan.positionals.contains("calibrate") {
            try checkCalibration(scan)
            try BenchCalibration.run(settings, console)
        } else {
            try run(groups(scan.positionals, settings), settings, console)
        }
    }

    /// Refuses what does not concern `calibrate`.
    private static func checkCalibration(
        _ scan: OptionTable<BenchSettings>.Scan
    ) throws(Failure) {
        guard scan.positionals.count == 1 else {
            throw wrongUsage("calibrate stands alone, without groups")
        }
        for given in scan.given
        where !BenchSettings.calibrationOptions.contains(given.option.name) {
            throw wrongUsage("\(given.spelling) does not concern calibrate")
        }
    }

    /// The groups that are named, or the usual ones.
    private static func groups(
        _ names: [String],
        _ settings: BenchSettings
    ) throws(Failure) -> [BenchmarkGroup] {
        guard !names.isEmpty else {
            let hasModel = settings.model != nil || settings.synthetic != nil
            return [.gemm, .attention] + (hasModel ? [.block, .te, .vae, .load] : [])
        }
        var groups: [BenchmarkGroup] = []
        for name in names {
            guard let group = BenchmarkGroup(rawValue: name) else {
                let all = BenchmarkGroup.allCases.map(\.rawValue).joined(separator: ", ")
                throw wrongUsage("'\(name)' is not one of \(all), calibrate")
            }
            if !groups.contains(group) { groups.append(group) }
        }
        return groups
    }

    /// A usage failure of this subcommand.
    static func wrongUsage(_ message: String) -> Failure { .usage(message, of: "bench") }

    /// Runs engine code; its errors become failures with exit codes.
    static func mappingErrors<Result>(
        _ body: () throws(GenerationError) -> Result
    ) throws(Failure) -> Result {
        do {
            return try body()
        } catch {
            throw Failure(error, of: "bench")
        }
    }
}

// MARK: Running

extension Bench {
    private static func run(
        _ groups: [BenchmarkGroup],
        _ settings: BenchSettings,
        _ console: Console
    ) throws(Failure) {
        Interruption.listen()
        let needsModel = groups.contains { !SyntheticModel.Parts($0).isEmpty }
        guard needsModel else { return try run(groups, [], settings, console) }
        guard let choice = settings.synthetic else {
            let discovery = ModelDiscovery(environment: console.environment, disk: .real)
            let model = BenchmarkModel(
                try discovery.resolve(settings.model).path,
                textEncoder: settings.textEncoder,
                autoencoder: settings.autoencoder,
                tokenizer: settings.tokenizer,
                searchFolders: discovery.searchFolders
            )
            return try run(groups, [model], settings, console)
        }
        try withSyntheticModels(choice, groups, settings, console) { models throws(Failure) in
            try run(groups, models, settings, console)
        }
    }

    private static func run(
        _ groups: [BenchmarkGroup],
        _ models: [BenchmarkModel],
        _ settings: BenchSettings,
        _ console: Console
    ) throws(Failure) {
        let benchmark = try mappingErrors { () throws(GenerationError) in
            try Benchmark(
                repetitions: settings.repetitions,
                isCancelled: { Interruption.isRequested }
            )
        }
        let sets = try mappingErrors { () throws(GenerationError) in
            var sets: [BenchmarkSet] = []
            for group in groups { sets += try self.sets(group, models, settings.scope) }
            return sets
        }
        var writer = BenchWriter(settings.format, console)
        for set in sets {
            note("\(set.group.rawValue), \(set.title)", settings, console)
            var lastNote = console.now()
            let results = try mappingErrors { () throws(GenerationError) in
                try benchmark.run(set) { round, item in
                    guard console.now() - lastNote >= noteInterval else { return }
                    lastNote = console.now()
                    let round =
                        round == 0 ? "warming up" : "round \(round) of \(settings.repetitions)"
                    let precision = item.precision.map { ", \($0.rawValue)" } ?? ""
                    note("\(round): \(item.subject), \(item.shape)\(precision)", settings, console)
                }
            }
            for result in results { try writer.write(BenchRow(result)) }
        }
        try writer.finish()
    }

    /// Where the rows take long, what is going on is told so often.
    private static let noteInterval = Duration.seconds(10)

    private static func sets(
        _ group: BenchmarkGroup,
        _ models: [BenchmarkModel],
        _ scope: BenchmarkScope
    ) throws(GenerationError) -> [BenchmarkSet] {
        let isCancelled: @Sendable () -> Bool = { Interruption.isRequested }
        switch group {
        case .gemm: return try BenchmarkSet.gemm(scope)
        case .attention: return try BenchmarkSet.attention(scope)
        case .block: return try BenchmarkSet.block(models, scope, isCancelled: isCancelled)
        case .te: return try BenchmarkSet.textEncoder(models, scope, isCancelled: isCancelled)
        case .dit: return try BenchmarkSet.evaluation(models, scope, isCancelled: isCancelled)
        case .vae:
            // Those of all random models are the same.
            guard let model = models.first else { return [] }
            return try BenchmarkSet.decoder(model, scope, isCancelled: isCancelled)
        case .load: return BenchmarkSet.loading(models)
        case .e2e: return BenchmarkSet.pictures(models, scope, isCancelled: isCancelled)
        }
    }

    private static func note(_ text: String, _ settings: BenchSettings, _ console: Console) {
        if !settings.isQuiet { console.note("krea2: " + text.escapingControls) }
    }
}

// MARK: Random weights

extension Bench {
    /// Writes models of random weights, one for each way to store them, and removes them at the end,
    /// however that comes about.
    private static func withSyntheticModels(
        _ choice: SyntheticChoice,
        _ groups: [BenchmarkGroup],
        _ settings: BenchSettings,
        _ console: Console,
        _ body: ([BenchmarkModel]) throws(Failure) -> Void
    ) throws(Failure) {
        let parent = settings.temporary ?? console.environment["TMPDIR"] ?? "/var/tmp"
        let name = "krea2-bench-" + String(UInt64.random(in: .min ... .max), radix: 36)
        let folder = parent.path(of: name)
        do {
            // Nobody else's folder: this fails where there is something of that name.
            try FileManager.default.createDirectory(
                atPath: folder,
                withIntermediateDirectories: false
            )
        } catch {
            throw Failure(.cannotWrite, "\(folder): the folder cannot be made; see --temporary")
        }
        var failure: Failure?
        do throws(Failure) {
            let models = syntheticModels(choice, groups, settings, in: folder)
            let byteCount = models.reduce(0) { $0 + $1.byteCount }
            note(
                "writing random weights, \(byteText(byteCount)), to \(folder); removed at the end",
                settings,
                console
            )
            for model in models {
                try mappingErrors { () throws(GenerationError) in
                    try model.write(isCancelled: { Interruption.isRequested })
                }
            }
            try body(models.map(\.model))
        } catch {
            failure = error
        }
        do {
            try FileManager.default.removeItem(atPath: folder)
        } catch {
            console.note("krea2: \(folder.escapingControls) cannot be removed")
        }
        if let failure { throw failure }
    }

    private static func syntheticModels(
        _ choice: SyntheticChoice,
        _ groups: [BenchmarkGroup],
        _ settings: BenchSettings,
        in folder: String
    ) -> [SyntheticModel] {
        var sizes: SyntheticSizes = choice == .full ? .full : .tiny
        (sizes.blocks, sizes.layers) = (settings.blocks, settings.layers)
        let parts = groups.reduce(into: SyntheticModel.Parts()) {
            $0.formUnion(SyntheticModel.Parts($1))
        }
        return settings.weights.map { weights in
            SyntheticModel(
                folder: "\(folder)/\(weights.rawValue)",
                sizes: sizes,
                parts: parts,
                weights: weights
            )
        }
    }
}

extension BenchSettings {
    /// What is crossed, in the engine's terms.
    fileprivate var scope: BenchmarkScope {
        var scope = BenchmarkScope()
        scope.precisions = precisions
        scope.threads = threads
        scope.sizes = sizes.map { BenchmarkPicture(width: $0.width, height: $0.height) }
        scope.tokens = tokens
        scope.rows = rows
        if let matrices { scope.matrices = matrices }
        scope.weights = weights
        scope.memoryByteCount = memory
        scope.loraRanks = loraRanks
        scope.references = references
        scope.steps = steps
        return scope
    }
}
