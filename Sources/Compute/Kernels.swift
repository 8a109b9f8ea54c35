import CKernels

/// One implementation of the numeric kernels.
package struct Kernels: Sendable {
    let table: kernel_table

    init(_ table: kernel_table) { self.table = table }

    /// The fastest implementation this CPU runs.
    package static let best = Kernels(kernels_best().pointee)

    /// The implementation called `name`, unless this build or this CPU lacks it.
    package init?(named name: String) {
        guard let table = kernels_named(name) else { return nil }
        self.init(table.pointee)
    }

    /// Names of all implementations in this build, fastest first.
    package static var allNames: [String] {
        var names: [String] = []
        while let name = kernels_name_at(names.count) { names.append(String(cString: name)) }
        return names
    }

    /// "avx512bf16", "avx2" and so on, as in `allNames`.
    package var name: String { String(cString: table.name) }

    /// Whether there are instructions for products in `arithmetic`.
    package func supports(_ arithmetic: Arithmetic) -> Bool {
        switch arithmetic {
        case .float32: true
        case .bfloat16: table.products.1 != nil
        case .int8: table.products.2 != nil
        }
    }
}

extension kernel_table {
    /// The products of an arithmetic that the level supports; float32's where it does not.
    func products(_ arithmetic: Arithmetic) -> product_kernels {
        let found =
            switch arithmetic {
            case .float32: products.0
            case .bfloat16: products.1
            case .int8: products.2
            }
        guard let kernels = found ?? products.0 else {
            preconditionFailure("\(String(cString: name)) has no products")
        }
        return kernels.pointee
    }
}
