/* The folder of a run: chooses it, protects its files from other runs, and records where the data
 * were. Used by `run` and by the commands that read a run folder later. */
#ifndef COP_CLIENT_LOAD_RUN_FOLDER_H
#define COP_CLIENT_LOAD_RUN_FOLDER_H

#include "client/cli.h"

/* A folder that this process writes to. No other run can use it before cli_run_folder_fini. */
typedef struct cli_run_folder {
    char *path;
    int lock; /* the locked descriptor of the folder; -1: none */
} cli_run_folder;

/* Chooses the folder, creates and locks it. --out names it; otherwise it is runs/NAME, or for a new
 * run the first free one of runs/NAME, runs/NAME-2 ... --resume uses the folder that it names, that
 * of --out, or the newest run of this job. INPUT: the folder contains a run, and neither --resume
 * nor
 * --overwrite is given; or it contains files that no run has written. EXISTS: another run has
 * locked it. The caller frees *out with cli_run_folder_fini. */
cop_err cli_run_folder_choose(const cli_options *options, const char *name, cli_run_folder *out,
                              cop_error *error);
/* Checks that a new run can use the folder, which need not exist. INPUT: it contains a run, or a
 * file that a run would replace. */
cop_err cli_run_folder_check_free(const char *path, cop_error *error);
/* Prepares the folder for `job`. With --resume, checks that it contains a run of this job;
 * otherwise removes the files of an older run (--overwrite). Then writes job.yaml and the place of
 * the data. */
cop_err cli_run_folder_prepare(const cli_run_folder *folder, const cli_options *options,
                               const cop_job *job, cop_error *error);
/* Unlocks the folder and frees the path. The files stay. */
void cli_run_folder_fini(cli_run_folder *folder);

/* Opens the data of a trained model: from --data, else from the place where the run found them,
 * else from the place that the job file names. `path` is the run folder, or a checkpoint or model
 * file in it. The caller owns *data (cop_data_destroy). */
cop_err cli_run_folder_open_data(const Coppice__Job *job, const char *path,
                                 const cli_options *options, cop_data **data, cop_error *error);
/* Opens the data of a job file. If it is the job.yaml of a run folder, as cli_run_folder_open_data;
 * otherwise from --data or from the place that the job file names. */
cop_err cli_run_folder_open_job_data(const Coppice__Job *job, const char *path,
                                     const cli_options *options, cop_data **data, cop_error *error);

#endif
