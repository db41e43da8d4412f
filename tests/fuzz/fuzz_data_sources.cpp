// CSV, text and pictures from arbitrary bytes; the first byte says which.
#include "frontend/data/csv.h"
#include "frontend/data/picture.h"
#include "frontend/data/tokens.h"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  using namespace kiln::data;
  if (size == 0)
    return 0;
  std::span<const std::byte> rest(reinterpret_cast<const std::byte *>(bytes) + 1, size - 1);
  std::string_view text(reinterpret_cast<const char *>(rest.data()), rest.size());
  if (bytes[0] % 3 == 0) {
    if (auto csv = parse_csv(text, {}))
      for (const auto &row : csv->rows)
        if (row.size() != csv->rows[0].size())
          std::abort();
  } else if (bytes[0] % 3 == 1) {
    const char *kind = bytes[0] & 4 ? "words" : "chars";
    auto tokens = find_tokens(text, kind, false);
    if (tokens && !tokenise(text, *tokens, bytes[0] & 4))
      std::abort(); // the tokens of a text are enough for it
  } else if (auto picture = decode_picture(rest, bytes[0] & 4)) {
    if (picture->pixels.size() != size_t(picture->height * picture->width * picture->channels))
      std::abort();
    if (picture->height * picture->width < 1 << 16)
      (void)resized(*picture, 5, 7);
  }
  return 0;
}
