// What a streamed softmax makes of the sums of a query and its keys: factors, masks, whatever follows the product.
//
// A positive factor of all scores goes into the exponent. Choices by a comparison of numbers that hides late keys from early queries (or
// the other way around) are bands: spans that they do not cut take the scores without them, spans that they hide are not read.
#pragma once

#include "codegen/cuda/streamed_softmax.h"

namespace kiln::cuda {

class StreamedScores {
public:
  StreamedScores(const StreamedSoftmax &s, const NestContext &context);
  double factor() const { return factor_; }
  bool has_bands() const { return !bands_.empty(); }
  // kiln_sees_all, where there are bands: whether they hide nothing from a row at a key and before it. Takes spans off the end that they hide.
  std::string bands(c::Helpers &helpers) const;
  // kiln_score: what is made of the sums of two neighbouring keys; kiln_seen_score: of those that bands let be seen.
  std::string functions(c::Helpers &helpers) const;

private:
  void read_score();
  void read_bands();
  std::string function(std::string_view name, const std::vector<Stmt> &score, c::Helpers &helpers) const;
  c::StmtStyle style() const { return {"*trap = {}; return;", nullptr, "", index_}; }

  const StreamedSoftmax &s_;
  const NestContext &context_;
  std::string index_;
  double factor_ = 1;
  std::vector<Stmt> score_, seen_; // of any key, of one that bands let be seen
  struct Band {
    Expr condition;
    bool holds;       // where a key is seen
    bool is_infinite; // what hidden keys get is -inf
  };
  std::vector<Band> bands_;
  const Symbol lane_{"kiln_lane"};
};

} // namespace kiln::cuda
