// Strings: rows of bytes in compiled code, words in and out.
#include "tests/onnx/harness.h"

#include "frontend/onnx/regex_dfa.h"
#include "frontend/onnx/text.h"
#include "ir/argument_notes.h"

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

using Words = std::vector<std::string>;

// As an argument of a model whose strings are `width` wide.
Tensor text(const Words &words, std::vector<int64_t> shape = {-1}, int64_t width = 16) {
  if (shape == std::vector<int64_t>{-1})
    shape = {int64_t(words.size())};
  auto out = onnx::make_text(std::vector<std::string_view>(words.begin(), words.end()), shape, width);
  REQUIRE(out.ok());
  return *out;
}

std::string text_type(std::vector<TestDim> dims) { return GraphMaker::tensor_type(onnx::kStringType, &dims); }

std::string text_proto(const std::string &name, const Words &words) {
  std::string out;
  pbf_writer w(out);
  w.add_int64(1, int64_t(words.size())), w.add_int32(2, onnx::kStringType), w.add_string(8, name);
  for (const std::string &word : words)
    w.add_bytes(6, word);
  return out;
}

// The strings that one node of one string operand makes.
Words apply(const std::string &type, const Words &words, const std::vector<std::string> &attributes) {
  GraphMaker g;
  g.typed_input("x", text_type({"N"})).node(type, {"x"}, {"y"}, attributes).output("y");
  Imported m(g.model(20));
  return onnx::strings_of(m.run({text(words)}).at(0));
}

bool full_match(const std::string &pattern, const std::string &word) {
  auto dfa = onnx::compile_regex(pattern);
  INFO(pattern << (dfa ? "" : ": " + dfa.error().message));
  REQUIRE(dfa.ok());
  int32_t state = 0;
  for (char c : word)
    state = dfa->next[size_t(state) * size_t(dfa->kinds) + dfa->kind[uint8_t(c)]];
  return dfa->accepts[size_t(state)];
}

} // namespace

TEST_CASE("strings are compared whole, whatever their widths") {
  GraphMaker g;
  g.typed_input("x", text_type({"N"})).raw_weight(text_proto("w", {"apple"})).node("Equal", {"x", "w"}, {"y"}).output("y");
  Imported m(g.model(19));
  check_near(m.run({text({"apple", "appl", "apples", ""})})[0], {1, 0, 0, 0});
  check_near(m.run({text({"appl", "b"}, {2}, 4)})[0], {0, 0}); // narrower than the constant
  CHECK(m.module.metadata.at(note_key(false, "x")) == kTextNote);
  CHECK(m.module.dim_bounds.at("text_width") == std::pair<int64_t, int64_t>(1, 256));
}

TEST_CASE("operators that move elements move strings") {
  GraphMaker g;
  g.typed_input("x", text_type({2, 3})).typed_input("y", text_type({1, 3})).input("c", DType::bool_, {3});
  g.weight("rows", ints({2, 0})).weight("flat", ints({-1}));
  g.node("Concat", {"x", "y"}, {"all"}, {attr_i("axis", 0)}).node("Gather", {"all", "rows"}, {"some"}, {attr_i("axis", 0)});
  g.node("Transpose", {"some"}, {"turned"}).node("Where", {"c", "x", "y"}, {"chosen"}).node("Reshape", {"chosen", "flat"}, {"row"});
  g.node("Split", {"x"}, {"first", "second"}, {attr_i("axis", 0)}).node("Shape", {"x"}, {"shape"});
  g.output("turned").output("row").output("second").output("shape");
  Imported m(g.model(13));
  Tensor c(DType::bool_, {3});
  c.set_i64(1, 1);
  auto out = m.run({text({"a", "b", "c", "d", "e", "f"}, {2, 3}), text({"x", "yy", "z"}, {1, 3}), c});
  CHECK(onnx::strings_of(out[0]) == Words{"x", "a", "yy", "b", "z", "c"});
  CHECK(out[0].dims() == std::vector<int64_t>{3, 2, 16});
  CHECK(onnx::strings_of(out[1]) == Words{"x", "b", "z", "x", "e", "z"});
  CHECK(onnx::strings_of(out[2]) == Words{"d", "e", "f"});
  check_near(out[3], {2, 3});
  CHECK(m.module.metadata.at(note_key(true, "row")) == kTextNote);
  CHECK(m.module.metadata.count(note_key(true, "shape")) == 0);
}

