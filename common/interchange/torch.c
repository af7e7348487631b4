/* Writes a model as a Python file for PyTorch. The file builds an nn.Sequential whose entries are
 * named by the numbers of the layers, so that `coppice import` accepts its state_dict. All text
 * from outside (the name of the job and of its classes) goes through python_string. */
#include <stdio.h>
#include <string.h>

#include "common/interchange/export.h"
#include "common/nn/torch.h"
#include "common/version.h"

/* ---- Python literals ---- */

/* Decodes the code point at p, which is valid UTF-8. Sets *bytes to the number of its bytes. */
static unsigned code_point(const unsigned char *p, int *bytes) {
    const int more = *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : *p >= 0xc0 ? 1 : 0;
    unsigned code = more == 3 ? *p & 7u : more == 2 ? *p & 15u : more == 1 ? *p & 31u : *p;
    for (int i = 1; i <= more; i++) code = code << 6 | (p[i] & 63u);
    *bytes = 1 + more;
    return code;
}

/* Appends a string literal that has only printable ASCII characters and that Python reads as
 * `text`. If `text` is not valid UTF-8, Python reads each of its bytes as one character. */
static void python_string(cop_str *out, const char *text) {
    const unsigned char *p = (const unsigned char *)text;
    const bool valid = cop_utf8_valid(text, strlen(text));
    cop_str_append(out, "\"");
    for (int bytes = 1; *p; p += bytes) {
        const unsigned code = valid ? code_point(p, &bytes) : *p;
        if (code >= 0x10000)
            cop_str_printf(out, "\\U%08x", code);
        else if (code < 0x20 || code > 0x7e)
            cop_str_printf(out, "\\u%04x", code);
        else
            cop_str_printf(out, code == '"' || code == '\\' ? "\\%c" : "%c", (int)code);
    }
    cop_str_append(out, "\"");
}

static void python_reals(cop_str *out, const float *values, int32_t count) {
    cop_str_append(out, "[");
    for (int32_t i = 0; i < count; i++)
        cop_str_printf(out, "%s%.9g", i ? ", " : "", (double)values[i]);
    cop_str_append(out, "]");
}

/* ---- preparation of the input ---- */

static const char standardize[] =
    "class Standardize(nn.Module):\n"
    "    \"\"\"(x - mean) / std, per channel or feature, as the job did it.\"\"\"\n\n"
    "    def __init__(self, mean, std, shape):\n"
    "        super().__init__()\n"
    "        self.register_buffer(\"mean\", torch.tensor(mean).reshape(shape), persistent=False)\n"
    "        self.register_buffer(\"std\", torch.tensor(std).reshape(shape), persistent=False)\n\n"
    "    def forward(self, x):\n"
    "        return (x - self.mean) / self.std\n";

/* Prints the modules that prepare the input: the Python classes that they need into t, and their
 * entries of the nn.Sequential into `entries`. */
static void print_preparation(const cop_export *m, cop_torch *t, cop_str *entries) {
    const cop_input *input = cop_model_input(m->model);
    const bool image = m->sample.rank > 1;
    if (input->normalize == COP_NORMALIZE_STANDARD) {
        cop_torch_class(t, standardize);
        cop_str_append(entries, "        (\"standardize\", Standardize(");
        python_reals(entries, input->mean, input->channels);
        cop_str_append(entries, ", ");
        python_reals(entries, input->std, input->channels);
        cop_str_append(entries, image ? ", (-1, 1, 1))),\n" : ", (-1,))),\n");
    }
    if (image && cop_model_layer(m->model, 0)->in.rank == 1)
        cop_str_append(entries, "        (\"flatten\", nn.Flatten()),\n");
}

static void print_layers(const cop_model *model, cop_torch *t, cop_str *entries) {
    for (int i = 0; i < cop_model_layer_count(model); i++) {
        const cop_layer *layer = cop_model_layer(model, i);
        COP_ASSERT(layer->ops->torch);
        cop_str_clear(&t->text);
        layer->ops->torch(layer, t);
        cop_str_printf(entries, "        (\"%d\", %s),\n", i, cop_str_text(&t->text));
    }
}

/* ---- the file ---- */

static void print_head(const cop_export *m, const cop_torch *t, cop_str *out) {
    bool functional = false;
    COP_ASSERT(t->class_count <= COP_TORCH_CLASSES && (m->class_names || m->class_count == 0));
    for (int i = 0; i < t->class_count; i++) functional = functional || strstr(t->classes[i], "F.");
    cop_str_printf(
        out,
        "\"\"\"A model trained by coppice, for PyTorch (coppice %s export --format "
        "torch).\n\nbuild() returns an nn.Sequential in evaluation mode. It loads the weights "
        "from the .safetensors file of\nthe same name. Its train() switches dropout on. "
        "Input: (N",
        COP_VERSION);
    for (int d = 0; d < m->sample.rank; d++) cop_str_printf(out, ", %d", (int)m->sample.dims[d]);
    cop_str_printf(out,
                   "), %s.\n\"\"\"\n\nimport collections\nimport pathlib\n\nimport torch\n%s"
                   "from safetensors.torch import load_file\nfrom torch import nn\n\nJOB = ",
                   m->input, functional ? "import torch.nn.functional as F\n" : "");
    python_string(out, m->name);
    cop_str_printf(out, "\nSTEP = %llu\nDIGEST = \"%s\"\n", (unsigned long long)m->step, m->digest);
    for (size_t c = 0; c < m->class_count; c++) {
        cop_str_append(out, c ? ", " : "CLASSES = [");
        python_string(out, m->class_names[c]);
    }
    if (m->class_count) cop_str_append(out, "]\n");
}

void cop_export_torch(const cop_export *m, cop_str *out) {
    cop_torch t = {0};
    cop_str entries = {0};
    print_preparation(m, &t, &entries);
    print_layers(m->model, &t, &entries);
    print_head(m, &t, out);
    for (int i = 0; i < t.class_count; i++) cop_str_printf(out, "\n\n%s", t.classes[i]);
    cop_str_printf(out,
                   "\n\ndef build(weights=pathlib.Path(__file__).with_suffix(\".safetensors\")):\n"
                   "    model = nn.Sequential(collections.OrderedDict([\n%s    ]))\n"
                   "    model.load_state_dict(load_file(weights))\n"
                   "    return model.eval()\n\n\n"
                   "if __name__ == \"__main__\":\n    print(build())\n",
                   cop_str_text(&entries));
    out->failed = out->failed || entries.failed || t.text.failed;
    cop_str_fini(&entries);
    cop_str_fini(&t.text);
}
