import Checkpoints

/// How an autoencoder's file names its tensors; the model asks for diffusers' names.
struct AutoencoderNames: Sendable, Equatable {
    /// Who gave the names.
    enum Layout: Sendable {
        /// diffusers 0.42.1, `AutoencoderKLQwenImage`.
        case diffusers
        /// The Wan 2.1 code, and the files for ComfyUI.
        case wan
    }

    /// Who gave the names.
    let layout: Layout
    /// Residual blocks of a level of the encoder, on which the places in Wan's lists depend.
    let residualBlocks: Int

    /// The name in the file.
    ///
    /// - Parameter name: A diffusers name.
    /// - Returns: The name; the same for names that are not an autoencoder's.
    func stored(_ name: String) -> String {
        guard layout == .wan else { return name }
        let parts = name.split(separator: ".").map(String.init)
        switch parts.first {
        case "quant_conv": return (["conv1"] + parts.dropFirst()).joined(separator: ".")
        case "post_quant_conv": return (["conv2"] + parts.dropFirst()).joined(separator: ".")
        case "encoder", "decoder":
            return (parts.prefix(1) + wan(parts.dropFirst())).joined(separator: ".")
        default: return name
        }
    }

    /// Whether a part does without a tensor when it works on single pictures.
    ///
    /// - Parameters:
    ///   - name: Name in the file.
    ///   - part: What would use it.
    /// - Returns: True for the other part's tensors and for convolutions over time.
    func isUnused(_ name: String, by part: AutoencoderPart) -> Bool {
        let names = [
            ("encoder.", "conv1.", "quant_conv."), ("decoder.", "conv2.", "post_quant_conv."),
        ]
        let (own, other) = part == .encoder ? (names[0], names[1]) : (names[1], names[0])
        return name.hasPrefix(other.0) || name.hasPrefix(layout == .wan ? other.1 : other.2)
            || (name.hasPrefix(own.0) && name.contains(".time_conv."))
    }

    // MARK: Wan

    /// Renames what follows `encoder.` or `decoder.`.
    private func wan(_ parts: ArraySlice<String>) -> [String] {
        let parts = Array(parts)
        switch parts.first {
        case "conv_in": return ["conv1"] + parts.dropFirst()
        case "norm_out": return ["head", "0"] + parts.dropFirst()
        case "conv_out": return ["head", "2"] + parts.dropFirst()
        case "mid_block" where parts.count > 3:
            let (list, rest) = (parts[1], Array(parts.dropFirst(3)))
            guard list == "resnets", let index = Int(parts[2]) else {
                return ["middle", "1"] + rest
            }
            return ["middle", "\(2 * index)"] + Self.residual(rest)
        case "down_blocks" where parts.count > 2:
            return ["downsamples", parts[1]] + Self.residual(Array(parts.dropFirst(2)))
        case "up_blocks" where parts.count > 4:
            guard let block = Int(parts[1]), let index = Int(parts[3]) else { return parts }
            let (first, rest) = (block * (residualBlocks + 2), Array(parts.dropFirst(4)))
            guard parts[2] == "resnets" else {
                return ["upsamples", "\(first + residualBlocks + 1)"] + rest
            }
            return ["upsamples", "\(first + index)"] + Self.residual(rest)
        default: return parts
        }
    }

    /// Renames a tensor inside a residual block.
    private static func residual(_ parts: [String]) -> [String] {
        let places = [
            "norm1": ["residual", "0"], "conv1": ["residual", "2"], "norm2": ["residual", "3"],
            "conv2": ["residual", "6"], "conv_shortcut": ["shortcut"],
        ]
        guard let first = parts.first, let place = places[first] else { return parts }
        return place + parts.dropFirst()
    }
}

// MARK: Recognition

extension AutoencoderNames {
    /// Tells the layout, and takes off what stands before the names.
    ///
    /// - Parameter checkpoint: Tensors of an autoencoder, perhaps with others, under names that
    ///   share a prefix such as `first_stage_model.`.
    /// - Returns: The layout, and the autoencoder's tensors without the prefix.
    /// - Throws: When it is not such an autoencoder.
    static func recognise(
        _ checkpoint: Checkpoint
    ) throws(CheckpointError) -> (AutoencoderNames, Checkpoint) {
        let marks: [(Layout, [String])] = [
            (.diffusers, ["decoder.conv_in.weight", "decoder.conv_out.weight"]),
            (.wan, ["decoder.middle.0.residual.0.gamma", "decoder.conv1.weight"]),
        ]
        for (layout, names) in marks {
            for name in names {
                guard let prefix = checkpoint.prefixes(of: name).first else { continue }
                let tensors = checkpoint.strippingPrefix(prefix)
                let blocks = residualBlocks(layout, tensors)
                return (AutoencoderNames(layout: layout, residualBlocks: blocks), tensors)
            }
        }
        throw .damaged(
            path: checkpoint.path,
            tensor: nil,
            found: "neither decoder.conv_in.weight nor Wan's names",
            expected: "a Qwen-Image or Wan 2.1 autoencoder"
        )
    }

    /// What the place of the first upsampling, or the number of blocks before it, says.
    private static func residualBlocks(_ layout: Layout, _ checkpoint: Checkpoint) -> Int {
        let (start, mark) =
            switch layout {
            case .diffusers: ("decoder.up_blocks.0.resnets.", "")
            case .wan: ("decoder.upsamples.", ".resample.")
            }
        let places = checkpoint.names.filter { $0.hasPrefix(start) }
            .map { $0.dropFirst(start.count) }.filter { mark.isEmpty || $0.contains(mark) }
            .compactMap { Int($0.prefix { $0 != "." }) }.filter { $0 >= 0 }
        let last = layout == .wan ? places.min().map { $0 - 1 } : places.max()
        let usual = 2
        return min(max(last ?? usual, 1), AutoencoderConfig.mostResidualBlocks)
    }
}
