import Checkpoints
import Compute
import JSON

/// Sizes of the autoencoder and the statistics of its latents.
///
/// Source: `AutoencoderKLQwenImage` in diffusers 0.42.1.
struct AutoencoderConfig: Sendable, Equatable {
    /// Channels of a latent.
    let latentChannels: Int
    /// Channels at each resolution, the picture's own first and that of the latent last.
    let channels: [Int]
    /// Residual blocks at each resolution of the encoder; the decoder has one more.
    let residualBlocks: Int
    /// Mean of each latent channel.
    let latentMean: [Float]
    /// Standard deviation of each latent channel.
    let latentDeviation: [Float]

    /// Resolutions, each half of the one before.
    static let resolutions = 4
    /// Rows and columns of the picture for one of the latent.
    static let scale = 1 << (resolutions - 1)
    /// Channels of the picture.
    static let pictureChannels = 3

    /// Statistics of the Qwen-Image and Wan 2.1 latents, which files without configuration have.
    static let releasedMean: [Float] = [
        -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715,
        0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
    ]
    /// See `releasedMean`.
    static let releasedDeviation: [Float] = [
        2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652,
        1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
    ]

    /// Channels at any resolution: upsampling halves them, and the middle attends with one head of
    /// all its channels.
    static let channelRange = 2...Operators.largestHeadSize
    /// Most residual blocks at a resolution.
    static let mostResidualBlocks = 16
}

// MARK: Parts of the decoder

extension AutoencoderConfig {
    /// Sizes of the decoder's blocks at one resolution.
    struct UpBlock: Sendable, Equatable {
        /// Channels that come in.
        let inputChannels: Int
        /// Channels of all residual blocks' results.
        let outputChannels: Int
        /// Channels after the upsampling, nil where there is none.
        let upsampledChannels: Int?
    }

    /// Channels at the latent's resolution.
    var middleChannels: Int { channels[channels.count - 1] }

    /// From the latent's resolution to the picture's.
    var upBlocks: [UpBlock] {
        var input = middleChannels
        return channels.reversed().enumerated().map { index, output in
            let upsampled = index < channels.count - 1 ? output / 2 : nil
            defer { input = upsampled ?? output }
            return UpBlock(
                inputChannels: input,
                outputChannels: output,
                upsampledChannels: upsampled
            )
        }
    }
}

// MARK: Configuration file

extension AutoencoderConfig {
    /// Reads a diffusers configuration.
    ///
    /// - Parameters:
    ///   - bytes: Contents of `vae/config.json`.
    ///   - path: Where they come from, for errors.
    /// - Throws: `.damaged` for what is no JSON, for fields that are missing or out of range, and
    ///   for autoencoders of another structure.
    init(json bytes: [UInt8], path: String) throws(CheckpointError) {
        let file = try ConfigFields(bytes, path: path)
        let most = Self.channelRange.upperBound
        let width = try file.integer("base_dim", in: 1...most)
        let multipliers = try file.integers("dim_mult", count: Self.resolutions)
        let latentChannels = try file.integer("z_dim", in: 1...most)
        try file.requireEmpty("attn_scales")
        let channels = multipliers.map { $0.multipliedReportingOverflow(by: width) }
        guard channels.allSatisfy({ !$0.overflow && Self.channelRange ~= $0.partialValue }) else {
            throw file.damaged(
                "\"dim_mult\" \(multipliers) for \"base_dim\" \(width)",
                "\(Self.channelRange.lowerBound) to \(most) channels in all blocks"
            )
        }
        self.channels = channels.map(\.partialValue)
        self.latentChannels = latentChannels
        residualBlocks = try file.integer("num_res_blocks", in: 1...Self.mostResidualBlocks)
        latentMean = try file.floats("latents_mean", count: latentChannels)
        latentDeviation = try file.floats("latents_std", count: latentChannels)
        guard latentDeviation.allSatisfy({ $0 > 0 }) else {
            throw file.damaged("\"latents_std\" with a number of 0 or less", "numbers above 0")
        }
    }
}

/// The members of a configuration file's object.
private struct ConfigFields {
    private let members: [String: JSONValue]
    private let path: String

    init(_ bytes: [UInt8], path: String) throws(CheckpointError) {
        self.path = path
        let value: JSONValue
        do throws(JSONParser.Failure) {
            value = try JSONParser.parse(bytes)
        } catch {
            throw .damaged(
                path: path,
                tensor: nil,
                found: "\(error.problem) at byte \(error.position)",
                expected: "JSON"
            )
        }
        guard case .object(let members) = value else {
            throw .damaged(
                path: path,
                tensor: nil,
                found: "another JSON value",
                expected: "an object"
            )
        }
        self.members = members
    }

    func damaged(_ found: String, _ expected: String) -> CheckpointError {
        .damaged(path: path, tensor: nil, found: found, expected: expected)
    }

    func integer(_ name: String, in range: ClosedRange<Int>) throws(CheckpointError) -> Int {
        let expected = "a whole number from \(range.lowerBound) to \(range.upperBound)"
        guard let value = members[name] else { throw damaged("no \"\(name)\"", expected) }
        guard case .integer(let integer) = value, range.contains(integer) else {
            throw damaged("another \"\(name)\"", expected)
        }
        return integer
    }

    func integers(_ name: String, count: Int) throws(CheckpointError) -> [Int] {
        try array(name, count: count, of: "whole numbers") { value in
            if case .integer(let integer) = value { integer } else { nil }
        }
    }

    /// Finite numbers.
    func floats(_ name: String, count: Int) throws(CheckpointError) -> [Float] {
        try array(name, count: count, of: "numbers") { value in
            let number: Float? =
                switch value {
                case .integer(let integer): Float(integer)
                case .number(let number): Float(number)
                default: nil
                }
            return number.flatMap { $0.isFinite ? $0 : nil }
        }
    }

    /// Accepts an empty array, or nothing.
    func requireEmpty(_ name: String) throws(CheckpointError) {
        guard members[name] == nil || members[name] == .array([]) else {
            throw damaged("a \"\(name)\" that is not empty", "[]")
        }
    }

    private func array<Element>(
        _ name: String,
        count: Int,
        of kind: String,
        _ element: (JSONValue) -> Element?
    ) throws(CheckpointError) -> [Element] {
        let expected = "\(count) \(kind)"
        guard let value = members[name] else { throw damaged("no \"\(name)\"", expected) }
        guard case .array(let values) = value else {
            throw damaged("another \"\(name)\"", expected)
        }
        let elements = values.compactMap(element)
        guard values.count == count, elements.count == count else {
            throw damaged("another \"\(name)\"", expected)
        }
        return elements
    }
}
