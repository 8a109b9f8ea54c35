import Checkpoints
import JSON
import Tensors

/// A JSON file of settings beside some weights, such as `transformer/config.json`.
///
/// Every read checks the type and the range, so nothing read from it can overflow later.
struct ConfigurationFile {
    /// Path, for messages.
    let path: String
    private let root: [String: JSONValue]

    /// Largest whole number accepted; products of two stay far from overflow.
    static let largestInteger = 1 << 24
    private static let largestByteCount = 1 << 24

    /// Reads the file at `path`; nil when there is none.
    ///
    /// - Throws: When it cannot be read or is not an object.
    init?(path: String) throws(CheckpointError) {
        guard let bytes = try Self.contents(of: path) else { return nil }
        self.init(path: path, root: try jsonObject(bytes, path: path))
    }

    /// Reads the `config.json` of some weights; nil when there is none.
    ///
    /// - Parameters:
    ///   - weights: A safetensors file, an index of shards, or a folder with either.
    ///   - className: What `_class_name` must say beside a single file, whose folder may be another
    ///     model's; nil for anything.
    /// - Throws: When it cannot be read or is not an object.
    init?(beside weights: String, className: String? = nil) throws(CheckpointError) {
        let isFolder = PathText.kind(weights) == .folder
        let folder = isFolder ? weights : PathText.parent(weights)
        try self.init(path: PathText.inside(folder, "config.json"))
        guard let className, !isFolder, weights.hasSuffix(".safetensors") else { return }
        if root["_class_name"] != .string(className) { return nil }
    }

    /// The bytes of a file; nil when there is nothing at `path`.
    ///
    /// - Throws: `.unreadable`, also for what is no regular file or too large to be settings.
    private static func contents(of path: String) throws(CheckpointError) -> [UInt8]? {
        do throws(MappingError) {
            let file = try MappedFile(path: path)
            guard file.byteCount <= largestByteCount else {
                throw .unreadable(path: path, reason: "it has more than 16 MiB")
            }
            return unsafe file.withBytes { unsafe [UInt8]($0) }
        } catch .missing {
            return nil
        } catch .empty {
            return []
        } catch {
            throw CheckpointError(error)
        }
    }

    /// Takes settings from elsewhere; `path` is named in messages.
    init(path: String, root: [String: JSONValue]) {
        self.path = path
        self.root = root
    }

    /// The object at `key` with the same file's path; nil when there is none.
    func object(_ key: String) throws(CheckpointError) -> ConfigurationFile? {
        switch root[key] {
        case nil, .null: return nil
        case .object(let object): return ConfigurationFile(path: path, root: object)
        default: throw mismatch(key, "an object")
        }
    }

    /// A whole number in `range`; nil when there is none.
    func integer(
        _ key: String,
        in range: ClosedRange<Int> = 1...largestInteger
    ) throws(CheckpointError) -> Int? {
        switch root[key] {
        case nil, .null: return nil
        case .integer(let value) where range.contains(value): return value
        default:
            throw mismatch(key, "a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
    }

    /// Whole numbers from 0 to `largestInteger`; nil when there is no such list.
    func integers(_ key: String) throws(CheckpointError) -> [Int]? {
        guard let elements = try array(key) else { return nil }
        var integers: [Int] = []
        for element in elements {
            guard case .integer(let value) = element, (0...Self.largestInteger).contains(value)
            else { throw mismatch(key, "a list of whole numbers from 0") }
            integers.append(value)
        }
        return integers
    }

    /// As many numbers as `count` says, rounded to float32; nil when there is no such list.
    func floats(_ key: String, count: Int) throws(CheckpointError) -> [Float]? {
        guard let elements = try array(key) else { return nil }
        let numbers = elements.compactMap(Self.number).map { Float($0) }.filter(\.isFinite)
        guard elements.count == count, numbers.count == count else {
            throw mismatch(key, "\(count) numbers")
        }
        return numbers
    }

    /// A number above 0; nil when there is none.
    func positiveNumber(_ key: String) throws(CheckpointError) -> Double? {
        guard let value = root[key], value != .null else { return nil }
        guard let number = Self.number(value), number > 0 else {
            throw mismatch(key, "a number above 0")
        }
        return number
    }

    /// A number in `range`; nil when there is none.
    func number(_ key: String, in range: ClosedRange<Double>) throws(CheckpointError) -> Double? {
        guard let value = root[key], value != .null else { return nil }
        guard let number = Self.number(value), range.contains(number) else {
            throw mismatch(key, "a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// A text; nil when there is none.
    func string(_ key: String) throws(CheckpointError) -> String? {
        switch root[key] {
        case nil, .null: return nil
        case .string(let value): return value
        default: throw mismatch(key, "a text")
        }
    }

    /// A truth value; nil when there is none.
    func bool(_ key: String) throws(CheckpointError) -> Bool? {
        switch root[key] {
        case nil, .null: return nil
        case .bool(let value): return value
        default: throw mismatch(key, "true or false")
        }
    }

    /// The error for a value that is not what it should be.
    func mismatch(_ key: String, _ expected: String) -> CheckpointError {
        .damaged(
            path: path,
            tensor: nil,
            found: "\"\(key)\" \(root[key] ?? .null)",
            expected: expected
        )
    }

    /// A list of at most 4096 values; nil when there is none.
    func array(_ key: String) throws(CheckpointError) -> [JSONValue]? {
        switch root[key] {
        case nil, .null: return nil
        case .array(let elements) where elements.count <= 4096: return elements
        default: throw mismatch(key, "a list")
        }
    }

    private static func number(_ value: JSONValue) -> Double? {
        value.double.flatMap { $0.isFinite ? $0 : nil }
    }
}