TEST_CASE("strings joined, in branches and in sequences") {
  GraphMaker g;
  g.typed_input("x", text_type({"N"})).typed_input("y", text_type({1})).node("StringConcat", {"x", "y"}, {"z"}).output("z");
  Imported m(g.model(20));
  CHECK(onnx::strings_of(m.run({text({"ab", "", "é"}), text({"cd"})})[0]) == Words{"abcd", "cd", "écd"});
  CHECK(onnx::strings_of(m.run({text({"ab", "c", ""}), text({""})})[0]) == Words{"ab", "c", ""});

  GraphMaker one, two, h;
  one.node("Identity", {"x"}, {"a"}).output("a");
  two.node("StringConcat", {"x", "x"}, {"b"}).output("b");
  h.typed_input("x", text_type({2})).input("c", DType::bool_, {}).input("p", DType::i64, {});
  h.node("If", {"c"}, {"y"}, {attr_graph("then_branch", one.bytes()), attr_graph("else_branch", two.bytes())});
  h.node("SequenceConstruct", {"x", "x"}, {"s"}).node("SequenceAt", {"s", "p"}, {"at"}).output("y").output("at");
  Imported chosen(h.model(20));
  Tensor no(DType::bool_, {});
  auto out = chosen.run({text({"ab", "c"}), no, Tensor::scalar_i64(DType::i64, 1)});
  CHECK(onnx::strings_of(out[0]) == Words{"abab", "cc"});
  CHECK(onnx::strings_of(out[1]) == Words{"ab", "c"});
}

TEST_CASE("letters change their case byte by byte") {
  Words words = {"Straße ÀÉ", "ÿ ŁÓDŹ", "Ωμέγα ς", "Привет", "日本 ÷×", ""};
  CHECK(apply("StringNormalizer", words, {attr_s("case_change_action", "UPPER")}) ==
        Words{"STRAßE ÀÉ", "Ÿ ŁÓDŹ", "ΩΜΈΓΑ Σ", "ПРИВЕТ", "日本 ÷×", ""});
  CHECK(apply("StringNormalizer", words, {attr_s("case_change_action", "LOWER")}) ==
        Words{"straße àé", "ÿ łódź", "ωμέγα ς", "привет", "日本 ÷×", ""});
  CHECK(apply("StringNormalizer", {"Abc"}, {}) == Words{"Abc"});
}

