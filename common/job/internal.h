/* Inside common/job. */
#ifndef COP_JOB_INTERNAL_H
#define COP_JOB_INTERNAL_H

#include "common/job/job.h"

/* Relations between the fields of a resolved message; INPUT says where (pin.c). */
cop_err job_check_relations(const Coppice__Job *m, cop_error *error);
/* Set m->pinned from the data; what the message was pinned to before must be these data. */
cop_err job_pin(Coppice__Job *m, const cop_data *data, cop_error *error);
/* Is a pinned section that came from outside whole, and does it follow from the job's fields? */
cop_err job_check_pinned(const Coppice__Job *m, cop_error *error);

/* The specs of common/nn (spec.c). `m` is resolved, checked and pinned. */
cop_err job_build_model(const Coppice__Job *m, cop_model **out, cop_error *error);
void job_build_optimizer(const Coppice__Job *m, uint64_t steps, cop_optimizer_spec *out);

#endif
