package import Tensors

extension Operators {
    /// y = x · factor + offset, with a factor and an offset for each plane.
    ///
    /// - Parameters:
    ///   - x: `[planes, …]`.
    ///   - factor: `[planes]`.
    ///   - offset: `[planes]`.
    ///   - y: Like x, and may be x.
    package func scalePlanes(_ x: Tensor, by factor: Tensor, plus offset: Tensor, into y: Tensor) {
        precondition(x.shape == y.shape && factor.count == x.rows && offset.count == x.rows)
        let count = x.rowCount
        parallelRows(x.rows, grain: grain(count)) { planes in
            for plane in planes {
                let (source, target) = (x.floats + plane * count, y.floats + plane * count)
                let (factor, offset) = (factor.floats[plane], offset.floats[plane])
                for index in 0..<count { target[index] = source[index] * factor + offset }
            }
        }
    }

    /// Moves the channels from the first axis to the last.
    ///
    /// - Parameters:
    ///   - planes: `[channels, height, width]`.
    ///   - pixels: `[height, width, channels]`; must not overlap `planes`.
    package func channelsLast(_ planes: Tensor, into pixels: Tensor) {
        let (channels, count) = (planes.rows, planes.rowCount)
        precondition(pixels.count == planes.count && pixels.shape.last == channels)
        parallelRows(count, grain: grain(channels)) { range in
            for channel in 0..<channels {
                let (source, target) = (planes.floats + channel * count, pixels.floats + channel)
                for index in range { target[index * channels] = source[index] }
            }
        }
    }

    /// Replaces elements below -1 by -1 and above 1 by 1.
    package func clampToUnit(_ x: Tensor) {
        parallelRows(x.count, grain: 16384) { range in
            let elements = x.floats
            for index in range { elements[index] = max(-1, min(1, elements[index])) }
        }
    }
}

extension ImageRows {
    /// Writes the rows into a picture whose channels are planes.
    ///
    /// - Parameter planes: `[channels, imageHeight, width]`.
    package func copy(toPlanes planes: Tensor) {
        let (width, channels) = (tensor.shape[1], tensor.shape[2])
        precondition(planes.shape == [channels, imageHeight, width])
        let count = tensor.rows * width
        for channel in 0..<channels {
            let target = planes.floats + (channel * imageHeight + firstRow) * width
            for index in 0..<count { target[index] = tensor.floats[index * channels + channel] }
        }
    }

    /// Takes the rows from a picture of bytes, 0 as -1 and 255 as 1.
    ///
    /// Source: diffusers 0.42.1, `VaeImageProcessor.pil_to_numpy` and `normalize`.
    ///
    /// - Parameter bytes: `[imageHeight, width, channels]`.
    package func fill(fromBytes bytes: [UInt8]) {
        precondition(bytes.count == imageHeight * tensor.rowCount)
        let (target, first) = (tensor.floats, firstRow * tensor.rowCount)
        for index in 0..<tensor.count {
            target[index] = 2 * (Float(bytes[first + index]) / 255) - 1
        }
    }

    /// Writes the rows into a picture of bytes, -1 as 0 and 1 as 255, rounded half to even.
    ///
    /// Source: diffusers 0.42.1, `VaeImageProcessor.denormalize` and `numpy_to_pil`.
    ///
    /// - Parameter bytes: `[imageHeight, width, channels]`. The elements of the rows are finite.
    package func copy(toBytes bytes: inout [UInt8]) {
        precondition(bytes.count == imageHeight * tensor.rowCount)
        let (source, first) = (tensor.floats, firstRow * tensor.rowCount)
        for index in 0..<tensor.count {
            let share = max(0, min(1, source[index] / 2 + 0.5))
            bytes[first + index] = UInt8((share * 255).rounded(.toNearestOrEven))
        }
    }
}
