import Krea2

/// Where encoded pictures and prompts are kept between runs.
enum CachePlace {
    /// Says `off`, or how many bytes the files may take.
    static let variable = "KREA2_CACHE"

    /// The cache; nil where it is switched off, or the environment names no place.
    ///
    /// - Parameters:
    ///   - console: Where the environment comes from.
    ///   - isOff: Whether an option switches it off.
    ///   - command: Whose help errors point to.
    /// - Returns: The cache.
    /// - Throws: Exit code 64 when the variable is not understood.
    static func cache(
        _ console: Console,
        isOff: Bool,
        of command: String
    ) throws(Failure) -> EncodingCache? {
        var limit = EncodingCache.usualByteLimit
        if let value = console.environment[variable] {
            if value == "off" { return nil }
            do throws(ValueError) {
                limit = try Int.byteCount(value)
            } catch {
                throw .usage("\(variable): \(error.reason), or off", of: command)
            }
        }
        guard !isOff, let folder = StoredCalibration.folder(console.environment) else { return nil }
        return EncodingCache(folder: folder + "/encodings", byteLimit: limit)
    }
}

extension Option {
    /// Switches the cache off.
    static func noCache(_ place: any Place<Bool>) -> Self {
        .flag(
            "no-cache",
            help: "neither use nor keep encoded pictures and prompts; \(CachePlace.variable)=off "
                + "in the environment does the same, \(CachePlace.variable)=4GiB sets the limit",
            place
        )
    }
}
