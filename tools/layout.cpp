#include "tools/drawing.h"

#include <algorithm>
#include <numeric>

namespace kiln {
namespace {

constexpr double kBoxHeight = 40, kLayerGap = 34, kBoxGap = 18, kDummyWidth = 10;
constexpr size_t kMaxDummies = 200000;
constexpr int kSweeps = 8;

// A box, or a point that a long edge passes through.
struct Vertex {
  size_t layer = 0;
  double width = kDummyWidth, x = 0;
  std::vector<size_t> up, down;
};

class Layout {
public:
  explicit Layout(Drawing &drawing) : drawing_(drawing) {}

  void run() {
    place_in_layers();
    thread_edges();
    order();
    place();
  }

private:
  void place_in_layers() {
    size_t n = drawing_.boxes.size();
    vertices_.resize(n);
    std::vector<std::vector<size_t>> next(n);
    std::vector<size_t> missing(n), ready;
    for (const auto &e : drawing_.edges) {
      next[e.from].push_back(e.to);
      ++missing[e.to];
    }
    for (size_t i = 0; i < n; ++i) {
      vertices_[i].width = drawing_.boxes[i].width;
      if (missing[i] == 0)
        ready.push_back(i);
    }
    std::vector<size_t> sources = ready;
    for (size_t at = 0; at < ready.size(); ++at)
      for (size_t to : next[ready[at]]) {
        vertices_[to].layer = std::max(vertices_[to].layer, vertices_[ready[at]].layer + 1);
        if (--missing[to] == 0)
          ready.push_back(to);
      }
    // What nothing precedes stands right above its first use.
    for (size_t source : sources) {
      size_t first = SIZE_MAX;
      for (size_t to : next[source])
        first = std::min(first, vertices_[to].layer);
      if (first != SIZE_MAX && first > 0)
        vertices_[source].layer = first - 1;
    }
  }

  void thread_edges() {
    for (auto &e : drawing_.edges) {
      std::vector<size_t> path{e.from};
      size_t from = vertices_[e.from].layer, to = vertices_[e.to].layer;
      if (vertices_.size() - drawing_.boxes.size() + (to - from) < kMaxDummies)
        for (size_t layer = from + 1; layer < to; ++layer) {
          path.push_back(vertices_.size());
          vertices_.emplace_back().layer = layer;
        }
      path.push_back(e.to);
      for (size_t i = 0; i + 1 < path.size(); ++i) {
        vertices_[path[i]].down.push_back(path[i + 1]);
        vertices_[path[i + 1]].up.push_back(path[i]);
      }
      paths_.push_back(std::move(path));
    }
    size_t layers = 0;
    for (const Vertex &v : vertices_)
      layers = std::max(layers, v.layer + 1);
    layers_.resize(layers);
    for (size_t i = 0; i < vertices_.size(); ++i)
      layers_[vertices_[i].layer].push_back(i);
  }

  void spread(std::vector<size_t> &layer) {
    double x = 0;
    for (size_t v : layer) {
      vertices_[v].x = x + vertices_[v].width / 2;
      x += vertices_[v].width + kBoxGap;
    }
  }

  double centre(const std::vector<size_t> &of, double otherwise) const {
    if (of.empty())
      return otherwise;
    double sum = 0;
    for (size_t v : of)
      sum += vertices_[v].x;
    return sum / double(of.size());
  }

  void order() {
    for (auto &layer : layers_)
      spread(layer);
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      bool downwards = sweep % 2 == 0;
      for (size_t k = 0; k < layers_.size(); ++k) {
        auto &layer = layers_[downwards ? k : layers_.size() - 1 - k];
        std::vector<std::pair<double, size_t>> keys;
        for (size_t v : layer)
          keys.emplace_back(centre(downwards ? vertices_[v].up : vertices_[v].down, vertices_[v].x), v);
        std::stable_sort(keys.begin(), keys.end(), [](const auto &a, const auto &b) { return a.first < b.first; });
        for (size_t i = 0; i < layer.size(); ++i)
          layer[i] = keys[i].second;
        spread(layer);
      }
    }
  }

  // Each vertex towards the middle of its neighbours, as far as those beside it leave room: the mean of
  // the leftmost and the rightmost placement that keep the order.
  void place() {
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      bool downwards = sweep % 2 == 0;
      for (size_t k = 0; k < layers_.size(); ++k) {
        const auto &layer = layers_[downwards ? k : layers_.size() - 1 - k];
        std::vector<double> wish, left, right;
        for (size_t v : layer)
          wish.push_back(centre(downwards ? vertices_[v].up : vertices_[v].down, vertices_[v].x));
        left = right = wish;
        for (size_t i = 1; i < layer.size(); ++i)
          left[i] = std::max(left[i], left[i - 1] + room(layer[i - 1], layer[i]));
        for (size_t i = layer.size(); i-- > 1;)
          right[i - 1] = std::min(right[i - 1], right[i] - room(layer[i - 1], layer[i]));
        for (size_t i = 0; i < layer.size(); ++i)
          vertices_[layer[i]].x = (left[i] + right[i]) / 2;
      }
    }
    double least = 0;
    for (size_t i = 0; i < vertices_.size(); ++i)
      least = i == 0 ? vertices_[i].x - vertices_[i].width / 2 : std::min(least, vertices_[i].x - vertices_[i].width / 2);
    for (Vertex &v : vertices_) {
      v.x += kBoxGap - least;
      drawing_.width = std::max(drawing_.width, v.x + v.width / 2 + kBoxGap);
    }
    drawing_.height = double(layers_.size()) * (kBoxHeight + kLayerGap) + kLayerGap;
    for (size_t i = 0; i < drawing_.boxes.size(); ++i) {
      drawing_.boxes[i].x = vertices_[i].x;
      drawing_.boxes[i].y = y(i);
      drawing_.boxes[i].height = kBoxHeight;
    }
    for (size_t e = 0; e < paths_.size(); ++e)
      for (size_t i = 0; i < paths_[e].size(); ++i) {
        size_t v = paths_[e][i];
        double edge = i == 0 ? kBoxHeight / 2 : i + 1 == paths_[e].size() ? -kBoxHeight / 2 : 0;
        drawing_.edges[e].points.emplace_back(vertices_[v].x, y(v) + edge);
      }
  }

  double room(size_t a, size_t b) const { return (vertices_[a].width + vertices_[b].width) / 2 + kBoxGap; }
  double y(size_t v) const {
    return kLayerGap + kBoxHeight / 2 + double(vertices_[v].layer) * (kBoxHeight + kLayerGap);
  }

  Drawing &drawing_;
  std::vector<Vertex> vertices_;
  std::vector<std::vector<size_t>> layers_, paths_;
};

} // namespace

void lay_out(Drawing &drawing) {
  for (auto &box : drawing.boxes)
    box.width = 16 + 7.0 * double(std::max(box.title.size(), box.subtitle.size()));
  Layout(drawing).run();
}

} // namespace kiln
