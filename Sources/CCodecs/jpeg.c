#include "codecs.h"
#include <setjmp.h>
#include <stdio.h>
// After stdio.h, since it uses FILE.
#include <jpeglib.h>
#include <jerror.h>

enum {
    // Scans of one file. Ten are usual; each costs time for the whole picture, whatever its length.
    SCAN_LIMIT = 64,
};

/// One call. It belongs to the caller of the function that calls setjmp, so what changes after
/// setjmp is still defined after longjmp.
struct session {
    // The first member, so that its address, which libjpeg hands around, is the session's.
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    struct jpeg_decompress_struct jpeg;
    jmp_buf escape;
    const codecs_raster *raster;
};

static struct session *session_of(j_common_ptr jpeg) { return (struct session *)jpeg->err; }

static _Noreturn void fail(struct session *s, const char *text) {
    snprintf(s->raster->message, s->raster->message_capacity, "%s", text);
    longjmp(s->escape, 1);
}

static void on_error(j_common_ptr jpeg) {
    char text[JMSG_LENGTH_MAX];
    jpeg->err->format_message(jpeg, text);
    fail(session_of(jpeg), text);
}

/// libjpeg warns and makes up pixels where data is damaged or missing. Here that is a failure.
static void on_message(j_common_ptr jpeg, int level) {
    if (level >= 0) return;
    switch (jpeg->err->msg_code) {
    // No pixel depends on these.
    case JWRN_ADOBE_XFORM:
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_JFIF_MAJOR:
    case JWRN_NOT_SEQUENTIAL:
        return;
    default:
        on_error(jpeg);
    }
}

static void on_progress(j_common_ptr jpeg) {
    struct session *s = session_of(jpeg);
    if (s->jpeg.input_scan_number > SCAN_LIMIT) fail(s, "more than 64 scans");
}

/// Mixes one row of inverted inks, so that 255 is none.
static void mix(const uint8_t *inks, uint8_t *rgb, uint32_t width) {
    for (uint32_t x = 0; x < width; x++) {
        for (int i = 0; i < 3; i++) {
            rgb[3 * x + i] = (uint8_t)((inks[4 * x + i] * inks[4 * x + 3] + 127) / 255);
        }
    }
}

static int decode(struct session *s, const uint8_t *bytes, size_t byte_count) {
    j_decompress_ptr jpeg = &s->jpeg;
    const codecs_raster *raster = s->raster;
    if (setjmp(s->escape)) return 1;
    jpeg_create_decompress(jpeg);
    jpeg->progress = &s->progress;
    jpeg_mem_src(jpeg, bytes, byte_count);
    jpeg_read_header(jpeg, TRUE);
    if (jpeg->image_width != raster->width || jpeg->image_height != raster->height ||
        raster->channels != 3) {
        fail(s, "not of the expected size and kind");
    }
    bool has_inks = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
    jpeg->out_color_space = has_inks ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(jpeg);
    JSAMPARRAY inks = NULL;
    if (has_inks) {
        inks = jpeg->mem->alloc_sarray((j_common_ptr)jpeg, JPOOL_IMAGE, raster->width * 4, 1);
    }
    while (jpeg->output_scanline < raster->height) {
        uint8_t *row = raster->pixels + (size_t)jpeg->output_scanline * raster->width * 3;
        if (jpeg_read_scanlines(jpeg, inks ? inks : &row, 1) != 1) fail(s, "a row is missing");
        if (inks) mix(inks[0], row, raster->width);
    }
    jpeg_finish_decompress(jpeg);
    return 0;
}

int codecs_jpeg_decode(const uint8_t *bytes, size_t byte_count, const codecs_raster *raster) {
    struct session s = {.raster = raster};
    s.jpeg.err = jpeg_std_error(&s.errors);
    s.errors.error_exit = on_error;
    s.errors.emit_message = on_message;
    s.progress.progress_monitor = on_progress;
    int failed = decode(&s, bytes, byte_count);
    jpeg_destroy_decompress(&s.jpeg);
    return failed;
}

#define TEXT(name) #name
#define VALUE_TEXT(name) TEXT(name)

const char *codecs_jpeg_version(void) { return VALUE_TEXT(LIBJPEG_TURBO_VERSION); }
