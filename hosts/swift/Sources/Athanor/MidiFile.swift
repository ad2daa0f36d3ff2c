// Tokens to a standard MIDI file (format 1): one track a program, drums on their channel, a tempo for each bar.
import Foundation

public struct Note {
    public var bar = 0, position = 0, length = 0, pitch = 0, velocity = 0, family = 0
}

/// Reads ids in order: notes, the seconds of each bar, and when the current one starts.
public struct NoteReader {
    public private(set) var notes: [Note] = []
    public private(set) var bars: [Double] = []
    public var start: Double { bars.dropLast().reduce(0, +) }
    private let vocabulary: Vocabulary
    private let decoding: [String: Any]
    private var now = Note(), seconds = 2.0, coarse = -1

    public init(_ vocabulary: Vocabulary, _ decoding: [String: Any]) {
        (self.vocabulary, self.decoding) = (vocabulary, decoding)
    }

    public mutating func feed(_ id: Int) {
        let value = vocabulary.values[id]
        switch vocabulary.kinds[id] {
        case "bar":
            bars.append(seconds)
            now.position = 0
        case "tempo":
            guard coarse >= 0 else {
                coarse = value
                return
            }
            let tempo = decoding["tempo"] as? [String: Double] ?? [:]
            let step = Double(coarse) * tempo["base"]! + Double(value)
            seconds = tempo["slowest_seconds"]! * pow(tempo["ratio"]!, -step / (tempo["count"]! - 1))
            bars[bars.count - 1] = seconds
            coarse = -1
        case "position": now.position = value
        case "instrument": now.family = value
        case "note": now.pitch = value
        case "velocity":
            let table = decoding["velocity"] as? [String: Int] ?? [:]
            now.velocity = value * table["scale"]! + table["offset"]!
        case "duration":
            var note = now
            note.bar = bars.count - 1
            note.length = (decoding["durations"] as? [Int] ?? [])[value]
            notes.append(note)
        default: break
        }
    }

    public func file() -> Data {
        let quarter = decoding["ticks_per_quarter"] as? Int ?? 480, quarters = decoding["quarters_per_bar"] as? Int ?? 4
        let drums = decoding["drums"] as? Int ?? 16, drumChannel = decoding["drum_channel"] as? Int ?? 9
        let programs = decoding["programs"] as? [Int] ?? []
        let step = quarter * quarters / (decoding["positions"] as? Int ?? 128)
        var tracks = [conductor(quarter * quarters, quarters)], channel = 0
        for (family, members) in Dictionary(grouping: notes, by: \.family).sorted(by: { $0.key < $1.key }) {
            if channel == drumChannel { channel += 1 }
            let own = family == drums ? drumChannel : min(channel, 15)
            if family != drums { channel += 1 }
            var events: [(Int, Int, [UInt8])] = []
            for note in members {
                let begin = note.bar * quarter * quarters + note.position * step
                events.append((begin, 1, [UInt8(0x90 | own), UInt8(note.pitch), UInt8(note.velocity)]))
                events.append((begin + max(1, note.length * step), 0, [UInt8(0x80 | own), UInt8(note.pitch), 0]))
            }
            var track: [UInt8] = [0, UInt8(0xC0 | own), UInt8(family == drums ? 0 : programs[family])], last = 0
            for (tick, _, bytes) in events.sorted(by: { ($0.0, $0.1) < ($1.0, $1.1) }) {
                track += varint(tick - last) + bytes
                last = tick
            }
            tracks.append(track + [0, 0xFF, 0x2F, 0])
        }
        var out = Array("MThd".utf8) + big(6, 4) + big(1, 2) + big(tracks.count, 2) + big(quarter, 2)
        for track in tracks { out += Array("MTrk".utf8) + big(track.count, 4) + track }
        return Data(out)
    }

    private func conductor(_ perBar: Int, _ quarters: Int) -> [UInt8] {
        var out: [UInt8] = [0, 0xFF, 0x58, 4, 4, 2, 24, 8], last = -1, waited = 0
        for seconds in bars {
            let tempo = Int((seconds * 1e6 / Double(quarters)).rounded())
            if tempo != last {
                out += varint(waited) + [0xFF, 0x51, 3] + big(tempo, 3)
                waited = 0
            }
            last = tempo
            waited += perBar
        }
        return out + [0, 0xFF, 0x2F, 0]
    }
}

private func big(_ number: Int, _ bytes: Int) -> [UInt8] {
    (0..<bytes).reversed().map { UInt8(number >> (8 * $0) & 255) }
}

private func varint(_ number: Int) -> [UInt8] {
    var out = [UInt8(number & 127)], rest = number >> 7
    while rest > 0 {
        out.insert(UInt8(rest & 127 | 128), at: 0)
        rest >>= 7
    }
    return out
}
