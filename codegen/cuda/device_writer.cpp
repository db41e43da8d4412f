#include "codegen/cuda/device_writer.h"

#include "codegen/cuda/compile_units.h"
#include "codegen/cuda/cuda.h"
#include "codegen/cuda/join_launches.h"
#include "codegen/cuda/vector_body.h"
#include "ir/placement.h"
#include "runtime/cuda/device_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

namespace kiln::cuda {
namespace {

using namespace package;

bool is_same_place(const PlanBuffer &a, const PlanBuffer &b) {
  return a.kind == b.kind && a.argument == b.argument && a.weight == b.weight && a.variable == b.variable && a.offset == b.offset;
}

// Arguments, weights, variables and the arena begin at multiples of 64 bytes.
bool is_aligned(const PlanBuffer &b, const Program &program) {
  Dim offset = b.offset;
  if (b.kind == PlanBuffer::Kind::weight)
    offset += Dim(program.weights[size_t(b.weight)].offset);
  if (b.kind == PlanBuffer::Kind::variable)
    offset += Dim(program.variables[size_t(b.variable)].offset);
  return is_multiple(offset, 16);
}

void find_facts(const Plan &plan, const std::vector<PlanStep> &steps, const Program &program, std::vector<LaunchFacts> &out) {
  for (const PlanStep &step : steps) {
    find_facts(plan, step.condition_body, program, out);
    find_facts(plan, step.body, program, out);
    find_facts(plan, step.other, program, out);
    if (step.kind != PlanStep::Kind::launch)
      continue;
    const Kernel &kernel = program.kernels[size_t(step.kernel)];
    LaunchFacts &facts = out[size_t(step.kernel)];
    facts.is_unaligned.resize(kernel.buffers.size());
    for (size_t i = 0; i < step.buffers.size(); ++i)
      if (!is_aligned(plan.buffers[size_t(step.buffers[i])], program))
        facts.is_unaligned[i] = true;
    for (size_t i = 0; i < step.buffers.size(); ++i)
      for (size_t j = 0; j < step.buffers.size(); ++j)
        if (i != j && kernel.buffers[i].access != Access::in &&
            is_same_place(plan.buffers[size_t(step.buffers[i])], plan.buffers[size_t(step.buffers[j])]))
          facts.is_aliased = true;
  }
}

void find_used(const std::vector<PlanStep> &steps, std::vector<bool> &out) {
  for (const PlanStep &step : steps) {
    find_used(step.condition_body, out);
    find_used(step.body, out);
    find_used(step.other, out);
    if (step.kind == PlanStep::Kind::launch)
      out[size_t(step.kernel)] = true;
  }
}

// What the steps use of the variables, and whether they write it.
void find_variables(const Plan &plan, const std::vector<PlanStep> &steps, const Program &program, std::map<int, bool> &out) {
  for (const PlanStep &step : steps) {
    find_variables(plan, step.condition_body, program, out);
    find_variables(plan, step.body, program, out);
    find_variables(plan, step.other, program, out);
    for (size_t i = 0; step.kind == PlanStep::Kind::launch && i < step.buffers.size(); ++i)
      if (const PlanBuffer &b = plan.buffers[size_t(step.buffers[i])]; b.kind == PlanBuffer::Kind::variable)
        out[b.variable] |= program.kernels[size_t(step.kernel)].buffers[i].access != Access::in;
  }
}

class Writer {
public:
  Writer(const Program &program, const std::vector<CudaKernel> &kernels) : program_(program), kernels_(kernels) {}

