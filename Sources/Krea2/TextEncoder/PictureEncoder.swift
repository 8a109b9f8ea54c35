import Compute
import Tensors
import Tokenization

/// Pictures, and a text after them, that are encoded together.
struct PicturePrompt: Sendable {
    /// What the user wrote; empty for a reference, which is encoded alone.
    var text = ""
    /// In the size in which the vision tower sees them.
    var pictures: [VisionPicture]
    /// Whether "Picture 1: " and so on stand before the pictures.
    var isLabelled = false
}

/// What the text encoder makes of pictures and text.
struct PictureConditioning: Sendable {
    /// The residual stream after each tapped layer, without the rows of the template's prefix:
    /// `[rows, taps, width]`, float32 or bfloat16.
    let taps: Tensor
    /// What each row comes from.
    let kinds: [ConditioningRows.Kind]
    /// How each picture became tokens.
    let grids: [VisionGrid]
    /// Tokens at the end of the text that were cut off.
    let truncatedTokens: Int
}

/// The text encoder with its vision tower.
///
/// Prompts do not know of each other, and what they become does not depend on which are encoded in
/// one call.
struct PictureEncoder {
    private let encoder: TextEncoder
    private let tower: VisionTower
    private let template: PictureTemplate
    private let policy: ArithmeticPolicy
    private let kernels: Kernels
    private let threads: Int

    /// Tokens that go through the networks together, unless a single prompt has more: activations
    /// then take about 50 MB in the released model.
    private static let mostTokens = 1024

    /// Opens the vision tower.
    ///
    /// - Parameters:
    ///   - files: The text encoder's.
    ///   - encoder: Made of them.
    ///   - template: Of the prompt.
    ///   - policy: In what linear layers compute.
    ///   - kernels: What computes.
    ///   - threads: Threads to use, 1 or more.
    /// - Throws: `.model` for text encoders without vision tower or with an unfit one, `.tokenizer`
    ///   for tokenizers without the tokens around pictures.
    init(
        _ files: TextEncoderFiles,
        _ encoder: TextEncoder,
        _ template: PromptTemplate,
        policy: ArithmeticPolicy,
        kernels: Kernels,
        threads: Int
    ) throws(GenerationError) {
        do {
            tower = try VisionTower(VisionFiles(files))
        } catch {
            throw .model(error)
        }
        do {
            self.template = try PictureTemplate(template)
        } catch {
            throw .tokenizer(error)
        }
        self.encoder = encoder
        (self.policy, self.kernels, self.threads) = (policy, kernels, threads)
    }

    /// Sizes of the vision tower; pictures have sides of whole tokens.
    var config: VisionConfig { tower.config }
}

extension Pipeline {
    /// Opens what encodes pictures.
    ///
    /// - Returns: The text encoder with its vision tower.
    /// - Throws: As `PictureEncoder.init`.
    func pictureEncoder() throws(GenerationError) -> PictureEncoder {
        try PictureEncoder(
            encoderFiles,
            encoder,
            template,
            policy: arithmetic.textEncoder,
            kernels: kernels,
            threads: options.threads
        )
    }
}

// MARK: Batches

extension PictureEncoder {
    /// What the tokens of a prompt are.
    struct Outline {
        /// Template, pictures and text.
        let ids: [Int32]
        /// What each row comes from that goes on.
        let kinds: [ConditioningRows.Kind]
        /// Among these rows those of each picture, with the tokens before and after it.
        let pictures: [Range<Int>]
        /// Patches of each picture.
        let patches: [Int]
    }

    /// Tokenises a prompt.
    ///
    /// - Parameter prompt: As for `encode`.
    /// - Returns: What its tokens are.
    /// - Throws: `.request` for pictures whose sides are not whole tokens.
    func outline(_ prompt: PicturePrompt) throws(GenerationError) -> Outline {
        let prepared = try prepare(prompt)
        let first = PromptTemplate.sliceStart
        return Outline(
            ids: prepared.encoding.ids,
            kinds: prepared.kinds,
            pictures: prepared.encoding.pictures.map {
                $0.lowerBound - 1 - first..<$0.upperBound + 1 - first
            },
            patches: prepared.grids.map(\.patches)
        )
    }

    /// Bytes of the vision tower's matrices.
    var towerByteCount: Int { tower.order(policy).byteCount }
}

/// A prompt and its tokens.
private struct PreparedPrompt {
    let pictures: [(picture: VisionPicture, grid: VisionGrid)]
    let encoding: PictureTemplate.Encoding

