import CKernels

/// One implementation of the numeric kernels.
package struct Kernels: Sendable {
    let table: kernel_table

    private init(_ table: kernel_table) { self.table = table }

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

    /// "scalar", "generic", "avx2" or "avx512".
    package var name: String { String(cString: table.name) }
}