  Status write_entries() {
    for (const Plan &plan : program_.entries) {
      plan_ = &plan;
      entry_ = {};
      slots_.clear();
      for (Symbol dim : plan.dims)
        slots_.push_back(dim);
      entry_.slots = uint32_t(slots_.size());
      entry_.steps.first = uint32_t(steps_.size());
      if (is_for_device(program_, plan))
        write_steps(plan.steps);
      write_variables(plan);
      entry_.steps.count = uint32_t(steps_.size()) - entry_.steps.first;
      if (entry_.slots > kMaxDeviceSlots)
        return Error{fmt::format("the entry {} has more than {} sizes and loops", plan.name, kMaxDeviceSlots)};
      entries_.push_back(entry_);
    }
    return Unit{};
  }

  // The functions in the order of their first launch.
  const std::vector<CudaFunction> &functions() const { return functions_; }
  const std::vector<int> &kernel_of_function() const { return kernel_of_function_; }

  std::vector<uint8_t> finish(const GpuMachine &machine, const std::vector<std::vector<std::byte>> &images, const std::vector<int> &image_of) {
    std::vector<DeviceFunctionRecord> functions;
    for (size_t i = 0; i < functions_.size(); ++i) {
      const CudaFunction &f = functions_[i];
      DeviceFunctionRecord record = records_[i];
      record.name = {uint32_t(strings_.size()), uint32_t(f.name.size())};
      strings_.insert(strings_.end(), f.name.begin(), f.name.end());
      strings_.push_back(0);
      record.image = uint32_t(image_of[i]);
      functions.push_back(record);
    }
    std::vector<DeviceImageRecord> image_records(images.size());
    out_.resize(sizeof(DeviceHeader));
    DeviceHeader header{};
    header.magic = kDeviceMagic;
    header.abi = kDeviceAbi;
    header.arch = uint32_t(machine.arch);
    header.is_ptx = machine.is_ptx;
    header.strings = put(strings_);
    header.images = put(image_records);
    header.functions = put(functions);
    header.entries = put(entries_);
    header.steps = put(steps_);
    header.buffers = put(buffers_);
    header.expressions = put(expressions_);
    header.lists = put(lists_);
    header.words = put(words_);
    header.maps = put(maps_);
    for (size_t i = 0; i < images.size(); ++i) {
      out_.resize((out_.size() + 63) / 64 * 64);
      image_records[i] = {out_.size(), images[i].size()};
      auto *bytes = reinterpret_cast<const uint8_t *>(images[i].data());
      out_.insert(out_.end(), bytes, bytes + images[i].size());
    }
    if (!images.empty())
      std::memcpy(out_.data() + header.images.offset, image_records.data(), images.size() * sizeof(DeviceImageRecord));
    std::memcpy(out_.data(), &header, sizeof header);
    return std::move(out_);
  }

private:
  template <typename T>
  Table put(const std::vector<T> &records) {
    out_.resize((out_.size() + 7) / 8 * 8);
    Table table{uint32_t(out_.size()), uint32_t(records.size())};
    auto *bytes = reinterpret_cast<const uint8_t *>(records.data());
    out_.insert(out_.end(), bytes, bytes + records.size() * sizeof(T));
    return table;
  }

  // --- expressions

  void op(std::vector<int64_t> &words, DeviceOp o) { words.push_back(int64_t(o)); }
  void push(std::vector<int64_t> &words, int64_t value) {
    op(words, DeviceOp::Push);
    words.push_back(value);
  }
  void slot(std::vector<int64_t> &words, Symbol name) {
    for (size_t i = slots_.size(); i-- > 0;)
      if (slots_[i] == name) {
        op(words, DeviceOp::Slot);
        words.push_back(int64_t(i));
        return;
      }
    KILN_CHECK(false, "the plan uses '" + std::string(name.text()) + "', which nothing tells");
  }

  void encode(std::vector<int64_t> &words, const Dim &dim) {
    push(words, dim.constant_part());
    for (const DimTerm &term : dim.terms()) {
      push(words, term.coefficient);
      for (const DimAtom &factor : term.factors) {
        if (factor.kind == DimAtom::Kind::symbol) {
          slot(words, factor.symbol);
        } else {
          encode(words, factor.args[0]);
          encode(words, factor.args[1]);
          constexpr DeviceOp kOps[] = {DeviceOp::Add, DeviceOp::FloorDivide, DeviceOp::Modulo, DeviceOp::Minimum, DeviceOp::Maximum};
          op(words, kOps[size_t(factor.kind)]);
        }
        op(words, DeviceOp::Multiply);
      }
      op(words, DeviceOp::Add);
    }
  }

