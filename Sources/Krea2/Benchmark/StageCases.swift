import Checkpoints
import Compute
import Tensors
import Tokenization

extension BenchmarkSet {
    /// The text encoder on random tokens, and its vision tower on a random picture, their weights
    /// read.
    ///
    /// - Parameters:
    ///   - models: Their text encoders are used.
    ///   - scope: Tokens, arithmetics and threads.
    ///   - isCancelled: Asked many times a second, from several threads.
    /// - Returns: One set.
    /// - Throws: `.request` when the environment names unknown kernels, or for too few tokens.
    public static func textEncoder(
        _ models: [BenchmarkModel],
        _ scope: BenchmarkScope,
        isCancelled: @escaping @Sendable () -> Bool
    ) throws(GenerationError) -> [BenchmarkSet] {
        let kernels = try Engine.kernels()
        for tokens in scope.tokens where tokens <= PromptTemplate.sliceStart {
            throw .request(
                "\(tokens) tokens for the text encoder, expected more than the template's "
                    + "\(PromptTemplate.sliceStart)"
            )
        }
        return [
            BenchmarkSet(.te, "text encoder") { () throws(GenerationError) in
                let trials = StageTrials(scope, kernels: kernels, isCancelled)
                var cases: [BenchmarkCase] = []
                for model in models {
                    let (encoder, tower) = (try model.textEncoder(), try model.visionTower())
                    let matrices = encoder.order(.float32).groups.flatMap(\.self)
                    cases += trials.cross(\.textEncoder, textEncoder: matrices) { variant in
                        scope.tokens.map { trials.textEncoder(encoder, tokens: $0, variant) }
                            + (tower.map { [trials.visionTower($0, variant)] } ?? [])
                    }
                }
                return cases
            }
        ]
    }

    /// The decoder of the autoencoder on random latents; preparing its weights is part of it.
    ///
    /// - Parameters:
    ///   - model: Its autoencoder is used.
    ///   - scope: Sizes, arithmetics and threads.
    ///   - isCancelled: Asked many times a second, from several threads.
    /// - Returns: One set.
    /// - Throws: `.request` when the environment names unknown kernels.
    public static func decoder(
        _ model: BenchmarkModel,
        _ scope: BenchmarkScope,
        isCancelled: @escaping @Sendable () -> Bool
    ) throws(GenerationError) -> [BenchmarkSet] {
        let kernels = try Engine.kernels()
        return [
            BenchmarkSet(.vae, "decoder") { () throws(GenerationError) in
                let files = try model.autoencoder()
                let trials = StageTrials(scope, kernels: kernels, isCancelled)
                return trials.cross(\.autoencoder) { variant in
                    scope.sizes.map { trials.decoder(files, $0, variant) }
                }
            }
        ]
    }

    /// Opening the transformer's files, and reading its weights past the system's cache.
    ///
    /// - Parameter models: Their transformers are used.
    /// - Returns: One set.
    public static func loading(_ models: [BenchmarkModel]) -> [BenchmarkSet] {
        [
            BenchmarkSet(.load, "transformer") { () throws(GenerationError) in
                var cases: [BenchmarkCase] = []
                for model in models {
                    let transformer = try model.transformer()
                    cases.append(openingCase(model, transformer))
                    cases.append(readingCase(transformer.order(.float32)))
                }
                return cases
            }
        ]
    }

    private static func openingCase(
        _ model: BenchmarkModel,
        _ transformer: Transformer
    ) -> BenchmarkCase {
        BenchmarkCase(
            .load,
            "open the transformer",
            shape: counted(transformer.config.blocks, "block"),
            weights: transformer.blockStorage,
            precision: nil,
            threads: 1
        ) { () throws(GenerationError) in
            try BenchmarkSample.measure { () throws(GenerationError) in
                _ = try model.transformer()
            }
        }
    }

