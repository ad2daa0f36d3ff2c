// play-midi EXPORTS VALENCE,AROUSAL,INTENSITY SECONDS OUT.mid
import Athanor
import Foundation

let words = CommandLine.arguments
guard words.count == 5, let seconds = Double(words[3]) else {
    FileHandle.standardError.write(Data("usage: play-midi EXPORTS VALENCE,AROUSAL,INTENSITY SECONDS OUT.mid\n".utf8))
    exit(2)
}
let emotion = words[2].split(separator: ",").compactMap { Float($0) }
guard emotion.count == 3 else {
    FileHandle.standardError.write(Data("error: the emotion needs three numbers, such as .7,.8,.6\n".utf8))
    exit(2)
}
let generator = try Generator(URL(fileURLWithPath: words[1]))
var reader = NoteReader(generator.vocabulary, generator.decoding)
generator.written.forEach { reader.feed($0) }
var uniform = Uniform(1)
while !generator.finished {
    reader.feed(try generator.next(emotion, uniform.next(), ending: reader.start >= seconds))
}
try reader.file().write(to: URL(fileURLWithPath: words[4]))
print("\(words[4]): \(reader.notes.count) notes, \(reader.bars.count) bars")
