// CPU kernels of lead_attention, compiled once for each instruction set; see contract.h.
//
// A vector holds one number of as many rows as it has lanes. The rows are turned so in a worker's
// scratch, column by column: all tokens of a column stand together, and a head in a few of these.
#include <cmath>
#include <type_traits>

#include "core/dispatch.h"
#include "core/exp_lanes.h"
#include "core/lanes.h"
#include "lead_attention/contract.h"

namespace ecgfast::lead_attention::ECGFAST_ISA {
namespace {

// Where the rows of a vector's lanes begin, and how many of them there are; other lanes repeat the
// last row.
template <typename T>
struct Lanes {
  T* first[kLanes<T>];
  int count;
  std::int64_t token_stride;
};

template <typename T>
Lanes<T> lanes_of(const View& view, Range rows) {
  Lanes<T> lanes;
  const std::int64_t count = rows.end - rows.begin;
  lanes.count = static_cast<int>(count < kLanes<T> ? count : kLanes<T>);
  lanes.token_stride = view.stride[2];
  for (int lane = 0; lane < kLanes<T>; ++lane) {
    const std::int64_t r = rows.begin + (lane < lanes.count ? lane : lanes.count - 1);
    lanes.first[lane] = record<T>(view, r / view.size[1]) + (r % view.size[1]) * view.stride[1];
  }
  return lanes;
}

// out[column][token][lane]
template <typename T>
void turn(const Lanes<T>& rows, std::int64_t tokens, std::int64_t columns, T* __restrict__ out) {
  constexpr int kBlock = kLanes<T>;
  for (std::int64_t i = 0; i < tokens; ++i) {
    const std::int64_t token = i * rows.token_stride;
    std::int64_t c = 0;
    for (; c + kBlock <= columns; c += kBlock) {
      vec_t<T> v[kBlock];
      for (int lane = 0; lane < kBlock; ++lane) v[lane] = load(rows.first[lane] + token + c);
      transpose<T>(v);
      for (int k = 0; k < kBlock; ++k) store(out + ((c + k) * tokens + i) * kBlock, v[k]);
    }
    for (; c < columns; ++c) {
      for (int lane = 0; lane < kBlock; ++lane) {
        out[(c * tokens + i) * kBlock + lane] = rows.first[lane][token + c];
      }
    }
  }
}

template <typename T>
void turn_back(const T* __restrict__ in, std::int64_t tokens, std::int64_t columns,
               const Lanes<T>& rows) {
  constexpr int kBlock = kLanes<T>;
  for (std::int64_t i = 0; i < tokens; ++i) {
    const std::int64_t token = i * rows.token_stride;
    std::int64_t c = 0;
    for (; c + kBlock <= columns; c += kBlock) {
      vec_t<T> v[kBlock];
      for (int k = 0; k < kBlock; ++k) v[k] = load(in + ((c + k) * tokens + i) * kBlock);
      transpose<T>(v);
      for (int lane = 0; lane < rows.count; ++lane) store(rows.first[lane] + token + c, v[lane]);
    }
    for (; c < columns; ++c) {
      for (int lane = 0; lane < rows.count; ++lane) {
        rows.first[lane][token + c] = in[(c * tokens + i) * kBlock + lane];
      }
    }
  }
}

// Columns of one head, turned. Queries are scaled so that 2^(q . k) is what softmax asks for.
template <typename T, int kColumns>
struct Head {
  const T *q, *k, *v;
  std::int64_t tokens, runtime_columns;

