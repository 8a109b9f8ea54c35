import COpenBLAS
import Compute
import Glibc
import Tensors

/// The library that `linear` is compared with.
enum OpenBLAS {
    private static let coreVariable = "OPENBLAS_CORETYPE"

    /// Makes OpenBLAS use the widest vectors that our kernels use, by starting the program again.
    ///
    /// Some versions know a CPU with AVX-512 only as one with AVX2 and run at half speed. They
    /// choose while the program is loaded, so only the environment before the start changes it. A
    /// lesser core in the environment is replaced: the comparison is with the best it can do.
    static func chooseCore() {
        let cores = [("avx512", "SkylakeX"), ("avx", "Haswell")]
        let name = Kernels.best.name
        guard let core = cores.first(where: { name.hasPrefix($0.0) })?.1 else { return }
        if let chosen = getenv(coreVariable), String(cString: chosen) == core { return }
        setenv(coreVariable, core, 1)
        execv("/proc/self/exe", CommandLine.unsafeArgv)
        fail("cannot start again with \(coreVariable)=\(core)")
    }

    /// Sets the number of threads and describes what runs: the core and its threads.
    static func prepare(threads: Int) -> String {
        openblas_set_num_threads(Int32(threads))
        let core = String(cString: openblas_get_corename())
        return "\(core), \(openblas_get_num_threads()) threads"
    }

    /// y = x wᵀ, all float32: `[rows, k]`, `[columns, k]`, `[rows, columns]`.
    static func linear(_ x: Tensor, _ weight: Tensor, into y: Tensor) {
        let (rows, columns, k) = (Int32(x.rows), Int32(weight.rows), Int32(x.rowCount))
        cblas_sgemm(
            CblasRowMajor,
            CblasNoTrans,
            CblasTrans,
            rows,
            columns,
            k,
            1,
            x.floats,
            k,
            weight.floats,
            k,
            0,
            y.floats,
            columns
        )
    }
}
