// The data library as its users see it: batches, their order, what augmentation does, and what is said of bad files.
#define CATCH_CONFIG_MAIN
#include "tests/temp_folder.h"

#include <catch2/catch.hpp>

#include <kiln/data.hpp>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <set>

#include <unistd.h>

namespace fs = std::filesystem;
using namespace kiln;

namespace {

using Folder = test::TempFolder;

// x: `length` numbers that begin with the index; y: the index; z: the draw.
class Counting : public data::Dataset {
public:
  explicit Counting(int64_t size, bool varies = false, int64_t bad = -1) : size_(size), varies_(varies), bad_(bad) {
    fields_ = {{.name = "x", .dtype = KILN_F32, .dims = {varies ? data::kVaries : 3}, .pad = -1}, {.name = "y", .dtype = KILN_I64}, {.name = "z", .dtype = KILN_U64}};
  }
  int64_t size() const override { return size_; }
  const std::vector<data::Field> &fields() const override { return fields_; }
  int64_t length(int64_t index) const override { return varies_ ? 1 + index % 7 : 0; }
  bool get(int64_t index, uint64_t draw, std::span<std::byte *const> out, std::string &error) const override {
    if (index == bad_) {
      error = "a bad one";
      return false;
    }
    for (int64_t i = 0; i < (varies_ ? length(index) : 3); ++i)
      reinterpret_cast<float *>(out[0])[i] = float(index + i);
    std::memcpy(out[1], &index, 8);
    std::memcpy(out[2], &draw, 8);
    return true;
  }

private:
  int64_t size_;
  bool varies_;
  int64_t bad_;
  std::vector<data::Field> fields_;
};

std::string bytes_of(data::Loader &loader, int64_t epoch, int64_t from = 0) {
  std::string out;
  loader.start(epoch, from);
  while (const data::Batch *batch = loader.next())
    for (const data::Array &field : batch->fields) {
      for (int64_t d : field.dims)
        out += std::to_string(d) + " ";
      out.append(reinterpret_cast<const char *>(field.memory.get()), field.size);
    }
  return out;
}

std::string error_of(const std::string &text) {
  std::string error;
  return data::try_open(text, error) ? "no error" : error;
}

std::vector<float> floats(const data::Dataset &dataset, int64_t index, size_t field, size_t count) {
  std::vector<std::vector<double>> memory(dataset.fields().size(), std::vector<double>(1 << 16));
  std::vector<std::byte *> out;
  for (auto &m : memory)
    out.push_back(reinterpret_cast<std::byte *>(m.data()));
  std::string error;
  REQUIRE(dataset.get(index, 0, out, error));
  const auto *values = reinterpret_cast<const float *>(memory[field].data());
  return {values, values + count};
}

std::vector<int64_t> integers(const data::Dataset &dataset, int64_t index, size_t field, size_t count) {
  std::vector<std::vector<int64_t>> memory(dataset.fields().size(), std::vector<int64_t>(1 << 12));
  std::vector<std::byte *> out;
  for (auto &m : memory)
    out.push_back(reinterpret_cast<std::byte *>(m.data()));
  std::string error;
  REQUIRE(dataset.get(index, 0, out, error));
  memory[field].resize(count);
  return memory[field];
}

#define HAS(text, part) CHECK_THAT(text, Catch::Contains(part))

} // namespace

TEST_CASE("the same batches for any number of workers, and from the middle of an epoch") {
  for (bool varies : {false, true}) {
    auto dataset = std::make_shared<Counting>(103, varies);
    data::LoaderOptions options{.batch = 8, .drop_last = false, .seed = 5, .workers = 0};
    data::Loader one(dataset, options);
    std::string first = bytes_of(one, 0), second = bytes_of(one, 1);
    CHECK(first != second);
    for (int workers : {1, 2, 5})
      for (int prefetch : {1, 3}) {
        options.workers = workers;
        options.prefetch = prefetch;
        data::Loader many(dataset, options);
        CHECK(bytes_of(many, 0) == first);
        CHECK(bytes_of(many, 1) == second);
        std::string tail = bytes_of(many, 0, 4);
        CHECK(!tail.empty());
        CHECK(first.ends_with(tail));
      }
  }
}

