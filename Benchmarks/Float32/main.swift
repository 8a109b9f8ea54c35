// Speed of float32 linear layers against OpenBLAS in the same process.

import Compute
import Glibc
import Tensors

/// What the command line asks for.
struct Options {
    static let usage = """
        usage: float32-benchmark [--rows N[,N…]] [--repetitions N] [--threads N]
                                 [--kernels NAME]

        Default rows: 320 (a 256² image and 64 text tokens) and 4160 (1024²). Figures are
        medians; what prepares the inputs is not timed.
        """

    var rows = [64 + 256, 64 + 4096]
    var repetitions = 5
    var threads = sysconf(Int32(_SC_NPROCESSORS_ONLN))
    var kernels = Kernels.best

    init(_ arguments: ArraySlice<String>) {
        var rest = arguments
        while let argument = rest.popFirst() {
            switch argument {
            case "--rows": rows = Self.numbers(rest.popFirst())
            case "--repetitions": repetitions = Self.numbers(rest.popFirst())[0]
            case "--threads": threads = Self.numbers(rest.popFirst())[0]
            case "--kernels":
                guard let kernels = Kernels(named: rest.popFirst() ?? "") else { fail(Self.usage) }
                self.kernels = kernels
            default: fail(Self.usage)
            }
        }
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

for rows in options.rows {
    compareLinear(operators, rows: rows, type: .bfloat16, repetitions: options.repetitions)
    compareLinear(operators, rows: rows, type: .float32, repetitions: options.repetitions)
}
