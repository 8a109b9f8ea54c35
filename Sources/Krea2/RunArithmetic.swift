import Compute
import Tensors

/// Arithmetic of the linear layers.
///
/// Sums, norms, softmax and the residual streams are float32 in all of them.
public enum Precision: String, Sendable, CaseIterable {
    /// Weights as the file has them, or dequantised; activations in float32.
    case float32 = "f32"
    /// Weights and activations in bfloat16; int8 and float8 weights are exact in it.
    case bfloat16 = "bf16"
    /// The transformer's weights in int8, quantised where the file has them in another type;
    /// activations are quantised row by row when they are multiplied. The rest in bfloat16.
    case int8
    /// As the file: int8 for int8 weights, bfloat16 for others of at most 16 bits, float32 for
    /// float32.
    case automatic = "auto"

    /// The policy of a network with these matrices.
    fileprivate func policy(for matrices: [WeightMatrix]) -> ArithmeticPolicy {
        switch self {
        case .float32: return .float32
        case .bfloat16: return .bfloat16
        case .int8: return .int8
        case .automatic:
            let types = Set(matrices.map(\.elements.elementType))
            if types.contains(.int8) { return .stored }
            return types.isSubset(of: [.float32]) ? .float32 : .bfloat16
        }
    }
}

/// What each network of a run computes in, on the kernels of this machine.
struct RunArithmetic {
    let textEncoder: ArithmeticPolicy
    let textFusion: ArithmeticPolicy
    let transformer: ArithmeticPolicy
    let autoencoder: ArithmeticPolicy
    let kernels: Kernels
    /// What the transformer's blocks really compute in; never automatic.
    let effective: Precision
    /// What the linear layers of the others do.
    let textEncoderPrecision: Precision
    let textFusionPrecision: Precision

    /// Decides by the wish, the files and the machine.
    init(
        _ wish: Precision,
        textEncoder: [WeightMatrix],
        textFusion: [WeightMatrix],
        blocks: [WeightMatrix],
        kernels: Kernels
    ) {
        // Only the transformer's blocks are worth quantising at run time.
        let others = wish == .int8 ? Precision.automatic : wish
        self.kernels = kernels
        self.textEncoder = others.policy(for: textEncoder).supported(by: kernels)
        self.textFusion = others.policy(for: textFusion).supported(by: kernels)
        let transformer = wish.policy(for: blocks).supported(by: kernels)
        self.transformer = transformer
        autoencoder =
            transformer == .float32 ? .float32 : ArithmeticPolicy.bfloat16.supported(by: kernels)
        effective = transformer.precision(of: blocks)
        textEncoderPrecision = self.textEncoder.precision(of: textEncoder)
        textFusionPrecision = self.textFusion.precision(of: textFusion)
    }

    /// What the transformer's attention computes in.
    var attentionPrecision: Precision {
        activations(transformer) == .bfloat16 ? .bfloat16 : .float32
    }

    /// What the autoencoder's convolutions compute in.
    var autoencoderPrecision: Precision { autoencoder == .float32 ? .float32 : .bfloat16 }

    /// How a network keeps activations between its layers.
    func activations(_ policy: ArithmeticPolicy) -> ElementType { policy.activations(on: kernels) }
}

extension ArithmeticPolicy {
    /// The narrowest arithmetic that it has for any of a network's matrices.
    fileprivate func precision(of matrices: [WeightMatrix]) -> Precision {
        let used = matrices.map { quantizes($0) ? .int8 : arithmetic(for: $0) }
        return Precision([.int8, .bfloat16].first(where: used.contains) ?? .float32)
    }
}
