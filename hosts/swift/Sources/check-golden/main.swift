// check-golden EXPORTS: runs every .mlpackage on the inputs of its golden file. Exit 4 if one differs by more than the
// receipt allows (default: 1e-3 of the largest value).
import Athanor
import CoreML
import Foundation

let words = CommandLine.arguments
guard words.count == 2 else {
    FileHandle.standardError.write(Data("usage: check-golden EXPORTS\n".utf8))
    exit(2)
}
let folder = URL(fileURLWithPath: words[1])
let receipt = try JSONSerialization.jsonObject(with: Data(contentsOf: folder.appendingPathComponent("receipt.json")))
let families = (receipt as? [String: Any])?["families"] as? [String: [String: Any]] ?? [:]
var bad = 0
for (_, entry) in families {
    for (name, about) in entry["files"] as? [String: [String: Any]] ?? [:] where about["kind"] as? String == "coreml" {
        let package = folder.appendingPathComponent(name), graph = about["graph"] as? String ?? ""
        let golden = package.deletingLastPathComponent().appendingPathComponent("golden/\(graph).npz")
        let worst = try error(of: Model(package, units: .cpuOnly), try readArchive(golden))
        let allowed = about["tolerance"] as? Double ?? 1e-3
        print("  \(name)  \(worst <= allowed ? "ok" : "BAD")  differs by \(worst) at most (allowed \(allowed))")
        if !(worst <= allowed) { bad += 1 }
    }
}
exit(bad > 0 ? 4 : 0)

/// max |got - want| / max |want| over all trials and outputs. CoreML has no empty arrays: trials with one are left out.
func error(of model: Model, _ golden: [String: NumpyArray]) throws -> Double {
    var worst = 0.0, trials = 0
    while golden.keys.contains(where: { $0.hasPrefix("trial\(trials)/") }) {
        let inputs = golden.filter { $0.key.hasPrefix("trial\(trials)/in/") }
        let wanted = golden.filter { $0.key.hasPrefix("trial\(trials)/out/") }
        trials += 1
        if inputs.values.contains(where: { $0.values.isEmpty }) { continue }
        var given: [String: MLMultiArray] = [:]
        for (key, array) in inputs {
            let name = String(key.split(separator: "/", maxSplits: 2)[2])
            given[name] =
                try array.integer
                ? integers(array.values.map { Int($0) }, array.shape)
                : floats(array.values.map { Float($0) }, array.shape)
        }
        let made = try model.run(given)
        for (key, want) in wanted {
            guard let got = made[String(key.split(separator: "/", maxSplits: 2)[2])], got.count == want.values.count
            else { return .infinity }
            let difference = zip(flat(got), want.values).map { abs(Double($0) - $1) }.max() ?? 0
            let scale = want.values.map { abs($0) }.max() ?? 0
            worst = max(worst, difference == 0 ? 0 : scale == 0 ? .infinity : difference / scale)
        }
    }
    return trials > 0 ? worst : .infinity
}