  uint32_t keep(const std::vector<int64_t> &words) {
    auto [it, is_new] = known_.try_emplace(words, uint32_t(expressions_.size()));
    if (is_new) {
      expressions_.push_back({uint32_t(words_.size()), uint32_t(words.size())});
      words_.insert(words_.end(), words.begin(), words.end());
    }
    return it->second;
  }
  uint32_t expression(const Dim &dim) {
    std::vector<int64_t> words;
    encode(words, dim);
    return keep(words);
  }

  uint32_t form_condition(const PlanForm &form) {
    std::vector<int64_t> words;
    push(words, 1);
    for (const auto &[symbol, value] : form.dims) {
      slot(words, symbol);
      push(words, value);
      op(words, DeviceOp::Equal);
      op(words, DeviceOp::Multiply);
    }
    return keep(words);
  }

  // --- steps

  void add_buffer(int index) {
    const PlanBuffer &b = plan_->buffers[size_t(index)];
    DeviceBufferRecord record{};
    Dim offset = b.offset;
    switch (b.kind) {
    case PlanBuffer::Kind::argument:
      record.kind = DeviceBufferKind::Argument;
      record.argument = uint32_t(b.argument);
      break;
    case PlanBuffer::Kind::weight:
      record.kind = DeviceBufferKind::Weight;
      offset += Dim(program_.weights[size_t(b.weight)].offset);
      break;
    case PlanBuffer::Kind::variable:
      record.kind = DeviceBufferKind::Variable;
      offset += Dim(program_.variables[size_t(b.variable)].offset);
      break;
    case PlanBuffer::Kind::arena:
      record.kind = DeviceBufferKind::Arena;
      break;
    }
    record.offset = expression(offset);
    buffers_.push_back(record);
  }

  Range add_buffers(const std::vector<int> &list) {
    Range out{uint32_t(buffers_.size()), uint32_t(list.size())};
    for (int b : list)
      add_buffer(b);
    return out;
  }

  uint32_t function_index(const CudaLaunch &launch, int kernel_index, Range buffers, Range dims) {
    const CudaFunction &f = launch.function;
    auto [it, is_new] = function_index_.try_emplace(f.name, uint32_t(functions_.size()));
    if (!is_new)
      return it->second;
    functions_.push_back(f);
    kernel_of_function_.push_back(kernel_index);
    DeviceFunctionRecord record{};
    record.threads = uint32_t(f.threads);
    record.shared_bytes = uint32_t(f.shared_bytes);
    record.buffers = buffers.count;
    record.dims = dims.count;
    record.is_joined = f.is_joined;
    record.scratch_blocks = f.scratch_bytes > 0 ? uint32_t(kScratchBlocks) : 0;
    record.scratch_bytes = uint64_t(f.scratch_bytes);
    record.maps = uint32_t(launch.maps.size());
    record.resident = uint32_t(f.resident);
    records_.push_back(record);
    return it->second;
  }

  template <typename F>
  DeviceMapRecord map_record(const TensorMap &map, F &&expression_here) {
    DeviceMapRecord out{};
    out.buffer = uint32_t(map.buffer);
    out.element = uint32_t(map.element);
    out.rank = uint32_t(map.axes.size());
    out.offset = expression_here(map.offset * Dim(map.element));
    for (size_t i = 0; i < map.axes.size(); ++i) {
      out.sizes[i] = expression_here(map.axes[i].size);
      out.box[i] = uint32_t(map.axes[i].box);
      if (i > 0)
        out.strides[i - 1] = expression_here(map.axes[i].stride * Dim(map.element));
    }
    return out;
  }

