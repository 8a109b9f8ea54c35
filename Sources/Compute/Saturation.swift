import CKernels

extension Kernels {
    /// Multiplications and additions of one round of `Operators.saturate`, on one thread.
    ///
    /// - Parameter arithmetic: One that the kernels support.
    /// - Returns: Their number.
    package func operationsPerRound(_ arithmetic: Arithmetic) -> Int {
        let products = table.products(arithmetic)
        return 2 * products.row_panel * products.column_panel * products.group
    }
}

extension Operators {
    /// Multiplies in registers on all threads, as fast as the instructions of an arithmetic go.
    ///
    /// - Parameters:
    ///   - arithmetic: One that the kernels support.
    ///   - rounds: Rounds of each thread, if all are equally fast.
    /// - Returns: Multiplications and additions that were done.
    package func saturate(_ arithmetic: Arithmetic, rounds: Int) -> Double {
        let kernels = Kernels(table)
        precondition(kernels.supports(arithmetic), "\(kernels.name) has no \(arithmetic)")
        let products = table.products(arithmetic)
        // Numbers with many bits set, since zeros take less power, and sums that do not grow far.
        let (x, w): (UInt32, UInt32) =
            switch arithmetic {
            case .float32: (Float(1.1).bitPattern, Float(0.9e-6).bitPattern)
            case .bfloat16: (0x3F8C_3F8C, 0x3571_3571)
            case .int8: (0x4CB3_4DB2, 0x8398_7C64)
            }
        let parts = 8
        let count = products.row_panel * products.column_panel
        parallelTasks(parts * threads) { _, worker in
            let sums = workspace(worker).sums.0
            sums.update(repeating: 0, count: count)
            products.saturate(sums, x, w, rounds / parts)
        }
        return Double(parts * threads) * Double(rounds / parts)
            * Double(kernels.operationsPerRound(arithmetic))
    }
}
