// The MIDI generator with midi_generator.mlpackage: the complete sequence for each token.
import CoreML
import Foundation

public final class Generator {
    public let vocabulary: Vocabulary
    public let decoding: [String: Any]
    public private(set) var written: [Int] = []
    private let model: Model
    private let settings: [String: Any]
    private let context: Int
    private let size: Int
    private var grammar: Grammar
    private var window: [Int] = []

    public init(_ exports: URL) throws {
        model = try Model(exports.appendingPathComponent("midi_generator.mlpackage"))
        guard let context = Int(model.metadata["context"] ?? ""),
            let size = Int(model.metadata["vocabulary_size"] ?? "")
        else { throw Failure("midi_generator.mlpackage has no context in its metadata: export it again") }
        (self.context, self.size) = (context, size)
        vocabulary = try Vocabulary(try model.table("vocabulary"), size: size)
        decoding = try model.table("decoding")
        settings = try model.table("generation")
        grammar = try Grammar(try model.table("grammar_rules"), vocabulary)
        try read(vocabulary.first["bos"]!)
    }

    public var finished: Bool { grammar.finished }

    /// The next id. `ending`: keep to what leads to the end; else the piece never ends.
    public func next(_ emotion: [Float], _ uniform: Double, ending: Bool) throws -> Int {
        if window.count >= context { window = Array(window.suffix(max(1, context / 2))) }
        let guidance = settings["guidance"] as? Double ?? 1
        let wanted = emotion + Array(repeating: 0, count: 64 - emotion.count)
        let made = try model.run([
            "input_ids": try integers(window + window, [2, window.count]),
            "emotion": try floats(wanted + Array(repeating: 0, count: 64), [2, 64]),  // the second row: no emotion
        ])
        guard let logits = made["logits"] else { throw Failure("the package gives no logits") }
        let last = window.count - 1
        let combined = (0..<size).map { id -> Double in
            let given = logits[[0, last, id] as [NSNumber]].doubleValue
            let plain = logits[[1, last, id] as [NSNumber]].doubleValue
            return plain + guidance * (given - plain)
        }
        var allowed = grammar.mask()
        if ending { keepToTheEnd(&allowed) } else { allowed[vocabulary.first["eos"]!] = false }
        let id = draw(
            combined, allowed, uniform, temperature: settings["temperature"] as? Double ?? 1,
            topK: settings["top_k"] as? Int ?? 0, topP: settings["top_p"] as? Double ?? 1)
        try read(id)
        return id
    }

    private func read(_ id: Int) throws {
        try grammar.advance(id)
        written.append(id)
        window.append(id)
    }

    private func keepToTheEnd(_ allowed: inout [Bool]) {
        let closing = settings["closing"] as? [String: Any]
        for kind in closing?["direct"] as? [String] ?? [] {
            let range = vocabulary.first[kind]!..<(vocabulary.first[kind]! + vocabulary.count[kind]!)
            guard range.contains(where: { allowed[$0] }) else { continue }
            for id in allowed.indices where !range.contains(id) { allowed[id] = false }
            return
        }
    }
}
