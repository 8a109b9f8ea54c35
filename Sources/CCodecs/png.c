#include "codecs.h"
#include <png.h>
#include <setjmp.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_LIMIT = 8000000,       // bytes of one chunk
    TEXT_COUNT_LIMIT = 250,      // texts of one file
    MEMORY_LIMIT = 64 << 20,     // bytes libpng may hold while it reads
    SIDE_LIMIT = 1000000,        // pixels, libpng's own default
    CHUNK_OVERHEAD = 12,         // length, type and CRC
    SIGNATURE_LENGTH = 8,
    COLOR_TYPE_OFFSET = 25,      // of IHDR's colour type in a file that starts with IHDR
    COMPRESSION_LEVEL = 6,
};

// MARK: Errors

/// One call of a function of this file. It belongs to the caller of the function that calls setjmp,
/// so what changes after setjmp is still defined after longjmp.
struct session {
    jmp_buf escape;
    png_structp png;
    png_infop info;
    char *message;
    size_t message_capacity;
    size_t memory_left;
    bool has_warned;
    bool is_out_of_memory;
};

static void say(struct session *s, const char *text) {
    snprintf(s->message, s->message_capacity, "%s", text);
}

static void on_error(png_structp png, png_const_charp text) {
    struct session *s = png_get_error_ptr(png);
    say(s, text);
    longjmp(s->escape, 1);
}

/// libpng warns and goes on where it drops a text. Here that is a failure, reported at the end.
static void on_warning(png_structp png, png_const_charp text) {
    struct session *s = png_get_error_ptr(png);
    if (!s->has_warned) say(s, text);
    s->has_warned = true;
}

static void on_ignored_warning(png_structp png, png_const_charp text) {
    (void)png;
    (void)text;
}

// MARK: Memory

/// Precedes every block handed to libpng, to know its size when it comes back.
struct block {
    alignas(max_align_t) size_t byte_count;
};

static png_voidp on_allocate(png_structp png, png_alloc_size_t byte_count) {
    struct session *s = png_get_mem_ptr(png);
    struct block *block = NULL;
    if (byte_count <= s->memory_left) block = malloc(sizeof *block + byte_count);
    if (!block) {
        s->is_out_of_memory = true;
        return NULL;
    }
    block->byte_count = byte_count;
    s->memory_left -= byte_count;
    return block + 1;
}

static void on_release(png_structp png, png_voidp memory) {
    if (!memory) return;
    struct session *s = png_get_mem_ptr(png);
    struct block *block = (struct block *)memory - 1;
    s->memory_left += block->byte_count;
    free(block);
}

void codecs_free(void *memory) { free(memory); }

// MARK: Encoding

struct output {
    struct session session;
    uint8_t *bytes;
    size_t count;
    size_t capacity;
};

static void on_write(png_structp png, png_bytep data, size_t length) {
    struct output *out = png_get_io_ptr(png);
    if (length > out->capacity - out->count) {
        if (length > SIZE_MAX / 2 - out->capacity) png_error(png, "too large");
        size_t capacity = out->capacity * 2 > out->count + length ? out->capacity * 2
                                                                  : out->count + length;
        uint8_t *bytes = realloc(out->bytes, capacity);
        if (!bytes) png_error(png, "out of memory");
        out->bytes = bytes;
        out->capacity = capacity;
    }
    memcpy(out->bytes + out->count, data, length);
    out->count += length;
}

static void on_flush(png_structp png) { (void)png; }

static void set_text(struct session *s, const codecs_text *text) {
    // libpng takes mutable strings and copies them.
    png_text entry = {
        .compression =
            text->is_international ? PNG_ITXT_COMPRESSION_NONE : PNG_TEXT_COMPRESSION_NONE,
        .key = (png_charp)(uintptr_t)text->keyword,
        .text = (png_charp)(uintptr_t)text->text,
        .text_length = text->is_international ? 0 : text->text_byte_count,
        .itxt_length = text->is_international ? text->text_byte_count : 0,
        .lang = (char[]){""},
        .lang_key = (char[]){""},
    };
    png_set_text(s->png, s->info, &entry, 1);
}

static int encode(struct output *out, const uint8_t *rgb, uint32_t width, uint32_t height,
                  const codecs_text *texts, size_t text_count) {
    struct session *s = &out->session;
    if (setjmp(s->escape)) return 1;
    s->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, s, on_error, on_warning);
    if (s->png) s->info = png_create_info_struct(s->png);
    if (!s->info) {
        say(s, "out of memory");
        return 1;
    }
    png_set_write_fn(s->png, out, on_write, on_flush);
    png_set_compression_level(s->png, COMPRESSION_LEVEL);
    png_set_filter(s->png, PNG_FILTER_TYPE_BASE, PNG_ALL_FILTERS);
    png_set_IHDR(s->png, s->info, width, height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    // The PNG specification asks writers of sRGB to add the equivalent gAMA (and cHRM), for
    // decoders that do not know sRGB; those that do must ignore both.
    png_set_sRGB_gAMA_and_cHRM(s->png, s->info, PNG_sRGB_INTENT_PERCEPTUAL);
    for (size_t i = 0; i < text_count; i++) set_text(s, &texts[i]);
    png_write_info(s->png, s->info);
    for (uint32_t y = 0; y < height; y++) png_write_row(s->png, rgb + (size_t)y * width * 3);
    png_write_end(s->png, NULL);
    return s->has_warned;
}