  void launch(const LaunchGroup &group) {
    const PlanStep &step = *group.members[0].step;
    const Kernel &kernel = program_.kernels[size_t(step.kernel)];
    const CudaLaunch &l = group.launch();
    DeviceStepRecord record{};
    record.kind = DeviceStepKind::Launch;
    record.position = step.position;
    record.buffers.first = uint32_t(buffers_.size());
    for (const LaunchGroup::Member &m : group.members)
      record.buffers.count += add_buffers(m.step->buffers).count;
    record.dims = {uint32_t(lists_.size()), uint32_t(step.dims.size())};
    for (const Dim &d : step.dims)
      lists_.push_back(expression(d));
    record.completed = {uint32_t(lists_.size()), uint32_t(group.completed.size())};
    lists_.insert(lists_.end(), group.completed.begin(), group.completed.end());
    record.function = function_index(l, step.kernel, record.buffers, record.dims);
    auto here = [&](const Dim &d) {
      return expression(d.substitute([&](Symbol s) -> std::optional<Dim> {
        for (size_t i = 0; i < kernel.dims.size(); ++i)
          if (kernel.dims[i] == s)
            return step.dims[i];
        return std::nullopt;
      }));
    };
    record.a = here(l.blocks);
    record.maps = uint32_t(maps_.size());
    for (const TensorMap &map : l.maps)
      maps_.push_back(map_record(map, here));
    record.middle = record.end = uint32_t(steps_.size()) + 1;
    steps_.push_back(record);
    entry_.scratch_bytes = std::max(entry_.scratch_bytes, uint64_t(l.function.scratch_bytes * kScratchBlocks));
  }

  void write_variables(const Plan &plan) {
    std::map<int, bool> used;
    for (const PlanBuffer &b : plan.buffers) // conditions and sizes may lie in some
      if (b.kind == PlanBuffer::Kind::variable)
        used.emplace(b.variable, false);
    find_variables(plan, plan.steps, program_, used);
    entry_.variables = {uint32_t(lists_.size()), uint32_t(used.size())};
    for (auto [variable, is_written] : used)
      lists_.push_back(2 * uint32_t(variable) + is_written);
  }

  uint32_t new_slot(Symbol name) {
    slots_.push_back(name);
    entry_.slots = std::max(entry_.slots, uint32_t(slots_.size()));
    return uint32_t(slots_.size()) - 1;
  }

  void write_steps(std::span<const PlanStep> list) {
    size_t outside = slots_.size();
    while (!list.empty()) {
      std::span<const PlanStep> together = leading_launches(list);
      for (const LaunchGroup &group : group_launches(program_, *plan_, together, kernels_))
        launch(group);
      list = list.subspan(together.size());
      if (list.empty())
        break;
      write_step(list[0]);
      list = list.subspan(1);
    }
    slots_.resize(outside);
  }

