import Checkpoints

extension Checkpoint {
    /// What stands before `name` in the tensors whose names end in it, the shortest first.
    ///
    /// - Parameter name: The end of a tensor's name, such as `embed_tokens.weight`.
    /// - Returns: Empty texts and texts that end in a dot.
    func prefixes(of name: String) -> [String] {
        names.filter { $0.hasSuffix(name) }.map { String($0.dropLast(name.count)) }
            .filter { $0.isEmpty || $0.hasSuffix(".") }
            .sorted { ($0.utf8.count, $0) < ($1.utf8.count, $1) }
    }

    /// The different numbers that follow `prefix` in tensors' names, such as those of blocks.
    func numbers(after prefix: String) -> Set<Int> {
        Set(
            names.filter { $0.hasPrefix(prefix) }.compactMap { name in
                Int(name.dropFirst(prefix.count).prefix { $0 != "." })
            }
        )
    }
}