TEST_CASE("regular expressions") {
  struct Row {
    std::string pattern;
    Words yes, no;
  };
  for (const Row &r : {Row{"a*b+c?", {"b", "aabbc", "abc"}, {"", "a", "abcc"}}, Row{"(cat|dog)s{0,2}", {"cat", "dogss"}, {"cats s", "dogsss"}},
                       Row{"x{2,}", {"xx", "xxxxx"}, {"x"}}, Row{"(ab){2}", {"abab"}, {"ab", "ababab"}},
                       Row{"[^a-c\\d]+", {"xyz", "日é"}, {"xa", "x1", ""}}, Row{"[à-ý日]+", {"éü日"}, {"é本", "ÿ"}},
                       Row{".", {"x", "é", "日", "😀"}, {"", "\n", "xy", "\xff"}}, Row{"(?s).", {"\n"}, {"ab"}},
                       Row{"(?i)straße[a-c]", {"STRAßEB", "straßec"}, {"straßed"}}, Row{"^a$", {"a"}, {"a\n"}},
                       Row{"(?m)a$\\n^b", {"a\nb"}, {"ab"}}, Row{"\\bfoo\\b.*", {"foo", "foo bar"}, {"foobar"}},
                       Row{"a\\Bb", {"ab"}, {"a b"}}, Row{"\\x41\\x{1F600}", {"A😀"}, {"A"}}, Row{"\\Qa.b\\E|c", {"a.b", "c"}, {"axb"}},
                       Row{"[[:alpha:]_-]+", {"a-_Z"}, {"a1"}}, Row{"a{,3}", {"a{,3}"}, {"aa"}}, Row{"(?:a(?P<n>b)?)*?", {"", "abaab"}, {"b"}},
                       Row{"()*|a", {"", "a"}, {"aa"}}, Row{"\\W|^", {"", "-"}, {"a"}}}) {
    for (const std::string &word : r.yes)
      CHECK((r.pattern + " on " + word + (full_match(r.pattern, word) ? "" : " fails")) == r.pattern + " on " + word);
    for (const std::string &word : r.no)
      CHECK((r.pattern + " on " + word + (full_match(r.pattern, word) ? " matches" : "")) == r.pattern + " on " + word);
  }
  auto refused = [](const std::string &pattern) {
    auto dfa = onnx::compile_regex(pattern);
    return dfa ? std::string() : dfa.error().message;
  };
  CHECK_THAT(refused("(a"), Contains("a '(' without a ')'"));
  CHECK_THAT(refused("a)"), Contains("at its character 1: a ')' without a '('"));
  CHECK_THAT(refused("[b-a]"), Contains("a range of characters that is none"));
  CHECK_THAT(refused("*a"), Contains("a repeat of nothing"));
  CHECK_THAT(refused("\\pL"), Contains("classes of Unicode"));
  CHECK_THAT(refused("\\1"), Contains("the escape \\1 is not supported"));
  CHECK_THAT(refused("a{2000}"), Contains("more than 1000 times"));
  CHECK_THAT(refused("((a{1000}){1000}){1000}"), Contains("too long"));
  CHECK_THAT(refused("((){1000}){1000}"), Contains("too long"));
  CHECK_THAT(refused("(x|y)*x(x|y){20}"), Contains("states"));
  CHECK_THAT(refused(std::string(300, '(')), Contains("nested too deeply"));

  GraphMaker g;
  g.typed_input("x", text_type({2, "N"})).node("RegexFullMatch", {"x"}, {"y"}, {attr_s("pattern", "[a-c]+\\d")}).output("y");
  Imported m(g.model(20));
  check_near(m.run({text({"abc1", "a", "b22", "", "c0", "d0"}, {2, 3})})[0], {1, 0, 0, 0, 1, 0});
}

TEST_CASE("labels are strings on either side of an encoder") {
  auto encoder = [](const std::string &type, std::vector<std::string> attributes, bool from_text) {
    GraphMaker g;
    if (from_text)
      g.typed_input("x", text_type({"N"}));
    else
      g.input("x", DType::i64, {"N"});
    g.node(type, {"x"}, {"y"}, attributes, "", "ai.onnx.ml").output("y");
    return g.model();
  };
  Imported to_int(encoder("LabelEncoder", {attr_strings("keys_strings", {"a", "b", "a"}), attr_ints("values_int64s", {7, 8, 9}), attr_i("default_int64", 5)}, true));
  check_near(to_int.run({text({"b", "a", "c", ""})})[0], {8, 7, 5, 5});
  Imported to_text(encoder("LabelEncoder", {attr_ints("keys_int64s", {1, 2}), attr_strings("values_strings", {"one", "two"}), attr_s("default_string", "many")}, false));
  CHECK(onnx::strings_of(to_text.run({ints({2, 3, 1})})[0]) == Words{"two", "many", "one"});
  Imported mapper(encoder("CategoryMapper", {attr_strings("cats_strings", {"x", "y"}), attr_ints("cats_int64s", {3, 4})}, false));
  CHECK(onnx::strings_of(mapper.run({ints({4, 3, 0})})[0]) == Words{"y", "x", "_Unused"});
  Imported hot(encoder("OneHotEncoder", {attr_strings("cats_strings", {"x", "y"})}, true));
  check_near(hot.run({text({"y", "z"})})[0], {0, 1, 0, 0});
  Imported texts(encoder("LabelEncoder", {attr_tensor("keys_tensor", text_proto("k", {"p", "q"})), attr_tensor("values_tensor", text_proto("v", {"P", "Q"}))}, true));
  CHECK(onnx::strings_of(texts.run({text({"q", "p", "r"})})[0]) == Words{"Q", "P", "_Unused"});
  CHECK_THAT(Imported(encoder("LabelEncoder", {attr_ints("keys_int64s", {1}), attr_ints("values_int64s", {1})}, true)).errors(),
             Contains("its input is text[N], but its keys are numbers"));
}