    var grids: [VisionGrid] { pictures.map { $0.grid } }
    var patches: Int { pictures.reduce(0) { $0 + $1.grid.patches } }
    /// Rows that go on.
    var rows: Int { encoding.ids.count - PromptTemplate.sliceStart }

    /// What the rows come from.
    var kinds: [ConditioningRows.Kind] {
        let suffix = encoding.ids.count - PromptTemplate.suffixTokenCount
        return (PromptTemplate.sliceStart..<encoding.ids.count).map { index in
            if index >= suffix { return .suffix }
            for range in encoding.pictures {
                if range.contains(index) { return .image }
                if index + 1 == range.lowerBound { return .visionStart }
                if index == range.upperBound { return .visionEnd }
            }
            return .text
        }
    }
}

/// Buffers for some prompts.
///
/// Tower and language model use the same memory, one after the other.
private struct PictureMemory {
    let features: VisionFeatures
    let vision: VisionScratch
    let language: TextEncoderScratch

    init(
        _ prompts: [PreparedPrompt],
        _ vision: VisionConfig,
        _ language: TextEncoderConfig,
        _ activations: ElementType,
        _ arena: inout Arena
    ) {
        let tokens = prompts.reduce(0) { $0 + $1.grids.reduce(0) { $0 + $1.tokens } }
        features = VisionFeatures(vision, tokens: tokens, &arena)
        let start = arena.position
        let patches = prompts.reduce(0) { $0 + $1.patches }
        self.vision = VisionScratch(vision, patches: patches, activations, &arena)
        arena.position = start
        let ids = prompts.reduce(0) { $0 + $1.encoding.ids.count }
        self.language = TextEncoderScratch(language, tokens: ids, activations, &arena)
    }
}

extension PictureEncoder {
    private func prepare(_ prompt: PicturePrompt) throws(GenerationError) -> PreparedPrompt {
        var pictures: [(picture: VisionPicture, grid: VisionGrid)] = []
        for picture in prompt.pictures { pictures.append((picture, try picture.grid(config))) }
        let encoding = template.encode(
            prompt.text,
            pictureTokens: pictures.map { $0.grid.tokens },
            isLabelled: prompt.isLabelled
        )
        try encoder.checkVocabulary(encoding.ids)
        return PreparedPrompt(pictures: pictures, encoding: encoding)
    }

    private func batches(_ prompts: [PreparedPrompt]) -> [[PreparedPrompt]] {
        var batches: [[PreparedPrompt]] = []
        var tokens = 0
        for prompt in prompts {
            let count = prompt.encoding.ids.count
            if batches.isEmpty || tokens + count > Self.mostTokens {
                batches.append([])
                tokens = 0
            }
            batches[batches.count - 1].append(prompt)
            tokens += count
        }
        return batches
    }

    private func memory(_ prompts: [PreparedPrompt], _ arena: inout Arena) -> PictureMemory {
        PictureMemory(
            prompts,
            config,
            encoder.config,
            policy.activations(on: kernels),
            &arena
        )
    }

    /// Bytes that the keys and values of one head take where attention packs them.
    private func packedByteCount(_ prompts: [PreparedPrompt]) -> Int {
        let patches = prompts.flatMap { $0.grids.map(\.patches) }.max() ?? 0
        let tokens = prompts.map(\.encoding.ids.count).max() ?? 0
        return max(
            Operators.packedByteCount(keys: patches, headSize: config.headSize),
            Operators.packedByteCount(keys: tokens, headSize: encoder.config.headSize)
        )
    }

    /// What encoding takes.
    ///
    /// - Parameters:
    ///   - prompts: As for `encode`.
    ///   - arithmetic: Has the encoder's policy.
    /// - Returns: Its work, bytes of weights to read, and bytes of memory at most, about, besides
    ///   the results.
    /// - Throws: As `encode` before it computes.
    func needs(
        _ prompts: [PicturePrompt],
        _ arithmetic: RunArithmetic
    ) throws(GenerationError) -> (work: ComputeWork, readBytes: Int, byteCount: Int) {
        var prepared: [PreparedPrompt] = []
        for prompt in prompts { prepared.append(try prepare(prompt)) }
        let orders = [tower.order(policy), encoder.order(policy)]
        let batches = batches(prepared)
        let most = batches.map { batch in
            var arena = Arena.measuring()
            _ = memory(batch, &arena)
            let packed = packedByteCount(batch)
            return arena.byteCount
                + Operators.scratchByteCount(threads: threads, packedBytes: packed)
        }
        let work = prepared.reduce(ComputeWork()) { sum, prompt in
            let language = Workload.encoding(
                encoder.config,
                layers: encoder.taps.last ?? 0,
                tokens: prompt.encoding.ids.count,
                arithmetic.textEncoderPrecision
            )
            return prompt.grids.reduce(sum + language) {
                $0 + Workload.vision(config, patches: $1.patches, arithmetic)
            }
        }
        return (
            work,
            batches.count * orders.reduce(0) { $0 + $1.byteCount },
            (most.max() ?? 0) + (orders.map(\.minimumByteCount).max() ?? 0)
        )
    }
}

