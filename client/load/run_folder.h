/* The folder of a run: which folder a run uses, which files in it must not be lost, and where its
 * data were. Used by `run` and by the commands that read a run folder later. */
#ifndef COP_CLIENT_LOAD_RUN_FOLDER_H
#define COP_CLIENT_LOAD_RUN_FOLDER_H

#include "client/cli.h"

/* A folder that this process writes to. No other run can use it before cli_run_folder_fini. */
typedef struct cli_run_folder {
    char *path;
    int lock; /* a locked descriptor of the folder; -1: none */
} cli_run_folder;

/* Chooses and creates the folder, and locks it. --out names it; else it is runs/NAME, or for a new
 * run runs/NAME-2, -3 ... where that holds a run already. --resume takes the folder that it names,
 * --out, or the newest of runs/NAME. INPUT: the folder holds a run, and neither --resume nor
 * --overwrite is given; or it holds files that no run wrote; or another run writes to it. */
cop_err cli_run_folder_choose(const cli_options *options, const char *name, cli_run_folder *out,
                              cop_error *error);
/* INPUT: the folder holds a run, or a file that a run would replace. */
cop_err cli_run_folder_check_free(const char *path, cop_error *error);
/* Makes it ready for `job`: with --resume checks that it holds a run of this job; else removes what
 * an older run left (--overwrite). Then writes job.yaml, and where the data are. */
cop_err cli_run_folder_prepare(const cli_run_folder *folder, const cli_options *options,
                               const cop_job *job, cop_error *error);
void cli_run_folder_fini(cli_run_folder *folder);

/* Opens the data of a trained model: from --data, else from the place where the run found them,
 * else from the place that the job file names. `path` is the run folder, or a checkpoint or model
 * file in it. The caller owns *data. */
cop_err cli_run_folder_open_data(const Coppice__Job *job, const char *path,
                                 const cli_options *options, cop_data **data, cop_error *error);
/* The same for a job file, which may be that of a run folder; any other's data are where it says.
 */
cop_err cli_run_folder_open_job_data(const Coppice__Job *job, const char *path,
                                     const cli_options *options, cop_data **data, cop_error *error);

#endif
