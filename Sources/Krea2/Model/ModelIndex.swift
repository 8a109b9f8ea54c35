import Checkpoints

/// What a `model_index.json` says about the model; nil where it says nothing.
///
/// Source: the configuration of `Krea2Pipeline`, diffusers 0.42.1; `resolution_class` is ours.
struct ModelIndex: Sendable, Equatable {
    /// Whether it is Turbo rather than RAW (`is_distilled`).
    var isDistilled: Bool?
    /// Layers of the text encoder whose results condition, counted from 1, ascending, at least one
    /// (`text_encoder_select_layers`).
    var taps: [Int]?
    /// Side of the square picture of about as many pixels as the model is meant for
    /// (`resolution_class`).
    var resolutionClass = 1024

    /// Resolution classes that can be stated, in multiples of 16.
    static let resolutionClasses = 64...4096
    /// The only patch side the engine knows (`patch_size`).
    private static let patchSize = 2

    /// What holds without a file.
    init() {}

    /// Reads a file.
    ///
    /// - Parameter path: Nil when the model has no such file.
    /// - Throws: `.missing`, `.unreadable`; `.damaged` for values of wrong types or out of range.
    init(path: String?) throws(CheckpointError) {
        guard let path else { return }
        guard let file = try ConfigurationFile(path: path) else { throw .missing(path: path) }
        isDistilled = try file.bool("is_distilled")
        taps = try file.integers("text_encoder_select_layers")
        if let taps {
            let isAscending = zip(taps, taps.dropFirst()).allSatisfy { $0 < $1 }
            guard let first = taps.first, first > 0, isAscending else {
                throw file.mismatch("text_encoder_select_layers", "ascending numbers from 1")
            }
        }
        if let size = try file.integer("patch_size"), size != Self.patchSize {
            throw file.mismatch("patch_size", "\(Self.patchSize)")
        }
        if let value = try file.integer("resolution_class") {
            guard Self.resolutionClasses.contains(value), value.isMultiple(of: 16) else {
                throw file.mismatch("resolution_class", "a multiple of 16 from 64 to 4096")
            }
            resolutionClass = value
        }
    }
}

extension ShiftRule {
    /// Reads the rule from a model's `scheduler_config.json`; the usual one where it has none.
    ///
    /// - Parameter files: Where the parts of the model are.
    /// - Throws: `.missing`, `.unreadable`; `.damaged` for values of wrong types or out of range,
    ///   and for a scheduler that bends time in another way.
    init(schedulerOf files: ModelFiles) throws(CheckpointError) {
        guard let path = files.scheduler else { return }
        guard let file = try ConfigurationFile(path: path) else { throw .missing(path: path) }
        if try file.bool("use_dynamic_shifting") == false {
            throw file.mismatch("use_dynamic_shifting", "true")
        }
        if let type = try file.string("time_shift_type"), type != "exponential" {
            throw file.mismatch("time_shift_type", "\"exponential\"")
        }
        baseShift = try file.number("base_shift", in: Schedule.shiftRange) ?? baseShift
        maxShift = try file.number("max_shift", in: Schedule.shiftRange) ?? maxShift
        baseTokens = try file.integer("base_image_seq_len") ?? baseTokens
        maxTokens = try file.integer("max_image_seq_len") ?? maxTokens
        guard baseTokens < maxTokens else {
            throw file.mismatch("max_image_seq_len", "more than base_image_seq_len, \(baseTokens)")
        }
    }
}