int codecs_png_encode_rgb8(const uint8_t *rgb, uint32_t width, uint32_t height,
                           const codecs_text *texts, size_t text_count, uint8_t **bytes,
                           size_t *byte_count, char *message, size_t message_capacity) {
    struct output out = {.session = {.message = message, .message_capacity = message_capacity}};
    int failed = encode(&out, rgb, width, height, texts, text_count);
    png_destroy_write_struct(&out.session.png, &out.session.info);
    if (failed) {
        free(out.bytes);
        return 1;
    }
    *bytes = out.bytes;
    *byte_count = out.count;
    return 0;
}

// MARK: Reading

/// A PNG file in memory, of which libpng sees only some chunks.
///
/// libpng can only pass over picture data by inflating it or by holding whole chunks in memory. So
/// the texts are read from what is left of the file without that: the header, the texts, and one
/// empty IDAT, since libpng insists on one.
struct input {
    struct session session;
    const uint8_t *bytes;
    size_t count;
    size_t position;
    const uint8_t *segment;
    size_t segment_left;
    bool is_filtered;
    bool with_texts;
    bool has_passed_picture;
};

static const uint8_t empty_picture[CHUNK_OVERHEAD] = {0,   0,   0,    0,    'I',  'D',
                                                      'A', 'T', 0x35, 0xAF, 0x06, 0x1E};

static bool has_type(const uint8_t *chunk, const char *type) {
    return memcmp(chunk + 4, type, 4) == 0;
}

static bool is_wanted(const struct input *in, const uint8_t *chunk) {
    if (has_type(chunk, "IHDR") || has_type(chunk, "IEND")) return true;
    // libpng misses the palette where there should be one and complains where there should not.
    if (has_type(chunk, "PLTE")) {
        return in->count > COLOR_TYPE_OFFSET &&
               in->bytes[COLOR_TYPE_OFFSET] == PNG_COLOR_TYPE_PALETTE;
    }
    return in->with_texts &&
           (has_type(chunk, "tEXt") || has_type(chunk, "zTXt") || has_type(chunk, "iTXt"));
}

/// Moves to the next chunk libpng is to see; false where the file ends before one does.
static bool next_segment(struct input *in) {
    for (;;) {
        size_t left = in->count - in->position;
        if (left < CHUNK_OVERHEAD) return false;
        const uint8_t *chunk = in->bytes + in->position;
        size_t length = png_get_uint_32(chunk);
        if (length > left - CHUNK_OVERHEAD) return false;
        in->position += length + CHUNK_OVERHEAD;
        if (has_type(chunk, "IDAT")) {
            if (in->has_passed_picture) continue;
            in->has_passed_picture = true;
            in->segment = empty_picture;
            in->segment_left = CHUNK_OVERHEAD;
            return true;
        }
        if (is_wanted(in, chunk)) {
            in->segment = chunk;
            in->segment_left = length + CHUNK_OVERHEAD;
            return true;
        }
    }
}

static void on_read(png_structp png, png_bytep data, size_t length) {
    struct input *in = png_get_io_ptr(png);
    while (length > 0) {
        if (in->segment_left == 0 && !(in->is_filtered && next_segment(in))) {
            png_error(png, "the file ends too early");
        }
        size_t part = length < in->segment_left ? length : in->segment_left;
        memcpy(data, in->segment, part);
        in->segment += part;
        in->segment_left -= part;
        data += part;
        length -= part;
    }
}

static int on_picture(png_structp png, png_unknown_chunkp chunk) {
    (void)png;
    (void)chunk;
    return 1;
}

/// Creates libpng's structures for reading. To be called after setjmp; false without memory.
static bool start_reading(struct input *in, png_error_ptr warning) {
    struct session *s = &in->session;
    s->memory_left = MEMORY_LIMIT;
    s->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, s, on_error, warning, s, on_allocate,
                                      on_release);
    if (s->png) s->info = png_create_info_struct(s->png);
    if (!s->info) {
        say(s, "out of memory");
        return false;
    }
    png_set_read_fn(s->png, in, on_read);
    png_set_user_limits(s->png, SIDE_LIMIT, SIDE_LIMIT);
    png_set_chunk_malloc_max(s->png, CHUNK_LIMIT);
    // libpng stops one entry before the count it is given, which already includes one.
    png_set_chunk_cache_max(s->png, TEXT_COUNT_LIMIT + 2);
    png_set_crc_action(s->png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    return true;
}

