/// The XMP packet that says where a picture comes from.
///
/// Source: XMP specification, part 3 (in PNG the packet is uncompressed and marked read-only), and
/// the IPTC Photo Metadata Standard's property Digital Source Type.
struct XMPPacket {
    /// Keyword of the `iTXt` chunk that holds the packet.
    static let keyword = "XML:com.adobe.xmp"

    /// Version of the engine; nil leaves the creating tool out.
    let creatorTool: String?

    /// The packet.
    var text: String {
        let tool = creatorTool.map { version in
            "\n      <xmp:CreatorTool>\(escaped("krea2 \(version)"))</xmp:CreatorTool>"
        }
        return """
            <?xpacket begin="\u{FEFF}" id="W5M0MpCehiHzreSzNTczkc9d"?>
            <x:xmpmeta xmlns:x="adobe:ns:meta/">
              <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
                <rdf:Description rdf:about=""
                    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
                    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">\(tool ?? "")
                  <Iptc4xmpExt:DigitalSourceType>\(Self.source)</Iptc4xmpExt:DigitalSourceType>
                </rdf:Description>
              </rdf:RDF>
            </x:xmpmeta>
            <?xpacket end="r"?>
            """
    }

    /// "Created using Generative AI" in the IPTC's vocabulary.
    private static let source =
        "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

    /// Text as XML character data.
    private func escaped(_ text: String) -> String {
        var escaped = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": escaped += "&amp;"
            case "<": escaped += "&lt;"
            case ">": escaped += "&gt;"
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }
}