TEST_CASE("an epoch has each example once; drop_last leaves out the batch that is not full") {
  auto dataset = std::make_shared<Counting>(103);
  for (bool drop : {false, true}) {
    data::Loader loader(dataset, {.batch = 10, .drop_last = drop, .seed = 1});
    CHECK(loader.batches() == (drop ? 10 : 11));
    std::multiset<int64_t> seen;
    loader.start(3);
    int64_t count = 0;
    while (const data::Batch *batch = loader.next()) {
      CHECK(loader.position().batch == ++count);
      CHECK(batch->fields[0].dims == std::vector<int64_t>{batch->count, 3});
      for (int64_t y : batch->fields[1].values<int64_t>())
        seen.insert(y);
    }
    CHECK(seen.size() == (drop ? 100 : 103));
    CHECK(std::set<int64_t>(seen.begin(), seen.end()).size() == seen.size());
  }
  data::Loader kept(dataset, {.batch = 4, .shuffle = false});
  CHECK(kept.order(0)[1] == std::vector<int64_t>{4, 5, 6, 7});
}

TEST_CASE("examples of varying length: padded, and put into buckets") {
  auto dataset = std::make_shared<Counting>(70, true); // lengths 1 to 7, ten of each
  data::Loader loose(dataset, {.batch = 16, .drop_last = false, .seed = 2});
  loose.start(0);
  while (const data::Batch *batch = loose.next()) {
    int64_t longest = *std::max_element(batch->lengths.begin(), batch->lengths.end());
    REQUIRE(batch->fields[0].dims == std::vector<int64_t>{batch->count, longest});
    auto x = batch->fields[0].values<float>();
    auto y = batch->fields[1].values<int64_t>();
    for (int64_t i = 0; i < batch->count; ++i)
      for (int64_t k = 0; k < longest; ++k)
        CHECK(x[size_t(i * longest + k)] == (k < batch->lengths[size_t(i)] ? float(y[size_t(i)] + k) : -1.f));
  }
  data::Loader tight(dataset, {.batch = 4, .drop_last = false, .seed = 2, .buckets = {3, 7}});
  CHECK(tight.batches() == 8 + 10);
  std::multiset<int64_t> seen;
  for (tight.start(0); const data::Batch *batch = tight.next();) {
    int64_t width = batch->fields[0].dims[1];
    CHECK((width == 3 || width == 7));
    for (int64_t n : batch->lengths)
      CHECK((width == 3 ? n <= 3 : n > 3 && n <= 7));
    for (int64_t y : batch->fields[1].values<int64_t>())
      seen.insert(y);
  }
  CHECK(seen.size() == 70);
  std::string error;
  CHECK(!data::Loader::try_make(dataset, {.buckets = {3, 5}}, error));
  HAS(error, "a length of 6, more than the last bucket's 5");
  CHECK(!data::Loader::try_make(std::make_shared<Counting>(5), {.buckets = {3}}, error));
  HAS(error, "buckets are for data whose examples have different lengths");
}

TEST_CASE("what a dataset gets wrong reaches whoever asks for the batch") {
  for (int workers : {0, 2}) {
    data::Loader loader(std::make_shared<Counting>(64, false, 40), {.batch = 8, .shuffle = false, .workers = workers});
    loader.start(0);
    std::string error;
    int64_t batches = 0;
    while (loader.try_next(error))
      ++batches;
    CHECK(batches == 5);
    CHECK(error == "example 40: a bad one");
    CHECK(!loader.try_next(error));
    CHECK_THROWS_AS(loader.next(), data::DataError);
  }
}