    private static func readingCase(_ order: MatrixSupply.Order) -> BenchmarkCase {
        let tensors = order.groups.joined().map(\.elements)
        let held = tensors.map(\.byteCount).max() ?? 0
        let types = Set(tensors.map(\.elementType.rawValue)).sorted()
        return BenchmarkCase(
            .load,
            "read the transformer",
            shape: "\(tensors.count) matrices",
            weights: types.joined(separator: " "),
            precision: nil,
            threads: 1,
            weightBytes: order.byteCount,
            warmsUp: false
        ) { () throws(GenerationError) in
            try BenchmarkSample.measure { () throws(GenerationError) in
                do throws(CheckpointError) {
                    let stream = try WeightStream(
                        tensors,
                        of: order.checkpoint,
                        budget: WeightPlan.minimumByteCount(
                            tensors,
                            of: order.checkpoint,
                            held: held
                        ),
                        held: held,
                        cache: .never
                    )
                    for index in tensors.indices {
                        _ = try stream.take(index)
                        stream.release(index)
                    }
                } catch {
                    throw .model(error)
                }
            }
        }
    }
}

/// Makes cases of whole stages; each repetition has memory of its own, as in a run.
private struct StageTrials {
    private let scope: BenchmarkScope
    private let kernels: Kernels
    private let isCancelled: @Sendable () -> Bool
    private let values = RandomValues()

    /// One arithmetic on a number of threads.
    struct Variant {
        let arithmetic: RunArithmetic
        let threads: Int
    }

    init(
        _ scope: BenchmarkScope,
        kernels: Kernels,
        _ isCancelled: @escaping @Sendable () -> Bool
    ) {
        self.scope = scope
        self.kernels = kernels
        self.isCancelled = isCancelled
    }

    /// The cases of all threads and arithmetics; those that come to the same are made once.
    ///
    /// - Parameters:
    ///   - policy: What the cases depend on.
    ///   - matrices: Those of the text encoder, which decide about automatic arithmetic.
    ///   - make: Makes the cases of a variant.
    /// - Returns: All of them.
    func cross(
        _ policy: KeyPath<RunArithmetic, ArithmeticPolicy>,
        textEncoder matrices: [WeightMatrix] = [],
        _ make: (Variant) -> [BenchmarkCase]
    ) -> [BenchmarkCase] {
        let wishes = scope.precisions.isEmpty ? [.automatic] : scope.precisions
        let arithmetics = wishes.map { wish in
            RunArithmetic(
                // The autoencoder follows the transformer, whose released files have bfloat16.
                wish == .automatic && matrices.isEmpty ? .bfloat16 : wish,
                textEncoder: matrices,
                textFusion: [],
                blocks: [],
                kernels: kernels
            )
        }.reduce(into: [RunArithmetic]()) { unique, next in
            let isKnown = unique.contains { $0[keyPath: policy] == next[keyPath: policy] }
            if !isKnown { unique.append(next) }
        }
        return scope.threads.flatMap { threads in
            arithmetics.flatMap { make(Variant(arithmetic: $0, threads: threads)) }
        }
    }

    private func operators(
        _ variant: Variant,
        _ policy: ArithmeticPolicy,
        packedBytes: Int
    ) -> Operators {
        Operators(
            kernels: kernels,
            threads: variant.threads,
            policy: policy,
            packedBytes: packedBytes,
            isCancelled: isCancelled
        )
    }

    // MARK: Text encoder

    func textEncoder(_ encoder: TextEncoder, tokens: Int, _ variant: Variant) -> BenchmarkCase {
        let (arithmetic, config) = (variant.arithmetic, encoder.config)
        let order = encoder.order(arithmetic.textEncoder)
        let layers = order.groups.count
        let ids = (0..<tokens).map { Int32(($0 * 7919) % config.vocabulary) }
        let types = Set(order.groups.joined().map(\.elements.elementType.rawValue)).sorted()
        let operators = operators(variant, arithmetic.textEncoder, packedBytes: 0)
        return BenchmarkCase(
            .te,
            "\(layers) of \(counted(config.layers, "layer"))",
            shape: "\(tokens) tokens",
            weights: types.joined(separator: " "),
            precision: arithmetic.textEncoderPrecision,
            threads: variant.threads,
            work: Workload.encoding(
                config,
                layers: layers,
                tokens: tokens,
                arithmetic.textEncoderPrecision
            ),
            weightBytes: order.byteCount
        ) { () throws(GenerationError) in
            func buffers(_ arena: inout Arena) -> (taps: Tensor, scratch: TextEncoderScratch) {
                let rows = tokens - PromptTemplate.sliceStart
                return (
                    arena.tensor("taps", rows, encoder.taps.count, config.width),
                    TextEncoderScratch(
                        config,
                        tokens: tokens,
                        arithmetic.activations(arithmetic.textEncoder),
                        &arena
                    )
                )
            }
            var measuring = Arena.measuring()
            _ = buffers(&measuring)
            var arena = Arena(Storage(byteCount: measuring.byteCount))
            let (taps, scratch) = buffers(&arena)
            return try BenchmarkSample.measure { () throws(GenerationError) in
                try encoder.forward(
                    [TokenSequence(ids)],
                    supply: MatrixSupply(order, operators: operators),
                    scratch: scratch,
                    operators: operators,
                    watch: encoder.watch {},
                    into: [taps]
                )
            }
        }
    }

