// `kiln train` killed at random moments of its life, from its start to the writing of its package, and resumed: each run that gets to its end
// must have the bytes of one that was never killed, and no checkpoint may be lost or be half of one.
//
//   kill_train KILN SPIRALS.kir KILLS [SEED]
#include "frontend/data/safetensors.h"
#include "tests/temp_folder.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

namespace fs = std::filesystem;

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const std::string &why) {
  std::fprintf(stderr, "FAILED: %s\n", why.c_str());
  std::exit(1);
}

// Kills after `seconds`, where they are not negative. The exit status, or -1 where it was killed.
int run(const std::vector<std::string> &command, double seconds = -1) {
  pid_t child = fork();
  if (child == 0) {
    std::vector<char *> words;
    for (const std::string &word : command)
      words.push_back(const_cast<char *>(word.c_str()));
    words.push_back(nullptr);
    int null = open("/dev/null", O_WRONLY);
    dup2(null, 1);
    dup2(null, 2);
    execv(words[0], words.data());
    _exit(127);
  }
  if (seconds >= 0) {
    usleep(useconds_t(seconds * 1e6));
    kill(child, SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

std::string bytes_of(const fs::path &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The step of the checkpoint, which must be whole; -1 where there is none.
int64_t step_of(const fs::path &path) {
  if (!fs::exists(path))
    return -1;
  auto file = kiln::read_safetensors(path.string());
  if (!file)
    fail("a checkpoint is damaged: " + file.error().message);
  return std::stoll(file->metadata.at("kiln.step"));
}

} // namespace

int main(int argc, char **argv) {
  if (argc < 4)
    fail("usage: kill_train KILN SPIRALS.kir KILLS [SEED]");
  std::string kiln = argv[1], spirals = argv[2];
  int kills = std::atoi(argv[3]);
  unsigned seed = argc > 4 ? unsigned(std::atoi(argv[4])) : std::random_device()();
  std::printf("seed %u\n", seed);
  std::fflush(stdout);
  kiln::test::TempFolder own;
  const fs::path &folder = own.path;
  auto in = [&](const char *file) { return (folder / file).string(); };

  if (run({kiln, "run", spirals, "--entry", "points", "--output", "x=@" + in("x.npy"), "--output", "label=@" + in("y.npy")}) != 0 ||
      run({kiln, "compile", spirals, "--keep-params", "-o", in("model.kiln")}) != 0)
    fail("cannot make the model and its data");
  std::vector<std::string> train = {kiln, "train", in("model.kiln"), "--data", "x=@" + in("x.npy") + " y=@" + in("y.npy"), "--split", "0.2", "--batch", "32",
                                    "--epochs", "6", "--seed", "3", "--monitor", "accuracy", "--workers", "2", "--log", in("log.jsonl")};
  auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), train.begin(), train.end());
    return more;
  };
  auto begin = Clock::now();
  if (run(with({"--checkpoint", in("unbroken"), "--checkpoint-every", "3", "-o", in("unbroken.kiln")})) != 0)
    fail("the unbroken run fails");
  double whole = std::chrono::duration<double>(Clock::now() - begin).count();
  const std::string wanted = bytes_of(in("unbroken.kiln")), wanted_log = bytes_of(in("log.jsonl"));

  std::mt19937 random(seed);
  std::uniform_real_distribution<double> moment(0, 0.9 * whole);
  const fs::path last = folder / "run" / "last.safetensors";
  int64_t before = -1;
  int killed = 0, ended = 0, attempts = 0;
  auto check_end = [&] {
    ++ended;
    if (bytes_of(in("out.kiln")) != wanted)
      fail("a run that was killed and resumed ends with other bytes");
    if (bytes_of(in("log.jsonl")) != wanted_log)
      fail("a run that was killed and resumed has another log");
    fs::remove_all(folder / "run");
    fs::remove(in("out.kiln"));
    before = -1;
  };
  auto resumed = with({"--checkpoint", (folder / "run").string(), "--checkpoint-every", "3", "--resume", "-o", in("out.kiln")});
  for (; killed < kills; ++attempts) {
    int status = run(resumed, moment(random));
    if (status > 0)
      fail("a resumed run fails after " + std::to_string(killed) + " kills");
    if (status < 0) {
      ++killed;
      if (fs::exists(in("out.kiln")) && bytes_of(in("out.kiln")) != wanted)
        fail("a killed run left a part of a package");
      int64_t step = step_of(last);
      if (step < before)
        fail("a checkpoint was lost: step " + std::to_string(step) + " after " + std::to_string(before));
      before = step;
    } else {
      check_end();
    }
  }
  if (run(resumed) != 0)
    fail("the last run fails");
  check_end();
  if (ended < 2 && kills > 50)
    fail("hardly a run came to its end: the moments are too early");
  std::printf("%d kills in %d runs, %d of them to the end, each with the same bytes\n", killed, attempts + 1, ended);
  return 0;
}
