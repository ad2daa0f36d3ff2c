// numpy's .npy and .npz files.
import Compression
import Foundation

public struct NumpyArray {
    public let integer: Bool
    public let shape: [Int]
    public let values: [Double]

    public init(_ file: Data) throws {
        let bytes = [UInt8](file)
        guard bytes.count > 10, Array(bytes[1..<6]) == Array("NUMPY".utf8) else { throw Failure("not a .npy file") }
        let begin = 10 + Int(bytes[8]) + Int(bytes[9]) << 8
        let header = String(decoding: bytes[10..<begin], as: UTF8.self)
        guard header.contains("'fortran_order': False"), header.contains("'<f4'") || header.contains("'<i8'"),
            let open = header.firstIndex(of: "("), let close = header.firstIndex(of: ")")
        else { throw Failure("an array of another kind: \(header)") }
        integer = header.contains("'<i8'")
        shape = header[header.index(after: open)..<close].split(separator: ",").compactMap {
            Int($0.trimmingCharacters(in: .whitespaces))
        }
        let count = shape.reduce(1, *), width = integer ? 8 : 4, isInteger = integer
        guard bytes.count == begin + count * width else { throw Failure("an array of another size than it says") }
        values = (0..<count).map { at in
            let place = begin + at * width
            let bits = (0..<width).reduce(UInt64(0)) { $0 | UInt64(bytes[place + $1]) << (8 * UInt64($1)) }
            return isInteger ? Double(Int64(bitPattern: bits)) : Double(Float(bitPattern: UInt32(bits)))
        }
    }

    public static func write(_ values: [Float], _ shape: [Int], to url: URL) throws {
        let list = shape.map { "\($0)," }.joined()
        var header = "{'descr': '<f4', 'fortran_order': False, 'shape': (\(list)), }"
        header += String(repeating: " ", count: 63 - (header.utf8.count + 10) % 64) + "\n"
        let size = header.utf8.count
        var out = Data([0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(size & 255), UInt8(size >> 8)])
        out += Data(header.utf8)
        values.withUnsafeBytes { out.append(contentsOf: $0) }
        try out.write(to: url)
    }
}

/// The arrays of an .npz file.
public func readArchive(_ url: URL) throws -> [String: NumpyArray] {
    let file = [UInt8](try Data(contentsOf: url))
    func number(_ at: Int, _ width: Int) -> Int { (0..<width).reduce(0) { $0 | Int(file[at + $1]) << (8 * $1) } }
    guard file.count >= 22 else { throw Failure("\(url.path) is not an .npz file") }
    var end = file.count - 22
    while end > 0 && number(end, 4) != 0x0605_4b50 { end -= 1 }
    var at = number(end + 16, 4), out: [String: NumpyArray] = [:]
    for _ in 0..<number(end + 10, 2) {
        let method = number(at + 10, 2), packed = number(at + 20, 4), plain = number(at + 24, 4)
        let name = number(at + 28, 2), place = number(at + 42, 4)
        let key = String(decoding: file[(at + 46)..<(at + 46 + name)], as: UTF8.self)
        let begin = place + 30 + number(place + 26, 2) + number(place + 28, 2)
        var content = Array(file[begin..<(begin + packed)])
        if method == 8 {
            var inflated = [UInt8](repeating: 0, count: plain)
            // Apple's COMPRESSION_ZLIB is raw deflate, without a header.
            let size = compression_decode_buffer(&inflated, plain, content, packed, nil, COMPRESSION_ZLIB)
            guard size == plain else { throw Failure("\(url.path) is damaged") }
            content = inflated
        }
        out[key.hasSuffix(".npy") ? String(key.dropLast(4)) : key] = try NumpyArray(Data(content))
        at += 46 + name + number(at + 30, 2) + number(at + 32, 2)
    }
    return out
}
