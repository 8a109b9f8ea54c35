import Krea2

/// The calibration of this machine: stored, or measured when it is first wanted.
enum StoredCalibration {
    /// Environment variables that say where it is stored.
    static let variables = ["XDG_CACHE_HOME", "HOME"]

    /// The folder of calibrations; nil where the environment names no place.
    ///
    /// Source: XDG Base Directory Specification, which has relative paths ignored.
    static func folder(_ environment: [String: String]) -> String? {
        for (variable, inside) in zip(variables, ["krea2", ".cache/krea2"]) {
            guard let folder = environment[variable], folder.hasPrefix("/") else { continue }
            return folder.path(of: inside)
        }
        return nil
    }

    /// The stored calibration, or a new one.
    ///
    /// - Parameters:
    ///   - threads: Threads to compute with.
    ///   - weights: Files on the disk whose speed matters.
    ///   - console: Where the environment comes from.
    ///   - command: Whose help errors point to.
    ///   - tell: Receives remarks for the user.
    /// - Returns: The calibration; one that cannot be stored is as good.
    /// - Throws: Exit code 64 when the environment names unknown kernels.
    static func current(
        threads: Int,
        weights: String?,
        _ console: Console,
        of command: String,
        tell: (String) -> Void
    ) throws(Failure) -> Calibration {
        let store = folder(console.environment).map(CalibrationStore.init)
        do throws(GenerationError) {
            let key = try Calibration.currentKey(threads: threads)
            if let stored = store?.load(key) { return stored }
        } catch {
            throw Failure(error, of: command)
        }
        return try measured(
            threads: threads,
            weights: weights,
            console,
            of: command,
            tell: tell
        ).calibration
    }

    /// A new calibration, and where it is stored.
    ///
    /// - Parameters:
    ///   - threads: Threads to compute with.
    ///   - weights: Files on the disk whose speed matters; nil to write one for that.
    ///   - console: Where the environment comes from.
    ///   - command: Whose help errors point to.
    ///   - tell: Receives remarks for the user.
    /// - Returns: The calibration and its file; no path where it cannot be stored.
    /// - Throws: Exit code 64 when the environment names unknown kernels.
    static func measured(
        threads: Int,
        weights: String?,
        _ console: Console,
        of command: String,
        tell: (String) -> Void
    ) throws(Failure) -> (calibration: Calibration, path: String?) {
        tell("measuring this machine with threads \(threads), about a second")
        let store = folder(console.environment).map(CalibrationStore.init)
        let calibration: Calibration
        do throws(GenerationError) {
            calibration = try Calibration.measure(
                threads: threads,
                reading: weights,
                orWritingTo: store?.folder
            )
        } catch {
            throw Failure(error, of: command)
        }
        guard let store else {
            tell("the calibration is not kept: neither XDG_CACHE_HOME nor HOME names a folder")
            return (calibration, nil)
        }
        do throws(GenerationError) {
            try store.save(calibration)
            return (calibration, store.path(calibration.key))
        } catch {
            tell("the calibration is not kept: \(error)")
            return (calibration, nil)
        }
    }
}
