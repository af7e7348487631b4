/* Downloads data sets: tries the mirrors in turn, resumes a partial download, checks the hash, and
 * renames the complete file into place. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/remote/download.h"
#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/str.h"

#ifdef COP_HAVE_CURL
#    include <curl/curl.h>
#    include <zlib.h>

/* One file of a data set. The hash is that of the decompressed content, because mirrors may
 * compress the file differently. */
typedef struct get_file {
    const char *name;
    const char *sha256;  /* SHA-256 of the decompressed content, in hexadecimal */
    uint64_t size;       /* size of the decompressed content */
    uint64_t compressed; /* approximate size of the download, for the progress bar */
} get_file;

static const get_file mnist_files[] = {
    {"train-images-idx3-ubyte.gz",
     "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 47040016, 9719438},
    {"train-labels-idx1-ubyte.gz",
     "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 60008, 28881},
    {"t10k-images-idx3-ubyte.gz",
     "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 7840016, 1648877},
    {"t10k-labels-idx1-ubyte.gz",
     "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 10008, 4542},
};
/* Public mirrors of the four files of MNIST. */
static const char *const mnist_mirrors[] = {
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
};

/* The folder for the files of a data set, and the callback for the progress. */
typedef struct download {
    const char *folder;
    cop_data_progress progress; /* NULL: none */
    void *context;
} download;

typedef struct transfer {
    const download *to;
    const get_file *what;
    FILE *file;
    uint64_t begin; /* size of the partial file before this transfer */
    uint64_t done;  /* bytes received in this transfer */
    bool failed;    /* writing to the disk failed */
} transfer;

static size_t on_data(char *bytes, size_t one, size_t count, void *argument) {
    transfer *t = argument;
    size_t size = one * count;
    COP_ASSERT(t->begin + t->done <= t->what->size);
    if (t->begin + t->done + size > t->what->size)
        return 0; /* more bytes than even the decompressed file has: stop the transfer */
    if (fwrite(bytes, 1, size, t->file) != size) {
        t->failed = true;
        return 0;
    }
    t->done += size;
    if (t->to->progress)
        t->to->progress(t->to->context, t->what->name, t->begin + t->done, t->what->compressed);
    return size;
}

/* True: the decompressed content has the expected size and SHA-256. */
static bool is_good(const char *path, const get_file *file) {
    unsigned char digest[32];
    char hex[65];
    COP_ASSERT(file->size < INT32_MAX); /* gzread counts in int */
    gzFile in = gzopen(path, "rb");
    char *bytes = in ? cop_alloc_raw(file->size + 1) : NULL;
    bool complete = bytes && gzread(in, bytes, (unsigned)file->size + 1) == (int)file->size;
    if (complete) cop_sha256_of(bytes, file->size, digest);
    cop_free(bytes);
    if (in) gzclose(in);
    if (!complete) return false;
    cop_hex32(digest, hex);
    return strcmp(hex, file->sha256) == 0;
}

/* Downloads the rest of the partial file `part`. INPUT: this mirror cannot resume the file.
 * UNREACHABLE: the download failed. The partial file stays, and the next mirror or the next run of
 * the command resumes it. */
static cop_err fetch(const download *to, const char *url, const get_file *file, const char *part,
                     cop_error *error) {
    FILE *out = fopen(part, "ab");
    if (!out) return cop_fail(error, COP_ERR_IO, "cannot write %s", part);
    long begin = ftell(out);
    CURL *curl = curl_easy_init();
    if (!curl || begin < 0) {
        fclose(out);
        if (curl) curl_easy_cleanup(curl);
        return cop_no_memory(error);
    }
    transfer t = {.to = to, .what = file, .file = out, .begin = (uint64_t)begin};
    char reason[CURL_ERROR_SIZE] = "";
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &t);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 10L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 100L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, 30L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)begin);
    CURLcode code = (uint64_t)begin < file->size ? curl_easy_perform(curl) : CURLE_OK;
    bool closed = fclose(out) == 0;
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(curl);
    bool cannot_resume =
        code == CURLE_RANGE_ERROR || (code == CURLE_HTTP_RETURNED_ERROR && status == 416);
    if (t.failed || !closed) return cop_fail(error, COP_ERR_NO_SPACE, "cannot write %s", part);
    if (code == CURLE_OK) return COP_OK;
    return cop_fail(error, cannot_resume ? COP_ERR_INPUT : COP_ERR_UNREACHABLE, "%s: %s", url,
                    *reason ? reason : curl_easy_strerror(code));
}

/* Downloads one file from one mirror, or resumes it if there is a partial file. A file with a wrong
 * hash is deleted. If it was resumed, it is downloaded once more from the start. */
static cop_err fetch_checked(const download *to, const char *mirror, const get_file *file,
                             const char *path, cop_error *error) {
    cop_str url = {0}, part = {0};
    COP_ASSERT(*mirror);
    cop_str_printf(&url, "%s%s%s", mirror, mirror[strlen(mirror) - 1] == '/' ? "" : "/",
                   file->name);
    cop_str_printf(&part, "%s.part", path);
    cop_err e = COP_OK;
    for (int try = 0; try < 2; try++) {
        bool resumed = cop_file_exists(cop_str_text(&part));
        e = fetch(to, cop_str_text(&url), file, cop_str_text(&part), error);
        if (e && e != COP_ERR_INPUT) break;
        if (!e && is_good(cop_str_text(&part), file)) {
            e = cop_file_rename(cop_str_text(&part), path, error);
            break;
        }
        if (!e)
            e = cop_fail(error, COP_ERR_CORRUPT,
                         "%s: the SHA-256 of the content differs from the expected one",
                         cop_str_text(&url));
        cop_file_remove(cop_str_text(&part), NULL);
        if (!resumed) break;
    }
    cop_str_fini(&url);
    cop_str_fini(&part);
    return e == COP_ERR_INPUT ? COP_ERR_UNREACHABLE : e;
}

static cop_err get_one(const download *to, const get_file *file, cop_error *error) {
    const char *mirrors[8], *own = getenv("COPPICE_MIRROR");
    size_t count = 0;
    if (own && *own) mirrors[count++] = own;
    for (size_t i = 0; i < sizeof mnist_mirrors / sizeof *mnist_mirrors; i++)
        mirrors[count++] = mnist_mirrors[i];
    COP_ASSERT(count <= sizeof mirrors / sizeof *mirrors);
    char *path = cop_path_join(to->folder, file->name);
    cop_str reasons = {0};
    cop_err e = path ? COP_ERR_UNREACHABLE : COP_ERR_NO_MEMORY;
    if (path && is_good(path, file)) e = COP_OK;
    for (size_t i = 0; i < count && (e == COP_ERR_UNREACHABLE || e == COP_ERR_CORRUPT); i++) {
        cop_error why = {0};
        e = fetch_checked(to, mirrors[i], file, path, &why);
        if (e) cop_str_printf(&reasons, "%s%s", reasons.length ? "; " : "", why.text);
    }
    if (e) cop_fail(error, e, "cannot download %s: %s", file->name, cop_str_text(&reasons));
    cop_str_fini(&reasons);
    cop_free(path);
    return e;
}

cop_err cli_download(const char *source, const char *folder, cop_data_progress progress,
                     void *context, cop_error *error) {
    if (strcmp(source, "mnist") != 0) {
        if (strcmp(source, "synthetic-digits") == 0)
            return cop_fail(error, COP_ERR_INPUT,
                            "synthetic-digits is built in: there is nothing to download");
        return cop_fail(error, COP_ERR_NOT_FOUND, "cannot download data set \"%s\": expected mnist",
                        source);
    }
    const download to = {.folder = folder, .progress = progress, .context = context};
    COP_TRY(cop_folder_create(folder, error));
    cop_folder_sweep(folder);
    if (curl_global_init(CURL_GLOBAL_DEFAULT))
        return cop_fail(error, COP_ERR_INTERNAL, "cannot start libcurl");
    cop_err e = COP_OK;
    for (size_t i = 0; i < sizeof mnist_files / sizeof *mnist_files && !e; i++)
        e = get_one(&to, &mnist_files[i], error);
    curl_global_cleanup();
    return e;
}
#else

cop_err cli_download(const char *source, const char *folder, cop_data_progress progress,
                     void *context, cop_error *error) {
    (void)folder;
    (void)progress;
    (void)context;
    return cop_fail(error, COP_ERR_UNSUPPORTED,
                    "this build cannot download (no libcurl): download the files of %s manually "
                    "and pass --data DIR",
                    source);
}
#endif
