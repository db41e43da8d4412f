// kiln train: runs a model's `train_step` over data, in epochs, with validation, checkpoints and a package at the end.
#include "tools/training.h"
#include "tools/usage.h"

namespace kiln {

void add_train(CLI::App &app, int &exit_code) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App *verb = app.add_subcommand("train", "Train a model: run its train_step over data");
  verb->footer("Data:\n"
               "  --data x=@images.npy --data y=@labels-idx1-ubyte.gz        arrays (.npy, .npz, IDX), axis 0 counts examples\n"
               "  --data 'iris.csv x=0-3 y=species' --split 0.2              columns by number or name; text becomes classes\n"
               "  --data 'air.csv x=passengers y=passengers window=12'       12 rows, and the row after them\n"
               "  --data 'shakespeare.txt window=64'                         x: 64 characters, y: those after each\n"
               "  --data lines:names.txt --buckets 8,16                      x and y: lines, padded to the bucket\n"
               "  --data 'photos size=64x64' --augment x=flip,crop:4         a folder of PNG and JPEG for each class");
  options->model.add_to(*verb);
  options->data.add_to(*verb);
  verb->add_option("--buckets", options->buckets, "lengths that examples of different length are padded to")->delimiter(',')
      ->check(CLI::Range(int64_t(1), int64_t(1) << 40));
  verb->add_option("--set", options->numbers, "INPUT=NUMBER: an input of train_step that is one number, as in lr=1e-3")
      ->allow_extra_args(false)
      ->check(well_formed(parse_setting));
  verb->add_option("--epochs", options->epochs, "how often to go through the data")->check(CLI::Range(int64_t(0), int64_t(1) << 40));
  verb->add_option("--batch", options->batch, "examples in a step, where the model leaves it open")->check(CLI::Range(int64_t(1), int64_t(1) << 30));
  verb->add_option("--seed", options->seed, "of first values, dropout, the order of examples, augmentation and the split");
  verb->add_option("--device", options->device, "cpu (default), cuda:0 or auto: where it computes")->check(check_device);
  verb->add_option("--threads", options->threads, "threads to run on")->check(CLI::Range(1, 1024));
  verb->add_option("--workers", options->workers, "threads that make batches")->check(CLI::Range(0, 256));
  verb->add_flag("--keep-order", options->keep_order, "do not shuffle");
  verb->add_option("--monitor", options->monitor, "the output of `evaluate` that tells the best epoch, as in loss or f:max (default: the first)");
  verb->add_option("--patience", options->patience, "stop when that many epochs brought no better one")->check(CLI::Range(int64_t(1), int64_t(1) << 40));
  verb->add_option("--checkpoint", options->checkpoint, "a folder: last.safetensors is written there after each epoch, and when interrupted");
  verb->add_option("--checkpoint-every", options->checkpoint_every, "and every N steps")->check(CLI::Range(int64_t(1), int64_t(1) << 40));
  verb->add_flag("--resume", options->resume, "go on from the checkpoint, if there is one");
  verb->add_option("--log", options->log, "a line of JSON for each step and validation");
  verb->add_option("--report", options->report, "an HTML page with the curves");
  verb->add_option("--names", options->names_file, "JSON with what the numbers of the data stand for: classes, characters");
  verb->add_flag("--find-lr", options->find_lr, "train nothing, try learning rates from 1e-7 to 10 as the input `lr`");
  verb->add_option("-o", options->output, "a package for inference with the trained values");
  verb->add_flag("--keep-training", options->keep_training, "with train_step and its state, to be trained further");
  verb->add_option("--step", options->step, "the entry that trains (default: train_step)");
  verb->add_option("--evaluate", options->evaluate, "the entry that validates (default: evaluate)");
  verb->add_option("-O", options->level, "0, 1 or 2, where a model is compiled")->check(well_formed(parse_level));
  verb->callback([options, &exit_code] {
    options->data.seed = options->seed;
    exit_code = Training(*options).run();
  });
}

} // namespace kiln
