#include "frontend/onnx/wire.h"

#include "frontend/onnx/wire_reader.h"

namespace kiln::onnx {
namespace {

class Parser {
public:
  explicit Parser(WireBudget &budget) : budget_(budget) {}

  ModelView model(std::string_view bytes) {
    ModelView out;
    bool has_graph = false;
    for (pbf_reader r = reader(bytes); r.next();) {
      switch (r.tag_and_type()) {
      case varint_field(1):
        out.ir_version = r.get_int64();
        break;
      case bytes_field(2):
        out.producer = view(r);
        break;
      case bytes_field(7):
        if (has_graph)
          throw WireError{"it holds two graphs"};
        has_graph = true;
        out.graph = graph(view(r));
        break;
      case bytes_field(8):
        out.opsets.push_back(opset(view(r)));
        break;
      case bytes_field(14):
        out.metadata.push_back(string_pair(view(r)));
        break;
      case bytes_field(25):
        out.functions.push_back(function(view(r)));
        break;
      default:
        r.skip();
      }
    }
    if (!has_graph)
      throw WireError{"it holds no graph"};
    return out;
  }

  GraphView graph(std::string_view bytes) {
    GraphView out;
    for (pbf_reader r = reader(bytes); r.next();) {
      switch (r.tag_and_type()) {
      case bytes_field(1):
        out.nodes.push_back(node(view(r)));
        break;
      case bytes_field(2):
        out.name = view(r);
        break;
      case bytes_field(5):
        out.initializers.push_back(tensor(view(r)));
        break;
      case bytes_field(11):
        out.inputs.push_back(value_info(view(r)));
        break;
      case bytes_field(12):
        out.outputs.push_back(value_info(view(r)));
        break;
      case bytes_field(15):
        count_message();
        out.sparse_initializers.push_back(view(r));
        break;
      default:
        r.skip();
      }
    }
    return out;
  }

  TensorView tensor(std::string_view bytes) {
    count_message();
    TensorView out;
    out.message = bytes;
    for (pbf_reader r = reader(bytes); r.next();) {
      switch (r.tag_and_type()) {
      case bytes_field(1):
        for (int64_t d : r.get_packed_int64())
          push(out.dims, d);
        break;
      case varint_field(1):
        push(out.dims, r.get_int64());
        break;
      case varint_field(2):
        out.data_type = r.get_int32();
        break;
      case bytes_field(8):
        out.name = view(r);
        break;
      default:
        r.skip();
      }
    }
    return out;
  }

  SparseView sparse(std::string_view bytes) {
    count_message();
    SparseView out;
    for (pbf_reader r = reader(bytes); r.next();) {
      switch (r.tag_and_type()) {
      case bytes_field(1):
        out.values = tensor(view(r));
        break;
      case bytes_field(2):
        out.indices = tensor(view(r));
        break;
      case bytes_field(3):
        for (int64_t d : r.get_packed_int64())
          push(out.dims, d);
        break;
      case varint_field(3):
        push(out.dims, r.get_int64());
        break;
      default:
        r.skip();
      }
    }
    return out;
  }

private:
  void count_message() {
    if (--budget_.messages < 0)
      throw WireError{"it holds too many nodes, attributes and tensors"};
  }
  template <typename T>
  void push(std::vector<T> &list, T value) {
    if (--budget_.items < 0)
      throw WireError{"its lists of names and attribute values are too long"};
    list.push_back(std::move(value));
  }

  OpsetView opset(std::string_view bytes) {
    count_message();
    OpsetView out;
    for (pbf_reader r = reader(bytes); r.next();) {
      if (r.tag_and_type() == bytes_field(1))
        out.domain = view(r);
      else if (r.tag_and_type() == varint_field(2))
        out.version = r.get_int64();
      else
        r.skip();
    }
    return out;
  }

  NodeView node(std::string_view bytes) {
    count_message();
    NodeView out;
    for (pbf_reader r = reader(bytes); r.next();) {
      switch (r.tag_and_type()) {
      case bytes_field(1):
        push(out.inputs, view(r));
        break;
      case bytes_field(2):
        push(out.outputs, view(r));
        break;
      case bytes_field(3):
        out.name = view(r);
        break;
      case bytes_field(4):
        out.op_type = view(r);
        break;
      case bytes_field(5):
        out.attributes.push_back(attribute(view(r)));
        break;
      case bytes_field(7):
        out.domain = view(r);
        break;
      case bytes_field(8):
        out.overload = view(r);
        break;
      default:
        r.skip();
      }
    }
    if (out.domain == "ai.onnx")
      out.domain = "";
    return out;
  }