static int describe(struct input *in) {
    struct session *s = &in->session;
    if (setjmp(s->escape)) return 1;
    if (!start_reading(in, on_warning)) return 1;
    // Exceeded limits and dropped texts are "benign" to libpng, which would go on to the next text.
    png_set_benign_errors(s->png, 0);
    png_set_keep_unknown_chunks(s->png, PNG_HANDLE_CHUNK_ALWAYS, (png_const_bytep) "IDAT", 1);
    png_set_read_user_chunk_fn(s->png, NULL, on_picture);
    png_read_info(s->png, s->info);
    png_read_end(s->png, s->info);
    return s->has_warned;
}

/// Copies the texts into one block that outlives libpng's structures; false without memory.
static bool copy_texts(struct session *s, codecs_png_description *description) {
    png_textp texts = NULL;
    int count = 0;
    png_get_text(s->png, s->info, &texts, &count);
    size_t byte_count = (size_t)count * sizeof(codecs_text);
    for (int i = 0; i < count; i++) byte_count += strlen(texts[i].key) + strlen(texts[i].text) + 2;
    if (count == 0) return true;
    codecs_text *copies = malloc(byte_count);
    if (!copies) return false;
    uint8_t *end = (uint8_t *)(copies + count);
    for (int i = 0; i < count; i++) {
        size_t keyword_count = strlen(texts[i].key), text_count = strlen(texts[i].text);
        copies[i] = (codecs_text){
            .keyword = memcpy(end, texts[i].key, keyword_count + 1),
            .keyword_byte_count = keyword_count,
            .text = memcpy(end + keyword_count + 1, texts[i].text, text_count + 1),
            .text_byte_count = text_count,
            .is_international = texts[i].compression > PNG_TEXT_COMPRESSION_zTXt,
        };
        end += keyword_count + text_count + 2;
    }
    description->texts = copies;
    description->text_count = (size_t)count;
    return true;
}

int codecs_png_describe(const uint8_t *bytes, size_t byte_count, bool with_texts,
                        codecs_png_description *description, char *message,
                        size_t message_capacity) {
    size_t first = byte_count < SIGNATURE_LENGTH ? byte_count : SIGNATURE_LENGTH;
    struct input in = {
        .session = {.message = message, .message_capacity = message_capacity},
        .bytes = bytes,
        .count = byte_count,
        .position = first,
        .segment = bytes,
        .segment_left = first,
        .is_filtered = true,
        .with_texts = with_texts,
    };
    struct session *s = &in.session;
    *description = (codecs_png_description){0};
    int failed = describe(&in);
    if (failed && s->is_out_of_memory) say(s, "its texts need more than 64 MiB of memory");
    if (!failed) {
        description->width = png_get_image_width(s->png, s->info);
        description->height = png_get_image_height(s->png, s->info);
        description->bit_depth = png_get_bit_depth(s->png, s->info);
        description->color_type = png_get_color_type(s->png, s->info);
        failed = !copy_texts(s, description);
        if (failed) say(s, "out of memory");
    }
    png_destroy_read_struct(&s->png, &s->info, NULL);
    return failed;
}

static int decode(struct input *in, const codecs_raster *raster) {
    struct session *s = &in->session;
    if (setjmp(s->escape)) return 1;
    if (!start_reading(in, on_ignored_warning)) return 1;
    // Texts, profiles and the like are passed over, never inflated. Transparent colours are not.
    png_set_keep_unknown_chunks(s->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_read_info(s->png, s->info);
    png_set_expand(s->png);
    png_set_strip_16(s->png);
    png_set_gray_to_rgb(s->png);
    // Does nothing where there is alpha.
    if (raster->channels == 4) png_set_add_alpha(s->png, 0xFF, PNG_FILLER_AFTER);
    int passes = png_set_interlace_handling(s->png);
    png_read_update_info(s->png, s->info);
    size_t row_length = (size_t)raster->width * raster->channels;
    if (png_get_image_width(s->png, s->info) != raster->width ||
        png_get_image_height(s->png, s->info) != raster->height ||
        png_get_rowbytes(s->png, s->info) != row_length) {
        png_error(s->png, "not of the expected size and kind");
    }
    for (int pass = 0; pass < passes; pass++) {
        for (uint32_t y = 0; y < raster->height; y++) {
            png_read_row(s->png, raster->pixels + y * row_length, NULL);
        }
    }
    png_read_end(s->png, NULL);
    return 0;
}

int codecs_png_decode(const uint8_t *bytes, size_t byte_count, const codecs_raster *raster) {
    struct input in = {
        .session = {.message = raster->message, .message_capacity = raster->message_capacity},
        .segment = bytes,
        .segment_left = byte_count,
    };
    int failed = decode(&in, raster);
    png_destroy_read_struct(&in.session.png, &in.session.info, NULL);
    return failed;
}

size_t codecs_png_text_limit(void) { return CHUNK_LIMIT; }

const char *codecs_png_version(void) { return png_get_libpng_ver(NULL); }
