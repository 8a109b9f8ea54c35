// swift-tools-version: 6.2

import PackageDescription

/// Settings every Swift target shares; a target adds to them, never drops one.
let swift: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .treatAllWarnings(as: .error),
]

/// Settings of the targets that have no business with raw memory: every use must say `unsafe`.
let memorySafe: [SwiftSetting] = swift + [.strictMemorySafety()]

/// C is optimised in debug builds too, so `swift test` stays usable.
let c: [CSetting] = [
    .unsafeFlags(["-O3"]),
    .enableWarning("all"),
    .enableWarning("extra"),
    .treatAllWarnings(as: .error),
]

/// A test target named after the target it tests.
func tests(_ target: String, uses: [Target.Dependency] = []) -> Target {
    .testTarget(
        name: target + "Tests",
        dependencies: [.byName(name: target), "TestSupport"] + uses,
        swiftSettings: swift
    )
}

let package = Package(
    name: "krea2",
    products: [
        .library(name: "Krea2", targets: ["Krea2"]),
        .executable(name: "krea2", targets: ["Krea2CLI"]),
    ],
    targets: [
        // MARK: System libraries

        .systemLibrary(
            name: "COpenBLAS",
            pkgConfig: "openblas",
            providers: [.apt(["libopenblas-dev"])]
        ),
        .systemLibrary(
            name: "CJPEG",
            pkgConfig: "libjpeg",
            providers: [.apt(["libjpeg62-turbo-dev"])]
        ),
        .systemLibrary(name: "CPNG", pkgConfig: "libpng", providers: [.apt(["libpng-dev"])]),
        .systemLibrary(name: "CWebP", pkgConfig: "libwebp", providers: [.apt(["libwebp-dev"])]),

        // MARK: C

        .target(name: "CKernels", cSettings: c, linkerSettings: [.linkedLibrary("m")]),
        .target(name: "CCodecs", dependencies: ["CJPEG", "CPNG", "CWebP"], cSettings: c),

        // MARK: Swift

        .target(name: "JSON", swiftSettings: memorySafe),
        .target(name: "Tensors", swiftSettings: swift),
        .target(name: "Compute", dependencies: ["CKernels", "Tensors"], swiftSettings: swift),
        .target(name: "Checkpoints", dependencies: ["JSON", "Tensors"], swiftSettings: swift),
        .target(name: "Tokenization", dependencies: ["JSON"], swiftSettings: memorySafe),
        .target(
            name: "Krea2",
            dependencies: ["Checkpoints", "Compute", "JSON", "Tensors", "Tokenization"],
            swiftSettings: memorySafe
        ),
        .target(name: "Images", dependencies: ["CCodecs", "JSON"], swiftSettings: memorySafe),
        .target(
            name: "References",
            dependencies: ["Checkpoints", "Images"],
            swiftSettings: memorySafe
        ),
        .executableTarget(
            name: "Krea2CLI",
            dependencies: ["Images", "JSON", "Krea2", "References"],
            swiftSettings: memorySafe
        ),

        // MARK: Benchmarks

        .executableTarget(
            name: "float32-benchmark",
            dependencies: ["COpenBLAS", "Compute", "Tensors"],
            path: "Benchmarks/Float32",
            swiftSettings: swift
        ),

        // MARK: Tests

        .target(
            name: "TestSupport",
            dependencies: ["Checkpoints", "Tensors"],
            path: "Tests/TestSupport",
            swiftSettings: swift
        ),
        tests("JSON"),
        tests("Tensors"),
        tests("Compute", uses: ["CKernels", "Tensors"]),
        tests("Checkpoints", uses: ["Tensors"]),
        tests("Tokenization"),
        tests("Krea2", uses: ["Checkpoints", "Compute", "Tensors", "Tokenization"]),
        tests("Images"),
        tests("References", uses: ["Images"]),
        tests("Krea2CLI", uses: ["Checkpoints", "Images", "Krea2", "References", "Tensors"]),
    ],
    swiftLanguageModes: [.v6],
    cLanguageStandard: .gnu17
)
