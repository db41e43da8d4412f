// Generates text, as token numbers, with a decoder whose cache is state of the package:
//
//   kiln compile decoder.onnx --state auto:256 --dim batch=1 --specialise seq=1 -o decoder.kiln
//   decoder_cpp decoder.kiln COUNT THREADS TOKEN...
//
// The model takes token numbers, i64[1, seq], and gives f32[1, seq, vocabulary]. The prompt is one run,
// each further token another one: what came before lies in the cache, and nothing of it is copied.
#include <kiln/kiln.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>

namespace {

using namespace kiln::runtime;

class Decoder {
public:
  Decoder(const char *path, int64_t longest_run, uint32_t threads)
      : module_(Module::open(std::string(path))), variables_(module_.variables()), pool_(threads) {
    api().entry_info(module_.handle(), 0, &entry_);
    api().input_info(module_.handle(), 0, 0, &tokens_);
    api().output_info(module_.handle(), 0, 0, &logits_);
    // Dims that the state holds take care of themselves.
    std::vector<int64_t> dims(entry_.symbol_count, longest_run);
    context_.emplace(module_.context(entry_.name, {.dims = dims, .variables = &variables_, .executor = pool_.executor()}));
    vocabulary_ = static_cast<size_t>(logits_.dims[2].value);
  }

  // The most likely token after these.
  int64_t next(std::vector<int64_t> tokens) {
    run_ = std::move(tokens);
    scores_.resize(run_.size() * vocabulary_);
    context_->input(tokens_.name, run_, {1, static_cast<int64_t>(run_.size())});
    context_->output(logits_.name, scores_);
    context_->run();
    auto last = scores_.end() - static_cast<std::ptrdiff_t>(vocabulary_);
    return std::max_element(last, scores_.end()) - last;
  }

  void forget() { variables_.reset(); }

private:
  Module module_;
  Variables variables_;
  Pool pool_;
  KilnEntryInfo entry_{};
  KilnValueInfo tokens_{}, logits_{};
  std::optional<Context> context_;
  size_t vocabulary_ = 0;
  std::vector<int64_t> run_;
  std::vector<float> scores_;
};

void generate(const char *path, int count, uint32_t threads, const std::vector<int64_t> &prompt) {
  Decoder decoder(path, static_cast<int64_t>(prompt.size()), threads);
  decoder.next(prompt); // first runs are slower: pages and caches are cold
  decoder.forget();
  std::vector<double> times;
  int64_t token = decoder.next(prompt);
  for (int i = 0; i < count; ++i) {
    std::printf("%s%lld", i > 0 ? " " : "", static_cast<long long>(token));
    auto begin = std::chrono::steady_clock::now();
    if (i + 1 < count)
      token = decoder.next({token});
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  std::printf("\n");
  std::sort(times.begin(), times.end());
  std::fprintf(stderr, "%.4f ms a token (median), %.4f at best\n", times[times.size() / 2], times[times.size() > 1 ? 1 : 0]);
}

} // namespace

int main(int argc, char **argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: decoder_cpp MODEL.kiln COUNT THREADS TOKEN...\n");
    return 2;
  }
  try {
    std::vector<int64_t> prompt;
    for (int i = 4; i < argc; ++i)
      prompt.push_back(std::atoll(argv[i]));
    generate(argv[1], std::max(1, std::atoi(argv[2])), static_cast<uint32_t>(std::max(1, std::atoi(argv[3]))), prompt);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
