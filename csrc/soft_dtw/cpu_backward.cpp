// CPU kernels of soft_dtw, backward; see strip.h and contract.h.
//
// A pair is taken 64 rows at a time, from the last. Their R is computed again, from the row above
// them that forward kept, with the weights of each cell's predecessors; then E against the steps;
// then for each lead the gradients, those of y's columns passing down the rows as R did.
#include "soft_dtw/strip.h"

namespace ecgfast::soft_dtw::ECGFAST_ISA {
namespace {

// E of a strip: from its weights, and the flows into its bottom row at each column, to those into
// the row above it. All paths end in row `bottom`, if the strip has it, at the last step.
template <typename T>
void flow_back(const Steps& steps, const T* weights, const T* below, T* flow, T* e,
               std::int64_t bottom) {
  using V = vec_t<T>;
  constexpr int kW = kLanes<T>;
  constexpr int kH = kRows<T>;
  V through[kSlots] = {};  // what a row gave to the one above it: straight up, and from a step ago
  V left[kSlots] = {};
  V diagonal[kSlots] = {};
  if (bottom < kH) left[bottom / kW][kW - 1 - bottom % kW] = 1;
  for (std::int64_t s = steps.end - 1; s >= steps.begin; --s) {
    const T* const weight = weights + (s - steps.begin) * 3 * kH;
    T* const to = e + (s - steps.begin) * kH;
    V into[kSlots];
#pragma GCC unroll 4
    for (int k = 0; k + 1 < kSlots; ++k) {
      into[k] = pass_up<T>(through[k + 1], through[k], kAll<T>);
    }
    into[kSlots - 1] = pass_up<T>(broadcast(below[s - (kH - 1)]), through[kSlots - 1], kAll<T>);
#pragma GCC unroll 4
    for (int k = 0; k < kSlots; ++k) {
      const V here = into[k] + left[k];
      store(to + at<T>(k), here);
      left[k] = here * load(weight + kH + at<T>(k));
      through[k] = here * load(weight + at<T>(k)) + diagonal[k];
      diagonal[k] = here * load(weight + 2 * kH + at<T>(k));
    }
    flow[s] = through[0][kW - 1];
  }
  flow[steps.begin - 1] = diagonal[0][kW - 1];
}

// Gradients of kCount leads from E: those of the strip's rows, times `factor`, to `dx` of `samples`
// for each lead; those of columns are taken from `columns`, and go back there, `pitch` apart.
template <typename T, int kCount>
void pull(const Pair<T>& pair, const Steps& steps, const T* e, std::int64_t lead, T* columns,
          std::int64_t pitch, T factor, T* dx, std::int64_t samples) {
  using V = vec_t<T>;
  constexpr int kH = kRows<T>;
  V row[kCount][kSlots] = {};
  V column[kCount][kSlots] = {};
  const T* const x = pair.x + steps.top * pair.leads + lead * kH;
  const T* y = pair.y + lead * pair.pitch + steps.begin - (kH - 1);
  T* gradient = columns + lead * pitch + steps.begin;
  for (std::int64_t s = steps.begin; s < steps.end; ++s, ++y, ++gradient, e += kH) {
#pragma GCC unroll 2
    for (int l = 0; l < kCount; ++l) {
#pragma GCC unroll 4
      for (int k = kSlots - 1; k > 0; --k) {
        column[l][k] = pass_down<T>(column[l][k], column[l][k - 1], kAll<T>);
      }
      column[l][0] = pass_down<T>(column[l][0], load(gradient + l * pitch), kAll<T>);
    }
#pragma GCC unroll 4
    for (int k = 0; k < kSlots; ++k) {
      const V here = load(e + at<T>(k));
#pragma GCC unroll 2
      for (int l = 0; l < kCount; ++l) {
        const V apart = load(x + l * kH + at<T>(k)) - load(y + l * pair.pitch + at<T>(k));
        row[l][k] = row[l][k] + here * apart;
        column[l][k] = column[l][k] - here * apart;
      }
    }
    if (s - (kH - 1) < steps.begin) continue;  // columns that none of the rows has come to
    for (int l = 0; l < kCount; ++l) gradient[l * pitch - (kH - 1)] = column[l][kSlots - 1][0];
  }
  const std::int64_t rows = pair.n - steps.top < kH ? pair.n - steps.top : kH;
  for (int l = 0; l < kCount; ++l) {
    T* const to = dx + (lead + l) * samples + steps.top;
    T all[kH];
    for (int k = 0; k < kSlots; ++k) store(all + at<T>(k), row[l][k]);
    for (std::int64_t q = 0; q < rows; ++q) to[q] = factor * all[kH - 1 - q];
  }
}

// The parts of a thread's scratch.
template <typename T>
struct Room {
  T* above;
  T* below;
  T* flow;
  T* columns;  // of each lead
  T* weights;  // of each strip under a row that is kept
  T* e;
  std::int64_t pitch;
};

template <typename T>
Room<T> room_of(const Backward& job, int worker) {
  const std::int64_t pitch = job.scratch.size[2];
  T* const all = static_cast<T*>(job.scratch.data) + worker * job.scratch.stride[0];
  T* const weights = all + (3 + job.leads) * pitch;
  return {all + kPad,
          all + pitch + kPad,
          all + 2 * pitch + kPad,
          all + 3 * pitch + kPad,
          weights,
          weights + 3 * kStrip * pitch,
          pitch};
}

// Gradients of one pair: dx (L, T) and dy (L, U), wholly written.
template <typename T>
void unwarp(const Backward& job, const Pair<T>& pair, const Room<T>& room, const T* kept, T factor,
            T* dx, T* dy) {
  constexpr int kH = kRows<T>;
  const std::int64_t pitch = room.pitch;
  for (std::int64_t t = -kPad; t < pitch * job.leads - kPad; ++t) room.columns[t] = 0;
  for (std::int64_t t = -kPad; t < pitch - kPad; ++t) room.below[t] = 0;
  for (std::int64_t l = 0; l < job.leads; ++l) {
    for (std::int64_t t = pair.n; t < job.x_samples; ++t) dx[l * job.x_samples + t] = 0;
  }
  T* below = room.below;
  T* flow = room.flow;
  Strip<T> strip{{}, {}, pair, nullptr, {}, nullptr};
  for (std::int64_t first = (pair.n - 1) / kStrip * kStrip; first >= 0; first -= kStrip) {
    const std::int64_t rows = pair.n - first < kStrip ? pair.n - first : kStrip;
    const std::int64_t strips = (rows + kH - 1) / kH;
    for (std::int64_t t = -kPad; t < pitch - kPad; ++t) pair.above[t] = static_cast<T>(kFar);
    if (first > 0) {
      const T* const from = kept + (first / kStrip - 1) * job.y_samples;
      for (std::int64_t t = 0; t < pair.m; ++t) pair.above[t] = from[t];
    }
    const auto steps = [&](std::int64_t top) {
      return steps_of(pair, top, top + kH >= pair.n ? pair.n - 1 - top : kH - 1);
    };
    for (std::int64_t k = 0; k < strips; ++k) {
      strip.weights = room.weights + k * 3 * kH * pitch;
      compute<T, true>(strip, steps(first + k * kH));
    }
    for (std::int64_t k = strips - 1; k >= 0; --k) {
      const std::int64_t top = first + k * kH;
      const Steps reached = steps(top);
      const Steps whole = steps_of(pair, top, kH - 1);  // until all columns have left the strip
      for (std::int64_t t = -kPad; t < pitch - kPad; ++t) flow[t] = 0;
      flow_back<T>(reached, room.weights + k * 3 * kH * pitch, below, flow, room.e,
                   pair.n - 1 - top);
      for (std::int64_t t = (reached.end - whole.begin) * kH; t < (whole.end - whole.begin) * kH;
           ++t) {
        room.e[t] = 0;
      }
      T* const swap = below;
      below = flow;
      flow = swap;
      std::int64_t l = 0;
      for (; l + 1 < job.leads; l += 2) {
        pull<T, 2>(pair, whole, room.e, l, room.columns, pitch, factor, dx, job.x_samples);
      }
      if (l < job.leads) {
        pull<T, 1>(pair, whole, room.e, l, room.columns, pitch, factor, dx, job.x_samples);
      }
    }
  }
  for (std::int64_t l = 0; l < job.leads; ++l) {
    T* const to = dy + l * job.y_samples;
    const T* const from = room.columns + l * pitch;
    for (std::int64_t t = 0; t < pair.m; ++t) to[t] = factor * from[t];
    for (std::int64_t t = pair.m; t < job.y_samples; ++t) to[t] = 0;
  }
}

template <typename T>
void backward_pairs(const Backward& job, Range pairs) {
  const std::int64_t width = job.columns.size[0];
  const Room<T> room = room_of<T>(job, pairs.worker);
  const T* const values = static_cast<const T*>(job.value.data);
  const T* const grads = static_cast<const T*>(job.grad.data);
  for (std::int64_t p = pairs.begin; p < pairs.end; ++p) {
    const Cell cell = cell_of(job.pairs, job.first + p, width);
    const std::int64_t at_cell =
        job.pairs == Pairs::aligned ? cell.row : cell.row * width + cell.column;
    T grad = grads[at_cell];
    if (job.pairs == Pairs::same && cell.row != cell.column) {
      grad += grads[cell.column * width + cell.row];
    }
    T* const dx = static_cast<T*>(job.x_partial.data) + p * job.x_partial.stride[0];
    T* const dy = static_cast<T*>(job.y_partial.data) + p * job.y_partial.stride[0];
    if (values[at_cell] - values[at_cell] != 0 || grad == 0) {
      for (std::int64_t t = 0; t < job.leads * job.x_samples; ++t) dx[t] = 0;
      for (std::int64_t t = 0; t < job.leads * job.y_samples; ++t) dy[t] = 0;
      continue;
    }
    const T* const kept =
        static_cast<const T*>(job.kept.data) + (job.first + p) * job.kept.stride[0];
    unwarp(job, pair_of<T>(job, cell, room.above), room, kept, grad * static_cast<T>(2 / job.scale),
           dx, dy);
  }
}

template <typename T>
void add_to(T* sum, const View& partial, std::int64_t p, std::int64_t lead) {
  const T* const from = row<const T>(partial, p * partial.size[1] + lead);
  for (std::int64_t t = 0; t < partial.size[2]; ++t) sum[t] += from[t];
}

// One lead of one record a time, those of x first.
template <typename T>
void gather_leads(const Gather& job, Range items) {
  const std::int64_t leads = job.grad_x.size[1];
  const std::int64_t n = job.grad_x.size[0];
  const std::int64_t width = job.pairs == Pairs::same ? n : job.grad_y.size[0];
  const std::int64_t end = job.first + job.count;
  for (std::int64_t item = items.begin; item < items.end; ++item) {
    const std::int64_t lead = item % leads;
    const bool of_x = item / leads < n;
    const std::int64_t i = of_x ? item / leads : item / leads - n;
    const View& grad = of_x ? job.grad_x : job.grad_y;
    T* const sum = row<T>(grad, i * leads + lead);
    if (job.first == 0) {
      for (std::int64_t t = 0; t < grad.size[2]; ++t) sum[t] = 0;
    }
    const auto add = [&](const View& partial, std::int64_t p) {
      if (p >= job.first && p < end) add_to(sum, partial, p - job.first, lead);
    };
    if (job.pairs == Pairs::same) {
      for (std::int64_t j = 0; j <= i; ++j) add(job.y_partial, triangle_size(i) + j);
      for (std::int64_t j = i; j < n; ++j) add(job.x_partial, triangle_size(j) + i);
    } else if (of_x) {
      for (std::int64_t j = 0; j < width; ++j) add(job.x_partial, i * width + j);
    } else {
      for (std::int64_t j = 0; j < n; ++j) add(job.y_partial, j * width + i);
    }
  }
}

}  // namespace

void backward(const Backward& job, Range pairs) {
  const FlushSubnormals calm;
  dispatch_float(job.value.dtype, [&](auto zero) { backward_pairs<decltype(zero)>(job, pairs); });
}

void gather(const Gather& job, Range items) {
  dispatch_float(job.grad_x.dtype, [&](auto zero) { gather_leads<decltype(zero)>(job, items); });
}

}  // namespace ecgfast::soft_dtw::ECGFAST_ISA