TEST_CASE("a classifier names its classes") {
  GraphMaker g;
  g.input("x", DType::f32, {"N", 2});
  g.node("LinearClassifier", {"x"}, {"label", "scores"},
         {attr_floats("coefficients", {1, 0, 0, 1, -1, -1}), attr_strings("classlabels_strings", {"left", "right", "none"})}, "", "ai.onnx.ml");
  g.output("label").output("scores");
  Imported m(g.model());
  auto out = m.run({floats({3, 2}, {2, 1, 1, 2, -1, -1})});
  CHECK(onnx::strings_of(out[0]) == Words{"left", "right", "none"});
}

TEST_CASE("n-grams of words are counted") {
  GraphMaker g;
  g.typed_input("x", text_type({2, 4}));
  g.node("TfIdfVectorizer", {"x"}, {"y"},
         {attr_s("mode", "TFIDF"), attr_i("min_gram_length", 1), attr_i("max_gram_length", 2), attr_i("max_skip_count", 1),
          attr_ints("ngram_counts", {0, 2}), attr_ints("ngram_indexes", {1, 0, 3}), attr_strings("pool_strings", {"a", "b", "a", "b"}),
          attr_floats("weights", {1, 2, 3, 10})});
  g.output("y");
  Imported m(g.model());
  // "a b" next to each other, and with one word between.
  auto out = m.run({text({"a", "b", "b", "a", "b", "b", "c", "d"}, {2, 4})});
  check_near(out[0], {2, 4, 0, 20, 2, 0, 0, 0});
}

TEST_CASE("strings where numbers are needed are refused") {
  GraphMaker g;
  g.typed_input("x", text_type({2})).node("Relu", {"x"}, {"y"}).output("y");
  CHECK_THAT(Imported(g.model()).errors(), Contains("its input 0 is text[2], which is not supported"));
  GraphMaker h;
  h.typed_input("x", text_type({2})).input("z", DType::f32, {2}).node("Equal", {"x", "z"}, {"y"}).output("y");
  CHECK_THAT(Imported(h.model(19)).errors(), Contains("it compares text[2] with f32[2]"));
  GraphMaker big;
  std::string proto;
  pbf_writer w(proto);
  w.add_int64(1, int64_t(1) << 40), w.add_int32(2, onnx::kStringType), w.add_string(8, "w"), w.add_bytes(6, "x");
  big.raw_weight(proto).node("Identity", {"w"}, {"y"}).output("y");
  CHECK_THAT(Imported(big.model()).errors(), Contains("it holds 1 strings, but its shape needs 1099511627776"));
}

TEST_CASE("strings are split where a delimiter is, from the left") {
  auto split = [](const Words &words, const std::vector<std::string> &attributes) {
    GraphMaker g;
    g.typed_input("x", text_type({"N"})).node("StringSplit", {"x"}, {"y", "n"}, attributes).output("y").output("n");
    Imported m(g.model(20));
    auto results = m.run({text(words)});
    Words out = onnx::strings_of(results.at(0));
    for (int64_t i = 0; i < results.at(1).count(); ++i)
      out.push_back(std::to_string(results.at(1).at_i64(i)));
    return out;
  };
  CHECK(split({"a,bb", "c", ",d,"}, {attr_s("delimiter", ",")}) == Words{"a", "bb", "", "c", "", "", "", "d", "", "2", "1", "3"});
  CHECK(split({"aaaaa"}, {attr_s("delimiter", "aa")}) == Words{"", "", "a", "3"}); // matches have no common byte
  CHECK(split({"a,b,c"}, {attr_s("delimiter", ","), attr_i("maxsplit", 1)}) == Words{"a", "b,c", "2"});
  CHECK(split({" one  two\t", "", "x y z"}, {}) == Words{"one", "two", "", "", "", "", "x", "y", "z", "2", "0", "3"});
  CHECK(split({" one  two  three "}, {attr_i("maxsplit", 1)}) == Words{"one", "two  three ", "2"});
}

