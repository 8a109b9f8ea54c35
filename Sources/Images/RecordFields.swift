internal import JSON

/// An object in the JSON of a record, with its place for messages.
struct RecordFields {
    private let members: [String: JSONValue]
    /// What stands before the names of the members: nothing, or `digests.`.
    private let prefix: String

    init(json: String) throws(ImageError) {
        let value: JSONValue
        do {
            value = try JSONParser.parse(Array(json.utf8))
        } catch {
            throw .invalidRecord(reason: "\(error.problem) at byte \(error.position) of its JSON")
        }
        guard case .object(let members) = value else {
            throw .invalidRecord(reason: "it is not a JSON object")
        }
        self.members = members
        prefix = ""
    }

    private init(members: [String: JSONValue], prefix: String) {
        self.members = members
        self.prefix = prefix
    }

    func object(_ key: String) throws(ImageError) -> RecordFields {
        guard case .object(let members) = try value(key) else { throw unusable(key) }
        return RecordFields(members: members, prefix: "\(prefix)\(key).")
    }

    /// Nil where the member is absent or null.
    func optionalObject(_ key: String) throws(ImageError) -> RecordFields? {
        switch members[key] {
        case nil, .null: nil
        default: try object(key)
        }
    }

    /// The objects of a list; none where there is no such member.
    func objects(_ key: String) throws(ImageError) -> [RecordFields] {
        guard let value = members[key] else { return [] }
        guard case .array(let elements) = value else { throw unusable(key) }
        var objects: [RecordFields] = []
        for case (let index, .object(let members)) in elements.enumerated() {
            objects.append(RecordFields(members: members, prefix: "\(prefix)\(key)[\(index)]."))
        }
        guard objects.count == elements.count else { throw unusable(key) }
        return objects
    }

    func string(_ key: String) throws(ImageError) -> String {
        guard case .string(let string) = try value(key) else { throw unusable(key) }
        return string
    }

    /// Nil where the member is absent or null.
    func optionalString(_ key: String) throws(ImageError) -> String? {
        switch members[key] {
        case nil, .null: nil
        default: try string(key)
        }
    }

    func integer(_ key: String) throws(ImageError) -> Int {
        guard case .integer(let integer) = try value(key) else { throw unusable(key) }
        return integer
    }

    func number(_ key: String) throws(ImageError) -> Double {
        guard let number = try value(key).double else { throw unusable(key) }
        return number
    }

    func numbers(_ key: String) throws(ImageError) -> [Double] {
        guard case .array(let elements) = try value(key) else { throw unusable(key) }
        let numbers = elements.compactMap(\.double)
        guard numbers.count == elements.count else { throw unusable(key) }
        return numbers
    }

    /// Nil where the member is absent or null.
    func optionalNumber(_ key: String) throws(ImageError) -> Double? {
        switch members[key] {
        case nil, .null: nil
        default: try number(key)
        }
    }

    /// Nil where the member is absent or null.
    func optionalNumbers(_ key: String) throws(ImageError) -> [Double]? {
        switch members[key] {
        case nil, .null: nil
        default: try numbers(key)
        }
    }

    func bool(_ key: String) throws(ImageError) -> Bool {
        guard case .bool(let bool) = try value(key) else { throw unusable(key) }
        return bool
    }

    /// Nil where the member is absent or null.
    func optionalBool(_ key: String) throws(ImageError) -> Bool? {
        switch members[key] {
        case nil, .null: nil
        default: try bool(key)
        }
    }

    func unusable(_ key: String) -> ImageError {
        .invalidRecord(reason: "\(prefix)\(key) has an unusable value")
    }

    private func value(_ key: String) throws(ImageError) -> JSONValue {
        guard let value = members[key] else {
            throw .invalidRecord(reason: "\(prefix)\(key) is missing")
        }
        return value
    }
}

extension GenerationRecord.LoRA {
    static func read(_ fields: RecordFields) throws(ImageError) -> [Self] {
        var loras: [Self] = []
        for fields in try fields.objects("loras") {
            loras.append(
                Self(
                    name: try fields.string("name"),
                    digest: try fields.string("digest"),
                    scale: Float(try fields.number("scale"))
                )
            )
        }
        return loras
    }
}

extension GenerationRecord.Slider {
    static func read(_ fields: RecordFields) throws(ImageError) -> [Self] {
        var sliders: [Self] = []
        for fields in try fields.objects("sliders") {
            sliders.append(
                Self(
                    name: try fields.string("name"),
                    value: try fields.integer("value"),
                    kind: try fields.string("kind"),
                    digest: try fields.string("digest"),
                    scale: Float(try fields.number("scale")),
                    window: try fields.numbers("window"),
                    isRandom: try fields.bool("isRandom"),
                    isApproximate: try fields.optionalBool("isApproximate") ?? false
                )
            )
        }
        return sliders
    }
}

extension GenerationRecord.InitialImage {
    static func read(_ fields: RecordFields) throws(ImageError) -> Self? {
        guard let fields = try fields.optionalObject("initialImage") else { return nil }
        return Self(
            digest: try fields.string("digest"),
            strength: try fields.number("strength"),
            maskDigest: try fields.optionalString("maskDigest")
        )
    }
}
