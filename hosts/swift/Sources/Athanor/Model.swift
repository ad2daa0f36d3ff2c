// An .mlpackage in CoreML, with its metadata.
import CoreML
import Foundation

public struct Failure: Error, CustomStringConvertible {
    public let description: String
    public init(_ text: String) { description = text }
}

/// The names of inputs and outputs in the exported files.
public enum Names {
    public static let generatorInputs = ["input_ids", "emotion"]
    public static let generatorOutputs = ["logits"]
    public static let cloudInputs = ["spectrogram", "emotion", "midi_features"]
    public static let cloudOutputs = ["positions", "colors", "properties"]
}

public final class Model {
    public let metadata: [String: String]
    private let model: MLModel

    /// `units`: where CoreML may compute; `.cpuOnly` for comparisons.
    public init(_ package: URL, units: MLComputeUnits = .all) throws {
        let settings = MLModelConfiguration()
        settings.computeUnits = units
        model = try MLModel(contentsOf: try MLModel.compileModel(at: package), configuration: settings)
        metadata = model.modelDescription.metadata[.creatorDefinedKey] as? [String: String] ?? [:]
    }

    public func table(_ key: String) throws -> [String: Any] {
        guard let text = metadata[key], let data = text.data(using: .utf8),
            let found = try JSONSerialization.jsonObject(with: data) as? [String: Any]
        else { throw Failure("the package has no table `\(key)` in its metadata: export it again") }
        return found
    }

    /// All outputs by name. Integers are int32: CoreML has no int64.
    public func run(_ inputs: [String: MLMultiArray]) throws -> [String: MLMultiArray] {
        let given = try MLDictionaryFeatureProvider(dictionary: inputs.mapValues { MLFeatureValue(multiArray: $0) })
        let made = try model.prediction(from: given)
        var out: [String: MLMultiArray] = [:]
        for name in made.featureNames { out[name] = made.featureValue(for: name)?.multiArrayValue }
        return out
    }
}

public func floats(_ values: [Float], _ shape: [Int]) throws -> MLMultiArray {
    let out = try MLMultiArray(shape: shape as [NSNumber], dataType: .float32)
    let place = out.dataPointer.bindMemory(to: Float.self, capacity: values.count)
    for (at, value) in values.enumerated() { place[at] = value }
    return out
}

public func integers(_ values: [Int], _ shape: [Int]) throws -> MLMultiArray {
    let out = try MLMultiArray(shape: shape as [NSNumber], dataType: .int32)
    let place = out.dataPointer.bindMemory(to: Int32.self, capacity: values.count)
    for (at, value) in values.enumerated() { place[at] = Int32(value) }
    return out
}

/// The numbers of an array in C order, whatever its strides.
public func flat(_ array: MLMultiArray) -> [Float] {
    (0..<array.count).map { array[$0].floatValue }
}