TEST_CASE("stop words are left out") {
  auto attributes = [](int64_t case_matters) {
    return std::vector<std::string>{attr_strings("stopwords", {"The", "of"}), attr_i("is_case_sensitive", case_matters)};
  };
  CHECK(apply("StringNormalizer", {"the", "end", "of", "The", "line"}, attributes(1)) == Words{"the", "end", "line"});
  CHECK(apply("StringNormalizer", {"the", "end", "OF", "The", "line"}, attributes(0)) == Words{"end", "line"});
  CHECK(apply("StringNormalizer", {"The", "of"}, attributes(1)) == Words{""});
}

namespace {

Tensor numbers_of(const Words &words, int to, bool constant) {
  GraphMaker g;
  if (constant)
    g.raw_weight(text_proto("x", words));
  else
    g.typed_input("x", text_type({"N"}));
  g.node("Cast", {"x"}, {"y"}, {attr_i("to", to)}).output("y");
  Imported m(g.model(21));
  std::vector<Tensor> inputs;
  if (!constant)
    inputs.push_back(text(words, {-1}, 32));
  return m.run(inputs).at(0);
}

Words texts_of(const Tensor &x, bool constant) {
  GraphMaker g;
  int type = x.dtype() == DType::f16 ? 10 : x.dtype() == DType::bf16 ? 16 : x.dtype() == DType::u64 ? 13 : 0; // the maker knows the others
  std::vector<TestDim> dims = {x.count()};
  if (constant && type)
    return texts_of(x, false);
  if (constant)
    g.weight("x", x);
  else if (type)
    g.typed_input("x", GraphMaker::tensor_type(type, &dims));
  else
    g.input("x", x.dtype(), {x.count()});
  g.node("Cast", {"x"}, {"y"}, {attr_i("to", onnx::kStringType)}).output("y");
  Imported m(g.model(21));
  return onnx::strings_of(m.run(constant ? std::vector<Tensor>() : std::vector<Tensor>{x}).at(0));
}

Tensor of(DType dtype, const std::vector<double> &values) {
  Tensor out(dtype, {int64_t(values.size())});
  for (size_t i = 0; i < values.size(); ++i)
    out.set_f64(int64_t(i), values[i]);
  return out;
}

} // namespace