    // MARK: Vision tower

    /// A reference of the usual size.
    func visionTower(_ tower: VisionTower, _ variant: Variant) -> BenchmarkCase {
        let (arithmetic, config) = (variant.arithmetic, tower.config)
        let order = tower.order(arithmetic.textEncoder)
        let unit = config.patch * config.merge
        let side = max(1, 384 / unit) * unit
        let patches = side / config.patch * (side / config.patch)
        let types = Set(order.groups.joined().map(\.elements.elementType.rawValue)).sorted()
        let operators = operators(
            variant,
            arithmetic.textEncoder,
            packedBytes: Operators.packedByteCount(keys: patches, headSize: config.headSize)
        )
        return BenchmarkCase(
            .te,
            "vision tower",
            shape: "\(side)x\(side)",
            weights: types.joined(separator: " "),
            precision: arithmetic.textEncoderPrecision,
            threads: variant.threads,
            work: Workload.vision(config, patches: patches, arithmetic),
            weightBytes: order.byteCount
        ) { () throws(GenerationError) in
            let pixels = values.tensor([side, side, 3]).elements
            let picture = try VisionPicture(width: side, height: side, values: pixels)
            let grid = try picture.grid(config)
            func buffers(_ arena: inout Arena) -> (features: VisionFeatures, VisionScratch) {
                let activations = arithmetic.activations(arithmetic.textEncoder)
                return (
                    VisionFeatures(config, tokens: grid.tokens, &arena),
                    VisionScratch(config, patches: grid.patches, activations, &arena)
                )
            }
            var measuring = Arena.measuring()
            _ = buffers(&measuring)
            var arena = Arena(Storage(byteCount: measuring.byteCount))
            let (features, scratch) = buffers(&arena)
            return try BenchmarkSample.measure { () throws(GenerationError) in
                try tower.forward(
                    [(picture, grid)],
                    supply: MatrixSupply(order, operators: operators),
                    scratch: scratch,
                    operators: operators,
                    watch: tower.watch {},
                    into: features
                )
            }
        }
    }

    // MARK: Decoder

    func decoder(
        _ files: AutoencoderFiles,
        _ picture: BenchmarkPicture,
        _ variant: Variant
    ) -> BenchmarkCase {
        let (config, policy) = (files.config, variant.arithmetic.autoencoder)
        let height = picture.height / AutoencoderConfig.scale
        let width = picture.width / AutoencoderConfig.scale
        let precision = variant.arithmetic.autoencoderPrecision
        let operators = operators(
            variant,
            policy,
            packedBytes: Operators.packedByteCount(
                keys: height * width,
                headSize: config.middleChannels
            )
        )
        return BenchmarkCase(
            .vae,
            "decoder",
            shape: picture.text,
            precision: precision,
            threads: variant.threads,
            work: ComputeWork(
                .convolution,
                precision,
                config.floatingPointOperations(latentHeight: height, latentWidth: width)
            )
        ) { () throws(GenerationError) in
            func scratch(_ arena: inout Arena) -> AutoencoderScratch {
                AutoencoderScratch(config, latentHeight: height, latentWidth: width, arena: &arena)
            }
            var measuring = Arena.measuring()
            _ = scratch(&measuring)
            let latent = values.tensor([config.latentChannels, height, width])
            return try BenchmarkSample.measure { () throws(GenerationError) in
                var arena = Arena(Storage(byteCount: measuring.byteCount))
                let buffers = scratch(&arena)
                let autoencoder: Autoencoder
                do throws(CheckpointError) {
                    autoencoder = try Autoencoder(files, operators: operators)
                } catch {
                    throw .model(error)
                }
                try autoencoder.decode(latent, buffers, operators: operators) { _ in }
            }
        }
    }
}
