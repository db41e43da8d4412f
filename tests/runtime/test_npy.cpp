// kiln-run's tensors: .npy files parsed strictly, values written out, half precision both ways.
#include <catch2/catch.hpp>
#include <cstring>

#include "runtime/include/kiln/kiln.h"
#include "tests/runtime/test_model.h"
#include "tools/npy_mini.h"
#include "tools/tensor_text.h"

using namespace kiln::tools;
namespace test = kiln::test;

namespace {

std::vector<uint8_t> npy(std::string header, size_t data_size) {
  std::vector<uint8_t> bytes = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};
  bytes.push_back(static_cast<uint8_t>(header.size()));
  bytes.push_back(static_cast<uint8_t>(header.size() >> 8));
  bytes.insert(bytes.end(), header.begin(), header.end());
  for (size_t i = 0; i < data_size; ++i)
    bytes.push_back(static_cast<uint8_t>(i));
  return bytes;
}

std::string parse(const std::string &header, size_t data_size) {
  Tensor tensor;
  return parse_npy(npy(header, data_size), tensor);
}

std::string written(const std::string &text) {
  Tensor tensor;
  std::string error = parse_tensor(text, tensor);
  return error.empty() ? print_tensor(tensor) : error;
}

} // namespace

TEST_CASE("npy: what is written reads back") {
  for (const char *text : {"f32=1.5", "3xi8=1,-2,3", "2x0xf64=1", "2x2xbool=1,0,0,1", "2xbf16=1,2",
                           "1x2x3xu16=1,2,3,4,5,65535"}) {
    Tensor tensor, back;
    REQUIRE(parse_tensor(text, tensor).empty());
    std::string path = test::temporary("t.npy");
    REQUIRE(write_npy(path, tensor).empty());
    REQUIRE(read_npy(path, back).empty());
    CHECK(back.dtype == tensor.dtype);
    CHECK(back.dims == tensor.dims);
    CHECK(back.data == tensor.data);
    CHECK(test::read_file(path).size() % 64 == tensor.data.size() % 64);
  }
}

TEST_CASE("npy: column-major arrays are turned") {
  Tensor tensor;
  auto bytes = npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }\n", 6);
  REQUIRE(parse_npy(bytes, tensor).empty());
  CHECK(tensor.data == std::vector<uint8_t>{0, 2, 4, 1, 3, 5});
}

TEST_CASE("npy: malformed files are refused") {
  const std::string fine = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";
  CHECK(parse(fine, 8).empty());
  CHECK(parse(fine, 7) == "it holds 7 bytes of elements, and its header says 8");
  CHECK(parse(fine, 9) == "it holds 9 bytes of elements, and its header says 8");
  for (const char *bad :
       {"", "{", "{}", "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': 1, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x"})
    CHECK(parse(bad, 8) == "its header is malformed");
  CHECK(parse("{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", 8).find("'>f4'") !=
        std::string::npos);
  CHECK(parse("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", 8)
            .find("its shape is too large") == 0);
  std::vector<uint8_t> bytes = npy(fine, 8);
  Tensor tensor;
  for (size_t size = 0; size < bytes.size(); ++size)
    CHECK(!parse_npy({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)}, tensor)
               .empty());
}

TEST_CASE("tensors written out") {
  CHECK(written("2x2xf32=1,2.5,-3e2,nan") == "f32[2, 2] 1 2.5 -300 nan");
  CHECK(written("4xi64=7") == "i64[4] 7 7 7 7");
  CHECK(written("f16=65504") == "f16[] 65504");
  CHECK(written("3xf16=1e-7,6.1e-05,65520") == "f16[3] 1.1920929e-07 6.097555e-05 inf");
  CHECK(written("2xbf16=3.14159,1e-40") == "bf16[2] 3.140625 9.1835e-41");
  CHECK(written("2xbool=true,0") == "bool[2] true false");
  CHECK(written("2xu8=1,256") == "'256' is no u8");
  CHECK(written("3xf32=1,2") == "2 values for 3 elements");
  CHECK(written("f33=1").find("neither") != std::string::npos);
  CHECK(written("99999999999x9999999999xf32=1").find("too large") != std::string::npos);
}
