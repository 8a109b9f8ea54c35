import Glibc

/// The process's surroundings, as far as the commands see them; tests put their own in place.
struct Console: Sendable {
    /// Writes bytes to standard output; throws when they cannot be delivered.
    var writeOutput: @Sendable (_ bytes: [UInt8]) throws(OutputError) -> Void
    /// Writes bytes to standard error; losses are ignored, there is nowhere to report them.
    var writeErrors: @Sendable (_ bytes: [UInt8]) -> Void
    /// Reads standard input up to its end, at most the given number of bytes.
    var readInput: @Sendable (_ limit: Int) throws(Failure) -> [UInt8]
    /// The environment variables that the commands look at.
    var environment: [String: String]
    /// Folders that may hold the embedded checkpoint, the nearest first.
    var embeddedFolders: [String]
    var outputIsTerminal: Bool
    var errorsAreTerminal: Bool
    /// Columns of the terminal behind standard error.
    var columns: @Sendable () -> Int
    /// Time since an arbitrary moment; never goes backwards.
    var now: @Sendable () -> Duration

    /// Writes a line of results.
    ///
    /// A reader that has gone, as `head` does, has all it wanted: that is no failure.
    func print(_ line: String) throws(Failure) {
        do {
            try writeOutput(Array((line + "\n").utf8))
        } catch .failed(let reason) {
            throw Failure(.cannotWrite, "standard output: \(reason)")
        } catch {}
    }

    /// Writes a line for people to standard error.
    func note(_ line: String) {
        writeErrors(Array((line + "\n").utf8))
    }
}

/// Why bytes did not reach a descriptor.
enum OutputError: Error, Equatable {
    /// The reader has gone: the other end of the pipe is closed.
    case closed
    case failed(String)

    var reason: String {
        switch self {
        case .closed: "the reader has closed the pipe"
        case .failed(let reason): reason
        }
    }
}

extension Console {
    /// The real one: descriptors 0, 1 and 2.
    ///
    /// From here on a closed pipe and the limit on file sizes are errors to handle, not deaths.
    static func process() -> Console {
        _ = signal(SIGPIPE, SIG_IGN)
        _ = signal(SIGXFSZ, SIG_IGN)
        let start = ContinuousClock.now
        return Console(
            writeOutput: { bytes throws(OutputError) in try write(bytes, to: STDOUT_FILENO) },
            writeErrors: { bytes in try? write(bytes, to: STDERR_FILENO) },
            readInput: { limit throws(Failure) in try read(STDIN_FILENO, limit: limit) },
            environment: environmentValues(
                ModelDiscovery.variables + StoredCalibration.variables + Bench.variables
                    + [CachePlace.variable]
            ),
            embeddedFolders: EmbeddedModel.folders(),
            outputIsTerminal: isatty(STDOUT_FILENO) == 1,
            errorsAreTerminal: isatty(STDERR_FILENO) == 1,
            columns: { terminalColumns(STDERR_FILENO) },
            now: { ContinuousClock.now - start }
        )
    }
}

/// Writes all bytes, going on after interruptions.
private func write(_ bytes: [UInt8], to descriptor: CInt) throws(OutputError) {
    var rest = bytes[...]
    while !rest.isEmpty {
        let written = unsafe rest.withUnsafeBytes { buffer in
            unsafe Glibc.write(descriptor, buffer.baseAddress, buffer.count)
        }
        if written >= 0 {
            rest = rest.dropFirst(written)
        } else if errno == EPIPE {
            throw .closed
        } else if errno != EINTR {
            throw .failed(systemMessage(errno))
        }
    }
}

/// Reads a descriptor up to its end.
private func read(_ descriptor: CInt, limit: Int) throws(Failure) -> [UInt8] {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65536)
    while true {
        let count = unsafe chunk.withUnsafeMutableBytes { buffer in
            unsafe Glibc.read(descriptor, buffer.baseAddress, buffer.count)
        }
        if count == 0 { return bytes }
        if count > 0 {
            bytes += chunk[..<count]
            guard bytes.count <= limit else {
                throw Failure(.badData, "standard input: more than \(limit) bytes")
            }
        } else if errno != EINTR {
            throw Failure(.noInput, "standard input: \(systemMessage(errno))")
        }
    }
}

/// The C library's words for an error number.
func systemMessage(_ code: CInt) -> String {
    unsafe String(cString: strerror(code))
}

/// The values of the named environment variables, those that are set and not empty.
private func environmentValues(_ names: [String]) -> [String: String] {
    var result: [String: String] = [:]
    for name in names {
        guard let value = unsafe getenv(name) else { continue }
        let text = unsafe String(cString: value)
        result[name] = text.isEmpty ? nil : text
    }
    return result
}

/// Columns of a terminal, 80 when it does not say.
private func terminalColumns(_ descriptor: CInt) -> Int {
    var size = winsize()
    let result = unsafe ioctl(descriptor, UInt(TIOCGWINSZ), &size)
    return result == 0 && size.ws_col > 0 ? Int(size.ws_col) : 80
}