// MARK: Encoding

extension PictureEncoder {
    /// Encodes prompts, each for itself.
    ///
    /// - Parameters:
    ///   - prompts: Pictures and texts.
    ///   - convention: When a picture's rows are tapped.
    ///   - storage: Type of the taps: float32, or bfloat16, to which they are rounded then.
    ///   - progress: Told after each block and layer what share is done.
    ///   - isCancelled: Asked many times a second, from several threads.
    /// - Returns: What the text fusion needs, for each prompt.
    /// - Throws: `.request` for pictures whose sides are not whole tokens, `.notFinite`,
    ///   `.cancelled`, or `.model` when files change meanwhile.
    func encode(
        _ prompts: [PicturePrompt],
        convention: TapConvention = .beforeDeepstack,
        storage: ElementType = .float32,
        progress: @escaping (Double) -> Void = { _ in },
        isCancelled: @escaping @Sendable () -> Bool = { false }
    ) throws(GenerationError) -> [PictureConditioning] {
        var prepared: [PreparedPrompt] = []
        for prompt in prompts { prepared.append(try prepare(prompt)) }
        let batches = batches(prepared)
        let steps = batches.reduce(0) { sum, batch in
            sum + (encoder.taps.last ?? 0) + (batch.contains { $0.patches > 0 } ? tower.steps : 0)
        }
        var finished = 0
        let advance = {
            finished += 1
            progress(Double(finished) / Double(steps))
        }
        var results: [PictureConditioning] = []
        for batch in batches {
            let operators = Operators(
                kernels: kernels,
                threads: threads,
                policy: policy,
                packedBytes: packedByteCount(batch),
                isCancelled: isCancelled
            )
            let taps = batch.map { prompt in
                let shape = [prompt.rows, encoder.taps.count, encoder.config.width]
                return Tensor(
                    Storage(byteCount: shape.reduce(storage.byteCount, *)),
                    byteOffset: 0,
                    shape: shape,
                    elementType: storage
                )
            }
            try encode(batch, operators, convention, advance, into: taps)
            results += zip(batch, taps).map { prompt, taps in
                PictureConditioning(
                    taps: taps,
                    kinds: prompt.kinds,
                    grids: prompt.grids,
                    truncatedTokens: prompt.encoding.truncatedTokens
                )
            }
        }
        return results
    }

    /// Encodes prompts together.
    private func encode(
        _ prompts: [PreparedPrompt],
        _ operators: Operators,
        _ convention: TapConvention,
        _ finished: @escaping () -> Void,
        into taps: [Tensor]
    ) throws(GenerationError) {
        var measuring = Arena.measuring()
        _ = memory(prompts, &measuring)
        var arena = Arena(Storage(byteCount: measuring.byteCount))
        let memory = memory(prompts, &arena)
        if prompts.contains(where: { $0.patches > 0 }) {
            try tower.forward(
                prompts.flatMap(\.pictures),
                supply: MatrixSupply(tower.order(policy), operators: operators),
                scratch: memory.vision,
                operators: operators,
                watch: tower.watch(finished),
                into: memory.features
            )
        }
        try encoder.forward(
            sequences(prompts, memory.features),
            supply: MatrixSupply(encoder.order(policy), operators: operators),
            scratch: memory.language,
            operators: operators,
            watch: encoder.watch(finished),
            convention: convention,
            into: taps
        )
    }

    /// Puts each picture's features in its place.
    private func sequences(
        _ prompts: [PreparedPrompt],
        _ features: VisionFeatures
    ) -> [TokenSequence] {
        var first = 0
        return prompts.map { prompt in
            let pictures = zip(prompt.encoding.pictures, prompt.grids).map { tokens, grid in
                let rows = first..<first + grid.tokens
                first = rows.upperBound
                return PlacedPicture(
                    firstToken: tokens.lowerBound,
                    grid: grid,
                    features: features.tokens.rows(rows),
                    deepstack: features.deepstack.map { $0.rows(rows) }
                )
            }
            return TokenSequence(prompt.encoding.ids, pictures: pictures)
        }
    }
}
