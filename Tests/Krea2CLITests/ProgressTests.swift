import Testing

@testable import Krea2
@testable import Krea2CLI

/// Progress lines, with a clock that stands where the test puts it.
struct ProgressTests {
    private func event(
        _ overall: Double,
        stage: GenerationProgress.Stage = .transformer,
        step: Int = 1,
        image: Int = 0,
        images: Int = 1
    ) -> GenerationProgress {
        GenerationProgress(
            stage: stage,
            fraction: 0.5,
            step: step,
            steps: 8,
            image: image,
            imageCount: images,
            overall: overall
        )
    }

    @Test func barFillsItsLine() {
        var renderer = ProgressRenderer(.bar(columns: 60), start: .seconds(100))
        let text = renderer.text(for: event(0.25, step: 2), at: .seconds(110))
        let line = "[#####-----------------]  25 % step 2 of 8, 0:10, 0:30 left"
        #expect(text == "\r\(line)\u{1B}[K")
        #expect(line.count < 60)
    }

    @Test(arguments: 1...40)
    func barNeverWraps(_ columns: Int) throws {
        var renderer = ProgressRenderer(.bar(columns: columns), start: .zero)
        let text = renderer.text(for: event(1), at: .seconds(1))
        #expect(try #require(text).dropFirst().dropLast(3).count < max(columns, 2))
    }

    @Test func barIsThrottled() {
        var renderer = ProgressRenderer(.bar(columns: 80), start: .zero)
        #expect(renderer.text(for: event(0.1), at: .milliseconds(0)) != nil)
        #expect(renderer.text(for: event(0.2), at: .milliseconds(99)) == nil)
        #expect(renderer.text(for: event(0.3), at: .milliseconds(100)) != nil)
        #expect(renderer.text(for: event(1), at: .milliseconds(101)) != nil)
    }

    @Test func barIsLeftOnce() {
        var renderer = ProgressRenderer(.bar(columns: 80), start: .zero)
        #expect(renderer.ending() == nil)
        _ = renderer.text(for: event(0.1), at: .zero)
        #expect(renderer.ending() == "\n")
        #expect(renderer.ending() == nil)
    }

    @Test func plainIsOneLineAStep() {
        var renderer = ProgressRenderer(.plain, start: .zero)
        var lines: [String] = []
        let events = [
            event(0.001, stage: .textEncoder, step: 0), event(0.005, stage: .textEncoder, step: 0),
            event(0.01, step: 0), event(0.1, step: 0), event(0.2, step: 1), event(0.3, step: 1),
            event(0.8, stage: .autoencoder, step: 8), event(1, stage: .autoencoder, step: 8),
            event(1, stage: .autoencoder, step: 8),
        ]
        for (second, event) in events.enumerated() {
            if let text = renderer.text(for: event, at: .seconds(second * 10)) {
                lines.append(text)
            }
        }
        #expect(
            lines == [
                "  0 % text encoder, 0:00 elapsed\n",
                "  1 % step 0 of 8, 0:20 elapsed, about 33:00 left\n",
                " 20 % step 1 of 8, 0:40 elapsed, about 2:40 left\n",
                " 80 % decoder, 1:00 elapsed, about 0:15 left\n",
                "100 % decoder, 1:10 elapsed, about 0:00 left\n",
            ]
        )
    }

    @Test func severalPicturesAreCounted() {
        var renderer = ProgressRenderer(.plain, start: .zero)
        let text = renderer.text(for: event(0.5, step: 3, image: 1, images: 4), at: .seconds(3700))
        #expect(text == " 50 % picture 2 of 4, step 3 of 8, 1:01:40 elapsed, about 1:01:40 left\n")
    }

    @Test func encodingCountsPictures() {
        func event(_ share: Double, _ step: Int) -> GenerationProgress {
            GenerationProgress(
                stage: .references,
                fraction: share,
                step: step,
                steps: 3,
                image: 0,
                imageCount: 1,
                overall: share
            )
        }
        var renderer = ProgressRenderer(.plain, start: .zero)
        let events = [event(0.1, 0), event(0.2, 0), event(0.5, 1), event(1, 3), event(1, 3)]
        let lines = events.enumerated().compactMap {
            renderer.text(for: $1, at: .seconds($0 + 1))
        }
        #expect(
            lines == [
                " 10 % encoding, 0 of 3 pictures, 0:01 elapsed, about 0:09 left\n",
                " 50 % encoding, 1 of 3 pictures, 0:03 elapsed, about 0:03 left\n",
                "100 % encoding, 3 of 3 pictures, 0:04 elapsed, about 0:00 left\n",
            ]
        )
        var other = ProgressRenderer(.json, start: .zero)
        #expect(
            other.text(for: event(0.5, 1), at: .seconds(1))
                == #"{"elapsedSeconds":1,"event":"progress","fraction":0.5,"image":0,"images":1,"#
                + #""remainingSeconds":1,"stage":"references","step":1,"steps":3}"# + "\n"
        )
    }

    @Test func jsonHasTheSameFacts() {
        var renderer = ProgressRenderer(.json, start: .seconds(1))
        let text = renderer.text(for: event(0.25, step: 2), at: .seconds(2))
        #expect(
            text
                == #"{"elapsedSeconds":1,"event":"progress","fraction":0.25,"image":0,"images":1,"#
                + #""remainingSeconds":3,"stage":"transformer","step":2,"steps":8}"# + "\n"
        )
    }

    @Test func estimateWaitsForSomethingToGoBy() {
        #expect(
            ProgressRenderer.Timing(elapsed: .seconds(5), fraction: 0.009).remainingSeconds == nil
        )
        #expect(
            ProgressRenderer.Timing(elapsed: .seconds(5), fraction: 0).remainingSeconds == nil
        )
        #expect(
            ProgressRenderer.Timing(elapsed: .seconds(5), fraction: 2).remainingSeconds == 0
        )
    }

    @Test(arguments: [
        (0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"),
        (360_000, "100:00:00"), (-1, "0:00"), (Double.infinity, "277777:46:40"),
    ])
    func clockReads(_ seconds: Double, text: String) {
        #expect(clock(seconds) == text)
    }

    @Test(
        arguments: [
            (0, "0"), (3.5, "3.5"), (1.15, "1.15"), (0.90625, "0.90625"), (-0.5, "-0.5"), (1, "1"),
            (-1e-9, "0"), (100, "100"), (0.000001, "0.000001"),
        ] as [(Float, String)]
    )
    func numbersAreShort(_ number: Float, text: String) {
        #expect(number.short == text)
    }
}