TEST_CASE("transforms: bytes become parts of one, channels are normalised, pictures are flipped and shifted") {
  Folder folder;
  std::string header("\0\0\x08\x03\0\0\0\x02\0\0\0\x02\0\0\0\x03", 16);
  std::string path = folder.write("x.idx", header + std::string("\x00\x33\x66\x99\xcc\xff\x01\x02\x03\x04\x05\x06", 12));
  auto pictures = data::open("x=@" + path);
  REQUIRE(pictures->size() == 2);
  CHECK(pictures->fields()[0].dims == std::vector<int64_t>{2, 3});
  auto plain = data::transformed(pictures, {{.field = "x", .dtype = KILN_F32, .dims = {6}, .reshape = true}});
  CHECK(plain->fields()[0].dims == std::vector<int64_t>{6});
  auto values = floats(*plain, 0, 0, 6);
  for (size_t i = 0; i < 6; ++i)
    CHECK(values[i] == Approx(0.2 * double(i)).margin(1e-6));
  data::Statistics found;
  std::string error;
  REQUIRE(data::try_statistics(*pictures, "x", found, error));
  CHECK(found.mean.size() == 1);
  CHECK(found.mean[0] == Approx((0.2 * 15 + 21.0 / 255) / 12));

  auto moved = data::transformed(pictures, {{.field = "x", .flip = true, .crop = 1}});
  std::vector<uint8_t> out(6);
  std::byte *to[] = {reinterpret_cast<std::byte *>(out.data())};
  std::set<std::vector<uint8_t>> results;
  for (uint64_t draw = 0; draw < 400; ++draw) {
    REQUIRE(moved->get(1, draw, to, error));
    results.insert(out);
    std::vector<uint8_t> again = out;
    REQUIRE(moved->get(1, draw, to, error));
    CHECK(out == again);
  }
  CHECK(results.size() == 2 * 3 * 3);
  CHECK(results.count({1, 2, 3, 4, 5, 6}) == 1);
  CHECK(results.count({3, 2, 1, 6, 5, 4}) == 1);
  CHECK(results.count({0, 0, 0, 0, 1, 2}) == 1);
  CHECK(results.count({5, 6, 0, 0, 0, 0}) == 1);

  // One over the other, as from two places of a program.
  auto twice = data::transformed(data::transformed(pictures, {{.field = "x", .dtype = KILN_F32}}), {{.field = "x", .mean = {1}, .std = {0.5}}});
  CHECK(floats(*twice, 0, 0, 6)[5] == Approx(0).margin(1e-6));
  CHECK(floats(*twice, 0, 0, 6)[0] == Approx(-2));

  CHECK(!data::try_transformed(pictures, {{.field = "x", .dims = {7}, .reshape = true}}, error));
  HAS(error, "does not fill [7]");
  CHECK(!data::try_transformed(pictures, {{.field = "w"}}, error));
  HAS(error, "no data 'w'");
  CHECK(!data::try_transformed(pictures, {{.field = "x", .crop = 2}}, error));
  HAS(error, "a crop of 2");
}

TEST_CASE("CSV: columns by name and number, classes, quotes, missing cells") {
  Folder folder;
  std::string iris = folder.write("iris.csv", "a,b,kind\r\n1,2.5,setosa\r\n3,-4e1,\"vir\"\"gin, ica\"\r\n\r\n5, 6 ,setosa\r\n");
  auto set = data::open(iris + " x=0-1 y=kind");
  REQUIRE(set->size() == 3);
  CHECK(set->fields()[0].dims == std::vector<int64_t>{2});
  CHECK(set->fields()[1].names == std::vector<std::string>{"setosa", "vir\"gin, ica"});
  CHECK(floats(*set, 1, 0, 2) == std::vector<float>{3, -40});
  CHECK(floats(*set, 2, 0, 2) == std::vector<float>{5, 6});
  CHECK(integers(*set, 0, 1, 1)[0] == 0);
  CHECK(integers(*set, 1, 1, 1)[0] == 1);

  std::string wine = folder.write("wine.csv", "\"acid\";\"quality\"\n7;6\n6.3;10\n8;\n9;6\n");
  auto classes = data::open(wine + " x=acid y=quality classes=quality missing=skip");
  REQUIRE(classes->size() == 3);
  CHECK(classes->fields()[1].names == std::vector<std::string>{"6", "10"});
  HAS(error_of(wine + " x=acid y=quality"), "line 4: nothing in column 'quality'; missing=skip");
  HAS(error_of(wine + " x=sugar"), "no column 'sugar'; its columns are acid, quality");
  HAS(error_of(wine + " x=0-2"), "no column '0-2'");
  HAS(error_of(wine), "say which columns go to which input");
  HAS(error_of(folder.write("ragged.csv", "1,2,3\n4,5,6\n7,8\n") + " x=0-1"), "line 3: 2 cells, but line 1 has 3");
  HAS(error_of(folder.write("open.csv", "a,b\n1,\"2\n3,4\n") + " x=0"), "line 2: a quote is not closed");
  HAS(error_of(folder.write("word.csv", "a,b\n1,2\n3,4x\n") + " x=a y=b"), "line 3: '4x' in column 'b' is no number");
  HAS(error_of(folder.write("zero.csv", std::string("a,b\n1,\0\n", 8)) + " x=a y=b"), "line 2: a zero byte");
  HAS(error_of(folder.write("empty.csv", "a,b\n") + " x=a"), "no lines of data");
  HAS(error_of(folder.write("nan.csv", "a\n1\nnan\n") + " x=a"), "line 3: 'nan'");
  HAS(error_of((folder.path / "none.csv").string() + " x=0"), "none.csv");
}

