// The steps of a run on a device, by the section's tree: captured into a graph, or one by one.
#include <cstdlib>
#include <cstring>

#include "runtime/cuda/device_context.h"

namespace kiln::rt {

using namespace package;

namespace {

struct alignas(64) TensorMap { // CUtensorMap
  uint8_t bytes[128];
};

// What one run does, captured or at once.
class Walker {
public:
  Walker(KilnContext *context, bool waits_after_each, KilnError *error)
      : context_(*context), device_(*context->module->device), on_(*context->device), driver_(*device_.driver),
        section_(device_.section), waits_(waits_after_each), error_(error) {}

  int32_t trap() const { return trap_; }

  int32_t run(bool is_sent) {
    const DeviceEntryRecord &entry = entry_of(context_);
    if (int32_t code = send_inputs(is_sent))
      return code;
    if (int32_t code = walk(entry.steps.first, entry.steps.first + entry.steps.count))
      return code;
    return fetch_outputs();
  }

private:
  // The caller's inputs, unless that is done, and what other parts have made on the processor.
  int32_t send_inputs(bool are_sent) {
    if (int32_t code = are_sent ? int32_t{KILN_OK} : send_arguments(context_, *on_.set, on_.stream, error_))
      return code;
    for (uint32_t i = 0; i < context_.entry->inputs.count; ++i) {
      if (!is_border(context_, i))
        continue;
      const BorderPlace &place = on_.places[i];
      if (uint64_t size = place.is_copied ? context_.bindings[i].needed : 0)
        if (int answer = driver_.cuMemcpyHtoDAsync_v2(place.device, place.pinned, size, on_.stream))
          return fail_driver(driver_, "cuMemcpyHtoDAsync", answer, error_);
    }
    return KILN_OK;
  }

  int32_t fetch_outputs() {
    for (uint32_t i = 0; i < context_.entry->outputs.count; ++i) {
      uint32_t at = context_.entry->inputs.count + i;
      if (!is_border(context_, at))
        continue;
      const BorderPlace &place = on_.places[at];
      if (uint64_t size = place.is_copied ? context_.bindings[at].needed : 0)
        if (int answer = driver_.cuMemcpyDtoHAsync_v2(place.pinned, place.device, size, on_.stream))
          return fail_driver(driver_, "cuMemcpyDtoHAsync", answer, error_);
    }
    return fetch(on_.set->end - on_.set->traps);
  }

  int32_t walk(uint32_t begin, uint32_t end) {
    for (uint32_t s = begin; s < end && trap_ == 0; s = section_.steps()[s].end)
      if (int32_t code = step(s, section_.steps()[s]))
        return code;
    return KILN_OK;
  }

  // The words for traps, and what comes behind them.
  int32_t fetch(uint64_t size) {
    const ArgumentSet &set = *on_.set;
    if (int answer = driver_.cuMemcpyDtoHAsync_v2(set.staging + set.traps, set.arguments + set.traps, size, on_.stream))
      return fail_driver(driver_, "cuMemcpyDtoHAsync", answer, error_);
    return KILN_OK;
  }

  DeviceAddress address(const DeviceBufferRecord &buffer) const {
    int64_t offset = section_.evaluate(buffer.offset, on_.slots);
    DeviceAddress base = buffer.kind == DeviceBufferKind::Argument ? place_of(context_, *on_.set, buffer.argument).device
                         : buffer.kind == DeviceBufferKind::Weight ? device_.weights
                         : buffer.kind == DeviceBufferKind::Arena  ? on_.arena
                                                                   : (on_.mirror != nullptr ? on_.mirror->memory : 0);
    return base + static_cast<uint64_t>(offset);
  }

  // Waits for a value that a step depends on, and for the traps before it.
  int32_t read_back(const DeviceBufferRecord &buffer, uint32_t size, int64_t *value) {
    uint8_t *place = on_.set->staging + on_.set->end;
    if (int answer = driver_.cuMemcpyDtoHAsync_v2(place, address(buffer), size, on_.stream))
      return fail_driver(driver_, "cuMemcpyDtoHAsync", answer, error_);
    if (int32_t code = fetch(trap_bytes(context_)))
      return code;
    if (int answer = driver_.cuStreamSynchronize(on_.stream))
      return fail_driver(driver_, "cuStreamSynchronize", answer, error_);
    *value = 0;
    std::memcpy(value, place, size);
    for (uint32_t i = 0; i < on_.trap_count; ++i)
      if (int32_t trap = trap_words(*on_.set)[i]; trap != 0)
        stop(trap, static_cast<int32_t>(i));
    return KILN_OK;
  }

