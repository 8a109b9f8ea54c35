import FoundationEssentials
package import JSON

/// JSON as the commands write it: sorted keys, plain slashes.
enum JSONText {
    /// One line, without a line break at its end.
    static func line(_ value: some Encodable) -> String {
        text(value, pretty: false)
    }

    /// Several indented lines, without a line break at the end.
    static func pretty(_ value: some Encodable) -> String {
        text(value, pretty: true)
    }

    private static func text(_ value: some Encodable, pretty: Bool) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting =
            pretty
            ? [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
            : [.sortedKeys, .withoutEscapingSlashes]
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf",
            negativeInfinity: "-inf",
            nan: "nan"
        )
        do {
            return String(decoding: try encoder.encode(value), as: UTF8.self)
        } catch {
            // No type written here throws, and numbers without a JSON form become text.
            preconditionFailure("\(type(of: value)) does not encode: \(error)")
        }
    }
}

extension JSONValue: Encodable {
    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .integer(let value): try container.encode(value)
        case .number(let value): try container.encode(value)
        case .string(let value): try container.encode(value)
        case .array(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }
}