TEST_CASE("strings are read as numbers") {
  double infinity = INFINITY;
  Words words = {"3.14", "1000", "1e-5", "1E8", "-0.5", "+7", ".25", "5.", "  12 ", "INF", "+inf", "-INF", "Infinity", "00012.500", "123456789012345678901234567890",
                 "0.000000000000000000000000000000000001", "1e400", "2.5e-400", "16777217", "0", "0." + std::string(200, '0') + "1e201"};
  std::vector<double> want = {3.14, 1000, 1e-5, 1e8, -0.5, 7, .25, 5, 12, infinity, infinity, -infinity, infinity, 12.5, 123456789012345678901234567890.0,
                              1e-36, infinity, 0, 16777217, 0, 1};
  for (bool constant : {false, true}) {
    INFO((constant ? "known" : "in a run"));
    auto reals = values(numbers_of(words, 11, constant)), singles = values(numbers_of(words, 1, constant));
    REQUIRE(reals.size() == want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      INFO(words[i]);
      if (std::isinf(want[i]))
        CHECK(reals[i] == want[i]);
      else
        CHECK(std::abs(reals[i] - want[i]) <= 4e-16 * std::abs(want[i]));
      CHECK(float(singles[i]) == float(want[i]));
    }
    for (const char *none : {"", "abc", "1.2.3", "--1", "1e", "e5", ".", "1 2", "nanx", "nan", "NaN", "0x10", "inf1"}) {
      INFO(none);
      CHECK(std::isnan(values(numbers_of({none}, 11, constant))[0]));
      CHECK(values(numbers_of({none}, 7, constant))[0] == 0);
    }
    Tensor whole = numbers_of({"-9223372036854775808", "9007199254740993", "100.5", "-2.9", "1e3", "+12"}, 7, constant);
    CHECK(whole.at_i64(0) == INT64_MIN);
    CHECK(whole.at_i64(1) == 9007199254740993);
    CHECK(whole.at_i64(2) == 100);
    CHECK(whole.at_i64(3) == -2);
    CHECK(whole.at_i64(4) == 1000);
    CHECK(whole.at_i64(5) == 12);
    CHECK(uint64_t(numbers_of({"18446744073709551615"}, 13, constant).at_i64(0)) == UINT64_MAX);
    check_near(numbers_of({"1", "0", "2.5", "no"}, 9, constant), {1, 0, 1, 0});
  }
  std::string small = "0." + std::string(400, '0') + "1"; // wider than strings of a run are
  auto far = values(numbers_of({small, small + "e900", "1" + std::string(400, '0'), "1" + std::string(400, '0') + "e-900"}, 11, true));
  CHECK(far == std::vector<double>{0, infinity, infinity, 0});
}

TEST_CASE("numbers are written as strings") {
  for (bool constant : {false, true}) {
    INFO((constant ? "known" : "in a run"));
    CHECK(texts_of(of(DType::f32, {3.14, 1, -0.1, 100.5, 1e-4, 1e-5, 123456792, 1e15, 1e16, 1.5e20, 16777216, 0.3, 9.9999999e9, 1e-38}), constant) ==
          Words{"3.14", "1.0", "-0.1", "100.5", "0.0001", "1e-05", "123456790.0", "1000000000000000.0", "1e+16", "1.5e+20", "16777216.0", "0.3", "10000000000.0", "1e-38"});
    CHECK(texts_of(of(DType::f32, {NAN, INFINITY, -INFINITY, 0, -0.0, 3.4028234663852886e38, 1.17549435e-38, 8388609}), constant) ==
          Words{"NaN", "INF", "-INF", "0.0", "-0.0", "3.4028235e+38", "1.1754944e-38", "8388609.0"});
    CHECK(texts_of(of(DType::f16, {0.1, 65504, 1e-5}), constant) == Words{"0.1", "65500.0", "1e-05"});
    CHECK(texts_of(of(DType::bf16, {0.1, 3.140625}), constant) == Words{"0.1", "3.14"});
    CHECK(texts_of(of(DType::i32, {0, -1, 2147483647, -2147483648.0, 10, 99}), constant) == Words{"0", "-1", "2147483647", "-2147483648", "10", "99"});
    CHECK(texts_of(of(DType::u8, {0, 255, 100}), constant) == Words{"0", "255", "100"});
    CHECK(texts_of(of(DType::bool_, {0, 1}), constant) == Words{"0", "1"});
    Tensor large(DType::i64, {2}), most(DType::u64, {1});
    large.set_i64(0, INT64_MIN), large.set_i64(1, INT64_MAX), most.set_i64(0, -1);
    CHECK(texts_of(large, constant) == Words{"-9223372036854775808", "9223372036854775807"});
    CHECK(texts_of(most, constant) == Words{"18446744073709551615"});
  }
  CHECK(texts_of(of(DType::f64, {0.1, 1.0 / 3, 1e300}), true) == Words{"0.1", "0.3333333333333333", "1e+300"});
  GraphMaker g;
  g.input("x", DType::f64, {1}).node("Cast", {"x"}, {"y"}, {attr_i("to", onnx::kStringType)}).output("y");
  CHECK_THAT(Imported(g.model(21)).errors(), Contains("cast it to f32 first"));
}