  void stop(int32_t trap, int32_t position) {
    if (trap_ != 0)
      return;
    trap_ = trap;
    context_.frame.trap = trap;
    context_.frame.trap_kernel = position;
  }

  int32_t branch(uint32_t s, const DeviceStepRecord &step, bool is_taken) {
    return is_taken ? walk(s + 1, step.middle) : walk(step.middle, step.end);
  }

  int32_t step(uint32_t s, const DeviceStepRecord &step) {
    int64_t value = 0;
    switch (step.kind) {
    case DeviceStepKind::Launch:
      return launch(step);
    case DeviceStepKind::If:
      if (int32_t code = read_back(section_.buffers()[step.buffers.first], 1, &value))
        return code;
      return trap_ != 0 ? KILN_OK : branch(s, step, value != 0);
    case DeviceStepKind::Form:
      return branch(s, step, section_.evaluate(step.a, on_.slots) == 1);
    case DeviceStepKind::While:
      for (;;) {
        if (int32_t code = walk(s + 1, step.middle))
          return code;
        if (int32_t code = read_back(section_.buffers()[step.buffers.first], 1, &value))
          return code;
        if (trap_ != 0 || value == 0)
          return KILN_OK;
        if (int32_t code = walk(step.middle, step.end))
          return code;
      }
    case DeviceStepKind::Loop:
      for (int64_t i = 0, count = section_.evaluate(step.a, on_.slots); i < count && trap_ == 0; ++i) {
        on_.slots[step.slot] = i;
        if (int32_t code = walk(s + 1, step.end))
          return code;
      }
      return KILN_OK;
    case DeviceStepKind::Bind: {
      if (int32_t code = read_back(section_.buffers()[step.buffers.first], sizeof value, &value))
        return code;
      int64_t bound = section_.evaluate(step.a, on_.slots);
      if (trap_ == 0 && (value < 0 || value > bound)) {
        stop(KILN_TRAP_SIZE, step.position);
        context_.frame.trap_index = static_cast<int32_t>(step.index);
        context_.frame.trap_value = value;
      }
      on_.slots[step.slot] = value;
      if (trap_ == 0)
        context_.sizes[step.index] = value;
      return KILN_OK;
    }
    case DeviceStepKind::Require:
      if (section_.evaluate(step.a, on_.slots) != section_.evaluate(step.b, on_.slots)) {
        stop(KILN_TRAP_UNEQUAL, step.position);
        context_.frame.trap_index = static_cast<int32_t>(step.index);
      }
      return KILN_OK;
    }
    return KILN_OK;
  }

  int32_t launch(const DeviceStepRecord &step) {
    const DeviceFunctionRecord &f = section_.functions()[step.function];
    int64_t blocks = section_.evaluate(step.a, on_.slots);
    int64_t values[2 * kMaxDeviceArguments + 2];
    void *arguments[2 * kMaxDeviceArguments + 2 + kMaxDeviceMaps];
    TensorMap maps[kMaxDeviceMaps];
    uint32_t count = 0;
    auto add = [&](int64_t value) {
      values[count] = value;
      arguments[count] = &values[count];
      ++count;
    };
    for (uint32_t i = 0; i < step.buffers.count; ++i)
      add(static_cast<int64_t>(address(section_.buffers()[step.buffers.first + i])));
    for (uint32_t i = 0; i < step.dims.count; ++i)
      add(section_.evaluate(section_.lists()[step.dims.first + i], on_.slots));
    if (f.scratch_bytes != 0)
      add(static_cast<int64_t>(on_.scratch));
    // The first argument of a joined one is all that follows in `values`. Code that is not joined, whatever the section says, finds as many.
    add(f.is_joined != 0 ? 0 : static_cast<int64_t>(on_.set->arguments + on_.set->traps + static_cast<uint64_t>(step.position) * sizeof(int32_t)));
    int64_t most = f.scratch_bytes != 0 ? int64_t{f.scratch_blocks} : int64_t{0x7fffffff};
    if (int64_t turns = int64_t{device_.multiprocessors} * f.resident; turns > 0 && turns < most)
      most = turns;
    if (blocks > 0) {
      for (uint32_t i = 0; i < f.maps; ++i) {
        if (int answer = make_map(step, section_.maps()[step.maps + i], &maps[i]))
          return fail_at(step, "cuTensorMapEncodeTiled", answer);
        arguments[count + i] = &maps[i];
      }
      int answer = driver_.cuLaunchKernel(device_.functions[step.function], static_cast<unsigned>(blocks < most ? blocks : most), 1, 1,
                                          f.threads, 1, 1, f.shared_bytes, on_.stream, arguments, nullptr);
      if (answer != 0)
        return fail_at(step, "cuLaunchKernel", answer);
    }
    if (!waits_)
      return KILN_OK;
    if (int answer = driver_.cuStreamSynchronize(on_.stream))
      return fail_at(step, "cuStreamSynchronize", answer);
    if (context_.hook == nullptr || step.completed.count == 0)
      return KILN_OK;
    if (secure_getenv("KILN_CUDA_VALUES") != nullptr)
      if (int32_t code = show_values())
        return code;
    for (uint32_t i = 0; i < step.completed.count; ++i)
      context_.hook(context_.hook_self, context_.called_index, context_.first_kernel + section_.lists()[step.completed.first + i]);
    return KILN_OK;
  }

