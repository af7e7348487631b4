/* A drawn surface as a PNG file. See png.h. */
#include "client/draw/png.h"

#include "common/base/file.h"
#include "common/base/str.h"

cairo_status_t cli_png_append(void *out, const unsigned char *bytes, unsigned length) {
    cop_str *text = out;
    cop_str_append_bytes(text, bytes, length);
    return text->failed ? CAIRO_STATUS_NO_MEMORY : CAIRO_STATUS_SUCCESS;
}

cop_err cli_png_write(cairo_surface_t *surface, const char *path, cop_error *error) {
    cop_str png = {0};
    cop_err e = COP_OK;
    if (cairo_surface_write_to_png_stream(surface, cli_png_append, &png) != CAIRO_STATUS_SUCCESS)
        e = cop_fail(error, COP_ERR_NO_MEMORY, "cannot create the image %s", path);
    const cop_file_part part = {png.text, png.length};
    if (!e) e = cop_file_write(path, &part, 1, 0644, error);
    cop_str_fini(&png);
    return e;
}