  std::int64_t columns() const { return kColumns > 0 ? kColumns : runtime_columns; }
  // Of column c and token i.
  std::int64_t at(std::int64_t c, std::int64_t i) const { return (c * tokens + i) * kLanes<T>; }
};

// weights[j] = 2^(s_ij - max_j s_ij); returns 1 / their sum.
template <typename T, int kColumns>
vec_t<T> weigh(const Head<T, kColumns>& head, std::int64_t i, T* __restrict__ weights) {
  vec_t<T> most = broadcast(static_cast<T>(-__builtin_inf()));
  for (std::int64_t j = 0; j < head.tokens; ++j) {
    vec_t<T> score = load(head.q + head.at(0, i)) * load(head.k + head.at(0, j));
    for (std::int64_t c = 1; c < head.columns(); ++c) {
      score += load(head.q + head.at(c, i)) * load(head.k + head.at(c, j));
    }
    store(weights + j * kLanes<T>, score);
    most = score > most ? score : most;
  }
  vec_t<T> sum{};
  for (std::int64_t j = 0; j < head.tokens; ++j) {
    const vec_t<T> weight = exp2_lanes<T>(load(weights + j * kLanes<T>) - most);
    store(weights + j * kLanes<T>, weight);
    sum += weight;
  }
  return T(1) / sum;
}

template <typename T, int kColumns>
void forward_head(const Head<T, kColumns>& head, T* __restrict__ weights, T* __restrict__ y,
                  const Lanes<T>* maps, std::int64_t map_offset) {
  for (std::int64_t i = 0; i < head.tokens; ++i) {
    const vec_t<T> share = weigh(head, i, weights);
    for (std::int64_t c = 0; c < head.columns(); ++c) {
      vec_t<T> sum{};
      for (std::int64_t j = 0; j < head.tokens; ++j) {
        sum += load(weights + j * kLanes<T>) * load(head.v + head.at(c, j));
      }
      store(y + head.at(c, i), sum * share);
    }
    if (maps == nullptr) continue;
    for (std::int64_t j = 0; j < head.tokens; ++j) {
      const vec_t<T> weight = load(weights + j * kLanes<T>) * share;
      for (int lane = 0; lane < maps->count; ++lane) {
        maps->first[lane][map_offset + i * head.tokens + j] = weight[lane];
      }
    }
  }
}

// Of the gradients, those of keys and values are sums over queries.
template <typename T, int kColumns>
void backward_head(const Head<T, kColumns>& head, const T* __restrict__ g, T scale,
                   T* __restrict__ weights, T* __restrict__ pulls, T* __restrict__ dq,
                   T* __restrict__ dk, T* __restrict__ dv) {
  for (std::int64_t n = 0; n < head.at(head.columns(), 0); ++n) dk[n] = dv[n] = 0;
  for (std::int64_t i = 0; i < head.tokens; ++i) {
    const vec_t<T> share = weigh(head, i, weights);
    vec_t<T> mean{};
    for (std::int64_t j = 0; j < head.tokens; ++j) {
      vec_t<T> pull = load(g + head.at(0, i)) * load(head.v + head.at(0, j));
      for (std::int64_t c = 1; c < head.columns(); ++c) {
        pull += load(g + head.at(c, i)) * load(head.v + head.at(c, j));
      }
      const vec_t<T> weight = load(weights + j * kLanes<T>) * share;
      store(weights + j * kLanes<T>, weight);
      store(pulls + j * kLanes<T>, pull);
      mean += weight * pull;
    }
    for (std::int64_t j = 0; j < head.tokens; ++j) {
      const vec_t<T> weight = load(weights + j * kLanes<T>);
      store(pulls + j * kLanes<T>, weight * (load(pulls + j * kLanes<T>) - mean));
    }
    for (std::int64_t c = 0; c < head.columns(); ++c) {
      const vec_t<T> q = load(head.q + head.at(c, i));
      const vec_t<T> g_i = load(g + head.at(c, i));
      vec_t<T> sum{};
      for (std::int64_t j = 0; j < head.tokens; ++j) {
        const std::int64_t at = head.at(c, j);
        const vec_t<T> w = load(pulls + j * kLanes<T>);
        sum += w * load(head.k + at);
        store(dk + at, load(dk + at) + w * q);
        store(dv + at, load(dv + at) + load(weights + j * kLanes<T>) * g_i);
      }
      store(dq + head.at(c, i), sum * scale);
    }
  }
  for (std::int64_t n = 0; n < head.at(head.columns(), 0); ++n) dk[n] *= static_cast<T>(kLn2);
}

// Calls body with the number of a head's columns, at compile time where that is the usual 2.
template <typename Body>
void dispatch_columns(std::int64_t columns, const Body& body) {
  if (columns == 2) return body(std::integral_constant<int, 2>{});
  body(std::integral_constant<int, 0>{});
}

template <typename T>
void scale_all(T* __restrict__ q, std::int64_t count, T scale) {
  for (std::int64_t n = 0; n < count; ++n) q[n] *= scale;
}

}  // namespace

void forward(const Forward& job, Range rows) {
  const std::int64_t tokens = job.y.size[2];
  const std::int64_t width = job.y.size[3];
  const std::int64_t columns = width / job.heads;
  dispatch_float(job.qkv.dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t column = tokens * kLanes<T>;
    T* const q = reinterpret_cast<T*>(record<std::uint8_t>(job.scratch, rows.worker));
    T* const y = q + 3 * width * column;
    T* const weights = y + width * column;
    const T scale = static_cast<T>(kLog2E / std::sqrt(static_cast<double>(columns)));
    for (std::int64_t r = rows.begin; r < rows.end; r += kLanes<T>) {
      const Range some{r, rows.end, rows.worker};
      turn(lanes_of<T>(job.qkv, some), tokens, 3 * width, q);
      scale_all(q, width * column, scale);
      const bool shown = job.maps.data != nullptr;
      Lanes<T> maps{};
      if (shown) maps = lanes_of<T>(job.maps, some);
      dispatch_columns(columns, [&](auto known) {
        for (std::int64_t h = 0; h < job.heads; ++h) {
          const std::int64_t at = h * columns * column;
          const Head<T, decltype(known)::value> head{q + at, q + width * column + at,
                                                     q + 2 * width * column + at, tokens, columns};
          forward_head(head, weights, y + at, shown ? &maps : nullptr, h * tokens * tokens);
        }
      });
      turn_back(y, tokens, width, lanes_of<T>(job.y, some));
    }
  });
}

