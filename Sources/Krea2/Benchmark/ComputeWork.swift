/// Multiplications and additions, by what they are part of and by their arithmetic.
public struct ComputeWork: Sendable, Equatable {
    /// What most of the operations are part of.
    public enum Kind: String, Sendable, CaseIterable {
        /// Linear layers.
        case linear
        /// Scores of attention and sums weighted by them.
        case attention
        /// 3×3 convolutions.
        case convolution
    }

    /// Operations of one kind in one arithmetic.
    public struct Part: Sendable, Equatable {
        /// What they are part of.
        public let kind: Kind
        /// Their arithmetic; never automatic.
        public let precision: Precision
        /// Multiplications and additions.
        public fileprivate(set) var operations: Double
    }

    /// Each kind and arithmetic once.
    public private(set) var parts: [Part] = []

    /// Nothing to do.
    public init() {}

    /// One kind of work.
    ///
    /// - Parameters:
    ///   - kind: What the operations are part of.
    ///   - precision: Their arithmetic; not automatic.
    ///   - operations: Multiplications and additions.
    public init(_ kind: Kind, _ precision: Precision, _ operations: Double) {
        parts = [Part(kind: kind, precision: precision, operations: operations)]
    }

    /// All operations.
    public var total: Double { parts.reduce(0) { $0 + $1.operations } }

    /// Both together.
    public static func + (a: ComputeWork, b: ComputeWork) -> ComputeWork {
        var sum = a
        for part in b.parts {
            let place = sum.parts.firstIndex {
                $0.kind == part.kind && $0.precision == part.precision
            }
            if let place {
                sum.parts[place].operations += part.operations
            } else {
                sum.parts.append(part)
            }
        }
        return sum
    }

    /// The same work several times.
    public static func * (count: Double, work: ComputeWork) -> ComputeWork {
        var product = work
        for index in product.parts.indices { product.parts[index].operations *= count }
        return product
    }
}