  AttributeView attribute(std::string_view bytes) {
    count_message();
    AttributeView out;
    for (pbf_reader r = reader(bytes); r.next();) {
      switch (r.tag_and_type()) {
      case bytes_field(1):
        out.name = view(r);
        break;
      case fixed32_field(2):
        out.f = r.get_float();
        infer_type(out, AttrType::f);
        break;
      case varint_field(3):
        out.i = r.get_int64();
        infer_type(out, AttrType::i);
        break;
      case bytes_field(4):
        out.s = view(r);
        infer_type(out, AttrType::s);
        break;
      case bytes_field(5):
        out.message = view(r);
        infer_type(out, AttrType::tensor);
        break;
      case bytes_field(6):
        out.message = view(r);
        infer_type(out, AttrType::graph);
        break;
      case bytes_field(7):
        for (float f : r.get_packed_float())
          push(out.floats, f);
        infer_type(out, AttrType::floats);
        break;
      case fixed32_field(7):
        push(out.floats, r.get_float());
        infer_type(out, AttrType::floats);
        break;
      case bytes_field(8):
        for (int64_t i : r.get_packed_int64())
          push(out.ints, i);
        infer_type(out, AttrType::ints);
        break;
      case varint_field(8):
        push(out.ints, r.get_int64());
        infer_type(out, AttrType::ints);
        break;
      case bytes_field(9):
        push(out.strings, view(r));
        infer_type(out, AttrType::strings);
        break;
      case bytes_field(22):
        out.message = view(r);
        infer_type(out, AttrType::sparse_tensor);
        break;
      case bytes_field(14):
        r.skip();
        infer_type(out, AttrType::type_proto);
        break;
      case varint_field(20):
        out.type = AttrType(r.get_int32());
        break;
      case bytes_field(21):
        out.ref_attr_name = view(r);
        break;
      default:
        r.skip();
      }
    }
    return out;
  }

  // Files of IR version 1 have no type field: the field that is there says it.
  static void infer_type(AttributeView &a, AttrType type) {
    if (a.type == AttrType::undefined)
      a.type = type;
  }

  ValueInfoView value_info(std::string_view bytes) {
    count_message();
    ValueInfoView out;
    for (pbf_reader r = reader(bytes); r.next();) {
      if (r.tag_and_type() == bytes_field(1))
        out.name = view(r);
      else if (r.tag_and_type() == bytes_field(2))
        type(view(r), out, 0);
      else
        r.skip();
    }
    return out;
  }

  // The element type of a sequence or an optional: the type in its field 1.
  void element(std::string_view bytes, ValueInfoView &out, int depth) {
    for (pbf_reader r = reader(bytes); r.next();) {
      if (r.tag_and_type() == bytes_field(1) && depth < 3)
        type(view(r), out, depth);
      else
        r.skip();
    }
  }

  // A map whose values are single numbers or strings; any other is no type that is known.
  void element_of_map(std::string_view bytes, ValueInfoView &out, int depth) {
    int key = 0;
    for (pbf_reader r = reader(bytes); r.next();) {
      if (r.tag_and_type() == varint_field(1))
        key = r.get_int32();
      else if (r.tag_and_type() == bytes_field(2) && depth < 3)
        type(view(r), out, depth);
      else
        r.skip();
    }
    bool plain = out.is_tensor && key > 0;
    out.map_key = plain ? key : 0;
    out.is_tensor = out.is_sequence = out.is_optional = false;
    out.has_shape = false;
    out.shape.clear();
  }