  void write_step(const PlanStep &step) {
    using Kind = PlanStep::Kind;
    size_t at = steps_.size();
    steps_.emplace_back();
    DeviceStepRecord record{};
    record.position = step.position;
    record.index = step.index >= 0 ? uint32_t(step.index) : 0;
    uint32_t middle = 0;
    switch (step.kind) {
    case Kind::if_:
    case Kind::form:
      record.kind = step.kind == Kind::if_ ? DeviceStepKind::If : DeviceStepKind::Form;
      if (step.kind == Kind::form)
        record.a = form_condition(plan_->forms[size_t(step.form)]);
      else
        record.buffers = add_buffers({step.condition});
      write_steps(step.body);
      middle = uint32_t(steps_.size());
      write_steps(step.other);
      entry_.reads_back |= step.kind == Kind::if_;
      break;
    case Kind::while_:
      record.kind = DeviceStepKind::While;
      record.buffers = add_buffers({step.condition});
      write_steps(step.condition_body);
      middle = uint32_t(steps_.size());
      write_steps(step.body);
      entry_.reads_back = 1;
      break;
    case Kind::loop: {
      record.kind = DeviceStepKind::Loop;
      record.a = expression(step.count);
      size_t outside = slots_.size();
      record.slot = new_slot(step.var);
      write_steps(step.body);
      slots_.resize(outside);
      break;
    }
    case Kind::bind:
      record.kind = DeviceStepKind::Bind;
      record.buffers = add_buffers(step.buffers);
      record.a = expression(plan_->sizes[size_t(step.index)].bound);
      record.slot = new_slot(plan_->sizes[size_t(step.index)].name);
      entry_.reads_back = 1;
      break;
    case Kind::require:
      record.kind = DeviceStepKind::Require;
      record.a = expression(step.dims[0]);
      record.b = expression(step.dims[1]);
      break;
    case Kind::launch:
      break;
    }
    record.end = uint32_t(steps_.size());
    record.middle = middle != 0 ? middle : record.end;
    steps_[at] = record;
  }

  const Program &program_;
  const std::vector<CudaKernel> &kernels_;
  const Plan *plan_ = nullptr;
  DeviceEntryRecord entry_{};
  std::vector<Symbol> slots_;
  std::vector<CudaFunction> functions_;
  std::vector<int> kernel_of_function_;
  std::map<std::string, uint32_t> function_index_;
  std::map<std::vector<int64_t>, uint32_t> known_;
  std::vector<char> strings_;
  std::vector<DeviceFunctionRecord> records_;
  std::vector<DeviceEntryRecord> entries_;
  std::vector<DeviceStepRecord> steps_;
  std::vector<DeviceBufferRecord> buffers_;
  std::vector<Range> expressions_;
  std::vector<uint32_t> lists_;
  std::vector<int64_t> words_;
  std::vector<DeviceMapRecord> maps_;
  std::vector<uint8_t> out_;
};

} // namespace

bool is_for_device(const Program &program, const Plan &plan) {
  bool has_twins = std::any_of(program.entries.begin(), program.entries.end(), [](const Plan &p) { return is_gpu_twin(p.name); });
  return !has_twins || is_gpu_twin(plan.name);
}

std::vector<CudaKernel> emit_kernels(const Program &program, const GpuMachine &machine) {
  std::vector<LaunchFacts> facts(program.kernels.size());
  std::vector<bool> used(program.kernels.size());
  for (const Plan &plan : program.entries)
    if (is_for_device(program, plan)) {
      find_facts(plan, plan.steps, program, facts);
      find_used(plan.steps, used);
    }
  std::vector<CudaKernel> out(program.kernels.size());
  for (size_t i = 0; i < program.kernels.size(); ++i)
    if (used[i])
      out[i] = emit_cuda(program.kernels[i], machine, facts[i]);
  return out;
}

Result<std::vector<uint8_t>> device_section(const Program &program, const GpuMachine &machine, const DeviceOptions &options) {
  KILN_TRY(nvrtc, Nvrtc::open());
  std::vector<CudaKernel> kernels = emit_kernels(program, machine);
  Writer writer(program, kernels);
  KILN_RETURN_IF_ERROR(writer.write_entries());
  std::vector<const Kernel *> origins;
  for (int k : writer.kernel_of_function())
    origins.push_back(&program.kernels[size_t(k)]);
  KILN_TRY(units, compile_units(nvrtc, writer.functions(), origins, machine, options));
  return writer.finish(machine, units.images, units.image_of);
}

std::string device_source(const Program &program, const GpuMachine &machine) {
  std::vector<CudaKernel> kernels = emit_kernels(program, machine);
  Writer writer(program, kernels);
  Status written = writer.write_entries();
  return written.ok() ? cuda_source(writer.functions()) : "// " + written.error().message + "\n";
}

} // namespace kiln::cuda