void backward(const Backward& job, Range rows) {
  const std::int64_t tokens = job.grad_y.size[2];
  const std::int64_t width = job.grad_y.size[3];
  const std::int64_t columns = width / job.heads;
  dispatch_float(job.qkv.dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t column = tokens * kLanes<T>;
    T* const q = reinterpret_cast<T*>(record<std::uint8_t>(job.scratch, rows.worker));
    T* const g = q + 3 * width * column;
    T* const dq = g + width * column;
    T* const weights = dq + 3 * width * column;
    const double scale = 1 / std::sqrt(static_cast<double>(columns));
    for (std::int64_t r = rows.begin; r < rows.end; r += kLanes<T>) {
      const Range some{r, rows.end, rows.worker};
      turn(lanes_of<T>(job.qkv, some), tokens, 3 * width, q);
      turn(lanes_of<T>(job.grad_y, some), tokens, width, g);
      scale_all(q, width * column, static_cast<T>(kLog2E * scale));
      dispatch_columns(columns, [&](auto known) {
        for (std::int64_t h = 0; h < job.heads; ++h) {
          const std::int64_t at = h * columns * column;
          const std::int64_t part = width * column;
          const Head<T, decltype(known)::value> head{q + at, q + part + at, q + 2 * part + at,
                                                     tokens, columns};
          backward_head(head, g + at, static_cast<T>(scale), weights, weights + column, dq + at,
                        dq + part + at, dq + 2 * part + at);
        }
      });
      turn_back(dq, tokens, 3 * width, lanes_of<T>(job.grad_qkv, some));
    }
  });
}

}  // namespace ecgfast::lead_attention::ECGFAST_ISA