  int make_map(const DeviceStepRecord &step, const DeviceMapRecord &map, TensorMap *out) const {
    uint64_t sizes[5], strides[4] = {};
    uint32_t steps[5];
    for (uint32_t i = 0; i < map.rank; ++i) {
      // Of nothing nothing is copied, but the driver wants something.
      int64_t size = section_.evaluate(map.sizes[i], on_.slots);
      if (size > INT32_MAX) // coordinates have 32 bits, with a sign
        return kErrorInvalidValue;
      sizes[i] = size > 0 ? static_cast<uint64_t>(size) : 1;
      steps[i] = 1;
      if (i > 0)
        strides[i - 1] = static_cast<uint64_t>(section_.evaluate(map.strides[i - 1], on_.slots));
    }
    DeviceAddress base = address(section_.buffers()[step.buffers.first + map.buffer]) + static_cast<uint64_t>(section_.evaluate(map.offset, on_.slots));
    int type = map.element == 1 ? kMapBytes1 : map.element == 2 ? kMapBytes2 : kMapBytes4;
    return driver_.cuTensorMapEncodeTiled(out, type, map.rank, reinterpret_cast<void *>(base), sizes, strides, map.box, steps, kMapNotInterleaved, kMapSwizzle128,
                                          kMapFetches256, kMapZeroOutside);
  }

  // For who compares what kernels leave: the host's arena and outputs become what the device has.
  int32_t show_values() {
    int answer = driver_.cuMemcpyDtoH_v2(context_.frame.arena, on_.arena, context_.arena_size);
    for (uint32_t i = 0; answer == 0 && i < context_.entry->outputs.count; ++i) {
      const Binding &binding = context_.bindings[context_.entry->inputs.count + i];
      if (binding.needed != 0)
        answer = driver_.cuMemcpyDtoH_v2(binding.data, place_of(context_, *on_.set, context_.entry->inputs.count + i).device, binding.needed);
    }
    return answer == 0 ? KILN_OK : fail_driver(driver_, "cuMemcpyDtoH", answer, error_);
  }

  int32_t fail_at(const DeviceStepRecord &step, const char *call, int answer) {
    fail_driver(driver_, call, answer, error_);
    locate(*context_.module, *context_.entry, step.position, error_);
    return KILN_ERROR_DEVICE;
  }

  KilnContext &context_;
  Device &device_;
  DeviceContext &on_;
  const Driver &driver_;
  const DeviceSection &section_;
  bool waits_;
  KilnError *error_;
  int32_t trap_ = 0;
};

} // namespace

int32_t send_arguments(const KilnContext &context, const ArgumentSet &set, void *stream, KilnError *error) {
  const Driver &driver = *context.module->device->driver;
  if (int answer = driver.cuMemcpyHtoDAsync_v2(set.arguments, set.staging, set.traps + trap_bytes(context), stream))
    return fail_driver(driver, "cuMemcpyHtoDAsync", answer, error);
  return KILN_OK;
}

int32_t queue_steps(KilnContext *context, bool is_sent, bool waits_after_each, int32_t *trap, KilnError *error) {
  Walker walker(context, waits_after_each, error);
  int32_t code = walker.run(is_sent);
  *trap = walker.trap();
  return code;
}

} // namespace kiln::rt
