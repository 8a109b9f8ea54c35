import CKernels
import Tensors
import Testing

@testable import Compute

struct KernelsTests {
    @Test func listsEveryImplementationFastestFirst() {
        #if arch(x86_64)
            #expect(
                Kernels.allNames == [
                    "avx512bf16", "avx512vnni", "avx512", "avxvnni", "avx2", "generic", "scalar",
                ]
            )
        #else
            #expect(Kernels.allNames == ["generic", "scalar"])
        #endif
        #expect(Kernels.allNames.first { Kernels(named: $0) != nil } == Kernels.best.name)
    }

    #if arch(x86_64)
        /// Processors that this machine need not be, by what they have.
        @Test(arguments: [
            ("before 2013", [], "generic"), ("Haswell, Zen", [cpu_avx2], "avx2"),
            ("Alder Lake", [cpu_avx2, cpu_avxvnni], "avxvnni"),
            ("Skylake-X", [cpu_avx2, cpu_avx512], "avx512"),
            ("Cascade Lake", [cpu_avx2, cpu_avx512, cpu_avx512vnni], "avx512vnni"),
            (
                "Cooper Lake, Zen 4", [cpu_avx2, cpu_avx512, cpu_avx512vnni, cpu_avx512bf16],
                "avx512bf16"
            ), ("BF16 without the rest", [cpu_avx2, cpu_avx512bf16], "avx2"),
            ("VNNI without AVX-512", [cpu_avx512vnni], "generic"),
        ])
        func choosesByTheProcessor(processor: String, features: [Int], level: String) {
            let table = kernels_best_with(features.reduce(0) { $0 | UInt32($1) })
            #expect(String(cString: table.pointee.name) == level, "\(processor)")
        }
    #endif

    @Test func refusesUnknownNames() {
        #expect(Kernels(named: "avx1024") == nil)
        #expect(Kernels(named: "") == nil)
    }

    @Test func linearTrapsOnShapesThatDoNotFit() async {
        await #expect(processExitsWith: .failure) {
            Operators(threads: 1)
                .linear(
                    Tensor(zeros: [2, 3]),
                    WeightMatrix(Tensor(zeros: [4, 5])),
                    into: Tensor(zeros: [2, 4])
                )
        }
        await #expect(processExitsWith: .failure) {
            Operators(threads: 1)
                .linear(
                    Tensor(zeros: [2, 3]),
                    WeightMatrix(Tensor(zeros: [4, 3])),
                    into: Tensor(zeros: [2, 3])
                )
        }
    }

    @Test func attentionTrapsOnShapesThatDoNotFit() async {
        await #expect(processExitsWith: .failure) {
            let (query, key) = (Tensor(zeros: [2, 12]), Tensor(zeros: [5, 8]))
            Operators(threads: 1)
                .attention(query, key, key, heads: 3, keyValueHeads: 2, into: query)
        }
    }

    @Test func convolutionTrapsOnMissingRows() async {
        await #expect(processExitsWith: .failure) {
            let operators = Operators(threads: 1)
            let kernel = Tensor(zeros: [1, 3, 3, 1])
            operators.convolution(
                ImageRows(Tensor(zeros: [2, 4, 1]), firstRow: 1, imageHeight: 9),
                ConvolutionWeights(kernel, bias: Tensor(zeros: [1]), for: operators),
                rows: 1..<3,
                into: Tensor(zeros: [2, 4, 1])
            )
        }
    }

    @Test func normsTrapOnShapesThatDoNotFit() async {
        await #expect(processExitsWith: .failure) {
            let x = Tensor(zeros: [2, 4])
            Operators(threads: 1)
                .rmsNorm(
                    x,
                    RowNorm(weight: Tensor(zeros: [3]), stored: .plain, epsilon: 0),
                    into: x
                )
        }
    }
}
