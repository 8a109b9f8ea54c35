import Tensors

extension BenchmarkSet {
    /// Whole pictures, from the prompt to pixels; opening the model is not part of it.
    ///
    /// - Parameters:
    ///   - models: All of their parts are used.
    ///   - scope: Sizes, text tokens, arithmetics, threads, memory and steps.
    ///   - isCancelled: Asked many times a second, from several threads.
    /// - Returns: One set.
    public static func pictures(
        _ models: [BenchmarkModel],
        _ scope: BenchmarkScope,
        isCancelled: @escaping @Sendable () -> Bool
    ) -> [BenchmarkSet] {
        [
            BenchmarkSet(.e2e, "whole pictures") { () throws(GenerationError) in
                var cases: [BenchmarkCase] = []
                for model in models {
                    let files = try model.files()
                    for threads in scope.threads {
                        cases += try pictureCases(files, scope, threads, isCancelled)
                    }
                }
                return cases.reduce(into: []) { unique, next in
                    // What the machine lacks comes to the same as another wish.
                    let isKnown = unique.contains {
                        ($0.shape, $0.weights, $0.threads, $0.precision)
                            == (next.shape, next.weights, next.threads, next.precision)
                    }
                    if !isKnown { unique.append(next) }
                }
            }
        ]
    }

    /// The cases of one model on a number of threads.
    private static func pictureCases(
        _ files: ModelFiles,
        _ scope: BenchmarkScope,
        _ threads: Int,
        _ isCancelled: @escaping @Sendable () -> Bool
    ) throws(GenerationError) -> [BenchmarkCase] {
        var cases: [BenchmarkCase] = []
        for precision in scope.precisions.isEmpty ? [.automatic] : scope.precisions {
            let pipeline = try Pipeline(
                files,
                options: PipelineOptions(
                    threads: threads,
                    precision: precision,
                    memoryByteCount: scope.memoryByteCount
                )
            )
            for size in scope.sizes {
                for tokens in scope.tokens {
                    let request = try request(size, tokens, scope.steps, pipeline)
                    cases.append(try pictureCase(pipeline, request, threads, isCancelled))
                }
            }
        }
        return cases
    }

    /// A request whose prompt has about as many tokens as wanted.
    private static func request(
        _ size: BenchmarkPicture,
        _ tokens: Int,
        _ steps: Int?,
        _ pipeline: Pipeline
    ) throws(GenerationError) -> GenerationRequest {
        var request = GenerationRequest(
            prompt: "",
            width: size.width,
            height: size.height,
            steps: steps
        )
        while try pipeline.resolve(request).promptTokens < tokens {
            let before = try pipeline.resolve(request).promptTokens
            request.prompt += request.prompt.isEmpty ? "a" : " a"
            // The longest prompt is as long as it gets.
            if try pipeline.resolve(request).promptTokens == before { break }
        }
        return request
    }

    private static func pictureCase(
        _ pipeline: Pipeline,
        _ request: GenerationRequest,
        _ threads: Int,
        _ isCancelled: @escaping @Sendable () -> Bool
    ) throws(GenerationError) -> BenchmarkCase {
        let (resolved, plan) = (try pipeline.resolve(request), try pipeline.plan(request))
        let work = plan.stages.reduce(ComputeWork()) { $0 + Double($1.repetitions) * $1.work }
        let blocks = pipeline.transformer.config.blocks
        return BenchmarkCase(
            .e2e,
            "\(counted(blocks, "block")), \(counted(resolved.steps, "step"))",
            shape: "\(resolved.width)x\(resolved.height), \(resolved.promptTokens) text tokens",
            weights: pipeline.transformer.blockStorage,
            precision: resolved.precision,
            threads: threads,
            work: work,
            warmsUp: false
        ) { () throws(GenerationError) in
            try BenchmarkSample.measure { () throws(GenerationError) in
                _ = try pipeline.generate(request, isCancelled: isCancelled)
            }
        }
    }
}

extension Transformer {
    /// How most bytes of the blocks' matrices are stored, such as "BF16".
    var blockStorage: String {
        let bytes = blockMatrices.reduce(into: [String: Int]()) { sum, matrix in
            sum[matrix.elements.elementType.rawValue, default: 0] += matrix.elements.byteCount
        }
        return bytes.max { $0.value < $1.value }?.key ?? ""
    }
}
