import Krea2

extension LoRAOutline {
    /// What it is, in a few words.
    var title: String { otherModel.map { "LoRA for \($0), not for Krea 2" } ?? "LoRA for Krea 2" }

    /// What names and shapes tell.
    var rows: [(name: String, value: String)] {
        let methods = methods.sorted { $0.key < $1.key }.map {
            "\($0.key) (\($0.value.counted("module")))"
        }
        return [
            ("dialect", dialects.isEmpty ? "-" : dialects.joined(separator: ", ")),
            ("method", methods.joined(separator: "; ")),
            ("rank", ranks.isEmpty ? "-" : ranks.map(String.init).joined(separator: ", ")),
        ]
    }
}

extension LoRAOutline.Hint {
    /// Key and value on one line of bounded length.
    var line: String {
        let most = 200
        return "\(key) = " + (value.count > most ? value.prefix(most) + "…" : value)
    }
}

extension String {
    /// With blanks at the end up to a length.
    func padded(to length: Int) -> String {
        self + String(repeating: " ", count: Swift.max(0, length - count))
    }
}

extension Int {
    /// The number and what is counted: `1 layer`, `2 layers`.
    func counted(_ one: String, _ several: String? = nil) -> String {
        "\(self) " + (self == 1 ? one : several ?? one + "s")
    }
}
