// draw-cloud EXPORTS SPECTROGRAM.npy OUT.npy: the spectrogram is float32 [128, 64], as spectocloud_frontend.onnx gives
// it; the cloud is float32 [1200, 10]: x, y, z, red, green, blue, alpha, size, glow, depth.
import Athanor
import Foundation

let words = CommandLine.arguments
guard words.count == 4 else {
    FileHandle.standardError.write(Data("usage: draw-cloud EXPORTS SPECTROGRAM.npy OUT.npy\n".utf8))
    exit(2)
}
let model = try Model(URL(fileURLWithPath: words[1]).appendingPathComponent("spectocloud.mlpackage"))
let array = try NumpyArray(try Data(contentsOf: URL(fileURLWithPath: words[2])))
guard array.shape == [128, 64] else { throw Failure("\(words[2]) is \(array.shape), not [128, 64]") }
let made = try model.run([
    "spectrogram": try floats(array.values.map { Float($0) }, [1, 128, 64]),
    "emotion": try floats([0, 0, 0.5] + Array(repeating: 0, count: 61), [1, 64]),
    "midi_features": try floats(Array(repeating: 0, count: 32), [1, 32]),  // zeros: no score
])
let parts = try Names.cloudOutputs.map { name -> [Float] in
    guard let part = made[name] else { throw Failure("the package gives no \(name)") }
    return flat(part)
}
let particles = parts[0].count / 3
let rows = (0..<particles).flatMap { at in
    zip(parts, [3, 4, 3]).flatMap { part, width in Array(part[(at * width)..<((at + 1) * width)]) }
}
try NumpyArray.write(rows, [particles, 10], to: URL(fileURLWithPath: words[3]))
print("\(words[3]): \(particles) particles")
