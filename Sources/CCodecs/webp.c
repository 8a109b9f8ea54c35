#include "codecs.h"
#include <stdio.h>
#include <webp/decode.h>

/// What a status means, NULL for success.
static const char *reason(VP8StatusCode status) {
    switch (status) {
    case VP8_STATUS_OK: return NULL;
    case VP8_STATUS_OUT_OF_MEMORY: return "out of memory";
    case VP8_STATUS_UNSUPPORTED_FEATURE: return "a feature that libwebp does not support";
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA: return "the file ends too early";
    default: return "damaged data";
    }
}

/// Returns 0 without a reason, else 1 after copying it.
static int finish(const char *_Nullable text, char *message, size_t message_capacity) {
    if (!text) return 0;
    snprintf(message, message_capacity, "%s", text);
    return 1;
}

int codecs_webp_describe(const uint8_t *bytes, size_t byte_count,
                         codecs_webp_description *description, char *message,
                         size_t message_capacity) {
    WebPBitstreamFeatures features;
    VP8StatusCode status = WebPGetFeatures(bytes, byte_count, &features);
    if (status != VP8_STATUS_OK) return finish(reason(status), message, message_capacity);
    *description = (codecs_webp_description){
        .width = (uint32_t)features.width,
        .height = (uint32_t)features.height,
        .has_alpha = features.has_alpha != 0,
        .has_animation = features.has_animation != 0,
    };
    return 0;
}

int codecs_webp_decode(const uint8_t *bytes, size_t byte_count, const codecs_raster *raster) {
    WebPDecoderConfig config;
    const char *text = NULL;
    if (!WebPInitDecoderConfig(&config)) {
        text = "another version of libwebp";
    } else {
        size_t row_length = (size_t)raster->width * raster->channels;
        config.output.colorspace = raster->channels == 4 ? MODE_RGBA : MODE_RGB;
        config.output.is_external_memory = 1;
        config.output.u.RGBA.rgba = raster->pixels;
        config.output.u.RGBA.stride = (int)row_length;
        config.output.u.RGBA.size = row_length * raster->height;
        // A picture larger than the memory is an error to libwebp, a smaller one is not.
        text = reason(WebPDecode(bytes, byte_count, &config));
        if (!text && ((uint32_t)config.output.width != raster->width ||
                      (uint32_t)config.output.height != raster->height)) {
            text = "not of the expected size";
        }
    }
    return finish(text, raster->message, raster->message_capacity);
}

uint32_t codecs_webp_version(void) { return (uint32_t)WebPGetDecoderVersion(); }
