// Initializers whose sizes lie, external data that lies somewhere else, element types that nothing has.
#include "tests/onnx/hostile_cases.h"

#include <fmt/format.h>

#include <sys/stat.h>

#include <fstream>

namespace kiln::test {
namespace {

namespace fs = std::filesystem;

std::string with_weight(const std::string &proto, const std::string &type = "Neg") {
  GraphMaker g;
  g.raw_weight(proto).node(type, {"w"}, {"y"}, {}, kBad).output("y");
  return g.model();
}

void write(const fs::path &path, const std::string &bytes) { std::ofstream(path, std::ios::binary) << bytes; }

void add_sizes(HostileCases &cases) {
  auto add = [&](const std::string &name, int type, std::vector<int64_t> dims, const std::string &raw, const std::string &expect = "w") {
    cases.push_back({"tensor_" + name, with_weight(tensor_proto("w", type, dims, raw)), "'" + expect + "'"});
  };
  add("too_few_bytes", 1, {2}, "1234");
  add("too_many_bytes", 1, {2}, std::string(12, 'a'));
  add("no_bytes", 1, {2}, "");
  add("one_byte", 1, {1}, "1");
  add("negative_dim", 1, {-1}, "1234");
  add("least_dim", 1, {INT64_MIN}, "1234");
  add("largest_dim", 1, {INT64_MAX}, "1234");
  add("overflow_to_zero", 1, {int64_t(1) << 32, int64_t(1) << 32}, "");
  add("overflow_to_four", 1, {(int64_t(1) << 62) + 1, 4}, "12345678901234567890");
  add("overflow_bytes", 11, {int64_t(1) << 61}, "12345678");
  add("terabytes", 1, {int64_t(1) << 40}, "");
  add("rank_1000", 1, std::vector<int64_t>(1000, 1), "1234");
  add("rank_100000", 1, std::vector<int64_t>(100000, 1), "1234");
  for (int type : {0, -1, 14, 15, 27, 99, 1000000, INT32_MAX, INT32_MIN})
    add(fmt::format("type_{}", type), type, {1}, std::string(16, '\0'));
  auto fields = [&](const std::string &name, const std::function<void(pbf_writer &)> &fill) {
    std::string proto;
    pbf_writer w(proto);
    w.add_string(8, "w");
    fill(w);
    cases.push_back({"tensor_" + name, with_weight(proto), "w"});
  };
  fields("without_type", [](pbf_writer &w) { w.add_int64(1, 1), w.add_bytes(9, "1234"); });
  fields("floats_for_ints", [](pbf_writer &w) { w.add_int64(1, 2), w.add_int32(2, 7), w.add_float(4, 1), w.add_float(4, 2); });
  fields("ints_for_floats", [](pbf_writer &w) { w.add_int64(1, 1), w.add_int32(2, 1), w.add_int64(7, 5); });
  fields("too_many_floats", [](pbf_writer &w) { w.add_int64(1, 1), w.add_int32(2, 1), w.add_float(4, 1), w.add_float(4, 2); });
  fields("raw_and_floats", [](pbf_writer &w) { w.add_int64(1, 1), w.add_int32(2, 1), w.add_float(4, 1), w.add_bytes(9, "12345"); });
  fields("packed_floats_odd", [](pbf_writer &w) { w.add_int64(1, 1), w.add_int32(2, 1), w.add_bytes(4, "12345"); });
  fields("packed_varints_cut", [](pbf_writer &w) { w.add_int64(1, 1), w.add_int32(2, 7), w.add_bytes(7, "\x80\x80"); });
  fields("packed_dims_cut", [](pbf_writer &w) { w.add_bytes(1, "\x80"), w.add_int32(2, 1); });
  cases.back().expect = "damaged"; // the file's structure, before anything has a name
  fields("segment", [](pbf_writer &w) { w.add_int64(1, 1), w.add_int32(2, 1), w.add_message(3, std::string("\x08\x01\x10\x05")), w.add_bytes(9, "12"); });
  fields("doubles_too_few", [](pbf_writer &w) { w.add_int64(1, 3), w.add_int32(2, 11), w.add_double(10, 1); });
  {
    std::string proto = tensor_proto("", 1, {1}, "1234");
    GraphMaker g;
    g.raw_weight(proto).node("Neg", {""}, {"y"}, {}, kBad).output("y");
    cases.push_back({"tensor_without_name", g.model(), kBad});
  }
  {
    GraphMaker g;
    std::string sparse;
    pbf_writer s(sparse);
    s.add_message(1, tensor_proto("w", 1, {1}, "1234")), s.add_message(2, tensor_proto("i", 7, {1}, std::string(8, '\x7f'))), s.add_int64(3, 4);
    std::string graph = g.node("Neg", {"w"}, {"y"}, {}, kBad).output("y").bytes(), file;
    pbf_writer(graph).add_message(15, sparse);
    pbf_writer f(file);
    f.add_int64(1, 8), f.add_message(7, graph);
    cases.push_back({"tensor_sparse", file, "parse"});
  }
}

void add_external(HostileCases &cases) {
  using Entries = std::vector<std::pair<std::string, std::string>>;
  auto add = [&](const std::string &name, const Entries &entries, std::function<void(const fs::path &)> files = nullptr,
                 std::vector<int64_t> dims = {2}) {
    cases.push_back({"external_" + name, with_weight(external_tensor(entries, std::move(dims))), "'w'", false, std::move(files)});
  };
  auto data = [](size_t size) { return [size](const fs::path &folder) { write(folder / "w.bin", std::string(size, 'a')); }; };
  add("no_location", {});
  add("empty_location", {{"location", ""}});
  add("missing", {{"location", "w.bin"}});
  add("too_short", {{"location", "w.bin"}}, data(4));
  add("empty_file", {{"location", "w.bin"}}, data(0));
  for (const char *location : {"../w.bin", "a/../../w.bin", "/etc/passwd", "./../w.bin", "..", ".", "/", "//etc/passwd", "a/..", "C:\\w.bin"})
    add(fmt::format("location_{}", cases.size()), {{"location", location}}, data(8));
  add("long_location", {{"location", std::string(100000, 'a')}});
  add("location_with_nul", {{"location", std::string("w.bin\0/../../x", 13)}}, data(8));
  for (const char *offset : {"-1", "1", "4", "9223372036854775807", "9223372036854775808", "18446744073709551615", "99999999999999999999999", "0x8", "abc", "", " 0", "1e3"})
    add(fmt::format("offset_{}", cases.size()), {{"location", "w.bin"}, {"offset", offset}, {"length", "8"}}, data(8));
  for (const char *length : {"-1", "4", "9", "9223372036854775807", "99999999999999999999999", "abc"})
    add(fmt::format("length_{}", cases.size()), {{"location", "w.bin"}, {"offset", "0"}, {"length", length}}, data(8));
  add("offset_overflows", {{"location", "w.bin"}, {"offset", "9223372036854775800"}, {"length", "8"}}, data(8));
  add("terabytes", {{"location", "w.bin"}}, data(8), {int64_t(1) << 40});
  add("dims_overflow", {{"location", "w.bin"}}, data(8), {int64_t(1) << 40, int64_t(1) << 40});
  add("negative_dim", {{"location", "w.bin"}}, data(8), {-2});
  add("folder", {{"location", "w.bin"}}, [](const fs::path &f) { fs::create_directory(f / "w.bin"); });
  add("fifo", {{"location", "w.bin"}}, [](const fs::path &f) { mkfifo((f / "w.bin").c_str(), 0600); });
  add("link_outside", {{"location", "w.bin"}}, [](const fs::path &f) { fs::create_symlink("/etc/passwd", f / "w.bin"); });
  add("link_to_parent", {{"location", "d/w.bin"}}, [](const fs::path &f) {
    write(f.parent_path() / "w.bin", "12345678");
    fs::create_directory_symlink("..", f / "d");
  });
  add("link_circle", {{"location", "w.bin"}}, [](const fs::path &f) { fs::create_symlink("w.bin", f / "w.bin"); });
  add("link_dangling", {{"location", "w.bin"}}, [](const fs::path &f) { fs::create_symlink("nothing", f / "w.bin"); });
  add("link_to_device", {{"location", "w.bin"}}, [](const fs::path &f) { fs::create_symlink("/dev/zero", f / "w.bin"); });
  add("duplicate_location", {{"location", "w.bin"}, {"location", "../w.bin"}}, data(8));
}

} // namespace

void add_tensor_cases(HostileCases &cases) {
  add_sizes(cases);
  add_external(cases);
}

} // namespace kiln::test
