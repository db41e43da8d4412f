// Dims as i64 arithmetic. Names bound to constants (expanded loops, folded lets) fold into the
// constant part; variable parts are remembered for as long as their block dominates.
#include "codegen/cpu/kernel_emitter.h"

#include <algorithm>
#include <bit>

namespace kiln::cpu {
namespace {

int64_t floor_div(int64_t a, int64_t b) {
  int64_t q = a / b;
  return a % b != 0 && (a % b < 0) != (b < 0) ? q - 1 : q;
}

} // namespace

KernelEmitter::Linear KernelEmitter::emit_linear(const Dim &dim) {
  if (!dim.is_valid()) {
    fail("an index expression overflows");
    return {};
  }
  struct Product {
    int64_t coefficient;
    std::vector<llvm::Value *> factors;
  };
  Linear out{dim.constant_part(), nullptr};
  std::vector<Product> products;
  CacheKey key;
  bool overflow = false;
  for (const DimTerm &term : dim.terms()) {
    Product product{term.coefficient, {}};
    for (const DimAtom &factor : term.factors) {
      Linear atom = emit_atom(factor);
      if (!atom.variable) {
        overflow |=
            __builtin_mul_overflow(product.coefficient, atom.constant, &product.coefficient);
      } else {
        llvm::Value *value = atom.variable;
        if (atom.constant != 0)
          value = b_.CreateNSWAdd(value, b_.getInt64(uint64_t(atom.constant)));
        product.factors.push_back(value);
      }
    }
    if (product.factors.empty()) {
      overflow |= __builtin_add_overflow(out.constant, product.coefficient, &out.constant);
    } else if (product.coefficient != 0) {
      key.push_back(uint64_t(product.coefficient));
      key.push_back(product.factors.size());
      for (llvm::Value *factor : product.factors)
        key.push_back(uint64_t(reinterpret_cast<uintptr_t>(factor)));
      products.push_back(std::move(product));
    }
  }
  if (overflow)
    fail("the index expression " + dim.text() + " overflows");
  if (products.empty())
    return out;
  if (auto it = cache_.find(key); it != cache_.end()) {
    out.variable = it->second;
    return out;
  }
  for (const Product &product : products) {
    llvm::Value *value = product.factors[0];
    for (size_t i = 1; i < product.factors.size(); ++i)
      value = b_.CreateNSWMul(value, product.factors[i]);
    if (product.coefficient != 1)
      value = b_.CreateNSWMul(value, b_.getInt64(uint64_t(product.coefficient)));
    out.variable = out.variable ? b_.CreateNSWAdd(out.variable, value) : value;
  }
  cache_.emplace(key, out.variable);
  cached_.push_back(std::move(key));
  return out;
}

llvm::Value *KernelEmitter::emit_dim(const Dim &dim) {
  Linear linear = emit_linear(dim);
  llvm::Value *constant = b_.getInt64(uint64_t(linear.constant));
  if (!linear.variable)
    return constant;
  return linear.constant == 0 ? linear.variable : b_.CreateNSWAdd(linear.variable, constant);
}

std::optional<int64_t> KernelEmitter::constant_dim(const Dim &dim) {
  return dim.evaluate([&](Symbol name) -> std::optional<int64_t> {
    const Binding *binding = find(name);
    auto *constant =
        binding ? llvm::dyn_cast_if_present<llvm::ConstantInt>(binding->value) : nullptr;
    return constant && constant->getBitWidth() == 64 ? std::optional(constant->getSExtValue())
                                                     : std::nullopt;
  });
}

KernelEmitter::Linear KernelEmitter::emit_atom(const DimAtom &atom) {
  using Kind = DimAtom::Kind;
  if (atom.kind == Kind::symbol) {
    const Binding *binding = find(atom.symbol);
    if (!binding || binding->is_buffer || !binding->value->getType()->isIntegerTy(64)) {
      fail("the symbol " + std::string(atom.symbol.text()) + " is not a bound i64 scalar");
      return {};
    }
    if (auto *constant = llvm::dyn_cast<llvm::ConstantInt>(binding->value))
      return {constant->getSExtValue(), nullptr};
    return {0, binding->value};
  }
  auto ca = constant_dim(atom.args[0]), cb = constant_dim(atom.args[1]);
  bool divides = atom.kind == Kind::floordiv || atom.kind == Kind::mod;
  if (divides && cb && *cb <= 0) {
    fail("an index is divided by " + std::to_string(*cb));
    return {};
  }
  if (ca && cb) {
    switch (atom.kind) {
    case Kind::floordiv:
      return {floor_div(*ca, *cb), nullptr};
    case Kind::mod:
      return {*ca - floor_div(*ca, *cb) * *cb, nullptr};
    case Kind::min:
      return {std::min(*ca, *cb), nullptr};
    default:
      return {std::max(*ca, *cb), nullptr};
    }
  }
  llvm::Value *a = emit_dim(atom.args[0]), *b = emit_dim(atom.args[1]);
  // Remembered under a key that no sum of products has: it starts with a zero coefficient.
  CacheKey key{0, uint64_t(atom.kind), uint64_t(reinterpret_cast<uintptr_t>(a)),
               uint64_t(reinterpret_cast<uintptr_t>(b))};
  if (auto it = cache_.find(key); it != cache_.end())
    return {0, it->second};
  llvm::Value *value;
  if (divides)
    value = emit_division(atom, a, b);
  else
    value = b_.CreateBinaryIntrinsic(
        atom.kind == Kind::min ? llvm::Intrinsic::smin : llvm::Intrinsic::smax, a, b);
  cache_.emplace(key, value);
  cached_.push_back(std::move(key));
  return {0, value};
}

// Floor division and modulo; divisors are positive.
llvm::Value *KernelEmitter::emit_division(const DimAtom &atom, llvm::Value *a, llvm::Value *b) {
  bool quotient = atom.kind == DimAtom::Kind::floordiv;
  if (auto *constant = llvm::dyn_cast<llvm::ConstantInt>(b);
      constant && std::has_single_bit(constant->getZExtValue())) {
    uint64_t divisor = constant->getZExtValue();
    if (quotient) // an arithmetic shift rounds towards minus infinity
      return b_.CreateAShr(a, uint64_t(std::countr_zero(divisor)));
    return b_.CreateAnd(a, b_.getInt64(divisor - 1));
  }
  if (!llvm::isa<llvm::Constant>(b)) // a size of 0 divides nothing that is read
    b = b_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, b, b_.getInt64(1));
  if (known_nonnegative(atom.args[0], ranges_))
    return quotient ? b_.CreateUDiv(a, b) : b_.CreateURem(a, b);
  llvm::Value *q = b_.CreateSDiv(a, b), *r = b_.CreateSRem(a, b);
  llvm::Value *below = b_.CreateICmpSLT(r, b_.getInt64(0));
  if (quotient)
    return b_.CreateSelect(below, b_.CreateSub(q, b_.getInt64(1)), q);
  return b_.CreateSelect(below, b_.CreateAdd(r, b), r);
}

} // namespace kiln::cpu
