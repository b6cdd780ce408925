// CUDA kernels of soft_dtw; see contract.h, and sweep.cuh for how pairs lie in a warp.
#include "soft_dtw/sweep.cuh"

namespace ecgfast::soft_dtw::cuda {
namespace {

// Block: a warp, S::kPairs pairs from `first` on. Grid: pairs. Reads both forms, writes value;
// keeps one seam of each pair in scratch.
template <typename S>
__global__ void __launch_bounds__(32, S::kLeads > 12 ? 8 : 16)
    forward_kernel(Forward job, std::int64_t first) {
  const int lane = lane_index() % S::kLanes;
  const int mine = lane_index() / S::kLanes;
  const std::int64_t pairs = pairs_of(job.pairs, job.value);
  const std::int64_t slot = static_cast<std::int64_t>(block_index()) * S::kPairs + mine;
  const bool live = first + slot < pairs;  // lanes without a pair repeat the last one
  const Pair pair = pair_of(job, live ? first + slot : pairs - 1);

  const int size = static_cast<int>(column_size(job.x_samples));
  const auto seam = update<float>(job.scratch) + slot * size;
  if (lane == S::kLanes - 1) {
    const float4 outside = make_float4(kOutside, kOutside, kOutside, kOutside);
    for (int k = 0; k < size; k += 4) store_as(seam + k, outside);
  }
  const auto rows = dynamic_shared<float>() + mine * S::kRows * S::kLeads;
  const auto own_rows = rows + (S::kLanes - 1 - lane) * S::kLeads;
  const auto x = record<const float>(job.rows, pair.i);
  const auto y = record<const float>(job.columns, pair.j);
  const int last_pass = (pair.m - 1) / S::kWidth;
  const int last_lane = (pair.m - 1) % S::kWidth / S::kColumns;
  const int last_column = (pair.m - 1) % S::kColumns;
  float answer = kOutside;

  Wave<S> wave;
  for (int number = 0; number * S::kWidth < pair.columns; ++number) {
    const Pass pass = pass_of<S>(pair, number);
    load_y(y, pass.left, lane, wave);
    begin_pass(pass, seam, lane, wave);
    const auto keep_answer = [&](int s) {
      if (number != last_pass || lane != last_lane || s - lane != pair.n - 1) return;
#pragma unroll
      for (int c = 0; c < S::kColumns; ++c) {
        if (c == last_column) answer = wave.value[c];
      }
    };
    for (int begin = 0; begin < pass.steps; begin += S::kSteps) {
      const int steps = min(S::kSteps, pass.steps - begin);
      const int s = pass.first + begin;
      stage<S>(x, s, steps, rows, lane);
#pragma unroll 1
      for (int u = 0; u < steps; u += 4) {
        const bool ends = number == last_pass && s + u + 3 >= pair.n - 1;
        four_steps<S>(own_rows + u * S::kLeads, s + u, pass, pair, seam, seam, lane, wave, !ends,
                      keep_answer);
      }
    }
  }

  if (!live || lane != last_lane) return;
  const bool finite = global<const std::int32_t>(job.x_finite)[pair.i] != 0 &&
                      global<const std::int32_t>(job.y_finite)[pair.j] != 0;
  const float unit = static_cast<float>(job.unit);
  const float sum = answer > kOutside / 10 ? __builtin_inff() : answer * unit;
  const float value = finite ? sum : from_bits(0x7fc00000u);
  const auto out = global<float>(job.value);
  if (job.pairs == Pairs::aligned) {
    out[pair.i] = value;
  } else {
    out[pair.i * job.value.size[1] + pair.j] = value;
    if (job.pairs == Pairs::same) out[pair.j * job.value.size[1] + pair.i] = value;
  }
}

constexpr int kPrepareThreads = 256;

// One block a record. Grid: records. Reads x, writes rows and columns, time-major and scaled, with
// zeros for what is not there, and whether all of it can be compared.
__global__ void __launch_bounds__(kPrepareThreads) prepare_kernel(Prepare job) {
  const int n = block_index();
  const std::int64_t leads = job.x.size[1];
  const int length = length_of(job.length, n, job.x.size[2]);
  const float scale = static_cast<float>(job.scale);
  const auto x = record<const float>(job.x, n);
  const auto sample = [&](std::int64_t t, std::int64_t l) {
    return scale * static_cast<float>(x[l * job.x.stride[1] + t]);
  };
  int gaps = 0;
  for (std::int64_t l = 0; l < leads; ++l) {
    for (int t = thread_index(); t < length; t += kPrepareThreads) {
      gaps += !(fabsf(sample(t, l)) <= static_cast<float>(kMostSample));
    }
  }
  gaps = block_sum<kPrepareThreads>(gaps);
  if (thread_index() == 0) global<std::int32_t>(job.finite)[n] = gaps == 0;

  const auto fill = [&](const View& to, int before) {
    const auto out = record<float>(to, n);
    const std::int64_t padded = to.size[2];
    for (std::int64_t k = thread_index(); k < to.size[1] * padded; k += kPrepareThreads) {
      const std::int64_t t = k / padded - before;
      const std::int64_t l = k % padded;
      out[k] = t >= 0 && t < length && l < leads ? sample(t, l) : 0.0f;
    }
  };
  if (job.rows.size[0] > 0) fill(job.rows, kBefore);
  if (job.columns.size[0] > 0) fill(job.columns, 0);
}

constexpr int kGatherThreads = 128;

// One block a lead of a record of x, then of y. Grid: those. Reads partial gradients of a batch,
// adds them up in the order of the pairs.
__global__ void __launch_bounds__(kGatherThreads) gather_kernel(Gather job) {
  const std::int64_t leads = job.grad_x.size[1];
  const std::int64_t x_records = job.grad_x.size[0];
  const std::int64_t y_records = job.grad_y.size[0];
  const std::int64_t lead = block_index() % leads;
  const bool of_x = block_index() / leads < x_records;
  const std::int64_t n = block_index() / leads - (of_x ? 0 : x_records);
  const View& grad = of_x ? job.grad_x : job.grad_y;
  const std::int64_t samples = grad.size[2];
  const std::int64_t zero = 0;
  const std::int64_t from = job.first;
  const std::int64_t end = job.first + job.count;
  const Cell begin = triangle_cell(from);
  const auto x_partial = global<const float>(job.x_partial);
  const auto y_partial = global<const float>(job.y_partial);
  const std::int64_t own_row = n * leads + lead;
  const auto out = from > 0 ? update<float>(grad) + own_row * samples : row<float>(grad, own_row);

  for (std::int64_t t = thread_index(); t < samples; t += kGatherThreads) {
    float sum = from > 0 ? static_cast<float>(out[t]) : 0.0f;
    const auto add = [&](Global<const float> partial, std::int64_t pair) {
      if (pair >= from) sum += partial[((pair - from) * leads + lead) * samples + t];
    };
    // Pairs by their numbers, from the first one of the batch, or the one before, to its end.
    if (job.pairs == Pairs::same) {
      const std::int64_t column = triangle_size(n);
      for (std::int64_t i = max(from - column, zero); i <= n && column + i < end; ++i) {
        add(y_partial, column + i);
      }
      for (std::int64_t j = max(begin.column, n); j < x_records && triangle_size(j) + n < end;
           ++j) {
        add(x_partial, triangle_size(j) + n);
      }
    } else if (of_x) {
      const std::int64_t own = n * y_records;
      for (std::int64_t j = max(from - own, zero); j < y_records && own + j < end; ++j) {
        add(x_partial, own + j);
      }
    } else {
      for (std::int64_t i = from / y_records; i < x_records && i * y_records + n < end; ++i) {
        add(y_partial, i * y_records + n);
      }
    }
    out[t] = sum;
  }
}

template <typename S>
void forward_pairs(const Forward& job, std::uint64_t stream) {
  const std::int64_t pairs = pairs_of(job.pairs, job.value);
  const std::int64_t together =
      job.scratch.size[2] / column_size(job.x_samples) / S::kPairs * S::kPairs;
  for (std::int64_t first = 0; first < pairs; first += together) {
    const std::int64_t count = pairs - first < together ? pairs - first : together;
    const Grid grid{static_cast<unsigned>((count + S::kPairs - 1) / S::kPairs)};
    launch<forward_kernel<S>>(grid, 32, S::kShared, stream, job, first);
  }
}

}  // namespace

void prepare(const Prepare& job, std::uint64_t stream) {
  const Grid grid{static_cast<unsigned>(job.x.size[0])};
  launch<prepare_kernel>(grid, kPrepareThreads, 0, stream, job);
}

void forward(const Forward& job, std::uint64_t stream) {
  with_shape(job, [&](auto shape) { forward_pairs<decltype(shape)>(job, stream); });
}

void gather(const Gather& job, std::uint64_t stream) {
  const std::int64_t records = job.grad_x.size[0] + job.grad_y.size[0];
  const Grid grid{static_cast<unsigned>(records * job.grad_x.size[1])};
  launch<gather_kernel>(grid, kGatherThreads, 0, stream, job);
}

}  // namespace ecgfast::soft_dtw::cuda