TEST_CASE("a series: windows, and what follows them") {
  Folder folder;
  std::string path = folder.write("air.csv", "month,n\nJan,1\nFeb,2\nMar,3\nApr,4\nMay,5\n");
  auto set = data::open(path + " x=n y=n window=3");
  REQUIRE(set->size() == 2);
  CHECK(set->fields()[0].dims == std::vector<int64_t>{3, 1});
  CHECK(set->fields()[1].dims.empty());
  CHECK(integers(*set, 1, 0, 3) == std::vector<int64_t>{2, 3, 4});
  CHECK(integers(*set, 1, 1, 1)[0] == 5);
  CHECK(data::open(path + " x=n y=n window=2 horizon=2 stride=1")->fields()[1].dims == std::vector<int64_t>{2});
  HAS(error_of(path + " x=n y=n window=5"), "take a smaller window=");
}

TEST_CASE("text: characters, bytes, words, a vocabulary, and lines") {
  Folder folder;
  std::string path = folder.write("t.txt", "ab\xc3\xa4 ba\nab");
  auto set = data::open(path + " window=3 stride=2");
  CHECK(set->fields()[0].names == std::vector<std::string>{"\n", " ", "a", "b", "\xc3\xa4"});
  REQUIRE(set->size() == 3);
  CHECK(integers(*set, 1, 0, 3) == std::vector<int64_t>{4, 1, 3});
  CHECK(integers(*set, 1, 1, 3) == std::vector<int64_t>{1, 3, 2});
  CHECK(data::open(path + " window=3 tokens=bytes")->fields()[0].names.size() == 256);
  auto words = data::open(path + " window=2 tokens=words");
  CHECK(words->fields()[0].names == std::vector<std::string>{"\n", "ab", "ab\xc3\xa4", "ba"});
  std::string list = folder.write("v.json", R"(["a", "ab", "b", "<unk>", "\n"])");
  auto own = data::open(path + " window=4 vocabulary=" + list);
  CHECK(integers(*own, 0, 0, 4) == std::vector<int64_t>{1, 3, 3, 2}); // ab, a-umlaut, space, b
  auto lines = data::open("lines:" + path);
  REQUIRE(lines->size() == 2);
  CHECK(lines->length(0) == 7);
  CHECK(integers(*lines, 1, 0, 3) == std::vector<int64_t>{0, 2, 3});
  CHECK(integers(*lines, 1, 1, 3) == std::vector<int64_t>{2, 3, 0});
  HAS(error_of(path), "window=64 says how many");
  HAS(error_of(path + " window=100"), "take a smaller window=");
  HAS(error_of(path + " window=3 tokens=syllables"), "must be chars, bytes or words");
  HAS(error_of(path + " window=3 widnow=4"), "there is no option 'widnow' here; there are window=");
  HAS(error_of(folder.write("bad.txt", "a\nb\xff") + " window=1"), "line 2: no UTF-8 text; tokens=bytes");
  HAS(error_of(path + " window=3 vocabulary=" + folder.write("w.json", "[[\"a\"]]")), "no vocabulary: it must be a JSON list");
  HAS(error_of(path + " window=3 vocabulary=" + folder.write("u.json", "[\"a\", \"b\"]")), "line 1: no token begins '\xc3\xa4'");
}

TEST_CASE("split: two parts that are the same for the same seed") {
  auto all = std::make_shared<Counting>(50);
  auto a = data::split(all, 0.2, 7), b = data::split(all, 0.2, 7), last = data::split(all, 0.2, 7, true);
  CHECK(a.first->size() == 40);
  REQUIRE(a.second->size() == 10);
  std::set<int64_t> seen;
  for (int64_t i = 0; i < 10; ++i) {
    CHECK(integers(*a.second, i, 1, 1) == integers(*b.second, i, 1, 1));
    CHECK(integers(*last.second, i, 1, 1)[0] == 40 + i);
    seen.insert(integers(*a.second, i, 1, 1)[0]);
  }
  for (int64_t i = 0; i < 40; ++i)
    seen.insert(integers(*a.first, i, 1, 1)[0]);
  CHECK(seen.size() == 50);
}

