// Operators whose attributes and operands cannot be: types, ranks, ranges, divisions by zero.
#include "tests/onnx/hostile_cases.h"

#include <fmt/format.h>

#include <cmath>

namespace kiln::test {
namespace {

constexpr DType kF = DType::f32;
using Ints = std::vector<int64_t>;

NodeModel image(const std::string &name, std::vector<TestDim> dims = {1, 4, 8, 8}) {
  return NodeModel("node_" + name).input("x", kF, dims);
}
NodeModel filtered(const std::string &name, std::vector<int64_t> w = {4, 4, 3, 3}) {
  int64_t n = 1;
  for (int64_t d : w)
    n *= d;
  return image(name).weight("w", floats(w, std::vector<double>(size_t(n), 1)));
}

void add_windows(HostileCases &c) {
  const Ints extremes[] = {{0, 1}, {-1, 1}, {1}, {1, 1, 1}, {INT64_MAX, 1}, {INT64_MIN, 1}};
  int n = 0;
  for (const char *attribute : {"strides", "dilations", "kernel_shape"})
    for (const Ints &value : extremes)
      c.push_back(filtered(fmt::format("conv_{}_{}", attribute, n++)).node("Conv", {attr_ints(attribute, value)}));
  for (const Ints &pads : {Ints{-9, -9, -9, -9}, Ints{-1, 0, 0, 0}, Ints{1, 1}, Ints{INT64_MAX, 0, INT64_MAX, 0}, Ints{INT64_MIN, 0, 0, 0}, Ints(100, 1)})
    c.push_back(filtered(fmt::format("conv_pads_{}", n++)).node("Conv", {attr_ints("pads", pads)}));
  for (int64_t group : {int64_t(0), int64_t(-1), int64_t(3), int64_t(5), INT64_MAX, INT64_MIN})
    c.push_back(filtered(fmt::format("conv_group_{}", n++)).node("Conv", {attr_i("group", group)}));
  c.push_back(filtered("conv_auto_pad").node("Conv", {attr_s("auto_pad", "SOMEHOW")}));
  c.push_back(filtered("conv_auto_pad_number").node("Conv", {attr_i("auto_pad", 1)}));
  c.push_back(filtered("conv_strides_string").node("Conv", {attr_s("strides", "2")}));
  c.push_back(filtered("conv_strides_floats").node("Conv", {attr_floats("strides", {1, 1})}));
  c.push_back(filtered("conv_channels", {4, 3, 3, 3}).node("Conv"));
  c.push_back(filtered("conv_rank", {4, 4, 3}).node("Conv"));
  c.push_back(filtered("conv_no_filters", {0, 4, 3, 3}).node("Conv"));
  c.back().may_compile = true;
  c.push_back(filtered("conv_kernel_of_nothing", {4, 4, 0, 3}).node("Conv"));
  c.push_back(filtered("conv_larger_than_image", {4, 4, 9, 9}).node("Conv"));
  c.push_back(filtered("conv_bias").weight("b", floats({3}, {1, 2, 3})).node("Conv"));
  c.push_back(image("conv_of_vector", {4}).weight("w", floats({4}, {1, 2, 3, 4})).node("Conv"));
  for (const char *type : {"MaxPool", "AveragePool", "LpPool"}) {
    c.push_back(image(fmt::format("{}_without_kernel", type)).node(type));
    for (const Ints &kernel : {Ints{}, Ints{0, 0}, Ints{-1, 3}, Ints{9, 9}, Ints{3}, Ints{INT64_MAX, INT64_MAX}})
      c.push_back(image(fmt::format("{}_kernel_{}", type, n++)).node(type, {attr_ints("kernel_shape", kernel)}));
    c.push_back(image(fmt::format("{}_strides", type)).node(type, {attr_ints("kernel_shape", {2, 2}), attr_ints("strides", {0, 0})}));
    c.push_back(image(fmt::format("{}_pads", type)).node(type, {attr_ints("kernel_shape", {2, 2}), attr_ints("pads", {-9, 0, 0, 0})}));
  }
  for (const Ints &padding : {Ints{-1, 0}, Ints{INT64_MAX, 0}, Ints{1}})
    c.push_back(filtered(fmt::format("conv_transpose_output_padding_{}", n++)).node("ConvTranspose", {attr_ints("output_padding", padding)}));
  c.push_back(filtered("conv_transpose_output_shape").node("ConvTranspose", {attr_ints("output_shape", {-5, 3})}));
  c.push_back(filtered("conv_transpose_strides").node("ConvTranspose", {attr_ints("strides", {0, 2})}));
  c.push_back(image("lrn_size").node("LRN", {attr_i("size", 0)}));
  c.push_back(image("lrn_without_size").node("LRN"));
  for (int64_t block : {int64_t(0), int64_t(-2), int64_t(3), INT64_MAX})
    for (const char *type : {"DepthToSpace", "SpaceToDepth"})
      c.push_back(image(fmt::format("{}_{}", type, n++)).node(type, {attr_i("blocksize", block)}));
}

void add_axes(HostileCases &c) {
  int n = 0;
  for (const char *type : {"Softmax", "LogSoftmax", "Hardmax", "ArgMax", "ArgMin", "Flatten", "Split", "LpNormalization", "Concat"})
    for (int64_t axis : {int64_t(5), int64_t(-6), INT64_MAX, INT64_MIN})
      c.push_back(image(fmt::format("{}_axis_{}", type, n++)).node(type, {attr_i("axis", axis)}));
  c.push_back(image("softmax_axis_string").node("Softmax", {attr_s("axis", "channels")}));
  c.push_back(image("softmax_axis_list").node("Softmax", {attr_ints("axis", {0, 1})}));
  c.push_back(image("softmax_axis_float").node("Softmax", {attr_f("axis", 1)}));
  c.push_back(image("concat_without_axis").node("Concat"));
  for (const Ints &perm : {Ints{0, 1}, Ints{0, 1, 2, 2}, Ints{0, 1, 2, 4}, Ints{-1, 0, 1, 2}, Ints{INT64_MAX, 0, 1, 2}})
    c.push_back(image(fmt::format("transpose_perm_{}", n++)).node("Transpose", {attr_ints("perm", perm)}));
  for (const Ints &axes : {Ints{9}, Ints{-9}, Ints{0, 0}, Ints{INT64_MIN}}) {
    for (const char *type : {"ReduceSum", "ReduceMax", "Squeeze", "Unsqueeze"})
      c.push_back(image(fmt::format("{}_axes_{}", type, n++)).weight("a", ints(axes)).node(type));
    c.push_back(NodeModel(fmt::format("node_reduce_axes_attribute_{}", n++), 11).input("x", kF, {2, 3}).node("ReduceSum", {attr_ints("axes", axes)}));
  }
  c.push_back(image("squeeze_of_four").weight("a", ints({1})).node("Squeeze"));
  c.push_back(image("squeeze_axes_floats").weight("a", floats({1}, {1})).node("Squeeze"));
  for (int64_t axis : {int64_t(5), INT64_MIN})
    for (const char *type : {"Gather", "GatherElements", "ScatterElements", "CumSum", "TopK", "OneHot", "Compress"})
      c.push_back(image(fmt::format("{}_axis_{}", type, n++)).weight("i", ints({0})).weight("u", floats({1}, {1})).node(type, {attr_i("axis", axis)}));
  c.push_back(image("gather_float_indices").weight("i", floats({1}, {0})).node("Gather"));
  c.push_back(image("gather_nd_depth").weight("i", ints({0, 0, 0, 0, 0})).node("GatherND"));
  c.push_back(image("gather_nd_batch").weight("i", ints({0})).node("GatherND", {attr_i("batch_dims", 7)}));
  c.push_back(image("gather_of_scalar", {}).weight("i", ints({0})).node("Gather"));
  c.push_back(image("split_sizes").weight("s", ints({3, 3})).node("Split", {attr_i("axis", 1)}));
  c.push_back(image("split_negative").weight("s", ints({-1, 2})).node("Split", {attr_i("axis", 1)}));
  c.push_back(NodeModel("node_split_into_nothing", 18).input("x", kF, {4}).node("Split", {attr_i("num_outputs", 0)}));
  c.push_back(NodeModel("node_split_into_many", 18).input("x", kF, {4}).node("Split", {attr_i("num_outputs", INT64_MAX)}));
  for (int64_t k : {int64_t(-1), int64_t(9), INT64_MAX})
    c.push_back(image(fmt::format("topk_{}", n++)).weight("k", ints({k})).node("TopK"));
  c.push_back(image("topk_by_many").weight("k", ints({1, 2})).node("TopK"));
  c.push_back(image("tile_repeats").weight("r", ints({1, 2})).node("Tile"));
  c.push_back(image("tile_negative").weight("r", ints({1, -2, 1, 1})).node("Tile"));
}

void add_shapes(HostileCases &c) {
  int n = 0;
  for (const Ints &shape : {Ints{-1, -1}, Ints{-2, 4}, Ints{7, 9}, Ints{0, 0, 0, 0, 0}, Ints{INT64_MAX, INT64_MAX}, Ints{0, -1, 0, 3}, Ints(100, 1)})
    c.push_back(image(fmt::format("reshape_{}", n++)).weight("s", ints(shape)).node("Reshape"));
  c.push_back(image("reshape_by_floats").weight("s", floats({1}, {-1})).node("Reshape"));
  c.push_back(image("reshape_by_matrix").weight("s", Tensor(DType::i64, {2, 2})).node("Reshape"));
  c.push_back(image("reshape_nothing_to_unknown", {0, 3}).weight("s", ints({0, -1})).node("Reshape", {attr_i("allowzero", 1)}));
  for (const Ints &shape : {Ints{3, 8, 8}, Ints{-1}, Ints{5, 5}, Ints{INT64_MIN}})
    c.push_back(image(fmt::format("expand_{}", n++)).weight("s", ints(shape)).node("Expand"));
  for (const char *type : {"Add", "Mul", "Div", "Pow", "Max", "Mod", "Where", "Equal", "And", "BitShift", "MatMul", "Gemm"})
    c.push_back(image(fmt::format("{}_shapes", type)).input("z", kF, {3, 5}).node(type));
  c.push_back(image("matmul_of_scalar", {}).input("z", kF, {}).node("MatMul"));
  c.push_back(NodeModel("node_matmul_inner").input("x", kF, {2, 3}).input("z", kF, {4, 2}).node("MatMul"));
  c.push_back(NodeModel("node_matmul_batches").input("x", kF, {2, 2, 3}).input("z", kF, {5, 3, 2}).node("MatMul"));
  c.push_back(NodeModel("node_gemm_rank").input("x", kF, {2, 2, 3}).input("z", kF, {3, 2}).node("Gemm"));
  c.push_back(NodeModel("node_concat_shapes").input("x", kF, {2, 3}).input("z", kF, {3, 4}).node("Concat", {attr_i("axis", 0)}));
  c.push_back(NodeModel("node_concat_types").input("x", kF, {2, 3}).input("z", DType::i64, {2, 3}).node("Concat", {attr_i("axis", 0)}));
  c.push_back(NodeModel("node_add_types").input("x", kF, {2}).input("z", DType::i64, {2}).node("Add"));
  for (const Ints &pads : {Ints{1, 1}, Ints{-9, 0, 0, 0, 0, 0, 0, 0}, Ints{INT64_MAX, 0, 0, 0, INT64_MAX, 0, 0, 0}, Ints{INT64_MIN, 0, 0, 0, 0, 0, 0, 0}})
    c.push_back(image(fmt::format("pad_{}", n++)).weight("p", ints(pads)).node("Pad"));
  c.push_back(image("pad_reflect_too_far").weight("p", ints({0, 0, 8, 0, 0, 0, 0, 0})).node("Pad", {attr_s("mode", "reflect")}));
  c.push_back(image("pad_mode").weight("p", ints({0, 0, 1, 0, 0, 0, 0, 0})).node("Pad", {attr_s("mode", "banana")}));
  auto slice = [&](const Ints &starts, const Ints &ends, const Ints &axes, const Ints &steps) {
    c.push_back(image(fmt::format("slice_{}", n++)).weight("s", ints(starts)).weight("e", ints(ends)).weight("a", ints(axes)).weight("t", ints(steps)).node("Slice"));
  };
  slice({0}, {1}, {0}, {0});
  slice({0}, {1}, {9}, {1});
  slice({0, 0}, {1}, {0}, {1});
  slice({0, 0}, {1, 1}, {0, 0}, {1, 1});
  slice({0}, {1}, {INT64_MIN}, {1});
  slice({0}, {1}, {0}, {1, 1});
  for (const char *equation : {"", "->", "ij,jk->ik", "i...j...->ij", "ijklm->i", "ij->ik", "ij->ii", "i j k l, ->", "....->", "\xff\xff->i", "ijk", "ij->ij->ij", "1234->1"})
    c.push_back(image(fmt::format("einsum_{}", n++)).node("Einsum", {attr_s("equation", equation)}));
  c.push_back(image("einsum_without_equation").node("Einsum"));
  c.push_back(image("einsum_long").node("Einsum", {attr_s("equation", std::string(1 << 20, 'i') + "->i")}));
}

void add_values(HostileCases &c) {
  int n = 0;
  for (int64_t to : {int64_t(0), int64_t(-1), int64_t(99), INT64_MAX})
    c.push_back(image(fmt::format("cast_{}", n++)).node("Cast", {attr_i("to", to)}));
  c.push_back(image("cast_without_type").node("Cast"));
  c.push_back(image("cast_to_string_name").node("Cast", {attr_s("to", "f32")}));
  c.push_back(NodeModel("node_constant_empty").node("Constant"));
  c.push_back(NodeModel("node_constant_damaged").node("Constant", {attr_tensor("value", "\xff\xff\xff")}, ""));
  c.push_back(NodeModel("node_constant_of_two").node("Constant", {attr_i("value_int", 1), attr_f("value_float", 1)}));
  c.push_back(NodeModel("node_constant_size").node("Constant", {attr_tensor("value", tensor_proto("", 1, {INT64_MAX}, ""))}));
  c.push_back(NodeModel("node_constant_of_shape_two").weight("s", ints({2})).node("ConstantOfShape", {attr_tensor("value", tensor_proto("", 1, {2}, "12345678"))}));
  c.push_back(NodeModel("node_constant_of_shape_negative").weight("s", ints({-2})).node("ConstantOfShape"));
  c.push_back(NodeModel("node_range_zero_step").weight("a", Tensor::scalar_i64(DType::i64, 0)).weight("b", Tensor::scalar_i64(DType::i64, 5)).weight("d", Tensor::scalar_i64(DType::i64, 0)).node("Range"));
  c.push_back(NodeModel("node_range_of_vectors").weight("a", ints({0, 1})).weight("b", ints({5})).weight("d", ints({1})).node("Range"));
  c.push_back(NodeModel("node_range_nan").weight("a", Tensor::scalar_f64(kF, 0)).weight("b", Tensor::scalar_f64(kF, std::nan(""))).weight("d", Tensor::scalar_f64(kF, 1)).node("Range"));
  c.push_back(NodeModel("node_range_infinite").weight("a", Tensor::scalar_f64(kF, 0)).weight("b", Tensor::scalar_f64(kF, INFINITY)).weight("d", Tensor::scalar_f64(kF, 1)).node("Range"));
  c.push_back(NodeModel("node_onehot_depth").input("x", DType::i64, {3}).weight("d", Tensor::scalar_i64(DType::i64, -4)).weight("v", floats({2}, {0, 1})).node("OneHot"));
  c.push_back(NodeModel("node_onehot_values").input("x", DType::i64, {3}).weight("d", Tensor::scalar_i64(DType::i64, 4)).weight("v", floats({3}, {0, 1, 2})).node("OneHot"));
  for (const std::vector<double> &scales : {std::vector<double>{1, 1}, {1, 1, 0, 1}, {1, 1, -2, 1}, {1, 1, 1e30, 1}, {1, 1, NAN, 1}, {1, 1, INFINITY, 1}, {1, 1, 1e-30, 1}})
    c.push_back(NodeModel(fmt::format("node_resize_scales_{}", n++), 10).input("x", kF, {1, 4, 8, 8}).weight("s", floats({int64_t(scales.size())}, scales)).node("Resize"));
  c.push_back(NodeModel("node_resize_mode", 10).input("x", kF, {1, 4, 8, 8}).weight("s", floats({4}, {1, 1, 2, 2})).node("Resize", {attr_s("mode", "banana")}));
  c.push_back(image("elu_alpha").node("Elu", {attr_s("alpha", "1.0")}));
  c.push_back(image("clip_of_vectors").weight("lo", floats({2}, {0, 1})).weight("hi", floats({2}, {0, 1})).node("Clip"));
  c.push_back(NodeModel("node_dropout_ratio", 10).input("x", kF, {2}).node("Dropout", {attr_s("ratio", "x")}));
  c.push_back(image("batch_norm_sizes").weight("a", floats({3}, {1, 1, 1})).weight("b", floats({4}, {1, 1, 1, 1})).weight("m", floats({4}, {1, 1, 1, 1})).weight("v", floats({4}, {1, 1, 1, 1})).node("BatchNormalization"));
  c.push_back(image("instance_norm_sizes").weight("a", floats({3}, {1, 1, 1})).weight("b", floats({4}, {1, 1, 1, 1})).node("InstanceNormalization"));
  for (int64_t groups : {int64_t(0), int64_t(3), int64_t(-1), INT64_MAX})
    c.push_back(NodeModel(fmt::format("node_group_norm_{}", n++), 21).input("x", kF, {1, 4, 8, 8}).weight("a", floats({4}, {1, 1, 1, 1})).weight("b", floats({4}, {1, 1, 1, 1})).node("GroupNormalization", {attr_i("num_groups", groups)}));
  for (const char *type : {"LSTM", "GRU", "RNN"}) {
    auto rnn = [&](const std::string &name, const std::vector<std::string> &attributes, std::vector<int64_t> w = {1, 4, 3}) {
      c.push_back(NodeModel(fmt::format("node_{}_{}", type, name)).input("x", kF, {2, 1, 3}).weight("w", Tensor(kF, w)).weight("r", Tensor(kF, {1, 4, 1})).node(type, attributes));
    };
    rnn("without_size", {}, {1, 5, 3});
    rnn("size_0", {attr_i("hidden_size", 0)});
    rnn("size_negative", {attr_i("hidden_size", -1)});
    rnn("size_wrong", {attr_i("hidden_size", 7)});
    rnn("direction", {attr_i("hidden_size", 1), attr_s("direction", "sideways")});
    rnn("activations", {attr_i("hidden_size", 1), attr_strings("activations", {"Banana", "Tanh", "Tanh"})});
    rnn("weights", {attr_i("hidden_size", 1)}, {2, 4, 9});
  }
  c.push_back(NodeModel("node_quantize_axis").input("x", kF, {2, 3}).weight("s", floats({3}, {1, 1, 1})).node("QuantizeLinear", {attr_i("axis", 7)}));
  c.push_back(NodeModel("node_quantize_scales").input("x", kF, {2, 3}).weight("s", floats({5}, {1, 1, 1, 1, 1})).node("QuantizeLinear", {attr_i("axis", 1)}));
  c.push_back(NodeModel("node_dequantize_floats").input("x", kF, {2, 3}).weight("s", floats({}, {1})).node("DequantizeLinear"));
}

} // namespace

void add_node_cases(HostileCases &cases) {
  add_windows(cases);
  add_axes(cases);
  add_shapes(cases);
  add_values(cases);
}

} // namespace kiln::test
