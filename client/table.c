/* The table of commands. A new command needs a file in commands/, a row here, and a declaration in
 * cli.h. */
#include <string.h>

#include "client/cli.h"

#define COMPARE_MAX 16
#define REMOTE                                                                                     \
    "coordinator token token-file tls-dir tls-ca tls-cert tls-key tls-name timeout json quiet "    \
    "help"

static const cli_command table[] = {
    {"run", "JOB.yaml", "Train in this process: coordinator and N workers, no network", 1, 1,
     "workers data set out resume overwrite profile trace timeout json quiet help",
     "coppice run examples/mnist-dropout.yaml --workers 2 --data ~/mnist\n"
     "coppice run job.yaml --set train.batch=64 --set seed=7 --out runs/seed7\n"
     "coppice run job.yaml --out runs/a --resume auto     # continue after a stop\n"
     "coppice run job.yaml --set train.steps=200 --profile --trace trace.json",
     cli_run},
    {"plan", "JOB.yaml", "Check a job file; show layers, parameters, FLOP, bytes, memory", 1, 1,
     "workers data set time measure json quiet help",
     "coppice plan examples/mnist-dropout.yaml --workers 4\n"
     "coppice plan examples/mnist-dropout.yaml --time      # how long will coppice run take?",
     cli_plan},
    {"submit", "JOB.yaml", "Submit a job to a coordinator and follow it", 0, 1,
     "from data set priority once no-wait dry-run " REMOTE,
     "coppice submit job.yaml --data ~/mnist\ncoppice submit job.yaml --no-wait --priority 5\n"
     "coppice submit job.yaml --once nightly-2026-11-24\n"
     "coppice submit --from 3 --set seed=2                 # repeat job 3 with another seed\n"
     "ssh gpu1 coppice submit - < job.yaml                 # a job file on standard input\n"
     "coppice submit job.yaml --coordinator tls+tcp://gpu1.example:29700 --tls-dir ~/tls",
     cli_submit},
    {"jobs", "", "List the coordinator's jobs, newest first", 0, 0, "name state limit " REMOTE,
     "coppice jobs\ncoppice jobs --state running\ncoppice jobs --name digits --limit 5 --json",
     cli_jobs},
    {"status", "JOB", "Show one job", 1, 1, "verbose " REMOTE,
     "coppice status 3\ncoppice status mnist-dropout         # the newest of that name",
     cli_status},
    {"watch", "JOB", "Follow a job until it ends; survives a restart of the coordinator", 1, 1,
     REMOTE, "coppice watch 3", cli_watch},
    {"cancel", "JOB", "Stop a job permanently", 1, 1, REMOTE, "coppice cancel 3", cli_cancel},
    {"pause", "JOB", "Save a checkpoint of a job and pause it", 1, 1, REMOTE, "coppice pause 3",
     cli_pause},
    {"resume", "JOB", "Resume a paused job", 1, 1, REMOTE, "coppice resume 3", cli_resume},
    {"rm", "JOB", "Remove an ended job with its checkpoints and metrics", 1, 1, REMOTE,
     "coppice rm 3", cli_rm},
    {"logs", "JOB", "Show a job's events", 1, 1, "follow " REMOTE,
     "coppice logs 3\ncoppice logs 3 -f", cli_logs},
    {"workers", "", "List the workers of the pool", 0, 0, REMOTE, "coppice workers", cli_workers},
    {"drain", "WORKER", "Ask a worker to finish its shard and leave", 1, 1, REMOTE,
     "coppice drain desktop-7", cli_drain},
    {"eval", "JOB|MODEL", "Evaluate trained weights on the test set", 0, 1,
     "data ensemble average members-from workers " REMOTE,
     "coppice eval runs/mnist-dropout --data ~/mnist\ncoppice eval 3\n"
     "coppice eval 3 --ensemble 10,20,50          # thinned networks, on the coordinator's pool\n"
     "coppice eval runs/mnist-dropout --data ~/mnist --ensemble 50 --average geometric\n"
     "coppice eval --members-from 3 4 5           # separately trained networks",
     cli_eval},
    {"predict", "JOB|MODEL", "Predict samples with trained weights, and show the uncertainty", 1, 1,
     "input ensemble limit top-uncertain output workers " REMOTE,
     "coppice predict runs/mnist-dropout --input digit.png\n"
     "coppice predict runs/mnist-dropout --input photographs/ --ensemble 50\n"
     "coppice predict 3 --input new.csv --ensemble 50 --json > predictions.jsonl\n"
     "coppice predict runs/mnist-dropout --input t10k-images-idx3-ubyte.gz --ensemble 50 "
     "--top-uncertain 24 -o sheet.png\n"
     "python3 make-samples.py | coppice predict runs/mnist-dropout --input -",
     cli_predict},
    {"digest", "JOB|MODEL", "Print the digest of a model's weights", 1, 1, REMOTE,
     "coppice digest runs/mnist-dropout\ncoppice digest 3", cli_digest},
    {"inspect", "MODEL|DATA", "Show the contents of a model file or a data set", 1, 1,
     "data label drop layout resize output rows columns json quiet help",
     "coppice inspect runs/mnist-dropout\ncoppice inspect mnist -o sheet.png\n"
     "coppice inspect train.csv --label label --drop id",
     cli_inspect},
    {"export", "JOB|MODEL", "Write a trained model to a file for other programs", 1, 1,
     "format output " REMOTE,
     "coppice export 3 -o model.safetensors\n"
     "coppice export runs/mnist-dropout --format onnx -o model.onnx     # ONNX Runtime\n"
     "coppice export runs/mnist-dropout --format torch -o model.py      # and model.safetensors",
     cli_export},
    {"data", "list|get|rm [NAME]", "Data sets: list, download, remove", 1, 2, "out local " REMOTE,
     "coppice data list                           # of the coordinator\n"
     "coppice data rm mnist\ncoppice data list --local                   # on this machine\n"
     "coppice data get mnist                      # downloads it to this machine\n"
     "coppice data rm mnist --local",
     cli_data},
    {"plot", "JOB|RUN|RESULT...", "Draw learning curves, or an ensemble's error, as SVG or PNG", 1,
     CLI_POSITIONAL_MAX, "output " REMOTE,
     "coppice plot runs/mnist-dropout -o curves.svg\ncoppice plot 3 4 -o comparison.png\n"
     "coppice eval runs/mnist-dropout --ensemble 1,2,5,10,20,50 --json > arithmetic.json\n"
     "coppice eval runs/mnist-dropout --average weight-scaling --json > scaling.json\n"
     "coppice plot arithmetic.json scaling.json -o error-against-k.svg",
     cli_plot},
    {"history", "JOB|RUN", "Print the loss of each step and epoch, and each evaluation", 1, 1,
     "csv follow " REMOTE,
     "coppice history 3\ncoppice history runs/mnist-dropout --csv > history.csv\n"
     "coppice history 3 --json -f                  # one line per record, as they arrive",
     cli_history},
    {"compare", "JOB|RUN...", "Compare the job files and the results of jobs", 2, COMPARE_MAX,
     REMOTE, "coppice compare 3 4\ncoppice compare runs/a runs/b --json", cli_compare},
    {"spec", "JOB|RUN", "Print the job file of a job, in its shortest or its complete form", 1, 1,
     "resolved " REMOTE, "coppice spec 3 > job.yaml\ncoppice spec runs/mnist-dropout --resolved",
     cli_spec},
    {"features", "MODEL", "Show what a layer has learned and how its units behave", 1, 1,
     "layer data output columns json quiet help",
     "coppice features runs/mnist-dropout\n"
     "coppice features runs/autoencoder --layer 0 -o features.png --columns 16",
     cli_features},
    {"import", "FILE", "Import weights trained by another program (safetensors)", 1, 1,
     "spec output out data set json quiet help",
     "coppice import torch.safetensors --spec job.yaml -o model.safetensors\n"
     "coppice import torch.safetensors --spec job.yaml --data ~/mnist --out runs/tuned",
     cli_import},
    {"replay", "JOB|RUN", "Recompute a step and write all tensors of one of its shards", 1, 1,
     "step shard output data " REMOTE,
     "coppice replay runs/mnist-dropout --step 1 -o step1.safetensors\n"
     "coppice replay runs/mnist-dropout --step 500 --shard 3 --data ~/mnist -o s.safetensors",
     cli_replay},
    {"completion", "[SHELL]", "Print the completion script for bash, zsh or fish", 0, 1, "help",
     "source <(coppice completion bash)\nsource <(coppice completion zsh)\n"
     "coppice completion fish | source",
     cli_completion_command},
    {0},
};

const cli_command *cli_commands(void) {
    return table;
}

const cli_command *cli_command_find(const char *name) {
    for (const cli_command *c = table; c->name; c++)
        if (strcmp(c->name, name) == 0) return c;
    return NULL;
}
