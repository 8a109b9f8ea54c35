import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Krea2

/// `.k2ref` files: what is written is read, and nothing else.
struct ReferenceFileTests {
    private let folder: TemporaryFolder
    private var fixture = ReferenceFixture()
    private static let encoder = ReferenceFixture.encoder

    init() throws {
        folder = try TemporaryFolder()
    }

    private var path: String { folder.file("a.k2ref") }

    private func read(_ encoder: EncoderIdentity = Self.encoder, isLenient: Bool = false) throws
        -> ReferenceFile
    {
        try ReferenceFile(path: path, for: encoder, isLenient: isLenient)
    }

    @Test mutating func keepsEveryBit() throws {
        var file = try fixture.reference()
        file.caption = "flat colours, \"thick\" lines\n"
        file.creator = "somebody"
        try file.write(to: path, overwriting: false)
        let found = try read()
        #expect(found == file)
        #expect(found.rows.bits == file.rows.bits)
        #expect(found.rows.key == file.rows.key)
        #expect(try folder.names() == ["a.k2ref"])
    }

    @Test mutating func holdsWhatItShouldAndNothingElse() throws {
        try fixture.reference().write(to: path, overwriting: false)
        let file = try SafetensorsFile(path: path)
        #expect(
            file.metadata == [
                "format": "k2ref", "version": "1", "encoder": "sha256:0123",
                "encoder_family": "qwen3-vl-test", "template": "sha256:4567", "prep": "none",
                "side": "256", "content": "pixels-sha256:ab", "checksum": try file.dataDigest(),
            ]
        )
        let forms = file.tensors.mapValues { "\($0.elementType.rawValue) \($0.shape)" }
        #expect(
            forms == [
                "taps": "BF16 [13, 3, 8]", "kind": "U8 [13]", "mult": "F32 [13]", "grid": "I32 [2]",
            ]
        )
        let kinds = try #require(file.tensor("kind")).values(as: UInt8.self)
        #expect(kinds == [1, 2, 2, 2, 2, 2, 2, 3, 4, 4, 4, 4, 4])
        #expect(try #require(file.tensor("grid")).values(as: Int32.self) == [2, 3])
        #expect(try #require(file.tensor("mult")).elements == [Float](repeating: 1, count: 13))
    }

    @Test func freshRowsAreThoseOfAFile() throws {
        // Neither is a bfloat16; 1.01171875 lies in the middle of two.
        let values: [Float] = [1.003, -0.1, 1.01171875, .init(bitPattern: 0x116C2)]
        let taps = Tensor((0..<9 * 24).map { values[$0 % 4] }, shape: [9, 3, 8])
        let file = try fixture.reference("c", taps: taps, rows: 1, columns: 2)
        #expect(file.rows.bits.prefix(4) == [0x3F80, 0xBDCD, 0x3F82, 0x0001])
        try file.write(to: path, overwriting: false)
        #expect(try read().rows.bits == file.rows.bits)
    }

    @Test func whatIsTooLargeIsRefused() throws {
        var values = [Float](repeating: 0, count: 9 * 24)
        values[7] = .greatestFiniteMagnitude
        #expect(throws: GenerationError.notFinite(stage: "text encoder", place: "taps in bfloat16"))
        {
            try fixture.reference(
                "c",
                taps: Tensor(values, shape: [9, 3, 8]),
                rows: 1,
                columns: 2
            )
        }
    }

    @Test mutating func replacesOnlyWhenAsked() throws {
        let file = try fixture.reference()
        try file.write(to: path, overwriting: false)
        #expect(throws: GenerationError.model(.exists(path: path))) {
            try file.write(to: path, overwriting: false)
        }
        let other = try fixture.reference("pixels-sha256:cd")
        try other.write(to: path, overwriting: true)
        #expect(try read() == other)
    }

    // MARK: Other encoders

    @Test mutating func refusesOtherEncoders() throws {
        try fixture.reference().write(to: path, overwriting: false)
        func identity(
            family: String = "qwen3-vl-test",
            digest: String = "sha256:0123",
            template: String = "sha256:4567",
            taps: Int = 3,
            width: Int = 8
        ) -> EncoderIdentity {
            EncoderIdentity(
                family: family,
                digest: digest,
                template: template,
                taps: taps,
                width: width
            )
        }
        let other = identity(digest: "sha256:9999")
        #expect(
            throws: GenerationError.reference(
                .otherEncoder(path: path, found: "sha256:0123", expected: "sha256:9999")
            )
        ) { try read(other) }
        let allowed = try read(other, isLenient: true)
        #expect(allowed.encoder == Self.encoder && allowed.rows.key.hasSuffix("sha256:0123"))
        for isLenient in [false, true] {
            #expect(throws: GenerationError.reference(.otherTemplate(path: path))) {
                try read(identity(template: "sha256:1"), isLenient: isLenient)
            }
            for foreign in [identity(family: "other"), identity(taps: 4), identity(width: 16)] {
                let error = #expect(throws: GenerationError.self) {
                    try read(foreign, isLenient: isLenient)
                }
                guard case .reference(.otherFamily) = error else {
                    Issue.record("\(String(describing: error))")
                    continue
                }
                #expect(error?.category == .unfitFile)
            }
        }
    }

    @Test(arguments: [("format", "k2board"), ("format", nil), ("version", "2"), ("version", nil)])
    mutating func refusesOtherFormats(_ key: String, _ value: String?) throws {
        try fixture.reference().write(to: path, overwriting: false)
        var parts = try RowParts(path)
        parts.metadata[key] = value
        try parts.write(to: path)
        let expected: ReferenceError =
            key == "format"
            ? .otherFormat(path: path, found: value, expected: "k2ref")
            : .otherVersion(path: path, found: value, expected: "1")
        let error = #expect(throws: GenerationError.self) { try read() }
        #expect(error == .reference(expected))
        #expect(error?.description.contains { $0.isNewline } == false)
    }

    // MARK: Damage

    /// Ways to damage a file, and what is said of it.
    private static let damages:
        [(name: String, says: String, damage: @Sendable (inout RowParts) -> Void)] = [
            ("no taps", "taps is missing", { $0.tensors["taps"] = nil }),
            ("no kinds", "kind is missing", { $0.tensors["kind"] = nil }),
            ("no grid", "grid is missing", { $0.tensors["grid"] = nil }),
            ("pixels", "pixels", { $0.setBytes("pixels", [1, 2, 3]) }),
            ("flat taps", "U8 [3], expected BF16", { $0.setBytes("taps", [1, 2, 3]) }),
            (
                "wide taps", "F32 [13, 3, 8], expected BF16",
                { $0.tensors["taps"] = Tensor(zeros: [13, 3, 8]) }
            ),
            (
                "few kinds", "U8 [12], expected U8 [13]",
                { $0.setBytes("kind", [UInt8](repeating: 2, count: 12)) }
            ),
            ("kind 0", "1 to 5", { $0.setBytes("kind", [UInt8](repeating: 0, count: 13)) }),
            ("kind 6", "1 to 5", { $0.setBytes("kind", [UInt8](repeating: 6, count: 13)) }),
            (
                "no picture", "no row of a picture",
                { $0.setBytes("kind", [UInt8](repeating: 4, count: 13)) }
            ),
            ("mult 0", "out of range", { $0.tensors["mult"] = Tensor(zeros: [13]) }),
            (
                "mult NaN", "out of range",
                { $0.tensors["mult"] = Tensor([Float](repeating: .nan, count: 13), shape: [13]) }
            ),
            (
                "mult below 0", "out of range",
                { $0.tensors["mult"] = Tensor([Float](repeating: -1, count: 13), shape: [13]) }
            ),
            ("grid too small", "[2, 2]", { $0.setIntegers("grid", [2, 2]) }),
            ("grid below 0", "[-2, -3]", { $0.setIntegers("grid", [-2, -3]) }),
            ("grid too large", "expected sides", { $0.setIntegers("grid", [.max, .max]) }),
            ("grid of three", "I32 [3]", { $0.setIntegers("grid", [1, 2, 3]) }),
            ("no content", "no content", { $0.metadata["content"] = nil }),
            ("a path", "visible ASCII", { $0.metadata["content"] = "/home/x y" }),
            ("side 0", "side", { $0.metadata["side"] = "0" }),
            ("side a lot", "side", { $0.metadata["side"] = "99999999999999999999" }),
            ("no prep", "no prep", { $0.metadata["prep"] = nil }),
            ("no encoder", "no encoder", { $0.metadata["encoder"] = nil }),
            (
                "a book", "at most",
                { $0.metadata["caption"] = String(repeating: "a", count: 20_000) }
            ),
        ]

    @Test(arguments: damages.indices)
    mutating func namesWhatIsDamaged(_ index: Int) throws {
        let (name, says, damage) = Self.damages[index]
        try fixture.reference().write(to: path, overwriting: false)
        var parts = try RowParts(path)
        damage(&parts)
        try parts.write(to: path)
        let error = #expect(throws: GenerationError.self, "\(name)") { try read() }
        #expect(error?.category == .unfitFile, "\(name)")
        let line = error?.description ?? ""
        #expect(line.contains(says) && line.hasPrefix(path), "\(name): \(line)")
        #expect(!line.contains { $0.isNewline }, "\(name)")
    }

    @Test mutating func refusesTapsThatAreNoNumbers() throws {
        let file = try fixture.reference()
        for bits in [0x7F80, 0xFF80, 0x7FC0] as [UInt16] {
            try file.write(to: path, overwriting: true)
            let record = try #require(SafetensorsFile(path: path).tensors["taps"])
            let handle = try #require(FileHandle(forUpdatingAtPath: path))
            try handle.seek(toOffset: UInt64(record.range.upperBound - 2))
            try handle.write(contentsOf: [UInt8(bits & 255), UInt8(bits >> 8)])
            try handle.close()
            let error = #expect(throws: GenerationError.self) { try read() }
            #expect(error?.description.contains("NaN or infinity") == true)
        }
    }

    @Test mutating func refusesOtherValuesThanWereWritten() throws {
        try fixture.reference().write(to: path, overwriting: false)
        var parts = try RowParts(path)
        let taps = try #require(parts.tensors["taps"])
        var bytes = taps.bytes
        bytes[100] ^= 1
        parts.tensors["taps"] = Tensor(bytes, taps.elementType, shape: taps.shape)
        var writer = SafetensorsWriter(metadata: parts.metadata)
        for (name, tensor) in parts.tensors { writer.add(name, tensor) }
        let checksums = [parts.metadata["checksum"], nil, "", "sha256:0123"]
        for checksum in checksums + [writer.dataDigest] {
            writer.metadata["checksum"] = checksum
            try writer.write(to: path, overwriting: true)
            guard checksum != writer.dataDigest else {
                #expect(try read().rows.taps.bytes == bytes)
                continue
            }
            let error = #expect(throws: GenerationError.self) { try read() }
            #expect(error?.category == .unfitFile)
            #expect(error?.description.contains("checksum") == true, "\(String(describing: error))")
        }
    }

    @Test mutating func refusesLongHeaders() throws {
        try fixture.reference().write(to: path, overwriting: false)
        var parts = try RowParts(path)
        parts.metadata["notes"] = String(repeating: "a", count: 2 << 20)
        try parts.write(to: path)
        let error = #expect(throws: GenerationError.self) { try read() }
        #expect(error?.category == .unfitFile)
        #expect(error?.description.contains("at most 1048576") == true)
    }

    /// What could not be read again is not written.
    @Test mutating func writesNoUnreadableFile() throws {
        var long = try fixture.reference()
        long.caption = String(repeating: "a", count: 20_000)
        let files = try [
            long, fixture.reference("two words"), fixture.reference(""),
            fixture.reference(treatment: String(repeating: "a", count: 201)),
        ]
        for file in files {
            let error = #expect(throws: GenerationError.self) {
                try file.write(to: path, overwriting: false)
            }
            #expect(error?.category == .request)
        }
        #expect(try folder.names().isEmpty)
    }

    @Test mutating func refusesWhatIsCutShort() throws {
        try fixture.reference().write(to: path, overwriting: false)
        let bytes = Array(try Data(contentsOf: URL(filePath: path)))
        for count in [0, 1, 7, 8, 9, 100, bytes.count - 100, bytes.count - 1] {
            try folder.write(Array(bytes.prefix(count)), to: "a.k2ref")
            let error = #expect(throws: GenerationError.self, "\(count)") { try read() }
            #expect(error?.category == .unfitFile, "\(count)")
        }
        try FileManager.default.removeItem(atPath: path)
        #expect(throws: GenerationError.model(.missing(path: path))) { try read() }
    }
}
