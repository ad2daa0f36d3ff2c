// The state of one token sequence, kept by the rules in a file's metadata (training/domains/music/midi/rules.py
// describes their form).
import Foundation

public struct Vocabulary {
    public private(set) var kinds: [String]
    public private(set) var values: [Int]
    public private(set) var first: [String: Int] = [:]
    public private(set) var count: [String: Int] = [:]

    public init(_ table: [String: Any], size: Int) throws {
        kinds = Array(repeating: "", count: size)
        values = Array(repeating: 0, count: size)
        for (kind, range) in table {
            guard let range = range as? [Int], range.count == 2 else { throw Failure("the vocabulary is damaged") }
            first[kind] = range[0]
            count[kind] = range[1]
            for value in 0..<range[1] {
                kinds[range[0] + value] = kind
                values[range[0] + value] = value
            }
        }
    }
}

public struct Grammar {
    private let stages: [String: [String: String]]
    private let entering: [String: [[Any]]]
    private let forbidden: [[Any]]
    private let end: String
    private let vocabulary: Vocabulary
    private var stage: String
    private var registers: [String: Int]

    public init(_ rules: [String: Any], _ vocabulary: Vocabulary) throws {
        guard let stages = rules["stages"] as? [String: [String: String]],
            let entering = rules["entering"] as? [String: [[Any]]], let forbidden = rules["forbidden"] as? [[Any]],
            let registers = rules["registers"] as? [String: Int], let start = rules["start"] as? String,
            let end = rules["end"] as? String
        else { throw Failure("the grammar's rules are damaged") }
        (self.stages, self.entering, self.forbidden, self.end) = (stages, entering, forbidden, end)
        (self.registers, self.stage, self.vocabulary) = (registers, start, vocabulary)
    }

    public var finished: Bool { stage == end }

    /// For each id, whether it may come next.
    public func mask() -> [Bool] {
        let next = stages[stage] ?? [:]
        let active = forbidden.filter { $0[0] as? String == "*" || $0[0] as? String == stage }
        return vocabulary.kinds.indices.map { id in
            let kind = vocabulary.kinds[id], value = vocabulary.values[id]
            return next[kind] != nil
                && !active.contains { ($0[1] as? [String] ?? []).contains(kind) && holds($0[2] as? [Any] ?? [], value) }
        }
    }

    /// Reads an id that the mask allows.
    public mutating func advance(_ id: Int) throws {
        guard let next = stages[stage]?[vocabulary.kinds[id]] else { throw Failure("id \(id) is not legal here") }
        let value = vocabulary.values[id]
        stage = next
        for effect in entering[next] ?? [] {
            guard let name = effect[0] as? String, let target = effect[1] as? String else { continue }
            switch name {
            case "set": registers[target] = effect[2] as? Int
            case "add": registers[target, default: 0] += effect[2] as? Int ?? 0
            case "value": registers[target] = value
            case "digits": registers[target] = register(effect[2]) * (effect[3] as? Int ?? 1) + value
            case "differs":
                if value != registers[target] { for other in effect[2] as? [String] ?? [] { registers[other] = -1 } }
            default: throw Failure("the grammar has a rule that this program does not know: \(name)")
            }
        }
    }

    private func register(_ name: Any) -> Int { registers[name as? String ?? ""] ?? -1 }

    private func holds(_ condition: [Any], _ value: Int) -> Bool {
        guard condition.count > 1, let name = condition[0] as? String else { return false }
        let now = register(condition[1]), number = condition.count > 2 ? condition[2] as? Int ?? 0 : 0
        switch name {
        case "below": return now < number
        case "above": return now > number
        case "value below": return value < now + number
        case "value is": return value == now
        case "digits are": return register(condition[2]) * (condition[3] as? Int ?? 1) + value == now
        default: return false
        }
    }
}

/// Uniform numbers in [0, 1) from a seed: SplitMix64, the upper 53 bits.
public struct Uniform {
    private var state: UInt64
    public init(_ seed: UInt64) { state = seed }

    public mutating func next() -> Double {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return Double((z ^ (z >> 31)) >> 11) / 9_007_199_254_740_992
    }
}

/// An id by temperature, top-k, then top-p.
public func draw(_ logits: [Double], _ allowed: [Bool], _ uniform: Double, temperature: Double, topK: Int, topP: Double)
    -> Int
{
    var order = logits.indices.filter { allowed[$0] }.sorted {
        logits[$0] != logits[$1] ? logits[$0] > logits[$1] : $0 < $1
    }
    if temperature == 0 { return order[0] }
    if topK > 0 { order = Array(order.prefix(topK)) }
    let weights = order.map { exp((logits[$0] - logits[order[0]]) / temperature) }
    let sum = weights.reduce(0, +)
    var totals: [Double] = [], total = 0.0
    for weight in weights {
        total += weight / sum
        totals.append(total)
        if total >= topP { break }
    }
    return order[totals.firstIndex { $0 > uniform * total } ?? totals.count - 1]
}
