/* The folder of a run. `run` chooses it here, locks it against other runs, and records in it where
 * the data were. Commands that read a run folder later find the data here. */
#ifndef COP_CLIENT_LOAD_RUN_FOLDER_H
#define COP_CLIENT_LOAD_RUN_FOLDER_H

#include "client/cli.h"

/* A run folder that this process writes to. No other run can use it until cli_run_folder_fini. */
typedef struct cli_run_folder {
    char *path;
    int lock; /* the locked descriptor of the folder; -1: none */
} cli_run_folder;

/* Chooses the folder for the run of a job with this name, creates it if needed, and locks it. The
 * first of these that applies decides:
 * - --resume PATH: the existing folder PATH
 * - --out: the folder that it names
 * - --resume auto: the folder of this job's newest run among runs/NAME, runs/NAME-2 ...
 * - --overwrite: runs/NAME
 * - none of them: the first free folder of runs/NAME, runs/NAME-2 ...
 *
 * INPUT: the folder contains a run, but neither --resume nor --overwrite is given; or it contains
 * files that no run has written; or it contains a run of another job; or NAME cannot be the name of
 * a folder. EXISTS: another run has locked the folder. NOT_FOUND: PATH does not exist. USAGE: the
 * options contradict each other. The caller frees *out with cli_run_folder_fini. */
cop_err cli_run_folder_choose(const cli_options *options, const char *name, cli_run_folder *out,
                              cop_error *error);
/* Checks that a new run can use the folder, which need not exist. INPUT: the folder contains a run,
 * or a file that a run would replace. */
cop_err cli_run_folder_check_free(const char *path, cop_error *error);
/* Prepares the folder for `job`. With --resume, checks that checkpoints in the folder belong to
 * this job. Without --resume, removes the files of an older run, if there are any (--overwrite).
 * Then writes job.yaml and the place of the data. */
cop_err cli_run_folder_prepare(const cli_run_folder *folder, const cli_options *options,
                               const cop_job *job, cop_error *error);
/* Unlocks the folder and frees the path. The files stay. */
void cli_run_folder_fini(cli_run_folder *folder);

/* Opens the data of a trained model. It looks for them in --data if that is given, otherwise where
 * the run found them if the run recorded that, otherwise in the place that the job file names.
 * `path` is the run folder, or a checkpoint or model file in it. The caller owns *data
 * (cop_data_destroy). */
cop_err cli_run_folder_open_data(const Coppice__Job *job, const char *path,
                                 const cli_options *options, cop_data **data, cop_error *error);
/* Opens the data of the job file at `path`. If the file is in a run folder, does the same as
 * cli_run_folder_open_data. Otherwise looks for the data in --data if that is given, or in the
 * place that the job file names. The caller owns *data (cop_data_destroy). */
cop_err cli_run_folder_open_job_data(const Coppice__Job *job, const char *path,
                                     const cli_options *options, cop_data **data, cop_error *error);

#endif