TEST_CASE("maps are keys and values") {
  auto map_type = [](int key, int value) {
    std::string type, map;
    pbf_writer m(map);
    m.add_int32(1, key), m.add_message(2, GraphMaker::tensor_type(value, nullptr));
    pbf_writer(type).add_message(5, map);
    return type;
  };
  GraphMaker g;
  g.typed_input("x", map_type(onnx::kStringType, 1));
  g.node("DictVectorizer", {"x"}, {"y"}, {attr_strings("string_vocabulary", {"a", "b", "c"})}, "", "ai.onnx.ml").output("y");
  Imported m(g.model(21));
  INFO(m.errors());
  REQUIRE(m.ok);
  CHECK(m.module.metadata.at(note_key(false, "x")) == "map");
  CHECK(m.main().value(m.main().body.args.at(0)).name == "x.keys");
  CHECK(m.main().value(m.main().body.args.at(1)).name == "x.values");
  check_near(m.run({text({"c", "a"}), floats({2}, {5, 7})})[0], {7, 0, 5});
  check_near(m.run({text({"d"}), floats({1}, {5})})[0], {0, 0, 0});

  auto cast_map = [&](int value, std::vector<std::string> attributes) {
    GraphMaker c;
    c.typed_input("x", map_type(7, value)).node("CastMap", {"x"}, {"y"}, std::move(attributes), "", "ai.onnx.ml").output("y");
    return c.model(21);
  };
  Tensor keys = ints({4, 0, 2});
  check_near(Imported(cast_map(1, {})).run({keys, floats({3}, {1, 2, 3})})[0], {2, 3, 1});
  std::vector<std::string> sparse = {attr_s("map_form", "SPARSE"), attr_i("max_map", 5)};
  check_near(Imported(cast_map(1, sparse)).run({keys, floats({3}, {1, 2, 3})})[0], {2, 0, 3, 0, 1});
  check_near(Imported(cast_map(onnx::kStringType, sparse)).run({keys, text({"1.5", "2", "-3"})})[0], {2, 0, -3, 0, 1.5});
  auto strings = Imported(cast_map(1, {attr_s("cast_to", "TO_STRING")})).run({keys, floats({3}, {1, 2.5, 3})})[0];
  CHECK(onnx::strings_of(strings) == Words{"2.5", "3.0", "1.0"});
  auto numbers = Imported(cast_map(onnx::kStringType, {attr_s("cast_to", "TO_INT64")})).run({keys, text({"1", "-7", "100"})})[0];
  CHECK(numbers.at_i64(0) == -7);
  CHECK(numbers.at_i64(2) == 1);
  GraphMaker wrong;
  wrong.input("x", DType::f32, {2}).node("CastMap", {"x"}, {"y"}, {}, "", "ai.onnx.ml").output("y");
  CHECK_THAT(Imported(wrong.model(21)).errors(), Contains("its operand is f32[2], not a map"));
}

TEST_CASE("strings are picked by conditions and places") {
  GraphMaker g;
  g.typed_input("x", text_type({3})).input("keep", DType::bool_, {3}).input("at", DType::i64, {2}).weight("two", ints({2}));
  g.typed_input("off_on", text_type({2})).weight("flat", ints({1, 3}));
  g.node("Compress", {"x", "keep"}, {"some"}).node("OneHot", {"at", "two", "off_on"}, {"hot"});
  g.node("Reshape", {"x", "flat"}, {"row"}).node("ArrayFeatureExtractor", {"row", "at"}, {"picked"}, {}, "", "ai.onnx.ml");
  g.output("some").output("hot").output("picked");
  Imported m(g.model(13));
  Tensor keep(DType::bool_, {3});
  keep.set_i64(0, 1), keep.set_i64(2, 1);
  auto out = m.run({text({"a", "bb", "c"}), keep, ints({1, 0}), text({"no", "yes"})});
  CHECK(onnx::strings_of(out[0]) == Words{"a", "c"});
  CHECK(onnx::strings_of(out[1]) == Words{"no", "yes", "yes", "no"});
  CHECK(onnx::strings_of(out[2]) == Words{"bb", "a"});
}
