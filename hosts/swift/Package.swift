// swift-tools-version:5.9
// Not built by this project, which has no Mac: see README.md.
import PackageDescription

let package = Package(
    name: "AthanorHosts",
    platforms: [.macOS(.v13)],
    products: [.library(name: "Athanor", targets: ["Athanor"])],
    targets: [
        .target(name: "Athanor"),
        .executableTarget(name: "play-midi", dependencies: ["Athanor"]),
        .executableTarget(name: "draw-cloud", dependencies: ["Athanor"]),
        .executableTarget(name: "check-golden", dependencies: ["Athanor"]),
    ]
)
