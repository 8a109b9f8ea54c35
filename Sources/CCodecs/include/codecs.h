#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Swift cannot call libpng and libjpeg: they report errors by longjmp, and setjmp is not available in
// Swift. Here errors are return values, and no callback leaves C.

#pragma clang assume_nonnull begin

/// One text of a PNG file. Both strings are followed by a NUL, which does not count, and hold none.
typedef struct {
    /// 1 to 79 bytes of Latin-1.
    const uint8_t *keyword;
    size_t keyword_byte_count;
    /// UTF-8 where `is_international`, else Latin-1.
    const uint8_t *text;
    size_t text_byte_count;
    /// Stored as iTXt; else as tEXt or, only when read, zTXt.
    bool is_international;
} codecs_text;

/// What a PNG file says about itself.
typedef struct {
    uint32_t width;
    uint32_t height;
    /// Bits a channel: 1, 2, 4, 8 or 16.
    int bit_depth;
    /// The colour type of IHDR: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha.
    int color_type;
    size_t text_count;
    /// In file order. Give it back with `codecs_free`.
    codecs_text *_Nullable texts;
} codecs_png_description;

/// Encodes 8-bit RGB as PNG with the given texts before the picture data.
///
/// Equal arguments give equal bytes with equal versions of libpng and zlib.
///
/// rgb: [height, width, 3]. `bytes` is to be given back with `codecs_free`.
/// Returns 0, or 1 with a reason in `message` and nothing to give back.
int codecs_png_encode_rgb8(const uint8_t *rgb, uint32_t width, uint32_t height,
                           const codecs_text *_Nullable texts, size_t text_count,
                           uint8_t *_Nullable *_Nonnull bytes, size_t *byte_count, char *message,
                           size_t message_capacity);

/// Reads the header of a PNG file and, if asked, its texts, before and after the picture data.
///
/// Picture data is skipped, neither inflated nor checked; so is every chunk that holds no text.
/// Refused: a damaged text chunk, a text longer than `codecs_png_text_limit()`, more texts than 250
/// and texts that need more than 64 MiB of memory together.
/// Returns 0, or 1 with a reason in `message` and nothing to give back.
int codecs_png_describe(const uint8_t *bytes, size_t byte_count, bool with_texts,
                        codecs_png_description *description, char *message,
                        size_t message_capacity);

/// What the decoders below write to; the memory belongs to the caller.
typedef struct {
    /// [height, width, channels]: all of them after a success, arbitrary ones after a failure.
    uint8_t *pixels;
    /// The sizes that the file's header tells; a file of another size is an error.
    uint32_t width;
    uint32_t height;
    /// 3 for RGB, 4 for RGB and an alpha that is not multiplied in.
    uint32_t channels;
    /// Takes the reason of a failure.
    char *message;
    size_t message_capacity;
} codecs_raster;

/// Decodes a PNG file of any kind to 8 bits a channel: of 16 bits the upper ones are kept, smaller
/// grey values are spread over 0 to 255. Colour spaces are passed over.
///
/// With 3 channels, a file with alpha is an error. Returns 0 or 1.
int codecs_png_decode(const uint8_t *bytes, size_t byte_count, const codecs_raster *raster);

/// Decodes a JPEG file to RGB, so `channels` is 3; inks are mixed by multiplication.
///
/// Four inks are taken as Adobe stores them, inverted, as most readers do. Refused: data that ends
/// early or is damaged, more than 64 scans. Returns 0 or 1.
int codecs_jpeg_decode(const uint8_t *bytes, size_t byte_count, const codecs_raster *raster);

/// What a WebP file says about itself.
typedef struct {
    uint32_t width;
    uint32_t height;
    bool has_alpha;
    bool has_animation;
} codecs_webp_description;

/// Reads the header of a WebP file. Returns 0, or 1 with a reason in `message`.
int codecs_webp_describe(const uint8_t *bytes, size_t byte_count,
                         codecs_webp_description *description, char *message,
                         size_t message_capacity);

/// Decodes a WebP file that holds one picture. Returns 0 or 1.
int codecs_webp_decode(const uint8_t *bytes, size_t byte_count, const codecs_raster *raster);

/// Most bytes of one text chunk, as stored and inflated; libpng's own default for readers.
size_t codecs_png_text_limit(void);

/// The version of the libpng that is loaded.
const char *codecs_png_version(void);

/// The version of the libjpeg-turbo this was compiled with.
const char *codecs_jpeg_version(void);

/// The version of the libwebp that is loaded: major, minor and revision, a byte each.
uint32_t codecs_webp_version(void);

/// Renames a file unless the new name is taken, in one step; returns 0 or an `errno`.
///
/// A shim because Swift sees only what Glibc declares without `_GNU_SOURCE`.
int codecs_rename_unless_exists(const char *from, const char *to);

/// Gives back what a function of this header allocated.
void codecs_free(void *_Nullable memory);

#pragma clang assume_nonnull end