  void type(std::string_view bytes, ValueInfoView &out, int depth) {
    for (pbf_reader r = reader(bytes); r.next();) {
      ValueInfoView inner;
      switch (r.tag_and_type()) {
      case bytes_field(1):
        break;
      case bytes_field(5): { // a map
        element_of_map(view(r), inner, depth + 1);
        inner.name = out.name;
        out = std::move(inner);
        continue;
      }
      case bytes_field(4): // an optional may hold a sequence, nothing else holds one
      case bytes_field(9): {
        bool sequence = r.tag_and_type() == bytes_field(4);
        element(view(r), inner, depth + 1);
        inner.name = out.name;
        inner.is_optional = !sequence && !inner.is_optional && (inner.is_tensor || inner.is_sequence);
        inner.is_sequence = sequence ? inner.is_tensor : inner.is_sequence && inner.is_optional;
        inner.is_tensor = false;
        out = std::move(inner);
        continue;
      }
      default:
        r.skip();
        continue;
      }
      out.is_tensor = true;
      for (pbf_reader t = reader(view(r)); t.next();) {
        if (t.tag_and_type() == varint_field(1)) {
          out.elem_type = t.get_int32();
        } else if (t.tag_and_type() == bytes_field(2)) {
          out.has_shape = true;
          for (pbf_reader s = reader(view(t)); s.next();) {
            if (s.tag_and_type() == bytes_field(1))
              push(out.shape, dimension(view(s)));
            else
              s.skip();
          }
        } else {
          t.skip();
        }
      }
    }
  }

  static DimView dimension(std::string_view bytes) {
    DimView out;
    for (pbf_reader r = reader(bytes); r.next();) {
      if (r.tag_and_type() == varint_field(1))
        out.value = r.get_int64();
      else if (r.tag_and_type() == bytes_field(2))
        out.param = view(r);
      else
        r.skip();
    }
    return out;
  }

  FunctionView function(std::string_view bytes) {
    count_message();
    FunctionView out;
    for (pbf_reader r = reader(bytes); r.next();) {
      switch (r.tag_and_type()) {
      case bytes_field(1):
        out.name = view(r);
        break;
      case bytes_field(4):
        push(out.inputs, view(r));
        break;
      case bytes_field(5):
        push(out.outputs, view(r));
        break;
      case bytes_field(6):
        push(out.attributes, view(r));
        break;
      case bytes_field(7):
        out.nodes.push_back(node(view(r)));
        break;
      case bytes_field(9):
        out.opsets.push_back(opset(view(r)));
        break;
      case bytes_field(10):
        out.domain = view(r);
        break;
      case bytes_field(11):
        out.attribute_defaults.push_back(attribute(view(r)));
        break;
      case bytes_field(13):
        out.overload = view(r);
        break;
      default:
        r.skip();
      }
    }
    return out;
  }

  WireBudget &budget_;
};

// A field of a SequenceProto or OptionalProto: tensors are what Kiln has in them.
StoredView stored(std::string_view message, bool is_sequence, bool is_optional, Parser &parser) {
  StoredView out;
  if (!is_sequence && !is_optional) {
    out.tensors.push_back(parser.tensor(message));
    out.name = out.tensors[0].name;
    return out;
  }
  out.present = !is_optional;
  for (pbf_reader r = reader(message); r.next();) {
    if (r.tag_and_type() == bytes_field(1)) {
      out.name = view(r);
    } else if (r.tag_and_type() == bytes_field(3)) {
      out.present = true;
      out.tensors.push_back(parser.tensor(view(r)));
    } else if (is_optional && is_sequence && r.tag_and_type() == bytes_field(5)) {
      std::string_view name = out.name;
      out = stored(view(r), true, false, parser);
      out.name = name;
    } else {
      r.skip();
    }
  }
  if (!is_sequence && out.tensors.size() > 1)
    throw WireError{"an optional holds more than one tensor"};
  return out;
}

} // namespace

Result<ModelView> read_model(std::string_view bytes, WireBudget &budget) {
  return guarded([&] { return Parser(budget).model(bytes); });
}

Result<GraphView> read_graph(std::string_view message, WireBudget &budget) {
  return guarded([&] { return Parser(budget).graph(message); });
}

Result<TensorView> read_tensor(std::string_view message, WireBudget &budget) {
  return guarded([&] { return Parser(budget).tensor(message); });
}

Result<SparseView> read_sparse(std::string_view message, WireBudget &budget) {
  return guarded([&] { return Parser(budget).sparse(message); });
}

Result<StoredView> read_stored(std::string_view message, bool is_sequence, bool is_optional, WireBudget &budget) {
  return guarded([&] {
    Parser parser(budget);
    return stored(message, is_sequence, is_optional, parser);
  });
}

} // namespace kiln::onnx
