/* Mean and deviation of outputs over members. See moments.h. */
#include "common/ensemble/moments.h"

#include <math.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/real.h"

struct cop_moments {
    int outputs, max_columns, columns;
    bool sigmoid;
    double members;
    double *means;      /* [outputs][columns] */
    double *squares;    /* [outputs][columns]: the sums of (z - mean)^2 over the members */
    double *deviations; /* [outputs][columns] */
};

cop_err cop_moments_create(int outputs, bool sigmoid, int max_columns, cop_moments **out,
                           cop_error *error) {
    COP_ASSERT(outputs > 0 && max_columns > 0);
    const size_t cells = (size_t)outputs * (size_t)max_columns;
    cop_moments *s = cop_alloc(sizeof *s);
    *out = NULL;
    if (!s) return cop_no_memory(error);
    s->outputs = outputs;
    s->sigmoid = sigmoid;
    s->max_columns = max_columns;
    s->means = cop_alloc_array(cells, sizeof *s->means);
    s->squares = cop_alloc_array(cells, sizeof *s->squares);
    s->deviations = cop_alloc_array(cells, sizeof *s->deviations);
    if (!s->means || !s->squares || !s->deviations) {
        cop_moments_destroy(s);
        return cop_no_memory(error);
    }
    *out = s;
    return COP_OK;
}

void cop_moments_destroy(cop_moments *s) {
    if (!s) return;
    cop_free(s->means);
    cop_free(s->squares);
    cop_free(s->deviations);
    cop_free(s);
}

static size_t cells_of(const cop_moments *s) {
    return (size_t)s->outputs * (size_t)s->columns;
}

void cop_moments_begin(cop_moments *s, int columns) {
    COP_ASSERT(columns > 0 && columns <= s->max_columns);
    s->columns = columns;
    s->members = 0;
    memset(s->means, 0, cells_of(s) * sizeof *s->means);
    memset(s->squares, 0, cells_of(s) * sizeof *s->squares);
}

void cop_moments_add(cop_moments *s, const float *outputs, int ld) {
    COP_ASSERT(s->columns > 0 && ld >= s->columns);
    const size_t n = (size_t)s->columns;
    s->members++;
    for (size_t k = 0; k < (size_t)s->outputs; k++)
        for (size_t c = 0; c < n; c++) {
            const double z = (double)outputs[k * (size_t)ld + c],
                         value = s->sigmoid ? 1 / (1 + cop_exp(-z)) : z;
            const double difference = value - s->means[k * n + c];
            s->means[k * n + c] += difference / s->members;
            s->squares[k * n + c] += difference * (value - s->means[k * n + c]);
        }
}

const double *cop_moments_means(const cop_moments *s) {
    COP_ASSERT(s->members > 0);
    return s->means;
}

const double *cop_moments_deviations(cop_moments *s) {
    COP_ASSERT(s->members > 0);
    for (size_t i = 0; i < cells_of(s); i++)
        s->deviations[i] = s->members > 1 ? sqrt(s->squares[i] / (s->members - 1)) : 0;
    return s->deviations;
}
