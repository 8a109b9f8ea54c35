package import JSON

/// The members of the object that a JSON file consists of.
///
/// - Parameters:
///   - bytes: Contents of the file.
///   - path: The file, for errors.
/// - Returns: Values by key.
/// - Throws: `.damaged` with the place of the first fault.
package func jsonObject(_ bytes: [UInt8], path: String) throws(CheckpointError)
    -> [String: JSONValue]
{
    let value: JSONValue
    do throws(JSONParser.Failure) {
        value = try JSONParser.parse(bytes)
    } catch {
        throw .damaged(
            path: path,
            tensor: nil,
            found: "\(error.problem) at byte \(error.position)",
            expected: "JSON"
        )
    }
    guard case .object(let members) = value else {
        throw .damaged(path: path, tensor: nil, found: "\(value)", expected: "a JSON object")
    }
    return members
}
