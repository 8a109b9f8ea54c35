import Foundation
import Testing

@testable import Krea2

/// A case of `wirings/cases.json`: reference pictures in the transformer's sequence.
struct WiringCase: Decodable, Sendable, CustomTestStringConvertible {
    struct Reference: Decodable {
        /// Width and height for the autoencoder.
        let size: [Int]
        /// Width and height for the text encoder.
        let seen: [Int]
        let strength: Float
    }

    let name: String
    let model: String
    let wiring: String
    let references: [Reference]
    let prompt: String
    let negative: String?
    let guidance: Float
    let boost: Float
    let width: Int
    let height: Int
    let steps: Int
    let seed: UInt64

    var testDescription: String { name }

    static let all: [WiringCase] = Fixture.cases("wirings/cases.json")

    /// What the reference computed.
    var dump: FixtureTensors {
        get throws { try FixtureTensors("wirings/\(name).safetensors") }
    }

    /// What was asked for.
    var request: GenerationRequest {
        get throws {
            let dump = try dump
            let pictures = try references.enumerated().map { index, reference in
                WiredReferences.Picture(
                    width: reference.size[0],
                    height: reference.size[1],
                    rgb: try dump.bytes("reference.\(index).rgb"),
                    seen: ReferencePicture(
                        source: .init(content: "picture \(index)", treatment: "none", side: 384),
                        width: reference.seen[0],
                        height: reference.seen[1],
                        rgb: try dump.bytes("seen.\(index).rgb")
                    ),
                    strength: reference.strength
                )
            }
            let wiring = ReferenceWiring(rawValue: wiring) ?? .indexT0
            return GenerationRequest(
                prompt: prompt,
                negativePrompt: negative,
                width: width,
                height: height,
                steps: steps,
                guidance: guidance,
                seed: seed,
                wired: WiredReferences(wiring, pictures, boost: boost)
            )
        }
    }

    /// The model, in the variant of the case.
    func pipeline(
        _ precision: Precision = .float32,
        threads: Int = 2,
        memory: Int? = nil
    ) throws -> Pipeline {
        try FixtureModel.pipeline(
            model,
            precision,
            threads: threads,
            variant: guidance > 0 ? .raw : .turbo,
            memory: memory
        )
    }
}