TEST_CASE("sources: what cannot be read is named") {
  Folder folder;
  HAS(error_of(""), "no data");
  HAS(error_of("photos.tar"), "what it holds is not clear from its name");
  HAS(error_of("x=@" + folder.write("a.idx", "PK34")), "it does not begin with two zero bytes");
  HAS(error_of("x=@" + folder.write("b.idx", std::string("\0\0\x0a\x01\0\0\0\x01", 8))), "0x0a is no element type");
  HAS(error_of("x=@" + folder.write("c.idx", std::string("\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 16))), "are more than");
  HAS(error_of("x=@" + folder.write("d.idx", std::string("\0\0\x08\x01\x10\0\0\0ab", 10))), "but 2 follow its header: it is cut off");
  HAS(error_of("x=@" + folder.write("e.idx", std::string("\0\0\x08\x01\0\0\0\x01\x61\x62", 10))), "too long");
  HAS(error_of("x=@" + (folder.path / "none.npy").string()), "none.npy");
  HAS(error_of("x=@" + folder.path.string()), "is no regular file");
  std::string two = folder.write("two.idx", std::string("\0\0\x08\x01\0\0\0\x02\x61\x62", 10)), one = folder.write("one.idx", std::string("\0\0\x08\x01\0\0\0\x01z", 9));
  HAS(error_of("x=@" + two + " y=@" + one), "'y' has 1 examples, 'x' has 2");
  HAS(error_of("x=@" + two + " x=@" + two), "data for 'x' twice");
  HAS(error_of("x=@" + two + " y"), "'y' is no KEY=VALUE");
  HAS(error_of("x=@\"" + two), "a quote is open");
  CHECK(data::open("x=@\"" + folder.write("a b.idx", std::string("\0\0\x08\x01\0\0\0\x02\x61\x62", 10)) + "\"")->size() == 2);
}

// Whatever the bytes are: an error or data, in bounds (which the sanitizer builds watch).
TEST_CASE("files with bytes changed, cut and repeated are read or refused") {
  Folder folder;
  const std::vector<std::pair<std::string, std::string>> good = {
      {"x=@%", std::string("\0\0\x08\x03\0\0\0\x02\0\0\0\x02\0\0\0\x03\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c", 28)},
      {"csv:% x=0-1 y=2", "a,b,c\n1,2,\"x\"\n3,4,y\r\n5.5,-6e1,\"z \"\"q\"\"\"\n7,8,x\n"},
      {"csv:% x=0-1 y=1 window=2 missing=0", "1;2\n3;4\n5;6\n7;8\n"},
      {"text:% window=4", "The quick br\xc3\xb6wn fox\njumps.\n"},
      {"text:% window=2 tokens=words", "The quick br\xc3\xb6wn fox\njumps.\n"},
      {"lines:%", "anna\nbert\n\nc\xe2\x82\xac\n"},
  };
  uint64_t draws = 0;
  auto draw = [&](size_t n) { return size_t(data::mix_bits(11, draws++) % n); };
  int64_t opened = 0, refused = 0;
  for (const auto &[source, bytes] : good)
    for (int round = 0; round < 400; ++round) {
      std::string text = bytes;
      for (size_t k = 0; k < 1 + draw(3); ++k) {
        size_t at = draw(text.size());
        switch (draw(4)) {
        case 0: text[at] = char(draw(256)); break;
        case 1: text[at] = "\0,;\"\n\r\xff-"[draw(8)]; break;
        case 2: text.resize(at + 1); break;
        default: text.insert(at, text.substr(draw(text.size()), 8)); break;
        }
      }
      std::string path = folder.write("f", text), spec = source, error;
      spec.replace(spec.find('%'), 1, path);
      auto set = data::try_open(spec, error);
      ++(set ? opened : refused);
      CHECK((set != nullptr) != !error.empty());
      auto loader = set ? data::Loader::try_make(set, {.batch = 2, .drop_last = false, .workers = 0}, error) : nullptr;
      if (!loader)
        continue;
      for (loader->start(0); loader->try_next(error);) {
      }
    }
  CHECK(opened > 200);
  CHECK(refused > 200);
}
