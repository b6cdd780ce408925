// The gradient of soft_dtw on CUDA; see contract.h, and sweep.cuh for how pairs lie in a warp.
//
// R is made twice. First pass after pass from the left: what is kept are the seams, and every
// kSteps steps the state of the wave. Then pass after pass from the right, tile after tile of
// kSteps steps from below: R of a tile is made again from its state and the seam, and E runs over
// it backwards. There a lane holds the gradient of its columns of y; that of a row of x travels
// with the row from lane to lane, and what flows to the pass on the left waits in a column that
// the first lane alone writes and reads. All sums have one order.
#include "soft_dtw/sweep.cuh"

namespace ecgfast::soft_dtw::cuda {
namespace {

// 1 / x, x in [1, 3]. It is made better once: weights that are always a bit too large would grow
// along the path.
__device__ __forceinline__ float inverse(float x) {
  const float root = rsqrt_approx(x);
  const float guess = root * root;
  return fmaf(guess, fmaf(-x, guess, 1.0f), guess);
}

// What E leaves in a lane for the cells that come after, and its gradients.
template <typename S>
struct Flow {
  float up[S::kColumns] = {};  // to the row above
  float diagonal = 0;          // to the column on the left, one row up
  float shown = 0;             // to the lane on the left: to that column, from this row and below
  float x[S::kLeads] = {};     // of the row, from these columns and those on the right
  float y[S::kColumns][S::kLeads] = {};
};

// E of a row, cell after cell from the right, where `more` flows in. `own` is R of the row, `above`
// of the one above it, `beside` and `corner` are to the left of both.
template <typename S>
__device__ __forceinline__ void step_back(const float (&own)[S::kColumns],
                                          const float (&above)[S::kColumns], float beside,
                                          float corner, float more, Flow<S>& flow,
                                          float (&e)[S::kColumns]) {
  float left = more;
  float diagonal = 0;
#pragma unroll
  for (int c = S::kColumns - 1; c >= 0; --c) {
    const float r_left = c > 0 ? own[c > 0 ? c - 1 : 0] : beside;
    const float r_diagonal = c > 0 ? above[c > 0 ? c - 1 : 0] : corner;
    const float least = fminf(fminf(above[c], r_left), r_diagonal);
    const float w_up = exp2_approx(least - above[c]);
    const float w_left = exp2_approx(least - r_left);
    const float w_diagonal = exp2_approx(least - r_diagonal);
    e[c] = flow.up[c] + left;
    const float part = e[c] * inverse(w_diagonal + (w_up + w_left));
    flow.up[c] = fmaf(part, w_up, diagonal);
    left = part * w_left;
    diagonal = part * w_diagonal;
  }
  flow.shown = left + flow.diagonal;
  flow.diagonal = diagonal;
}

// The gradient of lead l of a row, which comes from the lane on the right, and of the columns.
template <typename S>
__device__ __forceinline__ float add_lead(float x, const float (&e)[S::kColumns], int l, int lane,
                                          const Wave<S>& wave, Flow<S>& flow) {
  const float from_right = shuffle(flow.x[l], (lane + 1) % S::kLanes, S::kLanes);
  float sum = lane == S::kLanes - 1 ? 0.0f : from_right;
#pragma unroll
  for (int c = S::kColumns - 1; c >= 0; --c) {
    const float apart = x - wave.column[c][l];
    sum = fmaf(e[c], apart, sum);
    flow.y[c][l] = fmaf(-e[c], apart, flow.y[c][l]);
  }
  flow.x[l] = sum;
  return sum;
}

__device__ std::int64_t element_of(const Backward& job, std::int64_t i, std::int64_t j) {
  return job.pairs == Pairs::aligned ? i : i * job.value.size[1] + j;
}

// Block: a warp, S::kPairs pairs of the batch from `first` on. Grid: pairs. Reads both forms, value
// and its gradient, writes x_partial and y_partial; room_of() of each pair in scratch.
template <typename S>
__global__ void __launch_bounds__(32, 8) backward_kernel(Backward job, std::int64_t first) {
  const int lane = lane_index() % S::kLanes;
  const int mine = lane_index() / S::kLanes;
  const bool head = lane == 0;
  const bool tail = lane == S::kLanes - 1;
  const std::int64_t slot = static_cast<std::int64_t>(block_index()) * S::kPairs + mine;
  const bool live = first + slot < job.count;  // lanes without a pair repeat the last one
  const std::int64_t number = live ? first + slot : job.count - 1;
  const Pair pair = pair_of(job, job.first + number);

  const std::int64_t element = element_of(job, pair.i, pair.j);
  float grad = global<const float>(job.grad)[element];
  if (job.pairs == Pairs::same && pair.i != pair.j) {
    grad += global<const float>(job.grad)[element_of(job, pair.j, pair.i)];
  }
  const bool counts =
      live && fabsf(global<const float>(job.value)[element]) < __builtin_inff() && grad != 0;

  const int leads = static_cast<int>(job.leads);
  const int x_samples = static_cast<int>(job.x_samples);
  const int y_samples = static_cast<int>(job.y_samples);
  const float unit = static_cast<float>(2 / job.scale);
  const auto x_partial = record<float>(job.x_partial, number);
  const auto y_partial = record<float>(job.y_partial, number);
  const auto write_x = [&](const auto& value) {
    if (!live) return;
    for (int l = 0; l < leads; ++l) {
      for (int t = lane; t < x_samples; t += S::kLanes) {
        x_partial[l * x_samples + t] = counts && t < pair.n ? unit * value(t, l) : 0.0f;
      }
    }
  };
  const auto write_y = [&](int t, int l, float value) {
    if (!live || t >= y_samples || l >= leads) return;
    y_partial[l * y_samples + t] = counts && t < pair.m ? unit * value : 0.0f;
  };
  const int passes = any_lane(counts) ? (pair.columns + S::kWidth - 1) / S::kWidth : 0;
  for (int t = passes * S::kWidth + lane; t < y_samples; t += S::kLanes) {
    for (int l = 0; l < leads; ++l) write_y(t, l, 0);
  }
  if (passes == 0) return write_x([](int, int) { return 0.0f; });

  const Room room = room_of(S::kLeads, job.x_samples, job.y_samples, S::kBanded);
  const int size = static_cast<int>(room.column);
  const auto seams = update<float>(job.scratch) + slot * room.size;
  const auto states = seams + room.states;
  const auto tile = seams + room.tile;
  const auto waiting = seams + room.flow;
  const auto x_grad = seams + room.grad_x;
  const int own_columns = lane * S::kColumns;
  const int own_side = S::kWidth + lane;
  const auto rows = dynamic_shared<float>() + mine * S::kRows * S::kLeads;
  const auto own_rows = rows + (S::kLanes - 1 - lane) * S::kLeads;
  const auto x = record<const float>(job.rows, pair.i);
  const auto y = record<const float>(job.columns, pair.j);
  const auto fill = [](auto to, int count, float value) {
    for (int k = 0; k < count; k += 4) store_as(to + k, make_float4(value, value, value, value));
  };
  if (tail) fill(seams, size, kOutside);
  if (head) {
    fill(waiting, size, 0);
    fill(x_grad, size * S::kLeads, 0);
  }

  Wave<S> wave;
  for (int p = 0; p < passes; ++p) {
    const Pass pass = pass_of<S>(pair, p);
    const auto seam = seams + p * size;
    if (tail) fill(seam + size, size, kOutside);
    load_y(y, pass.left, lane, wave);
    begin_pass(pass, seam, lane, wave);
    for (int begin = 0; begin < pass.steps; begin += S::kSteps) {
      const auto state = states + (p * static_cast<int>(room.tiles) + begin / S::kSteps) * S::kSlot;
      const int steps = min(S::kSteps, pass.steps - begin);
      const int s = pass.first + begin;
      store_columns(state + own_columns, wave.value);
      state[own_side] = wave.diagonal;
      stage<S>(x, s, steps, rows, lane);
#pragma unroll 1
      for (int u = 0; u < steps; u += 4) {
        four_steps<S>(own_rows + u * S::kLeads, s + u, pass, pair, seam, seam + size, lane, wave,
                      true, [](int) {});
      }
    }
  }

  const int last_lane = (pair.m - 1) % S::kWidth / S::kColumns;
  const int last_column = (pair.m - 1) % S::kColumns;
  for (int p = passes - 1; p >= 0; --p) {
    const Pass pass = pass_of<S>(pair, p);
    const auto seam = seams + p * size;
    const bool ends = counts && p == (pair.m - 1) / S::kWidth && lane == last_lane;
    const int last_step = ends ? pair.n - 1 + lane : -1;
    // The first lane shows the last one what the pass on the right has left for its row.
    const auto left_for = [&](int row) {
      return head && row >= 0 ? static_cast<float>(waiting[row]) : 0.0f;
    };
    load_y(y, pass.left, lane, wave);
    Flow<S> flow;
    flow.shown = left_for(pass.first + pass.steps - S::kLanes);

    for (int begin = (pass.steps - 1) / S::kSteps * S::kSteps; begin >= 0; begin -= S::kSteps) {
      const auto state = states + (p * static_cast<int>(room.tiles) + begin / S::kSteps) * S::kSlot;
      const int steps = min(S::kSteps, pass.steps - begin);
      const int s = pass.first + begin;
      load_columns(state + own_columns, wave.value);
      wave.diagonal = state[own_side];
      wave.shown = tail ? static_cast<float>(seam[s + 3]) : wave.value[S::kColumns - 1];
      store_columns(tile + own_columns, wave.value);
      tile[own_side] = wave.diagonal;
      stage<S>(x, s, steps, rows, lane);
#pragma unroll 1
      for (int u = 0; u < steps; ++u) {
        const float in = tail ? static_cast<float>(seam[s + u + 4]) : 0.0f;
        const int offset = pass.left + lane * (S::kColumns + 1) - (s + u);
        const float side =
            step<S, S::kBanded>(own_rows + u * S::kLeads, in, offset, pair, lane, wave);
        const auto to = tile + (u + 1) * S::kSlot;
        store_columns(to + own_columns, wave.value);
        to[own_side] = side;
      }

      float own[S::kColumns];
      float above[S::kColumns];
      load_columns(tile + (steps * S::kSlot + own_columns), own);
      load_columns(tile + ((steps - 1) * S::kSlot + own_columns), above);
      float beside = tile[steps * S::kSlot + own_side];
      float corner = tile[(steps - 1) * S::kSlot + own_side];
#pragma unroll 1
      for (int u = steps - 1; u >= 0; --u) {
        // What the next step needs is asked for a step before.
        float next_above[S::kColumns] = {};
        float next_corner = 0;
        if (u > 0) {
          load_columns(tile + ((u - 1) * S::kSlot + own_columns), next_above);
          next_corner = tile[(u - 1) * S::kSlot + own_side];
        }
        const float next_shown = left_for(s + u - S::kLanes);
        if (s + u == last_step) {
#pragma unroll
          for (int c = 0; c < S::kColumns; ++c) {
            if (c == last_column) flow.up[c] = grad;
          }
        }
        const float more = shuffle(flow.shown, (lane + 1) % S::kLanes, S::kLanes);
        float e[S::kColumns];
        step_back<S>(own, above, beside, corner, more, flow, e);
        if (head) {
          waiting[s + u] = flow.shown;
          flow.shown = next_shown;
        }
        const auto to = x_grad + (s + u) * S::kLeads;
#pragma unroll
        for (int l = 0; l < S::kLeads; l += 4) {
          float4 sum = make_float4(0, 0, 0, 0);
          if (head) sum = load_as<float4>(to + l);
          const float4 row = load_as<float4>(own_rows + (u * S::kLeads + l));
          sum.x += add_lead<S>(row.x, e, l, lane, wave, flow);
          sum.y += add_lead<S>(row.y, e, l + 1, lane, wave, flow);
          sum.z += add_lead<S>(row.z, e, l + 2, lane, wave, flow);
          sum.w += add_lead<S>(row.w, e, l + 3, lane, wave, flow);
          if (head) store_as(to + l, sum);
        }
#pragma unroll
        for (int c = 0; c < S::kColumns; ++c) {
          own[c] = above[c];
          above[c] = next_above[c];
        }
        beside = corner;
        corner = next_corner;
      }
    }
    // With a band the row above the first one may still be reached, by a diagonal.
    if (head && pass.first > 0) waiting[pass.first - 1] = flow.diagonal;
#pragma unroll
    for (int c = 0; c < S::kColumns; ++c) {
#pragma unroll
      for (int l = 0; l < S::kLeads; ++l) {
        write_y(pass.left + lane * S::kColumns + c, l, flow.y[c][l]);
      }
    }
  }
  sync_warp();  // the first lane wrote it
  write_x([&](int t, int l) { return static_cast<float>(x_grad[t * S::kLeads + l]); });
}

template <typename S>
void backward_pairs(const Backward& job, std::uint64_t stream) {
  const Room room = room_of(S::kLeads, job.x_samples, job.y_samples, S::kBanded);
  const std::int64_t together = job.scratch.size[2] / room.size / S::kPairs * S::kPairs;
  for (std::int64_t first = 0; first < job.count; first += together) {
    const std::int64_t count = job.count - first < together ? job.count - first : together;
    const Grid grid{static_cast<unsigned>((count + S::kPairs - 1) / S::kPairs)};
    launch<backward_kernel<S>>(grid, 32, S::kShared, stream, job, first);
  }
}

}  // namespace

void backward(const Backward& job, std::uint64_t stream) {
  with_shape(job, [&](auto shape) { backward_pairs<decltype(shape)>(job, stream); });
}

}  // namespace ecgfast::soft_dtw::cuda
