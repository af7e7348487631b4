/* Decodes JPEG images by libjpeg-turbo, with its accurate integer transform, so that all machines
 * get the same bytes. The library warns of damaged or missing data and fills them with grey; here
 * such a warning is an error. Errors leave the library by longjmp, so everything that must be freed
 * after an error is in `reader`. */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include "common/base/alloc.h"
#include "common/data/image.h"

#define SCANS_MAX 1000 /* scans of a progressive image; each scan takes time for all pixels */

typedef struct reader {
    struct jpeg_error_mgr errors; /* must come first: callbacks cast its address to reader * */
    struct jpeg_decompress_struct jpeg;
    struct jpeg_progress_mgr progress;
    jmp_buf out;
    const image_file *file;
    uint8_t *row;
    char message[JMSG_LENGTH_MAX];
} reader;

static void on_error(j_common_ptr jpeg) {
    reader *r = (reader *)(void *)jpeg->err;
    jpeg->err->format_message(jpeg, r->message);
    longjmp(r->out, 1);
}

static void on_message(j_common_ptr jpeg, int level) {
    if (level < 0) on_error(jpeg);
}

static void on_progress(j_common_ptr jpeg) {
    reader *r = (reader *)(void *)jpeg->err;
    if (r->jpeg.input_scan_number <= SCANS_MAX) return;
    snprintf(r->message, sizeof r->message, "it has more than %d scans", SCANS_MAX);
    longjmp(r->out, 1);
}

/* The orientation in the first APP1 segment that contains EXIF data. APP1 segments may contain
 * other data. */
static int find_orientation(const struct jpeg_decompress_struct *j) {
    for (jpeg_saved_marker_ptr m = j->marker_list; m; m = m->next)
        if (m->data_length > 6 && memcmp(m->data, "Exif\0\0", 6) == 0)
            return image_orientation(m->data, m->data_length);
    return 1;
}

/* Runs after setjmp, so a longjmp may skip its rest: only `r` and `out` may own memory. */
static cop_err decode(reader *r, cop_image *out, cop_error *error) {
    struct jpeg_decompress_struct *j = &r->jpeg;
    jpeg_create_decompress(j);
    j->progress = &r->progress;
    jpeg_mem_src(j, r->file->bytes, (unsigned long)r->file->size);
    jpeg_save_markers(j, JPEG_APP0 + 1, 0xffff); /* EXIF */
    jpeg_read_header(j, TRUE);
    if (j->num_components != 1 && j->num_components != 3)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s is a JPEG file of %d colours: expected grey or RGB", r->file->name,
                        j->num_components);
    j->out_color_space = j->num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    j->dct_method = JDCT_ISLOW;
    *out = (cop_image){j->num_components, (int32_t)j->image_height, (int32_t)j->image_width, NULL};
    COP_TRY(image_create(r->file->name, r->file->values_max, out, error));
    jpeg_start_decompress(j);
    COP_ASSERT(j->output_width == j->image_width && j->output_components == out->channels);
    r->row = cop_alloc((size_t)j->output_width * (size_t)j->output_components);
    if (!r->row) return cop_no_memory(error);
    while (j->output_scanline < j->output_height) {
        const int32_t y = (int32_t)j->output_scanline;
        if (jpeg_read_scanlines(j, &r->row, 1) == 1) image_put_row(out, y, r->row);
    }
    const int orientation = find_orientation(j);
    jpeg_finish_decompress(j); /* frees the markers */
    return image_rotate_upright(r->file->name, out, orientation, error);
}

static cop_err guarded(reader *r, cop_image *out, cop_error *error) {
    if (setjmp(r->out))
        return cop_fail(error, COP_ERR_CORRUPT, "%s is a damaged JPEG file: %s", r->file->name,
                        r->message);
    return decode(r, out, error);
}

cop_err image_decode_jpeg(const image_file *file, cop_image *out, cop_error *error) {
    reader *r = cop_alloc(sizeof *r);
    if (!r) return cop_no_memory(error);
    r->file = file;
    r->jpeg.err = jpeg_std_error(&r->errors);
    r->errors.error_exit = on_error;
    r->errors.emit_message = on_message;
    r->progress.progress_monitor = on_progress;
    cop_err e = guarded(r, out, error);
    jpeg_destroy_decompress(&r->jpeg);
    cop_free(r->row);
    cop_free(r);
    if (e) {
        cop_free(out->pixels);
        *out = (cop_image){0};
    }
    return e;
}
