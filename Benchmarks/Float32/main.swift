// Speed of the float32 operators, and of `linear` against OpenBLAS in the same process.

import Compute
import Glibc
import Tensors

/// What the command line asks for.
struct Options {
    static let usage = """
        usage: float32-benchmark [linear] [attention] [convolution] [--model DIR]
                                 [--rows N[,N…]] [--repetitions N] [--threads N] [--kernels NAME]

        Without a name, all three. Default rows: 320 (a 256² image and 64 text tokens) and 4160
        (1024²). With a model, such as one with three blocks of the real width, its blocks at
        256² and 1024² alone. Figures are medians; what prepares the inputs is not timed.
        """

    var groups: [String] = []
    var rows = [64 + 256, 64 + 4096]
    var repetitions = 5
    var threads = sysconf(Int32(_SC_NPROCESSORS_ONLN))
    var kernels = Kernels.best
    var model: String?

    init(_ arguments: ArraySlice<String>) {
        var rest = arguments
        while let argument = rest.popFirst() {
            switch argument {
            case "linear", "attention", "convolution": groups.append(argument)
            case "--rows": rows = Self.numbers(rest.popFirst())
            case "--repetitions": repetitions = Self.numbers(rest.popFirst())[0]
            case "--threads": threads = Self.numbers(rest.popFirst())[0]
            case "--model":
                guard let path = rest.popFirst() else { fail(Self.usage) }
                model = path
            case "--kernels":
                guard let kernels = Kernels(named: rest.popFirst() ?? "") else { fail(Self.usage) }
                self.kernels = kernels
            default: fail(Self.usage)
            }
        }
        if groups.isEmpty && model == nil { groups = ["linear", "attention", "convolution"] }
    }

    /// One or more positive numbers.
    private static func numbers(_ text: String?) -> [Int] {
        let numbers = (text ?? "").split(separator: ",").map { Int($0) ?? 0 }
        guard !numbers.isEmpty, numbers.allSatisfy({ (1...1 << 20).contains($0) }) else {
            fail(usage)
        }
        return numbers
    }
}

OpenBLAS.chooseCore()
let options = Options(CommandLine.arguments.dropFirst())
let operators = Operators(kernels: options.kernels, threads: options.threads)
print("kernels \(options.kernels.name), \(options.threads) threads")
print("OpenBLAS \(OpenBLAS.prepare(threads: options.threads))")

if let model = options.model {
    for side in [256, 1024] { try compareBlocks(model, side: side, options: options) }
}
for group in options.groups {
    switch group {
    case "linear":
        for rows in options.rows {
            compareLinear(operators, rows: rows, type: .bfloat16, repetitions: options.repetitions)
            compareLinear(operators, rows: rows, type: .float32, repetitions: options.repetitions)
        }
    case "attention":
        timeAttention(operators, tokens: 64 + 4096, repetitions: options.repetitions)
    default:
        timeConvolution(operators, upsampling: 1, repetitions: options.repetitions)
        timeConvolution(operators, upsampling: 2, repetitions: options.repetitions)
    }
}
